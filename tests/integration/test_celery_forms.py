"""The forms that a Celery user writes, word for word: names are Celery's, and ``from jobs import``
is the only change."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis.exceptions
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    AsyncResult,
    add_periodic_task,
    broker,
    conf,
    crontab,
    message,
    registry,
    routing,
    schedules,
    send_task,
    signature,
    task,
)
from jobs.api.task import Task
from jobs.beat import tick
from jobs.broker.base import Outgoing
from jobs.exceptions import BrokerUnavailable
from jobs.models import Schedule
from jobs.schedules import declared
from jobs.worker.record import following
from tests.integration.beats import no_other_schedules  # noqa: F401
from tests.project import Project
from tests.tasks import add
from tests.workers import on_redis, ready_worker, work

pytestmark = pytest.mark.django_db(transaction=True)

#: ``task_queues`` with ``Queue("asyn", Exchange("asyn", type="direct"), routing_key="asyn")`` …
QUEUES: dict[str, Any] = {
    "DEFAULT_QUEUE": "default",
    "EXCHANGES": {"asyn": "direct", "perioc": "direct", "delay": "direct"},
    "QUEUES": {
        "default": {},
        "asyn": {"exchange": "asyn", "routing_key": "asyn"},
        "perioc": {"exchange": "perioc", "routing_key": "perioc"},
        "delay": {"exchange": "delay", "routing_key": "delay"},
    },
}


@pytest.fixture(autouse=True)
def _queues(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {
        **settings.JOBS,
        **QUEUES,
        "TASK_ROUTES": {
            "celery_task.tasks.add": {"queue": "asyn", "routing_key": "asyn"},
            "celery_task.tasks.multi": {"queue": "delay", "routing_key": "delay"},
        },
    }


@pytest.fixture
def T() -> Iterator[Any]:
    """A task as the description has it; forgotten after the test."""

    @task(name="celery_task.tasks.add")
    def celery_add(x: int, y: int = 0) -> int:
        return x + y

    yield celery_add
    del registry.tasks["celery_task.tasks.add"]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is declared by `add_periodic_task` before."""
    monkeypatch.setattr(declared, "_added", {})


def waiting(queue: str) -> list[dict[str, Any]]:
    """The messages that a queue has, as they are on Redis; takes them off it."""
    claim = broker.get().claim(queue, "reader", 10, 1000, 60)
    return [json.loads(raw) for _, raw in claim.messages]


def test_the_queue_decides_and_the_routing_key_goes_along(T: Any) -> None:
    T.delay(1, 2)
    (sent,) = waiting("asyn")
    assert sent["properties"]["delivery_info"] == {"exchange": "", "routing_key": "asyn"}
    assert on_redis("default") == (0, 0)
    found = routing.get().find("celery_task.tasks.multi", (), {}, {}, None)[0]
    assert (found.queues, found.routing_key) == (("delay",), "delay")
    T.apply_async((1, 2), queue="delay", routing_key="delay", exchange="delay")
    (sent,) = waiting("delay")
    assert sent["properties"]["delivery_info"] == {"exchange": "delay", "routing_key": "delay"}
    T.s(1, 2).set(queue="perioc", routing_key="perioc").delay()
    (sent,) = waiting("perioc")
    assert sent["properties"]["delivery_info"] == {"exchange": "", "routing_key": "perioc"}
    assert add.message((1, 2), {}).queue == "default"  # it fits no other


def test_a_queue_and_a_key_in_the_decorator_of_a_task_that_is_run() -> None:
    @task(name="celery_task.tasks.decorated", queue="asyn", routing_key="asyn")
    def decorated() -> str:
        return "ran"

    try:
        result = decorated.delay()
        work(["asyn"])
        assert result.get(timeout=0) == "ran"
    finally:
        del registry.tasks["celery_task.tasks.decorated"]


def test_the_message_of_a_task_of_another_service() -> None:
    result = send_task("other.service.task", (1, 2), {"any": "x"}, queue="asyn", shadow="sum")
    (sent,) = waiting("asyn")
    headers, body = sent["headers"], json.loads(base64.b64decode(sent["body"]))
    assert (headers["task"], headers["id"]) == ("other.service.task", result.id)
    assert (headers["shadow"], body[:2]) == ("sum", [[1, 2], {"any": "x"}])
    add.apply_async((1, 2), link=signature("other.service.task", queue="perioc"))
    work(["default"])
    (sent,) = waiting("perioc")
    assert (sent["headers"]["task"], sent["headers"]["argsrepr"]) == ("other.service.task", "(3,)")


def test_a_route_of_the_settings_is_enough_for_a_task_of_another_service() -> None:
    assert "celery_task.tasks.multi" not in registry.tasks
    signature("celery_task.tasks.multi", (1,)).delay()
    send_task("celery_task.tasks.multi", kwargs={"x": 1})
    assert len(waiting("delay")) == 2


