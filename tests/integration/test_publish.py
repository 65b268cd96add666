"""P1 and P2: in a transaction a task is part of it; outside, it is on the broker or the call
raises."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
import redis.exceptions
from asgiref.sync import async_to_sync
from django.apps import apps
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from jobs import (
    AsyncResult,
    broker,
    message,
    signals,
)
from jobs.broker.base import Outgoing
from jobs.conf import RetryPolicy
from jobs.exceptions import BrokerUnavailable, MessageTooLarge, NotSerializable
from jobs.ledger import publish
from jobs.message.call import Send
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import Valkey
from tests.tasks import add, echo, light_trace, quiet_trace, trace
from tests.workers import on_redis, rolled_back, work

pytestmark = pytest.mark.django_db(transaction=True)


def rows() -> list[str]:
    return list(TaskResult.objects.order_by("id").values_list("id", flat=True))


def sent_labels(queue: str = "default") -> list[str]:
    """First arguments of the messages that wait, oldest first; takes them off the queue."""
    claim = broker.get().claim(queue, "reader", 1, 1000, 60)
    return [message.decode(raw, queue).args[0] for _, raw in claim.messages]


@pytest.fixture
def pushes(monkeypatch: pytest.MonkeyPatch, broker_url: str) -> list[int]:
    """Sizes of the pushes that the broker gets."""
    sizes: list[int] = []
    real = broker.get().push

    def push(messages: Iterable[Outgoing]) -> None:
        every = list(messages)
        sizes.append(len(every))
        real(every)

    monkeypatch.setattr(broker.get(), "push", push)
    return sizes


# ------------------------------------------------------------------------------ transactions


def test_a_task_is_a_pending_row_until_the_commit(broker_url: str) -> None:
    with transaction.atomic():
        result = add.delay(1, 2)
        row = TaskResult.objects.get(id=result.id)
        assert (row.state, row.task, row.queue) == (State.PENDING, "tests.tasks.add", "default")
        assert (row.args, row.kwargs, row.published_at) == ("[1,2]", "{}", None)
        assert on_redis() == (0, 0)
    assert on_redis() == (1, 0)
    row.refresh_from_db()
    assert row.published_at is not None
    work()
    row.refresh_from_db()
    assert (row.state, row.result, row.args) == (State.SUCCESS, "3", "[1,2]")


def test_outside_a_transaction_there_is_no_row_before_the_end(broker_url: str) -> None:
    result = add.delay(1, 2)
    assert (rows(), on_redis()) == ([], (1, 0))
    work()
    assert rows() == [result.id]


def test_what_a_module_sends_that_is_imported(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each process that loads the project sends it."""
    trace.delay("later")
    assert caplog.messages == []
    monkeypatch.setattr(apps, "ready", False)
    trace.enqueue_many([("a",), ("b",)])
    (said,) = caplog.messages
    assert said.startswith("task tests.tasks.trace is sent while the project loads")


def test_rolled_back_nothing_is_sent(broker_url: str) -> None:
    with rolled_back():
        trace.delay("never")
    assert (rows(), on_redis()) == ([], (0, 0))


def test_rolled_back_savepoints_take_their_tasks_with_them(broker_url: str) -> None:
    with transaction.atomic():
        trace.delay("outer before")
        with rolled_back():
            trace.delay("inner")
            with transaction.atomic():
                trace.delay("innermost, released")
        trace.delay("outer after")
        with transaction.atomic():
            trace.delay("kept")
            with rolled_back():
                trace.delay("innermost, rolled back")
            trace.delay("kept as well")
    assert len(rows()) == 4
    assert sent_labels() == ["outer before", "outer after", "kept", "kept as well"]


def test_a_savepoint_rolled_back_by_hand(broker_url: str) -> None:
    # Its name since Django 6.1, which deprecates the other.
    savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint
    with transaction.atomic():
        first = savepoint()
        trace.delay("dropped")
        transaction.savepoint_rollback(first)
        trace.delay("sent")
        second = savepoint()
        trace.delay("sent too")
        transaction.savepoint_commit(second)
    assert len(rows()) == 2
    assert sent_labels() == ["sent", "sent too"]


def test_nested_blocks_send_at_the_outermost_commit(broker_url: str) -> None:
    with transaction.atomic():
        with transaction.atomic(savepoint=False):
            trace.delay("inner")
        assert on_redis() == (0, 0)
    assert sent_labels() == ["inner"]


def test_a_transaction_is_published_in_one_push(pushes: list[int]) -> None:
    with transaction.atomic():
        for n in range(100):
            trace.delay(str(n))
    assert pushes == [100]
    assert sent_labels() == [str(n) for n in range(100)]
    assert TaskResult.objects.filter(published_at=None).count() == 0


