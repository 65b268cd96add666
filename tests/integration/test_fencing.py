"""A worker whose deliveries were taken away changes nothing any more."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from jobs import broker, conf, message, task
from jobs.broker.base import Claim
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.record.outcome import (
    Dead,
    Delivery,
    Later,
    Outcome,
)
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.runners import ack_early
from jobs.worker.supervisor import upkeep
from tests.tasks import add, fail
from tests.workers import on_redis, put_message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

LIMITS = Limits(ThreadTimer())


@task(autoretry_for=(ValueError,), default_retry_delay=3600)
def fails_and_waits() -> None:
    raise ValueError("slow")


def claim(worker: str, first: int = 1) -> Claim:
    return broker.get().claim("default", worker, first, 10, 60)


def outcome_of(worker: str, number: int, raw: bytes, *, claimed: float) -> Outcome:
    """What this worker makes of a delivery that it claimed so many seconds ago."""
    prepared = admission.prepare("default", number, raw, worker=worker, now=time.time())
    if isinstance(prepared, Outcome):
        return prepared
    outcome = executor.run(prepared, worker, LIMITS)
    return replace(outcome, claimed=time.monotonic() - claimed)


def lost_outcome(task_name: str, *args: Any, claimed: float = 3600) -> tuple[Recorder, Outcome]:
    """Of a slow worker's only delivery, which is back on the queue by the time it is done."""
    put_message(task=task_name, args=list(args))
    ((number, raw),) = claim("slow").messages
    outcome = outcome_of("slow", number, raw, claimed=claimed)
    assert upkeep.return_deliveries(["default"], "slow", blamed="all") == 1
    return Recorder("slow"), outcome


def write(recorder: Recorder, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        recorder.add(outcome)
    recorder.step()


@pytest.mark.parametrize("name", [add.name, fail.name, fails_and_waits.name, "nobody's"])
@pytest.mark.parametrize("claimed_by_another", [True, False])
def test_a_lost_outcome_changes_nothing(
    name: str, claimed_by_another: bool, caplog: pytest.LogCaptureFixture
) -> None:
    args = {add.name: (1, 2), fail.name: ("wrong",)}.get(name, ())
    recorder, outcome = lost_outcome(name, *args)
    # Where a message that was never run came back its claim's time isn't known.
    outcome = replace(outcome, claimed=time.monotonic() - 3600)
    if claimed_by_another:
        claim("quick")
    write(recorder, outcome)
    assert TaskResult.objects.count() == 0
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.in_flight) == ((0, 1) if claimed_by_another else (1, 0))
    assert (stats.due, stats.dead) == (0, 0)
    assert "was taken over by another worker; its outcome here is dropped" in caplog.text


def test_others_of_its_batch_are_written() -> None:
    ids = [put_message(task=add.name, args=[n, n]) for n in range(3)]
    upkeep.return_deliveries(["default"], "slow")  # its lease has ended once
    messages = claim("slow").messages
    outcomes = [outcome_of("slow", number, raw, claimed=3600) for number, raw in messages]
    broker.get().ack("default", "slow", [2])  # as if it had been taken away
    write(Recorder("slow"), *outcomes)
    rows = TaskResult.objects.values_list("id", flat=True)
    assert set(rows) == {ids[0], ids[2]}
    assert on_redis() == (0, 0)


def test_what_was_just_claimed_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease can't have ended so soon; asking would cost every batch a round trip."""
    put_message(task=add.name, args=[1, 2])
    ((number, raw),) = claim("w").messages
    monkeypatch.setattr(broker.get(), "held", None)
    write(Recorder("w"), outcome_of("w", number, raw, claimed=0.0))
    assert TaskResult.objects.get().state == State.SUCCESS


def test_its_verbs_do_nothing() -> None:
    recorder, outcome = lost_outcome(fails_and_waits.name, claimed=0.0)
    assert isinstance(outcome, Later)
    recorder._settle([outcome])
    assert broker.get().stats("default")[:4] == (1, 0, 0, 0)
    dead = Dead("default", outcome.number, reason="why")
    recorder._settle([dead])
    assert broker.get().stats("default")[:4] == (1, 0, 0, 0)


def test_one_that_is_acknowledged_early_does_not_start() -> None:
    put_message(task=add.name, args=[1, 2])
    ((number, raw),) = claim("slow").messages
    prepared = admission.prepare("default", number, raw, worker="slow", now=time.time())
    assert isinstance(prepared, Delivery)
    upkeep.return_deliveries(["default"], "slow")
    assert ack_early(prepared, "slow") is False
    assert on_redis() == (1, 0)


