"""The relay: what was committed and never published is published, by whoever comes first."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, message
from jobs.exceptions import BrokerUnavailable
from jobs.ledger import publish
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.supervisor.upkeep import Relay
from tests.models import Run
from tests.tasks import add, trace
from tests.workers import dead_letters, on_redis, put, work

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0}


def leave_behind(count: int, **options: object) -> list[str]:
    """Commit tasks as a process does that dies before it can publish them; their ids."""
    ids = []
    with transaction.atomic():
        for n in range(count):
            ids.append(trace.apply_async((f"task {n}",), **options).id)  # type: ignore[arg-type]
        connection.run_on_commit.clear()
    assert on_redis() == (0, 0)
    return ids


def test_in_order_in_batches_and_marked(broker_url: str) -> None:
    ids = leave_behind(1100)
    assert publish.relay() == 1100
    assert TaskResult.objects.filter(published_at=None).count() == 0
    claim = broker.get().claim("default", "reader", 1, 1000, 60)
    sent = [message.decode(raw, "default") for _, raw in claim.messages]
    assert [one.id for one in sent] == sorted(ids)[:1000]
    assert all(one.marks.redelivered for one in sent)


def test_only_what_is_old_enough(settings: Settings) -> None:
    leave_behind(1)
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 500}
    assert publish.relay() == 0
    assert publish.relay(timezone.now() + dt.timedelta(seconds=400)) == 0
    assert publish.relay(timezone.now() + dt.timedelta(seconds=501)) == 1


def test_with_its_due_time_and_priority() -> None:
    leave_behind(1, countdown=3600, priority=9)
    assert publish.relay() == 1
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.due) == (0, 1)


def test_a_broken_push_marks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(2)

    def push(_: object) -> None:
        raise BrokerUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(broker.get(), "push", push)
        with pytest.raises(BrokerUnavailable):
            publish.relay()
    assert TaskResult.objects.filter(published_at=None).count() == 2
    assert publish.relay() == 2


def test_several_at_once_publish_once() -> None:
    leave_behind(800)
    start = threading.Barrier(3)
    counts: list[int] = []

    def one() -> None:
        start.wait()
        try:
            counts.append(publish.relay())
        finally:
            connections.close_all()
            broker.get().close()

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 800
    assert on_redis() == (800, 0)


def publish_without_marking() -> bytes:
    """Send a task as a process does that dies between publishing and marking; its message."""
    with transaction.atomic():
        trace.delay("doubled")
        hook = connection.run_on_commit.pop()[1]
        raw: bytes = hook.batch[0].outgoing.raw  # type: ignore[attr-defined]
    put(raw)
    return raw


def test_published_and_not_marked_it_runs_once() -> None:
    publish_without_marking()
    copy = broker.get().claim("default", "reader", 1, 1, 60).messages[0][1]
    put(copy)
    work()
    put(message.mark_redelivered(copy, crashed=False)[0])  # what the relay sends
    work()
    put(copy)  # old enough to have been relayed
    work()
    assert Run.objects.count() == 1
    assert on_redis() == (0, 1)  # that of "reader"


def test_put_back_after_its_end_was_recorded_it_does_not_run_again() -> None:
    """The worker died between recording and acknowledging; no transaction, no relay."""
    trace.delay("outside")
    raw = broker.get().claim("default", "reader", 1, 1, 60).messages[0][1]
    put(raw)
    work()
    put(message.mark_redelivered(raw, crashed=True)[0])
    work()
    assert (Run.objects.count(), on_redis()) == (1, (0, 1))


def test_what_has_ended_needs_no_second_copy() -> None:
    publish_without_marking()
    work()
    assert publish.relay() == 0


def test_two_copies_at_once_are_recorded_once() -> None:
    publish_without_marking()
    assert publish.relay() == 1
    assert on_redis() == (2, 0)
    work()
    assert on_redis() == (0, 0)
    row = TaskResult.objects.get()
    assert row.state == State.SUCCESS
    assert 1 <= Run.objects.count() <= 2


def test_a_row_that_cannot_be_read_holds_nothing_up() -> None:
    TaskResult.objects.create(id="0-broken", task="tests.tasks.add", queue="default")
    leave_behind(2)
    assert publish.relay() == 2  # beat's: it can end no call
    work()
    assert sorted(Run.objects.values_list("label", flat=True)) == ["task 0", "task 1"]
    row = TaskResult.objects.get(id="0-broken")
    assert row.state == State.PENDING
    Relay().step()
    row.refresh_from_db()
    assert (row.state, row.task) == (State.FAILURE, "tests.tasks.add")
    assert "can't be put on its queue: " in row.error
    assert (dead_letters(), on_redis()) == ([], (0, 0))


def test_what_waits_for_one_that_cannot_be_read_goes_on() -> None:
    (broken,) = leave_behind(1)
    TaskResult.objects.update(message=b"{", group_id="a group", group_index=1)
    Relay().step()
    row = TaskResult.objects.get(id=broken)
    assert (row.state, row.group_id, row.group_index) == (State.FAILURE, "a group", 1)


def test_each_worker_relays() -> None:
    leave_behind(1)
    relay = Relay()
    relay.step()
    assert on_redis() == (1, 0)
    relay.start()
    relay.stop()  # wakes it: it sleeps for seconds
    assert relay.join(20)


def test_nothing_to_do_takes_no_transaction(django_assert_num_queries: object) -> None:
    add.delay(1, 1)
    with django_assert_num_queries(1) as queries:  # type: ignore[operator]
        assert publish.relay() == 0
    assert queries[0]["sql"].startswith("SELECT")
