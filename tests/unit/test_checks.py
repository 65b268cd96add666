"""`manage.py check` tells what is wrong with the settings and the tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django.test.utils
import pytest
import redis
from django.core.checks import run_checks
from pytest_django import Settings

from jobs import (
    checks,
    conf,
    registry,
    task,
)
from jobs.exceptions import ConfigurationError
from tests.services import Sentinel, Valkey, free_port

GOOD = {"BROKER_URL": "redis://localhost:6379/0"}


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "tasks", {})


def found() -> list[tuple[str | None, str]]:
    return [(m.id, m.msg) for m in run_checks(tags=["jobs"])]


def test_good_settings(settings: Settings) -> None:
    settings.JOBS = GOOD
    assert found() == []


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ({"BROKER_ULR": "x"}, "JOBS['BROKER_ULR'] is not a setting. Did you mean 'BROKER_URL'?"),
        ({"LEASE_SECONDS": "15"}, "JOBS['LEASE_SECONDS'] must be a number, not '15'."),
        ({"LEASE_SECONDS": 0.1}, "JOBS['LEASE_SECONDS'] must be at least 1, not 0.1."),
        (
            {"DEFAULT_QUEUE": "mial", "QUEUES": {"mail": {}}},
            "JOBS['DEFAULT_QUEUE'] is 'mial', which JOBS['QUEUES'] does not declare. "
            "Did you mean 'mail'?",
        ),
        (
            {"QUEUES": {"default": {"opne": True}}},
            "JOBS['QUEUES'] has the unknown option 'opne'. Did you mean 'open'?",
        ),
    ],
)
def test_wrong_settings(settings: Settings, jobs: dict[str, Any], message: str) -> None:
    settings.JOBS = {**GOOD, **jobs}
    assert found() == [("jobs.E001", message)]
    with pytest.raises(ConfigurationError):
        conf.get()


def test_every_problem_is_told_at_once(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "POLL_SECONDS": 0, "MESSAGE_MAX_BYTES": None, "NONSENSE": 1}
    assert len(found()) == 3


def test_not_a_dict(settings: Settings) -> None:
    settings.JOBS = ["redis://localhost"]
    assert ("jobs.E001", "JOBS must be a dict, not list.") in found()


def test_no_broker_in_production(settings: Settings) -> None:
    settings.JOBS = {}
    settings.DEBUG = False
    assert [found_id for found_id, _ in found()] == ["jobs.E002"]
    settings.JOBS = {"ALWAYS_EAGER": True}  # nothing is sent
    assert found() == []
    settings.JOBS = {}
    settings.DEBUG = True
    assert found() == []


def test_a_test_runner_that_turns_debug_off(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBS = {}
    settings.DEBUG = False
    saved = django.test.utils._TestState.saved_data  # type: ignore[attr-defined]
    monkeypatch.setattr(saved, "debug", True)
    assert found() == []


def test_the_embedded_broker_is_not_installed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    settings.DEBUG = True
    settings.JOBS = {}
    ((check_id, text),) = found()
    assert check_id == "jobs.W016"
    assert "not installed: no task can be sent" in text
    for jobs in (GOOD, {"BROKER_URL": "memory://"}, {"ALWAYS_EAGER": True}):
        settings.JOBS = jobs
        assert found() == []


def test_a_task_of_an_undeclared_queue(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "QUEUES": {"default": {}, "mail": {}}}

    @task(name="letter", queue="mial")
    def letter() -> None: ...

    assert found() == [
        (
            "jobs.E003",
            "Task 'letter' can't be sent to queue 'mial', which JOBS['QUEUES'] does not declare. "
            "Did you mean 'mail'?",
        )
    ]


def test_a_routing_key_that_no_queue_is_bound_with(settings: Settings) -> None:
    bound = {"exchange": "media", "routing_key": "mail.new"}
    jobs = {**GOOD, "EXCHANGES": {"media": "topic"}, "QUEUES": {"default": {}, "mail": bound}}
    settings.JOBS = jobs

    @task(name="letter", exchange="media", routing_key="mial.new")
    def letter() -> None: ...

    @task(name="key at the call", exchange="media")
    def later() -> None: ...

    @task(name="no exchange", routing_key="mial")
    def plain() -> None: ...

    told = (
        "Task 'letter' can't be sent to the topic exchange 'media' with the routing key "
        "'mial.new', which JOBS['QUEUES'] binds no queue with. Did you mean 'mail.new'?"
    )
    other = (
        "Task 'no exchange' can't be sent to the routing key 'mial' without an exchange, which "
        "JOBS['QUEUES'] declares no queue for. Did you mean 'mail'?"
    )
    assert found() == [("jobs.E003", told), ("jobs.E003", other)]
    # The decorator's word counts, whatever the settings say.
    settings.JOBS = {**jobs, "TASK_ROUTES": {"letter": "mail", "no *": {"routing_key": "mail"}}}
    assert found() == [("jobs.E003", told), ("jobs.E003", other)]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            {"QUEUES": {"default": {}, "mail": {"exchange": "media"}}},
            "JOBS['QUEUES']['mail'] is bound to the exchange 'media', which JOBS['EXCHANGES'] does "
            "not declare.",
        ),
        (
            {"TASK_ROUTES": {"shop.*": "defualt"}},
            "JOBS['TASK_ROUTES']: 'shop.*' can't be sent to queue 'defualt', which JOBS['QUEUES'] "
            "does not declare. Did you mean 'default'?",
        ),
        (
            {"TASK_ROUTES": {"shop.*": {"exchange": "media"}}},
            "JOBS['TASK_ROUTES']: 'shop.*' can't be sent to the exchange 'media', which "
            "JOBS['EXCHANGES'] does not declare.",
        ),
        (
            {"TASK_ROUTES": {"shop.*": {"quue": "default"}}},
            "JOBS['TASK_ROUTES'] for 'shop.*': a route has no option 'quue'. Did you mean 'queue'?",
        ),
    ],
)
def test_wrong_routes(settings: Settings, jobs: dict[str, Any], message: str) -> None:
    settings.JOBS = {**GOOD, **jobs}
    assert found() == [("jobs.E005", message)]


def test_a_key_that_contradicts_its_queue(settings: Settings) -> None:
    route = {"queue": "default", "routing_key": "other"}
    settings.JOBS = {**GOOD, "TASK_ROUTES": {"shop.*": route}}
    assert found() == [
        (
            "jobs.W007",
            "JOBS['TASK_ROUTES']: 'shop.*' is for the queue 'default', and names the routing key "
            "'other', while the queue is bound with 'default'.",
        )
    ]


def test_a_schedule_that_can_not_be(settings: Settings) -> None:
    entry = {"task": "gone", "schedule": 60}
    settings.JOBS = {**GOOD, "BEAT_SCHEDULE": {"often": entry}}
    told = "The schedule 'often', by JOBS['BEAT_SCHEDULE']: no task is called 'gone'."
    assert found() == [("jobs.E004", told)]
    settings.JOBS = {**GOOD, "BEAT_SCHEDULE": {"often": 60}}
    assert [found_id for found_id, _ in found()] == ["jobs.E001"]


# ------------------------------------------------------------------------ check --deploy


def doubts() -> list[tuple[str | None, str]]:
    found = run_checks(tags=["jobs"], include_deployment_checks=True)
    assert all(m.hint for m in found)
    return [(m.id, m.msg) for m in found]


@pytest.fixture
def server(own_valkey: Valkey, settings: Settings) -> Iterator[redis.Redis]:
    """A server with nothing to be said about."""
    settings.JOBS = {**GOOD, "BROKER_URL": own_valkey.url}
    with own_valkey.client() as client:
        yield client


def test_a_good_server(server: redis.Redis) -> None:
    assert doubts() == []


def test_a_server_that_evicts(server: redis.Redis) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    assert doubts() == [("jobs.W004", "Redis has the maxmemory-policy allkeys-lru.")]


def test_a_server_that_keeps_nothing(server: redis.Redis) -> None:
    server.config_set("appendonly", "no")
    text = "Redis writes nothing to disk: a restart loses every message."
    assert doubts() == [("jobs.W005", text)]
    server.config_set("save", "3600 1")
    assert doubts() == []


def test_a_server_that_does_not_tell(server: redis.Redis, settings: Settings) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    server.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+@all", "-@admin")
    url = settings.JOBS["BROKER_URL"].replace("//", "//shop:pw@")
    settings.JOBS = {**settings.JOBS, "BROKER_URL": url}
    # CONFIG is forbidden; INFO tells a part of it.
    assert doubts() == [("jobs.W004", "Redis has the maxmemory-policy allkeys-lru.")]
    server.execute_command("ACL", "SETUSER", "shop", "-info")
    assert doubts() == []


def test_a_server_that_is_a_replica(server: redis.Redis, settings: Settings) -> None:
    server.replicaof("127.0.0.1", "1")
    address = settings.JOBS["BROKER_URL"]
    text = f"Redis at {address} is a replica: nothing can be sent there."
    assert doubts() == [("jobs.W012", text)]


def test_a_user_who_may_not_run_scripts(server: redis.Redis, settings: Settings) -> None:
    server.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+@all", "-@scripting")
    url = settings.JOBS["BROKER_URL"].replace("//", "//shop:pw@")
    settings.JOBS = {**settings.JOBS, "BROKER_URL": url, "QUEUES": {"default": {}, "high": {}}}
    ((found_id, text),) = doubts()
    assert found_id == "jobs.W013"
    assert "User shop has no permissions to run the 'evalsha' command. Give the user" in text


def test_a_queue_whose_key_is_of_another_type(server: redis.Redis) -> None:
    server.set("default", "not a list")
    ((found_id, text),) = doubts()
    assert found_id == "jobs.W013"
    assert text.startswith("Queue 'default': Redis at ")
    assert "WRONGTYPE" in text


def test_a_sentinel_whose_address_does_not_say_so(tmp_path: Path, settings: Settings) -> None:
    sentinel = Sentinel(tmp_path, free_port(), 1)
    sentinel.start()
    settings.JOBS = {**GOOD, "BROKER_URL": f"redis://127.0.0.1:{sentinel.port}/0"}
    try:
        ((found_id, text),) = doubts()
    finally:
        sentinel.stop()
    assert found_id == "jobs.W003"
    assert "can't be used: unknown command 'ZRANGE'. If it is a Sentinel, write " in text


def test_sentinels_that_are_away(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "BROKER_URL": "redis+sentinel://127.0.0.1:1/jobs/0"}
    ((found_id, text),) = doubts()
    assert found_id == "jobs.W003"
    assert "can't be used: no Sentinel names the master: 127.0.0.1:1: " in text


def test_a_server_that_is_away(own_valkey: Valkey, settings: Settings) -> None:
    settings.JOBS = {**GOOD, "BROKER_URL": own_valkey.url}
    own_valkey.stop()
    ((found_id, text),) = doubts()
    assert found_id == "jobs.W003"
    assert "can't be used" in text


def test_open_queues(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "BROKER_URL": "memory://", "QUEUES": {"default": {}, "in": OPEN}}
    text = "The queue 'in' is open: whoever can write to Redis can call any task through it."
    assert [doubt for doubt in doubts() if doubt[0] != "jobs.W006"] == [("jobs.W001", text)]


def test_options_that_celery_s_workers_do_not_know(settings: Settings) -> None:
    queues = {"default": {}, "theirs": {"foreign_workers": True}}
    settings.JOBS = {**GOOD, "QUEUES": queues, "TASK_ROUTES": {"routed": {"queue": "theirs"}}}

    @task(name="routed", rate_limit=5, acks="early", priority=3, time_limit=5)
    def routed() -> None: ...

    @task(name="named", queue="theirs", unique="until_end", fair_by=lambda x: x)
    def named(x: int) -> None: ...

    @task(name="gathered", queue="theirs", batch=5)
    def gathered(requests: Any) -> None: ...

    @task(name="ours", rate_limit=5, atomic=True)
    def ours() -> None: ...

    end = (
        "=, and goes to the queue 'theirs', where Celery's workers take its calls: they don't know "
    )
    expected = [("routed", "rate_limit"), ("routed", "acks")]
    expected += [("named", "unique"), ("named", "fair_by"), ("gathered", "batch")]
    assert found() == [
        ("jobs.W018", f"Task {name!r} has {option}{end}the option.") for name, option in expected
    ]


def test_options_of_a_task_that_there_is_not(settings: Settings) -> None:
    @task(name="checked.task")
    def checked() -> None: ...

    options = {"checked.task": {"priority": 1}, "chekced.task": {"priority": 1}, "*": {}}
    options["celery.chord_unlock"] = {}
    settings.JOBS = {**GOOD, "TASK_OPTIONS": options}
    text = "JOBS['TASK_OPTIONS'] has options for 'chekced.task', and no task is called so."
    assert found() == [("jobs.W019", f"{text} Did you mean 'checked.task'?")]


def test_a_route_for_a_name_that_is_nearly_a_task_s(settings: Settings) -> None:
    @task(name="checked.task")
    def checked() -> None: ...

    @task(name="checked.tasks.send_email")
    def routed() -> None: ...

    names = ["chekced.task", "checked.tasks.send_sms", "checked.tas*", "checked.tasks.send_emails"]
    names += ["checked.tasks.send_email"]
    settings.JOBS = {**GOOD, "TASK_ROUTES": dict.fromkeys(names, "default")}
    text = "JOBS['TASK_ROUTES'] has a route for 'chekced.task', and no task is called so."
    assert found() == [("jobs.W020", f"{text} Did you mean 'checked.task'?")]


def test_a_soft_time_limit_that_never_strikes() -> None:
    for name, soft, hard in (("a", 30, 30), ("b", 29, 30), ("c", 30, None), ("d", None, 30)):
        task(name=name, soft_time_limit=soft, time_limit=hard)(lambda: None)
    text = "has the soft time limit of 30 seconds, and never reaches it: the hard one ends it after"
    assert found() == [("jobs.W021", f"Task 'a' {text} 30.")]


def test_the_broker_of_tests(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "BROKER_URL": "memory://"}
    assert [found_id for found_id, _ in doubts()] == ["jobs.W006"]


OPEN = {"open": True}


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("redis://9.9.9.9:6379/0", True),
        ("rediss://[2620:fe::fe]/0", True),
        ("redis://:secret@9.9.9.9/0", False),
        ("redis://9.9.9.9/0?password=secret", False),
        ("rediss://9.9.9.9/0?ssl_certfile=client.pem", False),
        ("redis://10.1.2.3/0", False),
        ("redis://127.0.0.1/0", False),
        ("redis://[::1]/0", False),
        ("redis://localhost/0", False),
        ("unix:///run/redis.sock", False),
        ("memory://", False),
        ("", False),
        ("redis://nobody.invalid/0", False),
        ("redis://localhost/0?db=x", False),
    ],
)
def test_a_public_address_without_a_password(settings: Settings, url: str, exposed: bool) -> None:
    settings.JOBS = {"BROKER_URL": url}
    found = [(m.id, m.msg) for m in checks.check_password()]
    assert [found_id for found_id, _ in found] == (["jobs.W002"] if exposed else [])
    assert "secret" not in str(found)


def test_wrong_settings_break_no_check(settings: Settings) -> None:
    settings.JOBS = {**GOOD, "POLL_SECONDS": 0}
    assert [m.id for m in run_checks(tags=["jobs"], include_deployment_checks=True)] == [
        "jobs.E001"
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own", "JOBS['ADMIN_QUERYSET'] must be the dotted path of a function, not 'own'."),
        (17, "JOBS['ADMIN_QUERYSET'] must be text, not 17."),
        ("tests.nowhere.own", "JOBS['ADMIN_QUERYSET']: No module named 'tests.nowhere'."),
        ("jobs.states.TERMINAL", "JOBS['ADMIN_QUERYSET']: jobs.states.TERMINAL is no function."),
        ("jobs.states.State", None),
    ],
)
def test_who_sees_which_results(settings: Settings, path: Any, message: str | None) -> None:
    settings.JOBS = {**GOOD, "ADMIN_QUERYSET": path}
    assert found() == ([("jobs.E001", message)] if message else [])


@pytest.mark.parametrize(
    ("options", "warned"),
    [({}, True), ({"timeout": 20}, True), ({"transaction_mode": "immediate"}, False)],
)
def test_sqlite_with_its_own_options(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], warned: bool
) -> None:
    settings.JOBS = GOOD
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": options}
    monkeypatch.setitem(settings.DATABASES, "default", sqlite)
    said = checks.check_sqlite()
    assert [one.id for one in said] == ["jobs.W014"] * warned
    if warned:
        # The lines to paste are Python, and end the warning.
        exec(str(said[0].hint).partition("DATABASES: ")[2], {"DATABASES": settings.DATABASES})
        assert checks.check_sqlite() == []


def test_a_second_package_of_this_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.JOBS = GOOD
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jobs").mkdir()
    assert checks.check_other_packages() == []
    (tmp_path / "jobs" / "__init__.py").touch()
    (said,) = checks.check_other_packages()
    assert (said.id, str(tmp_path / "jobs") in said.msg) == ("jobs.W015", True)
