"""Calls whose messages the broker has lost: found by comparing, and sent again."""

from __future__ import annotations

import datetime as dt
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    Task,
    broker,
    message,
    task,
)
from jobs.broker.base import Broker, Outgoing, Returned
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from jobs.exceptions import BrokerUnavailable, Ignore
from jobs.ledger import publish, recovery
from jobs.ledger.recovery import Call
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.services import Valkey
from tests.tasks import trace
from tests.workers import dead_letters, on_redis, put, work

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = dt.timedelta(minutes=1)


@task(bind=True, max_retries=3, default_retry_delay=3600)
def try_later(self: Task[..., Any], label: str) -> None:
    if self.request.retries == 0:
        raise self.retry()
    Run.objects.create(label=label)


@task
def ignore(label: str) -> None:
    Run.objects.create(label=label)
    raise Ignore


@pytest.fixture
def lose(broker_url: str, valkey_server: Valkey) -> Callable[[], None]:
    """Loses all that is on the server."""

    def flush() -> None:
        with valkey_server.client() as client:
            client.flushall()

    return flush


def send(*labels: str, to: Task[..., Any] = trace, **options: Any) -> list[str]:
    """Send tasks inside a transaction; their ids."""
    with transaction.atomic():
        return [to.apply_async((label,), **options).id for label in labels]


def lost(before: dt.datetime | None = None, **options: Any) -> list[Call]:
    before = before or timezone.now()
    return [call for calls in recovery.lost(before, **options) for call in calls]


def ids(calls: list[Call]) -> set[str]:
    return {call.id for call in calls}


def runs() -> list[str]:
    return sorted(Run.objects.values_list("label", flat=True))


# ------------------------------------------------------------------------- what is lost


def test_what_was_committed_before_the_server_was_lost_runs(lose: Callable[[], None]) -> None:
    sent = send("a", "b", "c")
    lose()
    found = lost()
    assert ids(found) == set(sent)
    assert recovery.put_back(found, timezone.now()) == 3
    work()
    assert runs() == ["a", "b", "c"]
    assert set(TaskResult.objects.values_list("state", flat=True)) == {State.SUCCESS}


def test_what_was_due_later_is_due_later_again(lose: Callable[[], None]) -> None:
    send("later", countdown=3600, priority=9)
    lose()
    recovery.put_back(lost(), timezone.now())
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.due) == (0, 1)
    (raw,) = broker.get().scan("default")
    assert message.decode(raw, "default").marks.redelivered


def test_the_next_attempt_comes_at_its_time(lose: Callable[[], None]) -> None:
    (sent,) = send("again", to=try_later)
    work()
    row = TaskResult.objects.get(id=sent)
    assert (row.state, row.attempts) == (State.RETRY, 1)
    assert lost() == []
    lose()
    assert [(call.id, call.state, call.eta) for call in lost()] == [(sent, "RETRY", row.eta)]
    recovery.put_back(lost(), timezone.now())
    assert broker.get().stats("default").due == 1
    TaskResult.objects.update(eta=timezone.now())
    lose()
    recovery.put_back(lost(), timezone.now())
    work()
    row.refresh_from_db()
    assert (runs(), row.state, row.attempts) == (["again"], State.SUCCESS, 2)


def test_sent_outside_a_transaction_its_next_attempt_is_kept(lose: Callable[[], None]) -> None:
    sent = try_later.delay("outside").id
    work()
    lose()
    assert ids(lost()) == {sent}


# --------------------------------------------------------------------- what is not lost


def test_wherever_the_message_is_it_is_found(lose: Callable[[], None]) -> None:
    send("dead")
    claim = broker.get().claim("default", "reader", 1, 10, 60)
    assert broker.get().dead_letter("default", "reader", claim.messages[0][0], "why", "reader")
    send("in flight")
    broker.get().claim("default", "reader", 2, 10, 60)
    send("waiting", queue="high", priority=9)
    send("due", countdown=3600, queue="low")
    assert TaskResult.objects.count() == 4
    assert lost() == []


def test_what_never_left_is_the_relay_s(lose: Callable[[], None]) -> None:
    send("unpublished")
    TaskResult.objects.update(published_at=None)
    lose()
    assert lost() == []


def test_what_is_new_is_left_alone(lose: Callable[[], None]) -> None:
    tried = send("tried", to=try_later)
    work()
    waiting = send("waiting")
    lose()
    TaskResult.objects.filter(id__in=tried).update(published_at=timezone.now() - MINUTE)
    assert lost(timezone.now() - MINUTE / 2) == []
    assert ids(lost()) == {*tried, *waiting}


def test_what_has_ended_is_left_alone(lose: Callable[[], None]) -> None:
    sent = send("a", "b")
    lose()
    found = lost()
    TaskResult.objects.filter(id=sent[0]).update(state=State.REVOKED)
    assert recovery.put_back(found, timezone.now()) == 1
    work()
    assert runs() == ["b"]


def test_what_was_ignored_is_left_alone(lose: Callable[[], None]) -> None:
    """It has run, and has its end."""
    (sent,) = send("a", to=ignore)
    TaskResult.objects.update(published_at=None)  # the sender died before it could say so
    work()
    assert (runs(), TaskResult.objects.get(id=sent).state) == (["a"], State.REVOKED)
    assert publish.relay(timezone.now() + MINUTE) == 0
    assert lost(timezone.now() + MINUTE) == []