def test_many_calls_are_one_push(pushes: list[int]) -> None:
    results = add.enqueue_many([(n, n) for n in range(1500)] + [{"a": 1, "b": 2}])
    assert pushes == [1501]
    assert len({result.id for result in results}) == 1501
    with pytest.raises(TypeError, match=r"missing a required argument: 'b'"):
        add.enqueue_many([(1, 2), (3,)])
    assert add.enqueue_many([]) == []
    assert on_redis() == (1501, 0)
    with transaction.atomic():
        add.enqueue_many([(n, n) for n in range(600)])
        assert TaskResult.objects.count() == 600
    assert pushes == [1501, 600]


def test_a_refused_call_among_many_leaves_none_sent(broker_url: str, settings: Settings) -> None:
    """Also when it comes late: the first are on their way while the last are still encoded."""
    good = [(str(n),) for n in range(1000)]
    with pytest.raises(NotSerializable, match="argument 1 of task"):
        trace.enqueue_many([*good, (object(),)])
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 30_000}
    with pytest.raises(MessageTooLarge):
        trace.enqueue_many([*good, ("x" * 22_000,)])
    with pytest.raises(NotSerializable, match="headers"):
        trace.enqueue_many(good, headers={"who": object()})
    assert on_redis() == (0, 0)
    trace.enqueue_many([*good, ("x" * 5_000,)])
    assert on_redis() == (1001, 0)


def failing_view(request: HttpRequest) -> HttpResponse:
    trace.delay("view")
    raise RuntimeError("the view fails")


def good_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(trace.delay("view").id)


urlpatterns = [path("fail/", failing_view), path("good/", good_view)]


