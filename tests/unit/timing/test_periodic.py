"""What code declares, and how it meets what was edited. Rows are for the tests of integration."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from jobs import (
    conf,
    registry,
    task,
)
from jobs.api.options import Options
from jobs.api.task import Task, task_of
from jobs.exceptions import ConfigurationError
from jobs.models import Schedule
from jobs.schedules import declared, merge
from jobs.schedules.declared import add_periodic_task, find, problems
from jobs.schedules.merge import edited
from jobs.timing.celery import crontab
from jobs.timing.periodic import Periodic

GOOD = {"BROKER_URL": "redis://localhost:6379/0", "QUEUES": {"default": {}, "mail": {}}}


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(registry, "tasks", {})
    monkeypatch.setattr(declared, "_added", {})
    settings.JOBS = GOOD


@pytest.fixture
def greet() -> Task[..., Any]:
    def greet(name: str, times: int = 1) -> None: ...

    return task_of(greet, name="greet")


@pytest.fixture
def declare(settings: Settings) -> Callable[[Any], None]:
    """Put an entry into JOBS["BEAT_SCHEDULE"]."""

    def put(**entries: Any) -> None:
        settings.JOBS = {**GOOD, "BEAT_SCHEDULE": entries}

    return put


def only() -> Schedule:
    [one] = declared.find()
    assert one.problem == ""
    return one.schedule()


def test_nothing_is_declared() -> None:
    assert declared.find() == []
    assert problems() == []


class TestSettings:
    def test_as_celery_writes_it(self, greet: Any, declare: Any) -> None:
        declare(
            morning={
                "task": "greet",
                "schedule": crontab(hour=7, minute=30, day_of_week=1),
                "args": ("you",),
                "kwargs": {"times": 2},
                "options": {
                    "queue": "mail",
                    "priority": 3,
                    "expires": 60,
                    "headers": {"tenant": "a"},
                },
            }
        )
        made = only()
        assert (made.name, made.task, made.crontab) == ("morning", "greet", "30 7 * * 1")
        assert (made.args, made.kwargs) == (["you"], {"times": 2})
        assert (made.queue, made.priority, made.headers) == ("mail", 3, {"tenant": "a"})
        assert made.expires == dt.timedelta(minutes=1)
        assert (made.interval, made.enabled) == (None, True)

    @pytest.mark.parametrize("rule", [30, 30.0, dt.timedelta(seconds=30)])
    def test_an_interval(self, greet: Any, declare: Any, rule: Any) -> None:
        declare(often={"task": "greet", "schedule": rule, "args": ["you"]})
        assert only().interval == dt.timedelta(seconds=30)
        assert only().crontab == ""

    def test_the_text_of_a_crontab(self, greet: Any, declare: Any) -> None:
        declare(last={"task": "greet", "schedule": "0 8 L * *", "args": ["you"]})
        assert only().crontab == "0 8 L * *"

    def test_its_zone(self, greet: Any, declare: Any, settings: Settings) -> None:
        settings.TIME_ZONE = "Europe/Berlin"
        declare(a={"task": "greet", "schedule": crontab(hour=7), "args": ["you"]})
        assert only().timezone == "Europe/Berlin"
        rule = crontab(hour=7, timezone="Asia/Shanghai")
        declare(a={"task": "greet", "schedule": rule, "args": ["you"]})
        assert only().timezone == "Asia/Shanghai"

    def test_more_than_celery_has(self, greet: Any, declare: Any) -> None:
        declare(
            a={
                "task": "greet",
                "schedule": 60,
                "args": ["you"],
                "description": "Says hello.",
                "enabled": False,
                "misfire": "all",
                "misfire_window": 600,
                "overlap": "queue",
                "jitter": 5,
            }
        )
        made = only()
        assert (made.description, made.enabled) == ("Says hello.", False)
        assert (made.misfire, made.misfire_window) == ("all", dt.timedelta(minutes=10))
        assert (made.overlap, made.jitter) == ("queue", dt.timedelta(seconds=5))

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"task": "gret"}, "no task is called 'gret'. Did you mean 'greet'?"),
            ({"task": None}, "no task is called 'None'."),
            ({"args": []}, "missing a required argument: 'name'."),
            ({"kwargs": {"tims": 2}}, "got an unexpected keyword argument 'tims'."),
            ({"args": [{1}]}, "set has no form in JSON."),
            ({"args": [float("nan")]}, "Out of range float values are not JSON compliant"),
            ({"args": "you"}, "args must be a tuple or a list, not 'you'."),
            ({"kwargs": [1]}, "kwargs must be a dict, not [1]."),
            ({"options": {"queue": "mial"}}, "its queue 'mial'. Did you mean 'mail'?"),
            ({"options": {"priority": 10}}, "priority must be 0 (first) to 9"),
            ({"options": {"expires": "1"}}, "expires must be seconds or a timedelta, not '1'."),
            ({"options": {"expires": -1}}, "expires: This can't be negative."),
            ({"options": {"task_id": "x"}}, "'task_id' is not known to schedules; there are"),
            ({"options": ["queue"]}, "options must be a dict, not ['queue']."),
            ({"queue": "mail"}, "'queue' is not known to schedules"),
            ({"argz": []}, "Did you mean 'args'?"),
            ({"misfire": "never"}, "misfire: "),
            ({"schedule": None}, "schedule must be seconds, a timedelta or crontab(…), not None."),
            ({"schedule": True}, "schedule must be seconds, a timedelta or crontab(…), not True."),
            ({"schedule": 0}, "schedule: An interval must be at least one second."),
            ({"schedule": 1e300}, "1e+300 seconds are longer than the calendar."),
            ({"schedule": "30 7 * *"}, "schedule: "),
            ({"schedule": "0 0 31 2 *"}, "schedule: This never happens"),
            ({"schedule": crontab(timezone="Europe/Berlim")}, "is not a time zone"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, greet: Any, declare: Any, changes: dict[str, Any], told: str
    ) -> None:
        declare(morning={"task": "greet", "schedule": 60, "args": ["you"], **changes})
        [problem] = problems()
        assert problem.startswith("The schedule 'morning', by JOBS['BEAT_SCHEDULE']: ")
        assert told in problem

    @pytest.mark.parametrize("key", ["task", "schedule"])
    def test_what_is_missing_is_named(self, greet: Any, declare: Any, key: str) -> None:
        entry = {"task": "greet", "schedule": 60, "args": ["you"]}
        del entry[key]
        declare(morning=entry)
        assert problems() == [
            f"The schedule 'morning', by JOBS['BEAT_SCHEDULE']: it has no '{key}'."
        ]

    def test_celerys_own_rules_are_read(self, greet: Any, declare: Any) -> None:
        schedules = pytest.importorskip("celery.schedules", reason="Celery is not installed")
        rules = {
            "a": schedules.crontab(minute="*/5", hour=[7, 8], day_of_week="sat-mon"),
            "b": schedules.schedule(90),
            "c": schedules.schedule(90, relative=True),
            "d": schedules.crontab(day_of_month=13, day_of_week="fri"),
        }
        declare(**{n: {"task": "greet", "schedule": r, "args": ["you"]} for n, r in rules.items()})
        found = {one.name: one for one in find()}
        assert found["a"].schedule().crontab == "*/5 7-8 * * 0-1,6"
        assert found["b"].schedule().interval == dt.timedelta(seconds=90)
        assert "due times count from start_at" in found["c"].problem
        assert "Celery runs on days that are both" in found["d"].problem


class TestDecorator:
    def test_a_rule(self) -> None:
        @task(name="tidy", schedule=crontab(hour=3))
        def tidy() -> None: ...

        made = only()
        assert (made.name, made.task, made.crontab) == ("tidy", "tidy", "* 3 * * *")

    def test_with_all_the_rest(self) -> None:
        @task(
            name="tidy",
            schedule=Periodic(dt.timedelta(hours=1), [7], name="each hour", overlap="skip"),
        )
        def tidy(days: int) -> None: ...

        made = only()
        assert (made.name, made.task, made.args) == ("each hour", "tidy", [7])
        assert (made.interval, made.overlap) == (dt.timedelta(hours=1), "skip")

    @pytest.mark.parametrize("rule", [object(), "", True, [60]])
    def test_no_rule(self, rule: Any) -> None:
        with pytest.raises(ConfigurationError, match="schedule must be seconds"):

            @task(schedule=rule)
            def tidy() -> None: ...

    def test_arguments_that_it_does_not_take(self) -> None:
        @task(name="tidy", schedule=60)
        def tidy(days: int) -> None: ...

        assert "missing a required argument: 'days'" in problems()[0]
        assert "by @task 'tidy'" in problems()[0]

    def test_the_settings_have_the_last_word(self, declare: Any) -> None:
        @task(name="tidy", schedule=60)
        def tidy() -> None: ...

        declare(tidy={"task": "tidy", "schedule": 90})
        assert only().interval == dt.timedelta(seconds=90)
        declare(tidy=None)
        assert declared.find() == []


class TestAdding:
    def test_a_signature(self, greet: Any) -> None:
        add_periodic_task(10.0, greet.s("you", times=2), name="hello", expires=5, queue="mail")
        made = only()
        assert (made.name, made.task, made.args) == ("hello", "greet", ["you"])
        assert (made.kwargs, made.queue) == ({"times": 2}, "mail")
        assert made.interval == dt.timedelta(seconds=10)
        assert made.expires == dt.timedelta(seconds=5)

    def test_its_name(self, greet: Any) -> None:
        add_periodic_task(10, greet.s("you", times=2))
        assert only().name == "greet('you', times=2)"

    def test_options_of_the_signature(self, greet: Any) -> None:
        add_periodic_task(10, greet.s("you").set(queue="mail", priority=3), priority=4)
        assert (only().queue, only().priority) == ("mail", 4)

    def test_a_task(self) -> None:
        @task(name="tidy")
        def tidy() -> None: ...

        add_periodic_task(crontab(), tidy)
        assert (only().name, only().task) == ("tidy()", "tidy")

    def test_once_more_is_no_matter(self, greet: Any) -> None:
        """A module that declares it is imported under two names, ``ready`` is called twice."""
        add_periodic_task(10, greet.s("you"))
        add_periodic_task(10, greet.s("you"))
        assert only().name == "greet('you')"

    def test_another_of_its_name(self, greet: Any) -> None:
        add_periodic_task(10, greet.s("you"))
        with pytest.raises(ConfigurationError, match="two schedules are called \"greet\\('you'\\)"):
            add_periodic_task(20, greet.s("you"))

    @pytest.mark.parametrize(
        ("rule", "options", "told"),
        [
            ("", {}, "schedule must be"),
            (10, {"task_id": "x"}, "'task_id' is not known"),
            (10, {"expires": "1"}, "expires must be seconds"),
        ],
    )
    def test_wrong_at_the_call(
        self, greet: Any, rule: Any, options: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=told):
            add_periodic_task(rule, greet.s("you"), name="hello", **options)
        assert declared.find() == []

    def test_a_name_that_a_decorator_has(self) -> None:
        @task(name="tidy", schedule=60)
        def tidy() -> None: ...

        add_periodic_task(10, tidy, name="tidy")
        assert problems() == [
            "The schedule 'tidy', by add_periodic_task of 'tidy': @task 'tidy' declares it as "
            "well. Give one of them another name."
        ]


class TestMerge:
    """Stored, declared before, declared now."""

    BEFORE = merge.plain(Schedule(name="a", task="greet", interval=dt.timedelta(minutes=1)))

    def merged(self, edits: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
        return merge.merged({**self.BEFORE, **edits}, self.BEFORE, {**self.BEFORE, **news})

    def test_nothing_new(self) -> None:
        assert self.merged({}, {}) == {}
        assert self.merged({"queue": "mail"}, {}) == {}

    def test_what_was_not_edited_follows(self) -> None:
        assert self.merged({}, {"queue": "mail"}) == {"queue": "mail"}

    def test_what_was_edited_stays(self) -> None:
        assert self.merged({"queue": "mail"}, {"queue": "other", "priority": 3}) == {"priority": 3}

    def test_edited_to_what_code_says_now(self) -> None:
        assert self.merged({"queue": "mail"}, {"queue": "mail"}) == {}

    def test_a_rule_stays_whole(self) -> None:
        """Its interval was edited; a crontab beside it would make it no rule."""
        assert self.merged(
            {"interval": "00:01:30"}, {"interval": None, "crontab": "0 7 * * *", "priority": 3}
        ) == {"priority": 3}
        assert self.merged({}, {"interval": None, "crontab": "0 7 * * *"}) == {
            "interval": None,
            "crontab": "0 7 * * *",
        }

    def test_arguments_stay_together(self) -> None:
        assert self.merged({"args": ["me"]}, {"args": [], "kwargs": {"name": "you"}}) == {}

    def test_a_field_that_older_code_did_not_know(self) -> None:
        before = {name: value for name, value in self.BEFORE.items() if name != "jitter"}
        now = {**self.BEFORE, "jitter": "00:00:05"}
        assert merge.merged(self.BEFORE, before, now) == {"jitter": "00:00:05"}

    def test_there_and_back(self) -> None:
        values = {
            "interval": dt.timedelta(days=3, seconds=1.5),
            "expires": dt.timedelta(seconds=5),
            "at": dt.datetime(2027, 1, 1, 12, tzinfo=dt.UTC),
            "kwargs": {"a": [1]},
            "priority": 3,
            "enabled": False,
        }
        plain = merge.plain(Schedule(name="a", task="greet", **values))
        restored = merge.restored(plain)
        assert {name: restored[name] for name in values} == values

    def test_what_was_edited(self) -> None:
        schedule = Schedule(name="a", task="greet", interval=dt.timedelta(minutes=1))
        assert edited(schedule) == []
        schedule.declared = self.BEFORE
        assert edited(schedule) == []
        schedule.queue, schedule.crontab = "mail", "0 7 * * *"
        assert edited(schedule) == ["crontab", "queue"]


class TestSetting:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (["a"], "must be a dict of name → schedule, not ['a']"),
            ({5: {}}, "has 5: the name of a schedule is text"),
            ({"": {}}, "has '': the name of a schedule is text"),
            ({"a": 60}, "has 60 for 'a', which must be a dict"),
        ],
    )
    def test_no_table(self, value: Any, told: str) -> None:
        found, [problem] = conf.parse({"BEAT_SCHEDULE": value})
        assert problem == f"JOBS['BEAT_SCHEDULE'] {told}."
        assert found.beat_schedule == {}


class TestOptions:
    @pytest.mark.parametrize("age", [None, 0, 60, 1.5, dt.timedelta(days=1), "settings"])
    def test_how_long_results_are_kept(self, age: Any) -> None:
        assert Options(result_expires=age).result_expires == age

    @pytest.mark.parametrize("age", [-1, "1", True, float("nan"), dt.timedelta(-1)])
    def test_an_age_that_is_none(self, age: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="result_expires must be"):
            Options(result_expires=age)


def test_crontab_may_stand_in_the_settings_themselves() -> None:
    """They are read before Django is set up, and before there are settings."""
    code = (
        "from jobs import Periodic, crontab\n"
        "print(Periodic(crontab(hour=7)).schedule)\n"
        "import sys; assert 'django.db' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("* 7 * * *\n", "")
