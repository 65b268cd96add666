"""Calls that are routed: into every queue that is bound, and recorded once in each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    Task,
    broker,
    message,
    registry,
    task,
)
from jobs.beat.ticking import tick
from jobs.exceptions import NoRoute
from jobs.ledger import publish
from jobs.models import TaskResult
from jobs.states import State
from tests.integration.beats import (
    NOON,
    no_other_schedules,  # noqa: F401
    scheduled,
)
from tests.models import Run
from tests.tasks import echo, trace
from tests.workers import on_redis, put_message, rolled_back, work

pytestmark = pytest.mark.django_db(transaction=True)

MEDIA: dict[str, Any] = {
    "EXCHANGES": {"media": "topic", "news": "fanout"},
    "QUEUES": {
        "default": {},
        "mail": {"exchange": "media", "routing_key": "mail.#"},
        "audit": {"exchange": "media", "routing_key": "#"},
        "web1": {"exchange": "news"},
        "web2": {"exchange": "news"},
    },
}


@pytest.fixture(autouse=True)
def _media(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, **MEDIA}


def waiting() -> dict[str, int]:
    counts = {queue: on_redis(queue)[0] for queue in MEDIA["QUEUES"]}
    return {queue: count for queue, count in counts.items() if count}


def labels() -> list[str]:
    return sorted(Run.objects.values_list("label", flat=True))


def queues_of_rows() -> list[str]:
    return sorted(TaskResult.objects.values_list("queue", flat=True))


def test_every_bound_queue_gets_a_call_of_its_own() -> None:
    result = trace.apply_async(("x",), exchange="media", routing_key="mail.new")
    assert waiting() == {"mail": 1, "audit": 1}
    work()
    assert labels() == ["x", "x"]
    first, copy = TaskResult.objects.filter(task=trace.name).order_by("-queue")
    assert (first.id, first.queue, first.state) == (result.id, "mail", State.SUCCESS)
    assert (copy.queue, copy.state) == ("audit", State.SUCCESS)
    assert result.get(timeout=5) is None


def test_many_calls_in_one_round_trip() -> None:
    results = echo.enqueue_many([(1,), (2,)], exchange="news")
    assert waiting() == {"web1": 2, "web2": 2}
    work()
    assert [result.get(timeout=5) for result in results] == [1, 2]
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 4


def test_the_message_says_what_it_was_sent_to() -> None:
    trace.apply_async(("x",), exchange="media", routing_key="mail.new")
    trace.apply_async(("x",), queue="default")
    for queue, expected in (
        ("mail", {"exchange": "media", "routing_key": "mail.new"}),
        ("audit", {"exchange": "media", "routing_key": "mail.new"}),
        ("default", {"exchange": "", "routing_key": "default"}),
    ):
        [raw] = broker.get().scan(queue)
        assert json.loads(raw)["properties"]["delivery_info"] == expected


def test_nothing_is_sent_where_nobody_listens() -> None:
    with pytest.raises(NoRoute), transaction.atomic():
        trace.apply_async(("x",), exchange="medai", routing_key="mail.new")
    assert (waiting(), queues_of_rows()) == ({}, [])


class TestInATransaction:
    def test_all_of_them_are_part_of_it(self) -> None:
        with transaction.atomic():
            trace.apply_async(("x",), exchange="media", routing_key="mail.new")
            assert queues_of_rows() == ["audit", "mail"]
            assert waiting() == {}
        assert waiting() == {"mail": 1, "audit": 1}
        work()
        assert labels() == ["x", "x"]
        assert set(TaskResult.objects.values_list("state", flat=True)) == {State.SUCCESS}

    def test_rolled_back_none_of_them_runs(self) -> None:
        with transaction.atomic(), rolled_back():
            trace.apply_async(("x",), exchange="media", routing_key="mail.new")
        assert (waiting(), queues_of_rows()) == ({}, [])

    def test_the_relay_sends_each_that_was_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as killed:  # between the commit and the push
            killed.setattr("jobs.ledger.publish.publish_committed", lambda pending, alias: None)
            with transaction.atomic():
                trace.apply_async(("x",), exchange="media", routing_key="mail.new")
        assert waiting() == {}
        assert publish.relay(timezone.now() + dt.timedelta(minutes=1)) == 2
        assert waiting() == {"mail": 1, "audit": 1}

    def test_sent_twice_under_one_id_each_runs_once(self) -> None:
        for _ in range(2):
            trace.apply_async(
                ("x",), exchange="media", routing_key="mail.new", task_id="chosen", countdown=0
            )
            work()
        assert labels() == ["x", "x"]


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Task[..., Any]]]:
    @task(name="routed.news", exchange="news")
    def news(label: str = "") -> None:
        Run.objects.create(label=label)

    @task(name="routed.again", exchange="media", routing_key="mail.new", bind=True)
    def again(self: Task[..., Any]) -> None:
        Run.objects.create(label=f"{self.request.queue} {self.request.retries}")
        if not self.request.retries:
            self.retry(countdown=0)

    @task(name="routed.nowhere", exchange="gone", routing_key="x")
    def nowhere(label: str = "") -> None:
        Run.objects.create(label=label)

    yield {"news": news, "again": again, "nowhere": nowhere}
    for name in ("routed.news", "routed.again", "routed.nowhere"):
        del registry.tasks[name]


def test_a_retry_stays_in_its_queue(own_tasks: dict[str, Task[..., Any]]) -> None:
    own_tasks["again"].delay()
    work()
    assert labels() == ["audit 0", "audit 1", "mail 0", "mail 1"]


def test_what_follows_is_routed_as_well_and_follows_the_first_alone(
    own_tasks: dict[str, Task[..., Any]],
) -> None:
    following = own_tasks["news"].si("after")
    echo.apply_async((1,), exchange="media", routing_key="mail.new", link=following)
    work(["mail", "audit"])
    assert waiting() == {"web1": 1, "web2": 1}
    work()
    assert labels() == ["after", "after"]


def test_a_chain_goes_on_by_the_options_of_its_calls() -> None:
    (echo.s(1) | trace.si("next").set(exchange="news", priority=0)).delay()
    work(["default"])
    assert waiting() == {"web1": 1, "web2": 1}


def test_what_follows_and_leads_nowhere_goes_to_the_default_queue(
    own_tasks: dict[str, Task[..., Any]], caplog: pytest.LogCaptureFixture
) -> None:
    call = own_tasks["nowhere"].si("lost")
    with pytest.raises(NoRoute, match="which JOBS\\['EXCHANGES'\\] does not declare"):
        echo.apply_async((1,), queue="mail", link=call)
    # One that was sent while there was such an exchange.
    callbacks = [call.set(task_id="the next").as_dict()]
    put_message("mail", task="tests.tasks.echo", args=[1], embed={"callbacks": callbacks})
    work(["mail"])
    assert waiting() == {"default": 1}
    assert "routed.nowhere is sent to queue 'default'" in caplog.text
    assert "which JOBS['EXCHANGES'] does not declare" in caplog.text


def test_schedules_are_routed(own_tasks: dict[str, Task[..., Any]], settings: Settings) -> None:
    scheduled("routed.news", task="routed.news")
    scheduled("unknown.task", task="unknown.task")
    scheduled("routed.nowhere", task="routed.nowhere")
    settings.JOBS = {**settings.JOBS, "TASK_ROUTES": {"unknown.*": {"queue": "mail"}}}
    tick(NOON)
    assert waiting() == {"web1": 1, "web2": 1, "mail": 1}
    refused = TaskResult.objects.get(task="routed.nowhere")
    assert (refused.state, refused.error_type) == (State.FAILURE, "jobs.exceptions.NoRoute")
    assert "the exchange 'gone'" in refused.error


def broken(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError


def test_a_routing_function_that_fails_holds_up_no_other_schedule(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "TASK_ROUTES": [{trace.name: "mail"}, broken]}
    scheduled("one", task=trace.name, args=["x"])
    scheduled("two", task=echo.name, args=["x"])
    tick(NOON)
    assert waiting() == {"mail": 1}
    refused = TaskResult.objects.get(task=echo.name)
    assert refused.state == State.FAILURE
    assert "ZeroDivisionError" in refused.error


def test_a_queue_that_nobody_declared(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    result = echo.apply_async((1,), queue="new")
    work(["new"])
    assert result.get(timeout=5) == 1


def test_ten_priorities_through_a_worker(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "PRIORITY_STEPS": list(range(10))}
    for priority in (7, 3, 9, 0, 5, 1, 8, 2, 6, 4):
        trace.apply_async((str(priority),), priority=priority)
    work(["default"])
    ran = Run.objects.order_by("id").values_list("label", flat=True)
    assert list(ran) == [str(priority) for priority in range(10)]


def test_weights_share_out_what_a_worker_claims() -> None:
    for queue in ("mail", "audit"):
        trace.enqueue_many([(queue,)] * 40, queue=queue)
    #: The queue of each call, in the order of their first claims: a call that waits for a thread
    #: for long goes back and is claimed again.
    claims: dict[str, str] = {}
    asked = broker.get().claim

    def claim(queue: str, *args: Any) -> Any:
        found = asked(queue, *args)
        for _number, raw in found.messages:
            claims.setdefault(message.decode(raw, queue).id, queue)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker.get(), "claim", claim)
        work(["mail", "audit"], weights=(1, 3))
    assert len(claims) == 80
    # In strict order, all of the first queue would come first.
    assert list(claims.values()).index("audit") < 40
    assert labels() == ["audit"] * 40 + ["mail"] * 40