def test_a_broker_that_is_away_changes_nothing(
    lose: Callable[[], None], settings: Settings
) -> None:
    send("a")
    lose()
    found, before = lost(), timezone.now()
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "redis://127.0.0.1:1/0"}
    with pytest.raises(BrokerUnavailable):
        recovery.put_back(found, before)
    with pytest.raises(BrokerUnavailable):
        lost(before)
    assert TaskResult.objects.filter(published_at__lt=before).count() == 1


def test_tasks_named_are_left_alone(lose: Callable[[], None]) -> None:
    send("a")
    lose()
    assert lost(unless=["tests.tasks.trace"]) == []
    assert len(lost(unless=["another"])) == 1


def test_a_queue_that_is_not_declared_is_told_of(
    lose: Callable[[], None], settings: Settings
) -> None:
    send("a", "b", queue="low")
    lose()
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}}}
    assert lost() == []
    assert recovery.undeclared(timezone.now()) == {"low": 2}


def test_given_back_while_it_is_looked_for(lose: Callable[[], None]) -> None:
    """It goes from where nobody has looked yet to where somebody has."""
    send("moves")
    ((number, _),) = broker.get().claim("default", "reader", 1, 1, 60).messages
    put(b"another")

    def give_back() -> None:
        returned = [Returned(number)]
        broker.get().release("default", "reader", returned)

    assert lost(read=give_back) == []
    assert on_redis() == (2, 0)


# ---------------------------------------------------------------------- twice, and at once


def test_a_second_run_does_nothing(lose: Callable[[], None]) -> None:
    send("a", "b")
    lose()
    before = timezone.now()
    found = lost(before)
    assert recovery.put_back(found, before) == 2
    assert lost(before) == []
    assert lost() == []  # they are on the broker
    assert recovery.put_back(found, before) == 0
    assert on_redis() == (2, 0)


def test_several_at_once_put_back_once(lose: Callable[[], None]) -> None:
    send(*map(str, range(1200)))
    lose()
    before = timezone.now()
    found = lost(before)
    start, counts = threading.Barrier(3), list[int]()

    def one() -> None:
        start.wait()
        try:
            counts.append(recovery.put_back(found, before))
        finally:
            connections.close_all()
            broker.get().close()

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(counts), on_redis()) == (1200, (1200, 0))


def test_put_back_although_it_was_there_it_is_recorded_once(lose: Callable[[], None]) -> None:
    send("doubled")
    rows = TaskResult.objects.values_list(*Call._fields)
    assert recovery.put_back([Call(*row) for row in rows], timezone.now()) == 1
    assert on_redis() == (2, 0)
    work()
    assert on_redis() == (0, 0)
    assert TaskResult.objects.get().state == State.SUCCESS


def test_compared_in_parts(lose: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_COMPARED", 3)
    sent = send(*map(str, range(10)))
    lose()
    parts = list(recovery.lost(timezone.now()))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert {call.id for part in parts for call in part} == set(sent)


def test_a_row_that_cannot_be_sent_is_left_alone(lose: Callable[[], None]) -> None:
    now = timezone.now()
    TaskResult.objects.create(id="empty", task="x", queue="default", published_at=now)
    TaskResult.objects.create(
        id="odd", task="x", queue="default", published_at=now, message=b"not json"
    )
    found = lost(now + MINUTE)
    assert ids(found) == {"odd"}
    assert recovery.put_back(found, now + MINUTE) == 0
    assert (on_redis(), dead_letters()) == ((0, 0), [])


# ------------------------------------------------------------------ reading a whole queue


_PLACES = (b"in flight", b"dead", b"waiting", b"due")


@pytest.fixture(params=["redis", "memory"])
def port(request: pytest.FixtureRequest) -> Broker:
    if request.param == "memory":
        return MemoryBroker()
    return RedisBroker(request.getfixturevalue("broker_url"))


def test_everything_of_a_queue_is_read(port: Broker) -> None:
    raws = {place: [b"%s %d" % (place, n) for n in range(450)] for place in _PLACES}
    port.push([Outgoing("mail", raw) for raw in raws[b"in flight"]])
    port.claim("mail", "one", 1, 200, 60)
    port.claim("mail", "two", 1, 250, 60)
    port.push([Outgoing("mail", raw) for raw in raws[b"dead"]])
    for number, _raw in port.claim("mail", "three", 1, 450, 60).messages:
        assert port.dead_letter("mail", "three", number, "why", "three")
    port.push([Outgoing("mail", raw, n % 10) for n, raw in enumerate(raws[b"waiting"])])
    port.push([Outgoing("mail", raw, n % 10, 4e9) for n, raw in enumerate(raws[b"due"])])
    port.push([Outgoing("other", b"of another queue")])
    found = list(port.scan("mail"))
    assert sorted(found) == sorted(raw for kind in raws.values() for raw in kind)


def test_an_empty_queue_has_nothing_to_read(port: Broker) -> None:
    assert list(port.scan("nobody's")) == []


def test_a_ledger_restored_from_a_backup(broker_url: str) -> None:
    with transaction.atomic():
        before = trace.delay("before")
    backup = TaskResult.objects.filter(id=before.id).values().get()
    with transaction.atomic():
        after = trace.delay("after, waiting")
    claim = broker.get().claim("default", "reader", 1, 1, 60)
    assert broker.get().ack("default", "reader", [claim.messages[0][0]]) == 1  # it has ended since
    TaskResult.objects.all().delete()
    TaskResult.objects.create(**backup)
    call_command("jobs_recover", "--apply", "--older-than", "0", stdout=io.StringIO())
    work()
    found = dict(TaskResult.objects.values_list("id", "state"))
    assert found == {before.id: "SUCCESS", after.id: "SUCCESS"}
