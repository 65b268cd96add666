"""Messages purged, moved, and given another priority, with their ledger rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import (
    broker,
    chord,
    control,
    message,
)
from jobs.broker.base import Returned
from jobs.control import moving
from jobs.exceptions import BrokerUnavailable, ChordError, JobsError, TaskRevoked, UnknownQueue
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import once, trace
from tests.workers import on_redis, put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def send(count: int, **options: object) -> list[str]:
    """Ids of calls that have rows in the ledger."""
    with transaction.atomic():
        return [trace.apply_async((f"{n}",), **options).id for n in range(count)]


def states() -> set[tuple[str, str]]:
    return set(TaskResult.objects.values_list("state", "error"))


def ran() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


# ------------------------------------------------------------------------------ purge


def test_what_waits_is_purged_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_PAGE", 4)
    send(10)
    send(1, countdown=600)
    control.pause("default")  # as one does first
    assert control.purge("default") == 10
    assert on_redis() == (0, 0)
    assert broker.get().stats("default") == (0, 0, 1, 0, 0)
    assert TaskResult.objects.filter(state=State.REVOKED, error="purged").count() == 10
    assert TaskResult.objects.filter(state=State.PENDING).count() == 1


def test_what_is_due_is_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_PAGE", 4)
    send(10, countdown=600)
    send(3)
    assert control.purge("default", waiting=False, due=True) == 10
    assert broker.get().stats("default")[:3] == (3, 0, 0)
    assert TaskResult.objects.filter(state=State.REVOKED).count() == 10
    assert control.purge("default", due=True) == 3
    assert control.purge("default", due=True) == 0
    assert states() == {("REVOKED", "purged")}


def test_what_comes_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    send(3)

    def mark_revoked(ids: list[str], why: str) -> None:
        put(b"another")

    monkeypatch.setattr("jobs.ledger.mark_revoked", mark_revoked)
    monkeypatch.setattr(moving, "_PAGE", 1)
    assert control.purge("default") == 3
    assert on_redis() == (3, 0)


def test_who_waits_for_a_purged_call_is_told() -> None:
    with transaction.atomic():
        result = trace.delay("never")
    with broker.get().listen(result.id) as told:
        control.purge("default")
        assert told(5)
    assert result.state == State.REVOKED


def test_what_nobody_signed_is_purged_without_the_ledger() -> None:
    (task_id,) = send(1)
    forged = json.dumps({"body": "[[], {}, {}]", "headers": {"task": "x", "id": task_id}})
    control.move("default", "low")
    put(forged.encode())
    put(b"not json")
    assert control.purge("default") == 2
    assert states() == {("PENDING", "")}


@pytest.mark.parametrize("countdown", [None, 600])
def test_what_others_wait_for_is_ended_by_a_worker(countdown: float | None) -> None:
    calls = [trace.si("a"), trace.si("b")]
    if countdown:
        calls = [call.set(countdown=countdown) for call in calls]
    body = chord(calls)(trace.si("body"))
    unique = once.apply_async(("u",), countdown=countdown)
    assert control.purge("default", due=True) == 3
    work()
    assert ran() == []
    with pytest.raises(ChordError, match="purged"):
        body.get(timeout=0)
    with pytest.raises(TaskRevoked, match="purged"):
        unique.get(timeout=0)
    assert once.delay("u") != unique
    assert control.retry(unique.id)
    work()
    assert "u" in ran()


@pytest.mark.parametrize("shards", [1, 2])
def test_urgent_calls_that_a_worker_ends_hide_no_others(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, shards: int
) -> None:
    monkeypatch.setattr(moving, "_PAGE", 4)
    queues = {"default": {"shards": shards}, "high": {}, "low": {}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    for n in range(6):
        once.apply_async((f"urgent {n}",))
        once.apply_async((f"later {n}",), countdown=600)
        trace.apply_async((f"{n}",), priority=9)
    assert control.purge("default", due=True) == 18
    work()
    assert (states(), ran()) == ({("REVOKED", "purged")}, [])
    assert broker.get().stats("default")[:3] == (0, 0, 0)


def test_a_purge_that_is_killed_on_the_way_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it held goes back to its queue, with what it had done, at the end of its lease."""
    send(2)

    class Killed(BaseException):
        pass

    def die(*args: object) -> None:
        raise Killed

    monkeypatch.setattr("jobs.ledger.mark_revoked", die)
    monkeypatch.setattr(moving._Hands, "leave", lambda hands: None)
    with pytest.raises(Killed):
        control.purge("default")
    ((name, _lease, held),) = broker.get().consumers("default")
    assert (name.startswith("operator/"), held) == (True, 2)
    assert broker.get().reclaim("default", name, lambda n, raw: Returned(n)) == 2
    work()
    assert ran() == ["0", "1"]


