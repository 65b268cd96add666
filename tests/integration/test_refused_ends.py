"""What the broker refuses to be told of one queue; workers that die before a letter is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from jobs import broker, message, task
from jobs.broker.base import Outgoing
from jobs.broker.limiting import Lock
from jobs.exceptions import BrokerUnavailable, Reject
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.claim import admission
from jobs.worker.record import recorder
from jobs.worker.record.outcome import Delivery, Outcome, after_run, buried_types
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.supervisor import upkeep
from tests.models import Run
from tests.services import Valkey
from tests.tasks import add
from tests.workers import dead_letters, on_redis, put_message, work

pytestmark = pytest.mark.django_db(transaction=True)

LIMITS = Limits(ThreadTimer())


@task(autoretry_for=(ValueError,), default_retry_delay=3600)
def fails_and_waits() -> None:
    raise ValueError("slow")


@task
def rejects() -> None:
    Run.objects.create(label="rejects")
    raise Reject("not for me")


@pytest.fixture
def client(own_valkey: Valkey) -> Iterator[redis.Redis]:
    with own_valkey.client() as client:
        yield client


def outcomes(queue: str, *names: str, count: int | None = None) -> list[Outcome]:
    """Of calls of these tasks, which were claimed and run."""
    for name in names:
        put_message(queue, task=name, args=[1, 2] if name == add.name else [])
    made = []
    for number, raw in broker.get().claim(queue, "w", 1, 100, 60).messages:
        found = admission.prepare(queue, number, raw, worker="w", now=time.time())
        if isinstance(found, Delivery):
            found = after_run(executor.run(found, "w", LIMITS), found)
        made.append(found)
    assert len(made) == (count or len(names))
    return made


def written(*some: Outcome) -> Recorder:
    made = Recorder("w")
    for outcome in some:
        made.add(outcome)
    while made.backlog:
        made.step()
    return made


def _wrong(client: redis.Redis, key: str) -> Callable[[], Any]:
    kept = client.dump(key) if client.exists(key) else None
    client.set(key, "no list")

    def mend() -> None:
        client.delete(key)
        if kept is not None:
            client.restore(key, 0, kept)

    return mend


def _rights(client: redis.Redis, key: str) -> Callable[[], Any]:
    client.acl_setuser("default", enabled=True, nopass=True, reset_keys=True)
    names = [f"~{{{name}}}:*" for name in ("default", "low")]
    client.execute_command("ACL", "SETUSER", "default", *names, "~default*", "~low*")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "~*")


@pytest.mark.parametrize(
    ("refuse", "key"),
    [
        (_wrong, "{high}:inflight:w"),
        (_wrong, "{high}:due"),
        (_wrong, "{high}:dead"),
        (_rights, ""),
    ],
)
def test_a_refused_queue_holds_up_no_other(
    client: redis.Redis, refuse: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [add.name, fails_and_waits.name, rejects.name]
    bad, good = outcomes("high", *names), outcomes("default", *names)
    # So long ago that they may have been taken away.
    bad = [replace(outcome, claimed=0.0) for outcome in bad]
    mend = refuse(client, key)
    made = written(*bad, *good, *outcomes("low", add.name))
    states = sorted(TaskResult.objects.values_list("state", flat=True))
    assert states == ["FAILURE"] * 2 + ["RETRY"] * 2 + ["SUCCESS"] * 3
    stats = broker.get().stats("default")
    assert (stats.in_flight, stats.due, stats.dead) == (0, 1, 1)
    assert on_redis("low") == (0, 0)
    assert made.idle
    made._settle_refused(now=True)
    assert caplog.text.count("the broker refuses queue high") == 1
    mend()
    made._settle_refused(now=True)
    assert caplog.text.count("takes acknowledgements of queue high again") == 1
    stats = broker.get().stats("high")
    assert (stats.in_flight, stats.due, stats.dead) == (0, 1, 1)
    assert len(dead_letters("high")) == 1


def test_a_node_that_is_away_holds_up_the_ends_of_its_own_queues_alone(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = [add.name, fails_and_waits.name, rejects.name]
    bad, good = outcomes("high", *names), outcomes("default", *names)
    port = broker.by_shard()

    def away(verb: Callable[..., Any]) -> Callable[..., Any]:
        def asked(queue: str, *args: Any) -> Any:
            if queue == "high":
                error = BrokerUnavailable("away")
                error.partly = True
                raise error
            return verb(queue, *args)

        return asked

    monkeypatch.setattr(recorder, "_ASIDE", 0.0)
    with monkeypatch.context() as patch:
        for name in ("ack", "held", "retry_all", "dead_letter"):
            patch.setattr(port, name, away(getattr(port, name)))
        made = Recorder("w")
        for outcome in (*bad, *good, *outcomes("low", add.name)):
            made.add(outcome)
        for _ in range(3):
            made.step()
        # Of the retry nobody knows whether it is still this worker's.
        assert len(made._aside) == 1
        states = sorted(TaskResult.objects.values_list("state", flat=True))
        assert states == ["FAILURE"] * 2 + ["RETRY"] + ["SUCCESS"] * 3
        stats = broker.get().stats("default")
        assert (stats.in_flight, stats.due, stats.dead) == (0, 1, 1)
        assert on_redis("low") == (0, 0)
        made._settle_refused(now=True)
        assert caplog.text.count("the node of queue high is away") == 1
        assert made._refused["high"].pause < 1.0
    made.step()
    made._settle_refused(now=True)
    assert not made.backlog
    stats = broker.get().stats("high")
    assert (stats.in_flight, stats.due, stats.dead) == (0, 1, 1)


def test_so_much_waits_that_no_more_is_claimed(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_REFUSED_FULL", 1)
    some = outcomes("high", *[rejects.name] * 11)
    _wrong(client, "{high}:dead")
    made = written(*some[:2])
    assert made.stuck("high")
    assert not made.stuck("default")
    assert not made.crowded
    for one in some[2:]:
        made.add(one)
    made.step()
    assert made.crowded


def test_a_worker_ends_although_a_queue_is_refused(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    some = outcomes("high", rejects.name)
    mend = _wrong(client, "{high}:dead")
    made = Recorder("w")
    made.start()
    made.add(some[0])
    made.stop()
    assert "1 finished tasks of queue high are recorded, but stay" in caplog.text
    mend()
    upkeep.return_deliveries(["high"], "w")
    work()
    assert on_redis("high") == (0, 0)
    assert len(dead_letters("high")) == 1


def test_limits_that_are_refused_hold_up_nothing(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    some = outcomes("default", add.name, add.name)
    locked = [replace(one, lock=Lock(f"lock {n}", one.ended)) for n, one in enumerate(some)]
    for n in range(len(some)):
        client.lpush(f"{{unique:lock {n}}}", "no text")
    written(*locked)
    assert on_redis() == (0, 0)
    assert caplog.text.count("stay held") == 1


# ----------------------------------------------------------------- killed before the letter


class _KilledError(BaseException):
    pass


def test_killed_between_record_and_letter_it_is_buried_by_the_next(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_message(task=add.name, args=["wrong", "number", "of", "arguments"])
    some = outcomes("default", rejects.name, add.name, count=3)

    def die(*args: Any) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(broker.get(), "dead_letter", die)
        patch.setattr(broker.get(), "ack", die)
        with pytest.raises(_KilledError):
            written(*some)
    states = TaskResult.objects.order_by("state").values_list("state", flat=True)
    assert list(states) == [State.FAILURE, State.FAILURE, State.SUCCESS]
    assert dead_letters() == []
    upkeep.return_deliveries(["default"], "w")
    work()
    letters = dead_letters()
    assert sorted(letter.reason.partition(":")[0] for letter in letters) == [
        "Reject",
        "WrongArguments",
    ]
    assert next(x.reason for x in letters if "Reject" in x.reason) == "Reject: not for me"
    assert on_redis() == (0, 0)
    assert Run.objects.count() == 1
    # A copy of it: its letter is there.
    put_again = next(letter.raw for letter in letters if "Reject" in letter.reason)
    broker.get().push([Outgoing("default", message.mark_redelivered(put_again, crashed=False)[0])])
    work()
    assert (len(dead_letters()), on_redis(), Run.objects.count()) == (2, (0, 0), 1)


def test_ends_that_leave_a_letter() -> None:
    found = buried_types()
    assert {f"jobs.exceptions.{one}" for one in ("WorkerLost", "Reject", "WrongArguments")} <= found
    assert f"{__name__}.RejectsAlike" in found


class RejectsAlike(Reject):
    """A project's own."""
