"""What a vanished consumer held comes back, and only what it was doing is held against it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from pytest_django import Settings

from jobs import broker, message
from jobs.broker.base import Outgoing
from jobs.broker.sharding import Sharded
from jobs.exceptions import BrokerUnavailable
from jobs.message import Killed, Message
from jobs.worker.board import key
from jobs.worker.child import Options
from jobs.worker.supervisor import upkeep
from jobs.worker.supervisor.starting import Starter
from jobs.worker.supervisor.supervisor import Supervisor
from tests.workers import put, put_message

pytestmark = pytest.mark.usefixtures("broker_url")


def claim(worker: str, queue: str = "default") -> list[tuple[int, bytes]]:
    return broker.get().claim(queue, worker, 1, 10, 60).messages


def again(queue: str = "default") -> list[Message]:
    """What is back on the queue, in order."""
    return [message.decode(raw, queue) for _, raw in claim("reader", queue)]


def held_by_one(*labels: str, queue: str = "default") -> None:
    for label in labels:
        put_message(queue=queue, task="tests.tasks.trace", args=[label])
    assert len(claim("gone", queue)) == len(labels)


def test_only_what_was_running_is_blamed() -> None:
    held_by_one("a", "b", "c")
    assert upkeep.return_deliveries(["default"], "gone", blamed={key("default", 2)}) == 3
    assert [(one.args, one.marks.crashes, one.marks.redelivered) for one in again()] == [
        (["a"], 0, True),
        (["b"], 1, True),
        (["c"], 0, True),
    ]


def test_a_number_of_another_queue_is_another_delivery() -> None:
    held_by_one("a", queue="default")
    held_by_one("b", queue="low")
    assert upkeep.return_deliveries(["default", "low"], "gone", blamed={key("low", 1)}) == 2
    assert [one.marks.crashes for one in again() + again("low")] == [0, 1]


def test_what_it_was_killed_for(caplog: pytest.LogCaptureFixture) -> None:
    held_by_one("a", "b", "c")
    killed = {key("default", 1): Killed.TIME_LIMIT, key("default", 3): Killed.REVOKED}
    upkeep.return_deliveries(["default"], "gone", killed=killed)
    assert [(one.marks.crashes, one.marks.killed) for one in again()] == [
        (0, "time limit"),
        (0, ""),
        (0, "revoked"),
    ]
    limit, revoked = (r for r in caplog.records if r.name == "jobs.worker")
    assert limit.getMessage().endswith("was killed: time limit")
    assert revoked.getMessage().endswith("was killed: revoked")
    assert (limit.levelname, revoked.levelname) == ("ERROR", "WARNING")
    # Read as `JobFilter` leaves them.
    assert limit.__dict__["task_worker"] == "gone"
    assert f"[{limit.__dict__['task_id']}]" in limit.getMessage()


def test_who_died_while_which_call_ran_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    held_by_one("a", "b")
    upkeep.return_deliveries(["default"], "gone", blamed={key("default", 2)})
    (died,) = (r for r in caplog.records if r.name == "jobs.worker")
    assert died.getMessage().endswith("died while it ran")
    assert died.__dict__["task_id"] == again()[1].id


def test_of_a_vanished_machine_nobody_knows_what_was_running() -> None:
    held_by_one("a", "b")
    broker.get().renew("default", ["gone"], -1)
    assert upkeep.reclaim_expired(["default", "low"]) == 2
    assert [one.marks.crashes for one in again()] == [1, 1]
    assert upkeep.reclaim_expired(["default"]) == 0


def test_nothing_is_taken_from_who_is_known_to_live() -> None:
    held_by_one("a")
    broker.get().renew("default", ["gone"], -1)
    assert upkeep.reclaim_expired(["default"], alive=["gone"]) == 0
    assert upkeep.reclaim_expired(["default"]) == 1


def test_what_cannot_be_read_comes_back_as_it_is() -> None:
    put(b"not json")
    claim("gone")
    assert upkeep.return_deliveries(["default"], "gone", blamed="all") == 1
    assert claim("reader") == [(1, b"not json")]


def test_foreign_messages_wake_consumers() -> None:
    """Their senders ring no bell: of two consumers that wait, each gets one."""
    ringer = upkeep.Ringer("default")
    ringer.start()
    try:
        with ThreadPoolExecutor() as threads:
            rang = [threads.submit(broker.get().wait, ["default"], 60) for _ in range(2)]
            with redis.Redis.from_url(broker.get().address) as foreign:
                foreign.lpush("default", "a", "b")
            assert [one.result(timeout=30) for one in rang] == ["default", "default"]
    finally:
        ringer.stop()
    assert [raw for _, raw in claim("w1")] == [b"a", b"b"]


def test_the_rings_grow_rare_while_nobody_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    ringer = upkeep.Ringer("default")
    monkeypatch.setattr(upkeep, "_LISTENS", 0.01)
    assert ringer.step() == upkeep._RINGS[0]
    put(b"a")
    # Never shorter, whatever the machine does meanwhile.
    assert max(ringer.step() for _ in range(50)) == upkeep._RINGS[1]
    claim("w1")
    assert ringer.step() == upkeep._RINGS[0]


def test_a_ringer_looks_closely_while_less_urgent_messages_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "_LISTENS", 0.02)
    asked: list[float] = []
    ring = Sharded.ring_for_foreign

    def note(self: Sharded, queue: str, timeout: float) -> int:
        asked.append(timeout)
        return ring(self, queue, timeout)

    monkeypatch.setattr(Sharded, "ring_for_foreign", note)
    ringer = upkeep.Ringer("default")
    ringer.step()
    broker.get().push([Outgoing("default", b"a", 9)])
    ringer.step()
    ringer.step()
    monkeypatch.setattr(upkeep, "_CLOSELY", 0.0)
    ringer.step()
    monkeypatch.setattr(ringer, "_closely_until", 0.0)
    ringer.step()
    assert asked == [0.02, 0.02, upkeep._LISTENS_CLOSELY, upkeep._LISTENS_CLOSELY, 0.02]


def test_a_ringer_without_a_broker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> int:
        raise BrokerUnavailable("it is away")

    ringer = upkeep.Ringer("default")
    put(b"a")
    with monkeypatch.context() as patch:
        patch.setattr(Sharded, "ring_for_foreign", away)
        assert 0 < ringer.step() <= 1
        assert "can't wait for messages of foreign senders" in caplog.text
    ringer.step()
    assert "waits for messages of foreign senders on default again" in caplog.text


def test_a_worker_listens_at_its_open_queues_alone(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "foreign": {"open": True}}}
    for burst, listens in ((False, ["foreign"]), (True, [])):
        options = Options(queues=("default", "foreign"), name="w", burst=burst)
        supervisor = Supervisor(options, Starter())
        supervisor._ring()
        ringers = supervisor._ringers
        assert list(ringers) == listens
        for ringer in ringers.values():
            ringer.stop()


def test_it_listens_at_those_that_it_takes_on(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "foreign": {"open": True}}}
    supervisor = Supervisor(Options(queues=("default",), name="w"), Starter())
    for change, listens in (("take_on", ["foreign"]), ("give_up", [])):
        assert getattr(supervisor._queues, change)("foreign")
        supervisor._ring()
        assert list(supervisor._ringers) == listens