def test_one_that_was_acknowledged_early_is_recorded_however_late() -> None:
    put_message(task=add.name, args=[1, 2])
    ((number, raw),) = claim("slow").messages
    outcome = outcome_of("slow", number, raw, claimed=3600)
    broker.get().ack("default", "slow", [number])
    write(Recorder("slow"), replace(outcome, held=False))
    assert TaskResult.objects.get().state == State.SUCCESS


def lost_with_the_data(task_name: str, *args: Any, claimed: float = 3600) -> tuple[str, Recorder]:
    """A call whose outcome waits to be recorded when the broker has lost all that it held."""
    task_id = put_message(task=task_name, args=list(args))
    ((number, raw),) = claim("w").messages
    outcome = outcome_of("w", number, raw, claimed=claimed)
    with redis.Redis.from_url(conf.get().broker_url) as client:
        client.flushall()
    recorder = Recorder("w")
    recorder.add(outcome)
    return task_id, recorder


@pytest.mark.parametrize("claimed", [0, 3600])
@pytest.mark.parametrize(("name", "state"), [(add.name, State.SUCCESS), (fail.name, State.FAILURE)])
def test_what_the_broker_has_lost_is_recorded(
    name: str, state: State, claimed: float, caplog: pytest.LogCaptureFixture
) -> None:
    args = {add.name: (1, 2), fail.name: ("wrong",)}[name]
    task_id, recorder = lost_with_the_data(name, *args, claimed=claimed)
    recorder.step()
    assert TaskResult.objects.get(id=task_id).state == state
    assert "taken over" not in caplog.text


@pytest.mark.parametrize("claimed", [0, 3600])
def test_what_the_broker_has_lost_is_tried_again(claimed: float) -> None:
    task_id, recorder = lost_with_the_data(fails_and_waits.name, claimed=claimed)
    recorder.step()
    assert TaskResult.objects.get(id=task_id).state == State.RETRY
    assert broker.get().stats("default").due == 1


def test_a_second_end_of_what_the_broker_has_lost_changes_nothing() -> None:
    task_id, recorder = lost_with_the_data(fail.name, "first")
    # Sent again, as `jobs_recover` does, and run elsewhere before the first outcome is recorded.
    put_message(task=fail.name, args=["second"], id=task_id)
    ((number, raw),) = claim("other").messages
    write(Recorder("other"), outcome_of("other", number, raw, claimed=0))
    recorder.step()
    row = TaskResult.objects.get(id=task_id)
    assert (row.worker, row.error) == ("other", "second")


@pytest.mark.parametrize("ends", [("ends", "fails"), ("fails", "ends")])
def test_of_two_ends_in_one_batch_the_first_has_followers(ends: tuple[str, str]) -> None:
    raws = {}
    for end in ends:
        put_message(
            task=add.name if end == "ends" else fail.name,
            args=[1, 2] if end == "ends" else ["wrong"],
            id="one",
            embed={"callbacks": [add.s(5).as_dict()], "errbacks": [add.si(6, 7).as_dict()]},
        )
        ((number, raw),) = claim("w", first=len(raws) + 1).messages
        raws[number] = raw
    write(Recorder("w"), *(outcome_of("w", n, raw, claimed=0) for n, raw in raws.items()))
    assert TaskResult.objects.get(id="one").state == (
        State.SUCCESS if ends[0] == "ends" else State.FAILURE
    )
    (follower,) = TaskResult.objects.exclude(id="one")
    assert follower.args == ("[3,5]" if ends[0] == "ends" else "[6,7]")


def test_a_later_end_sends_no_followers_again() -> None:
    embed = {"callbacks": [add.s(5).as_dict()]}
    task_id = put_message(task=add.name, args=[1, 2], id=message.new_id(), embed=embed)
    ((number, raw),) = claim("w").messages
    write(Recorder("w"), outcome_of("w", number, raw, claimed=0))
    (follower,) = TaskResult.objects.exclude(id=task_id)
    # The same end once more, as after an answer that was lost; then another worker's.
    for worker in ("w", "other"):
        outcome = replace(outcome_of(worker, number, raw, claimed=0), held=False)
        write(Recorder(worker), outcome)
        assert TaskResult.objects.exclude(id=task_id).get() == follower
    assert TaskResult.objects.get(id=task_id).worker == "w"