def test_a_purge_that_fails_gives_back_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    send(3)

    def fail(*args: object) -> None:
        raise RuntimeError("database away")

    monkeypatch.setattr("jobs.ledger.mark_revoked", fail)
    with pytest.raises(RuntimeError, match="database away"):
        control.purge("default")
    assert on_redis() == (3, 0)
    assert broker.get().consumers("default") == []
    work()
    assert ran() == ["0", "1", "2"]


# ------------------------------------------------------------------------------ move


def test_all_that_waits_is_moved_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_PAGE", 2)
    ids = send(5, priority=4)
    send(1, countdown=600)
    trace.delay("no row")
    assert control.move("default", "low") == 6
    assert broker.get().stats("default")[:3] == (0, 0, 1)
    assert set(TaskResult.objects.filter(id__in=ids).values_list("queue", flat=True)) == {"low"}
    work(["low"])
    assert ran() == ["no row", "0", "1", "2", "3", "4"]


def test_one_is_moved() -> None:
    ids = send(3)
    (later,) = send(1, countdown=600)
    assert control.move("default", "low", task_id=ids[1]) == 1
    assert control.move("default", "low", task_id=ids[1]) == 0
    assert control.move("default", "low", task_id=later) == 1
    assert broker.get().stats("default")[:3] == (2, 0, 0)
    assert broker.get().stats("low")[:3] == (1, 0, 1)
    (due,) = broker.get().browse("low", due=True)
    row = TaskResult.objects.get(id=later)
    assert (row.queue, due.due) == ("low", pytest.approx(row.eta.timestamp(), abs=0.01))
    work(["low"])
    assert ran() == ["1"]


@pytest.mark.parametrize("wrong", ["", 7, "a\0b"])
def test_an_id_that_can_be_none_moves_nothing(wrong: Any) -> None:
    """Such as that of a variable in a shell that has no value: not all that waits is meant."""
    send(2)
    with pytest.raises((TypeError, ValueError), match="The id of a call"):
        control.move("default", "low", task_id=wrong)
    assert broker.get().stats("default").waiting == 2


def test_killed_after_it_has_pushed_a_call_runs_once() -> None:
    (task_id,) = send(1)
    (found,) = broker.get().browse("default", due=False)
    put(found.raw, "low")
    work(["low"])
    raw, _priority = message.mark_redelivered(found.raw, crashed=True)
    broker.get().take("default", "operator/killed", 1, 1, -1.0)
    broker.get().reclaim("default", "operator/killed", lambda n, _: Returned(n, 0, raw))
    work()
    assert ran() == ["0"]
    assert TaskResult.objects.get(id=task_id).state == State.SUCCESS


def test_where_it_can_not_go(settings: Settings) -> None:
    send(1)
    with pytest.raises(UnknownQueue):
        control.move("default", "nowhere")
    with pytest.raises(JobsError, match="already"):
        control.move("default", "default")
    queues = {"default": {}, "foreign": {"open": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    with pytest.raises(JobsError, match="is open and the other isn't"):
        control.move("default", "foreign")


# ------------------------------------------------------------------------------ priority


def test_a_call_that_waits_overtakes_the_others() -> None:
    ids = send(3, priority=5)
    assert control.change_priority("default", ids[2], 0) is True
    row = TaskResult.objects.get(id=ids[2])
    assert message.decode(bytes(row.message), "default").priority == 0
    work()
    assert ran() == ["2", "0", "1"]
    assert control.change_priority("default", ids[2], 0) is False


def test_a_call_that_is_due_keeps_its_time() -> None:
    (task_id,) = send(1, countdown=600)
    (before,) = broker.get().browse("default", due=True)
    for priority in (7, 7, 0):
        assert control.change_priority("default", task_id, priority) is True
        (after,) = broker.get().browse("default", due=True)
        assert (after.priority, after.due) == (priority, before.due)
    assert control.move("default", "low", task_id=task_id) == 1


def test_priorities_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="from 0"):
        control.change_priority("default", "id", 10)


@pytest.mark.usefixtures("db")
def test_with_the_broker_away(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "redis://127.0.0.1:1/0"}
    for verb in (control.purge, control.pause, control.resume):
        with pytest.raises(BrokerUnavailable):
            verb("default")