@pytest.mark.urls("tests.integration.test_publish")
def test_a_view_that_raises_under_atomic_requests_sends_nothing(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    client = Client(raise_request_exception=False)
    assert client.get("/fail/").status_code == 500
    assert (rows(), on_redis()) == ([], (0, 0))
    answer = client.get("/good/")
    assert (rows(), on_redis()) == ([answer.content.decode()], (1, 0))


def test_other_commit_hooks_between_tasks_keep_their_place(broker_url: str) -> None:
    seen: list[tuple[int, int]] = []
    with transaction.atomic():
        trace.delay("first")
        transaction.on_commit(lambda: seen.append(on_redis()))
        trace.delay("second")
    assert seen == [(1, 0)]
    assert sent_labels() == ["first", "second"]


# --------------------------------------------------------------------------------- not durable


def test_a_light_task_waits_for_the_commit_without_a_row(broker_url: str) -> None:
    with transaction.atomic():
        light_trace.delay("light")
        trace.delay("durable")
        assert (len(rows()), on_redis()) == (1, (0, 0))
    assert sent_labels() == ["light", "durable"]
    with rolled_back():
        light_trace.delay("never")
    assert on_redis()[0] == 0


def test_a_quiet_task_has_a_row_only_when_it_was_part_of_a_transaction(broker_url: str) -> None:
    quiet_trace.delay("outside")
    with transaction.atomic():
        inside = quiet_trace.delay("inside")
    work()
    assert sorted(Run.objects.values_list("label", flat=True)) == ["inside", "outside"]
    row = TaskResult.objects.get()
    assert (row.id, row.state, row.result) == (inside.id, State.SUCCESS, None)


# ----------------------------------------------------------------------- the broker is away


def test_at_the_commit_the_broker_is_away(
    own_valkey: Valkey, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0, "RETRY_POLICY": {"max_retries": 0}}
    own_valkey.kill()
    with transaction.atomic():
        result = trace.delay("late")
        light_trace.delay("lost")
    assert "1 committed messages wait in the ledger for the broker, 1 that are not" in caplog.text
    assert TaskResult.objects.get().published_at is None
    with pytest.raises(BrokerUnavailable):
        publish.relay()
    own_valkey.start()
    assert publish.relay() == 1
    assert publish.relay() == 0
    work()
    assert list(Run.objects.values_list("label", flat=True)) == ["late"]
    assert result.state == State.SUCCESS


def test_an_answer_of_the_server_never_breaks_a_committed_transaction(broker_url: str) -> None:
    """Not an outage, but a key of the wrong type, or a user without the right to write it."""
    broker.by_shard()._redis.call("SET", "default", "not a list")  # type: ignore[attr-defined]
    ran: list[str] = []
    with transaction.atomic():
        trace.delay("committed")
        transaction.on_commit(lambda: ran.append("the hook after it"))
    assert ran == ["the hook after it"]
    assert TaskResult.objects.get().published_at is None


def test_outside_a_transaction_delay_raises(own_valkey: Valkey) -> None:
    add.delay(1, 2)  # has a connection
    own_valkey.kill()
    with pytest.raises(BrokerUnavailable, match=own_valkey.url):
        add.delay(1, 2)
    own_valkey.start()
    assert on_redis() == (1, 0)


@pytest.mark.parametrize(
    ("options", "tries"),
    [
        ({}, 4),
        ({"retry": False}, 1),
        ({"retry_policy": {"max_retries": 2, "interval_step": 0, "interval_max": 0}}, 3),
    ],
)
def test_the_retry_policy(
    options: dict[str, object],
    tries: int,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    pauses: list[float] = []

    def push(messages: Iterable[Outgoing]) -> None:
        asked.append(len(list(messages)))
        raise BrokerUnavailable

    monkeypatch.setattr(broker.get(), "push", push)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(BrokerUnavailable):
        add.apply_async((1, 2), **options)  # type: ignore[arg-type]
    assert asked == [1] * tries
    assert pauses == [0.0, 0.2, 0.2][: tries - 1] if not options else len(pauses) == tries - 1


def test_a_policy_of_a_call_is_over_that_of_the_settings(settings: Settings) -> None:
    settings.JOBS = {"RETRY_POLICY": {"max_retries": 7, "interval_step": 3}}
    policy = Send(retry_policy={"interval_step": 1}).policy()
    assert policy == RetryPolicy(max_retries=7, interval_step=1)


def refuse(cause: type[Exception] | None) -> None:
    """Raise what redis-py and `jobs.broker.connection` do, in their way."""
    try:
        try:
            raise (cause or ValueError)("low down")
        except TimeoutError:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")  # noqa: B904
        except OSError as low:
            raise redis.exceptions.ConnectionError(f"Error: {low}") from low
        except ValueError:
            raise redis.exceptions.ConnectionError("Connection closed by server.") from None
    except redis.exceptions.RedisError as error:
        raise BrokerUnavailable(str(error)) from error


@pytest.mark.parametrize(
    ("cause", "errors", "tries"),
    [
        (TimeoutError, (TimeoutError,), 4),
        (TimeoutError, [TimeoutError], 4),
        (TimeoutError, TimeoutError, 4),
        (TimeoutError, (ConnectionError,), 1),
        (TimeoutError, (OSError,), 4),
        (TimeoutError, (redis.exceptions.TimeoutError,), 4),
        (TimeoutError, (redis.exceptions.ConnectionError,), 1),
        (TimeoutError, (), 1),
        (TimeoutError, None, 4),
        (TimeoutError, (BrokerUnavailable,), 4),
        (ConnectionRefusedError, (TimeoutError,), 1),
        (ConnectionRefusedError, (ConnectionError,), 4),
        (ConnectionRefusedError, (ConnectionRefusedError,), 4),
        (ConnectionRefusedError, (ConnectionResetError,), 1),
        (ConnectionRefusedError, (TimeoutError, OSError), 4),
        (ConnectionRefusedError, (redis.exceptions.RedisError,), 4),
        (None, (TimeoutError,), 1),
        (None, (ConnectionError,), 4),
    ],
)
def test_only_errors_of_the_policy_are_tried_again(
    cause: type[Exception] | None,
    errors: Any,
    tries: int,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def push(messages: Iterable[Outgoing]) -> None:
        asked.append(len(list(messages)))
        refuse(cause)

    monkeypatch.setattr(broker.get(), "push", push)
    policy = {"max_retries": 3, "interval_max": 0, "retry_errors": errors}
    try:
        raise TimeoutError("what the caller is handling says nothing of the broker")
    except TimeoutError:
        with pytest.raises(BrokerUnavailable):
            add.apply_async((2, 2), retry=True, retry_policy=policy)
    assert asked == [1] * tries


@pytest.mark.parametrize(
    ("errors", "tries"), [((TimeoutError,), 1), ((ConnectionError,), 3), ((OSError,), 3)]
)
def test_a_server_that_is_down_is_a_connection_error(
    errors: Any, tries: int, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_valkey.kill()
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(BrokerUnavailable):
        add.apply_async((2, 2), retry_policy={"max_retries": 2, "retry_errors": errors})
    assert len(pauses) == tries - 1


def test_without_a_number_of_retries_it_is_tried_for_ever(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = broker.get().push, itertools.count(1)

    def push(messages: Iterable[Outgoing]) -> None:
        if next(asked) < 500:
            raise BrokerUnavailable
        real(messages)

    monkeypatch.setattr(broker.get(), "push", push)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add.apply_async((2, 2), retry_policy={"max_retries": None})
    assert on_redis() == (1, 0)


def test_back_within_the_retries_it_is_sent(own_valkey: Valkey) -> None:
    own_valkey.kill()
    starter = threading.Thread(target=own_valkey.start)
    starter.start()
    policy = {"max_retries": 400, "interval_start": 0.05, "interval_max": 0.05}
    result = add.apply_async((20, 22), retry_policy=policy)
    starter.join()
    work()
    assert result.get(timeout=5) == 42


def test_what_is_perhaps_sent_twice_says_so(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has got the first try, and only its answer was lost."""
    real = broker.get().push
    tries: list[int] = []

    def push(messages: Iterable[Outgoing]) -> None:
        every = list(messages)
        real(every)
        tries.append(len(every))
        if len(tries) == 1:
            raise BrokerUnavailable

    monkeypatch.setattr(broker.get(), "push", push)
    trace.delay("doubled")
    claim = broker.get().claim("default", "reader", 1, 10, 60)
    assert [message.decode(raw, "default").marks.redelivered for _, raw in claim.messages] == [
        False,
        True,
    ]


# ------------------------------------------------------------------- processes that die


DIE = """
import os, signal
from django.db import transaction
from tests.tasks import trace
with transaction.atomic():
    transaction.on_commit(lambda: os._exit(9))
    trace.delay("orphan")
"""

DIE_BEFORE = """
import os
from django.db import transaction
from tests.tasks import trace
with transaction.atomic():
    trace.delay("never")
    os._exit(9)
"""


def test_a_process_that_dies_after_the_commit(project: Project, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0}
    project.run("shell", "-c", DIE, status=9)
    row = TaskResult.objects.get()
    assert (row.state, row.published_at, on_redis()) == (State.PENDING, None, (0, 0))
    assert publish.relay() == 1
    assert publish.relay() == 0
    work()
    assert list(Run.objects.values_list("label", flat=True)) == ["orphan"]


def test_a_process_that_dies_before_the_commit(project: Project) -> None:
    project.run("shell", "-c", DIE_BEFORE, status=9)
    assert (rows(), on_redis()) == ([], (0, 0))


# ------------------------------------------------------------------------------- the call


def test_options_of_a_call_travel(broker_url: str) -> None:
    echo.apply_async(
        ("value",), task_id="my-id", queue="high", priority=7, headers={"tenant": "blue"}
    )
    ((_, raw),) = broker.get().claim("high", "reader", 1, 10, 60).messages
    sent = message.decode(raw, "high")
    assert (sent.id, sent.queue, sent.priority) == ("my-id", "high", 7)
    assert dict(sent.headers) == {"tenant": "blue"}
    trace.apply_async(("limited",), time_limit=9, soft_time_limit=0.5)
    ((_, raw),) = broker.get().claim("default", "reader", 1, 10, 60).messages
    assert message.decode(raw, "default").timelimit == (9, 0.5)


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"time_limit": 0}, ValueError, "time_limit must be more than 0 seconds, not 0"),
        ({"soft_time_limit": True}, TypeError, "soft_time_limit must be seconds or None, not True"),
        ({"priority": 10}, ValueError, "priority must be 0"),
    ],
)
def test_an_option_that_cannot_be_is_told_at_the_call(
    options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=f"Task 'tests.tasks.trace' can't be sent: {told}"):
        trace.apply_async(("never",), **options)


def test_the_signal_of_sending(broker_url: str) -> None:
    seen: list[tuple[object, str]] = []

    def receiver(sender: object, message: message.Message, **_: object) -> None:
        seen.append((sender, message.id))

    def broken(**_: object) -> None:
        raise RuntimeError("a broken receiver")

    signals.task_enqueued.connect(broken)
    signals.task_enqueued.connect(receiver)
    try:
        outside = add.delay(1, 2)
        with transaction.atomic():
            inside = add.delay(3, 4)
    finally:
        signals.task_enqueued.disconnect(receiver)
        signals.task_enqueued.disconnect(broken)
    assert seen == [("tests.tasks.add", outside.id), ("tests.tasks.add", inside.id)]


def test_sending_from_async_code(broker_url: str) -> None:
    async def send() -> AsyncResult[int]:
        return await add.adelay(2, 3)

    result = async_to_sync(send)()
    work()
    assert result.get(timeout=0) == 5


def test_it_is_one_push_while_a_call_of_a_celery_client_runs(
    pushes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What such a call sends is noted for its client; other calls of the process are not."""
    monkeypatch.setitem(message.sent_by, "theirs", [])
    with transaction.atomic():
        for n in range(100):
            trace.delay(str(n))
    assert pushes == [100]
    assert message.sent_by["theirs"] == []
