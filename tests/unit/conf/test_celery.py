"""Settings in Celery's words."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from jobs import checks, conf, registry
from jobs.api.task import Task, task
from jobs.conf import celery, parse
from jobs.exceptions import ConfigurationError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "coming-from-celery.md"


def parsed(given: Any, **own: Any) -> conf.Conf:
    current, problems = parse({"CELERY": given, **own})
    assert problems == []
    return current


def notes(given: Any) -> list[str]:
    return celery.read(given).notes


GIVEN = {
    "broker_url": "redis://cache:6379/2",
    "broker_transport_options": {"global_keyprefix": "shop.", "visibility_timeout": 9},
    "task_default_queue": "low",
    "task_queues": {"high": {"exchange": "calls", "exchange_type": "topic", "routing_key": "h.#"}},
    "task_default_exchange": "rest",
    "task_default_routing_key": "low",
    "task_routes": {"shop.tasks.*": {"queue": "high"}},
    "task_time_limit": 90,
    "task_soft_time_limit": 60,
    "task_acks_late": False,
    "task_ignore_result": True,
    "task_annotations": {"shop.tasks.add": {"rate_limit": "10/s"}, "*": {"max_retries": 5}},
    "task_always_eager": True,
    "task_serializer": "json",
    "result_expires": dt.timedelta(hours=1),
    "result_backend": "django-db",
    "timezone": "UTC",
    "beat_schedule": {"each": {"task": "shop.tasks.add", "schedule": 30.0}},
    "worker_max_tasks_per_child": 100,
    "worker_max_memory_per_child": 200_000,
}


def test_what_is_read() -> None:
    read = parsed(GIVEN)
    assert (read.broker_url, read.key_prefix) == ("redis://cache:6379/2", "shop.")
    assert (read.default_queue, read.default_exchange) == ("low", "rest")
    assert read.queues == {
        "high": conf.Queue(exchange="calls", routing_key="h.#"),
        "low": conf.Queue(exchange="rest", routing_key="low"),
    }
    assert read.exchanges == {"calls": "topic", "rest": "direct"}
    assert read.create_missing_queues
    assert read.task_routes == GIVEN["task_routes"]
    every = {"time_limit": 90, "soft_time_limit": 60, "acks_late": False, "ignore_result": True}
    assert read.task_options == {
        "*": {**every, "max_retries": 5},
        "shop.tasks.add": {"rate_limit": "10/s"},
    }
    assert read.always_eager
    assert set(read.result_expires.values()) == {3600.0}
    assert read.beat_schedule == GIVEN["beat_schedule"]
    assert (read.max_tasks_per_child, read.max_memory_per_child) == (100, 200_000)
    assert notes(GIVEN) == []


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("redis://results:6379/1", "redis://results:6379/1"),
        ("django-db", ""),
        ("redis", ""),
        (object(), ""),
    ],
)
def test_where_celerys_workers_leave_results(given: object, read: str) -> None:
    assert parsed({"result_backend": given}).celery_result_backend == read
    assert notes({"result_backend": given}) == []
    own = parsed({"result_backend": given}, CELERY_RESULT_BACKEND="redis://own:6379/0")
    assert own.celery_result_backend == "redis://own:6379/0"


def test_without_a_word_it_is_as_in_celery() -> None:
    read = parsed({})
    assert (read.default_queue, set(read.queues)) == ("celery", {"celery"})
    assert read.create_missing_queues


@pytest.mark.parametrize(
    "names",
    [
        ("CELERY_TASK_DEFAULT_QUEUE", "CELERY_WORKER_MAX_TASKS_PER_CHILD", "CELERY_BEAT_SCHEDULE"),
        ("CELERY_DEFAULT_QUEUE", "CELERYD_MAX_TASKS_PER_CHILD", "CELERYBEAT_SCHEDULE"),
        ("task_default_queue", "worker_max_tasks_per_child", "beat_schedule"),
    ],
)
@pytest.mark.parametrize("namespace", ["", "CELERY"])
def test_names_of_each_age_and_of_djangos_settings(
    names: tuple[str, ...], namespace: str, settings: Settings
) -> None:
    values: list[Any] = ["mail", 7, {"a": {"task": "t", "schedule": 9}}]
    given: Any = dict(zip(names, values, strict=True))
    if namespace:
        for name, value in given.items():
            setattr(settings, name if "CELERY" in name else f"CELERY_{name.upper()}", value)
        given = namespace
    read = parsed(given)
    assert (read.default_queue, read.max_tasks_per_child) == ("mail", 7)
    assert list(read.beat_schedule) == ["a"]
    assert notes(given) == []


def test_a_namespace_of_ones_own(settings: Settings) -> None:
    settings.SHOP_TASK_DEFAULT_QUEUE = "mail"
    settings.SHOP_NAME = "The shop"
    assert parsed("SHOP").default_queue == "mail"
    assert notes("SHOP") == ["SHOP_NAME isn't a setting of Celery's, and is left alone."]


def test_a_namespace_that_no_setting_has(settings: Settings) -> None:
    settings.CELERY_TASK_TRACK_STARTED = True
    assert notes("CELERI") == ["no setting of Django's begins with 'CELERI'."]


def test_own_settings_count_more() -> None:
    read = parsed(
        {**GIVEN, "task_annotations": {"a": {"rate_limit": 1, "expires": 5}}},
        BROKER_URL="redis://other:6379/0",
        QUEUES={"high": {"open": True}, "more": {}},
        TASK_OPTIONS={"a": {"rate_limit": 2}},
    )
    assert read.broker_url == "redis://other:6379/0"
    assert read.queues["high"] == conf.Queue(open=True, exchange="calls", routing_key="h.#")
    assert set(read.queues) == {"high", "low", "more"}
    assert read.task_options["a"] == {"rate_limit": 2, "expires": 5}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"worker_concurrency": 4}, "runworker --processes N"),
        ({"task_serializer": "pickle"}, "messages and results are JSON"),
        ({"timezone": "Asia/Tokyo"}, "Django's TIME_ZONE"),
        ({"broker_url": "amqp://localhost"}, "isn't the address of one server of Redis"),
        ({"broker_transport_options": {"sep": ":"}}, "broker_transport_options['sep']"),
        ({"result_backend": "redis://h/1?timeout=3"}, "result_backend has the option 'timeout'"),
        ({"task_annotations": [object]}, "only dicts are followed"),
        ({"task_queues": {"a": {"queue_arguments": {}}}}, "'queue_arguments' of 'a'"),
        ({"task_rotes": {}}, "Did you mean 'task_routes'?"),
        ({"CELERY_DB": 1}, "CELERY_DB isn't a setting"),
    ],
)
def test_what_has_no_equal_is_named(given: dict[str, Any], told: str, settings: Settings) -> None:
    (note,) = notes(given)
    assert told in note
    settings.JOBS = {**settings.JOBS, "CELERY": given}
    found = [one for one in checks.check_settings() if one.id == "jobs.W017"]
    assert [told in one.msg for one in found] == [True]


def test_what_cant_be_read() -> None:
    assert "JOBS['CELERY'] must be a dict of Celery's settings" in parse({"CELERY": 5})[1][0]
    wrong = parse({"CELERY": {"broker_transport_options": 5}})[1]
    assert wrong == ["JOBS['CELERY'] has broker_transport_options 5, which must be a dict."]
    assert (
        "JOBS['MAX_TASKS_PER_CHILD']"
        in parse({"CELERY": {"worker_max_tasks_per_child": "x"}})[1][0]
    )


class TestWithCelery:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("celery", reason="Celery is not installed")

    def app(self, **given: Any) -> Any:
        from celery import Celery

        made = Celery("shop", set_as_current=False)
        made.conf.update(given)
        return made

    def test_the_conf_of_an_app(self) -> None:
        from kombu import Exchange, Queue

        queue = Queue("mail", Exchange("calls", type="topic"), routing_key="m.#")
        given = self.app(task_queues=[queue], task_time_limit=9, worker_concurrency=4).conf
        read = parsed(given)
        assert read.queues["mail"] == conf.Queue(exchange="calls", routing_key=("m.#",))
        assert read.exchanges == {"calls": "topic"}
        assert read.task_options == {"*": {"time_limit": 9}}
        assert len(notes(given)) == 1

    def test_old_names_and_a_namespace(self, settings: Settings) -> None:
        assert parsed(self.app(CELERY_DEFAULT_QUEUE="old").conf).default_queue == "old"
        assert notes(self.app(CELERY_DEFAULT_QUEUE="old").conf) == []
        settings.CELERY_TASK_DEFAULT_QUEUE = "new"
        app = self.app()
        app.config_from_object("django.conf:settings", namespace="CELERY")
        assert parsed(app.conf).default_queue == "new"

    def test_every_setting_is_known(self) -> None:
        from celery.app.defaults import _TO_NEW_KEY, DEFAULTS

        assert [name for name in DEFAULTS if celery.setting(name) is None] == []
        assert [old for old in _TO_NEW_KEY if not celery.new_name(old)] == []


def documented() -> dict[str, str]:
    """Setting → what the page says of it."""
    section = PAGE.read_text("utf-8").partition("## Settings side by side")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)
    return {name: told for names, told in rows for name in re.findall(r"`([\w*]+)`", names)}


def test_the_page_says_the_same() -> None:
    families = {f"{start}*": one for start, one in celery.FAMILIES.items()}
    assert documented() == {
        name: celery.told(one) for name, one in {**celery.SETTINGS, **families}.items()
    }


class TestOptionsOfTasks:
    @pytest.fixture
    def made(self, settings: Settings) -> Any:
        names: list[str] = []

        def make(options: dict[str, Any], **given: Any) -> Task[..., Any]:
            settings.JOBS = {**settings.JOBS, "TASK_OPTIONS": options}

            @task(name=f"tests.optioned{len(names)}", **given)
            def optioned() -> None: ...

            names.append(optioned.name)
            return optioned

        yield make
        for name in names:
            registry.tasks.pop(name, None)

    def test_which_count_more(self, made: Any) -> None:
        every = {"time_limit": 9, "soft_time_limit": 5, "acks_late": False}
        one = made(
            {"*": every, "tests.optioned0": {"time_limit": 7}}, soft_time_limit=4, time_limit=5
        )
        assert (one.time_limit, one.soft_time_limit, one.acks_late) == (7, 4, False)
        assert made({"*": every}, acks="late").acks_late
        assert made({"*": {**every, "ignore_result": True}}, atomic=True).acks_late
        assert made({"tests.optioned3": {"acks": "early"}}, acks_late=True).options.acks == "early"

    def test_a_wrong_one_is_told(self, made: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"time_limit.*JOBS\['TASK_OPTIONS'\]"):
            made({"*": {"time_limit": -1}})

    def test_not_those_of_this_app(self, settings: Settings) -> None:
        settings.JOBS = {**settings.JOBS, "TASK_OPTIONS": {"*": {"time_limit": 1}}}
        from jobs.api.task import _with_settings
        from jobs.tasks import prune

        assert _with_settings({}, prune.name, prune.function) == {}

    @pytest.mark.parametrize("wrong", ["x", {"a": 1}, {1: {}}, {"a": {"name": "b"}}])
    def test_what_isnt_one(self, wrong: Any) -> None:
        assert "JOBS['TASK_OPTIONS']" in parse({"TASK_OPTIONS": wrong})[1][0]