def test_stamps_and_texts_stay_at_the_next_attempt() -> None:
    sent = add.message((1, 2), {}, argsrepr="(…)", stamped_headers=["a"], a="b", shadow="sum")
    read = message.decode(message.encode(sent), "default")
    again = message.next_attempt(read, eta=timezone.now())
    read = message.decode(message.encode(again), "default")
    assert (read.argsrepr, read.kwargsrepr, read.shadow) == ("(…)", None, "sum")
    assert read.shown_args == ["…", "…"]
    assert read.headers == {"stamped_headers": ["a"], "stamps": {"a": "b"}}


def test_the_message_on_redis() -> None:
    result = add.apply_async((10, 20))
    (sent,) = waiting("default")
    body = json.loads(base64.b64decode(sent["body"]))
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert body == [[10, 20], {}, nothing]
    headers, properties = sent["headers"], sent["properties"]
    assert headers["argsrepr"] == "(10, 20)"
    assert headers["kwargsrepr"] == "{}"
    assert {
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"),
        "ignore_result",
    } <= headers.keys()
    assert (headers["lang"], headers["id"], headers["root_id"]) == ("py", result.id, result.id)
    assert properties["correlation_id"] == result.id
    assert (properties["reply_to"], properties["delivery_mode"]) == ("", 2)
    assert properties["delivery_info"] == {"exchange": "", "routing_key": "default"}
    assert (properties["priority"], properties["body_encoding"]) == (0, "base64")
    assert properties["delivery_tag"]


@pytest.mark.parametrize(
    ("args", "kwargs", "texts"),
    [
        ((10, 20), {}, ("(10, 20)", "{}")),
        ((10,), {"b": "x"}, ("(10,)", "{'b': 'x'}")),
        ([10, 20], {}, ("(10, 20)", "{}")),
        ((), {"a": [1], "b": None}, ("()", "{'a': [1], 'b': None}")),
    ],
)
def test_the_text_of_arguments(args: Any, kwargs: Any, texts: tuple[str, str]) -> None:
    headers = json.loads(message.encode(add.message(args, kwargs)))["headers"]
    assert (headers["argsrepr"], headers["kwargsrepr"]) == texts


def test_the_text_of_sensitive_arguments() -> None:
    @task(name="celery_task.tasks.charge", sensitive=["card"])
    def charge(card: str, cents: int = 0) -> None: ...

    del registry.tasks["celery_task.tasks.charge"]
    headers = json.loads(message.encode(charge.message(("1234", 5), {})))["headers"]
    assert headers["argsrepr"] == "('…', 5)"
    headers = json.loads(message.encode(charge.message(("1234",), {})))["headers"]
    assert headers["argsrepr"] == "('…',)"


def test_delay_apply_async_and_the_direct_call(T: Any) -> None:
    first, second = T.delay(1, y=2), T.apply_async((1,), {"y": 3})
    assert on_redis("asyn") == (2, 0)
    work(["asyn"])
    assert (first.get(timeout=0), second.get(timeout=0)) == (3, 4)
    assert T(2, 2) == 4
    assert on_redis("asyn") == (0, 0)


def test_countdown_and_eta() -> None:
    now = timezone.now()
    for sent in (
        add.message((1, 2), {}, countdown=10),
        add.message((1, 2), {}, eta=now + timedelta(seconds=10)),
    ):
        assert sent.eta is not None
        assert 9 < (sent.eta - now).total_seconds() < 12


def seconds_left(sent: message.Message) -> float:
    assert sent.expires is not None
    return (sent.expires - timezone.now()).total_seconds()


def test_expiry_counts_from_now(T: Any) -> None:
    T.apply_async((1,), countdown=60, expires=120)
    (raw,) = broker.get().browse("asyn", due=True)
    sent = message.decode(raw.raw, "asyn")
    assert 115 < seconds_left(sent) <= 120
    assert sent.eta is not None
    assert 55 < (sent.eta - timezone.now()).total_seconds() <= 60
    sent = add.message((1, 2), {}, expires=timezone.now() + timedelta(days=2))
    assert abs(seconds_left(sent) - 2 * 86_400) < 5


def test_expiry_of_what_follows_and_of_retries(T: Any, monkeypatch: Any) -> None:
    call = T.s(1).set(countdown=60, expires=120, task_id="x").as_dict()
    assert 115 < seconds_left(following.message_of(call, "p", "r")) <= 120
    short = Task(T.run, name=T.name, expires=timedelta(minutes=2))
    monkeypatch.setitem(registry.tasks, T.name, short)
    call = T.s(1).set(countdown=60, task_id="x").as_dict()
    assert 115 < seconds_left(following.message_of(call, "p", "r")) <= 120
    first = add.message((1, 2), {}, countdown=60, expires=120)
    again = message.next_attempt(first, eta=timezone.now() + timedelta(hours=1))
    assert again.expires == first.expires


def test_a_call_that_expires_before_it_is_due_is_revoked() -> None:
    result = add.apply_async((1, 2), countdown=0.3, expires=0.2)
    deadline = time.monotonic() + 20
    while not result.ready() and time.monotonic() < deadline:
        work()
    assert result.state == "REVOKED"


@pytest.mark.parametrize("using_zones", [True, False])
def test_a_naive_moment_is_in_the_zone_of_the_project(
    settings: Settings, using_zones: bool
) -> None:
    settings.TIME_ZONE, settings.USE_TZ = "Asia/Shanghai", using_zones
    moment = dt.datetime(2031, 1, 1, 12)  # noqa: DTZ001
    sent = add.message((1, 2), {}, eta=moment, expires=moment + timedelta(hours=1))
    meant = moment.replace(tzinfo=ZoneInfo("Asia/Shanghai"))
    assert (sent.eta, sent.expires) == (meant, meant + timedelta(hours=1))


@pytest.mark.parametrize(
    ("error", "tries"), [(redis.exceptions.TimeoutError, 4), (redis.exceptions.ConnectionError, 1)]
)
def test_retry_errors(error: type[Exception], tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def push(messages: list[Outgoing]) -> None:
        asked.append(len(list(messages)))
        raise BrokerUnavailable("away") from error("away")

    monkeypatch.setattr(broker.get(), "push", push)
    with pytest.raises(BrokerUnavailable):
        add.apply_async(
            (2, 2), retry=True, retry_policy={"max_retries": 3, "retry_errors": (TimeoutError,)}
        )
    assert len(asked) == tries


@pytest.mark.usefixtures("fresh", "no_other_schedules")
def test_add_periodic_task() -> None:
    @task(name="celery_task.tasks.test")
    def test(arg: str) -> None: ...

    try:
        add_periodic_task(10.0, test.s("hello"), name="add every 10")
        # The same task twice, under two names.
        add_periodic_task(30.0, test.s("hello"), name="add every 30")
        add_periodic_task(30.0, test.s("world"), expires=10)
        add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), test.s("Happy Mondays!"))
        schedules.synchronise()
    finally:
        del registry.tasks["celery_task.tasks.test"]
    found = {one.name: one for one in Schedule.objects.filter(task="celery_task.tasks.test")}
    ten = found.pop("add every 10")
    assert (ten.args, ten.interval) == (["hello"], timedelta(seconds=10))
    assert found.pop("add every 30").interval == timedelta(seconds=30)
    world = found.pop("celery_task.tasks.test('world')")
    assert (world.expires, world.expires_from) == (timedelta(seconds=10), "sent")
    (monday,) = found.values()
    assert (monday.args, monday.crontab) == (["Happy Mondays!"], "30 7 * * 1")


@pytest.mark.usefixtures("fresh", "no_other_schedules")
def test_beat_schedule(settings: Settings) -> None:
    settings.TIME_ZONE = "UTC"
    settings.JOBS = {
        **settings.JOBS,
        "BEAT_SCHEDULE": {
            "add-every-30-seconds": {"task": "tests.tasks.add", "schedule": 30.0, "args": (16, 16)},
            "add-on-mondays": {
                "task": "tests.tasks.add",
                "schedule": crontab(hour=7, minute=30, day_of_week=1),
                "args": (16, 16),
                "relative": False,
                "options": {
                    "queue": "perioc",
                    "exchange": "perioc",
                    "routing_key": "perioc",
                    "expires": 15.0,
                    "serializer": "json",
                },
            },
        },
    }
    schedules.synchronise()
    often = Schedule.objects.get(name="add-every-30-seconds")
    assert (often.args, often.interval) == ([16, 16], timedelta(seconds=30))
    monday = Schedule.objects.get(name="add-on-mondays")
    assert (monday.queue, monday.exchange, monday.routing_key) == ("perioc",) * 3
    assert (monday.timezone, monday.expires) == ("UTC", timedelta(seconds=15))
    now = timezone.now()
    Schedule.objects.exclude(pk=monday.pk).update(enabled=False)
    Schedule.objects.filter(pk=monday.pk).update(next_run_at=now)
    tick(now)
    (sent,) = waiting("perioc")
    assert sent["properties"]["delivery_info"] == {"exchange": "perioc", "routing_key": "perioc"}
    assert sent["headers"]["argsrepr"] == "(16, 16)"


def test_conf_of_the_forms_is_right() -> None:
    assert conf.get().default_queue == "default"
    assert list(routing.get().doubts(registry.tasks.values())) == []


def test_the_result_in_another_process(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1")
    result = add.delay(4, 4)
    assert AsyncResult(result.id).get(timeout=60) == 8
    told = project.run(
        "shell",
        "-c",
        f"from jobs import AsyncResult; r = AsyncResult({result.id!r}); "
        "print(r.state, r.get(timeout=10))",
    )
    assert "SUCCESS 8" in told
    worker.stop()
