"""Which queue is asked first, which calls wait for others, and which run alone."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError
from msgspec.structs import replace

from jobs import broker, ledger, message, task
from jobs.api.task import Task
from jobs.broker.base import Claim, Outgoing
from jobs.broker.memory import MemoryBroker
from jobs.exceptions import BrokerUnavailable
from jobs.message import Marks, Message
from jobs.worker.board import Board
from jobs.worker.claim.consumer import (
    ClaimSize,
    Consumer,
    Gathering,
    Idling,
    Order,
    Quarantine,
)
from jobs.worker.record.outcome import Delivery, Outcome, each
from jobs.worker.record.recorder import Recorder
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.runners import AsyncRunner, Runners, SyncRunners
from tests.services import wait_for

WEIGHTS = {"high": 6, "default": 3, "low": 1}


def pass_of(chosen: Order, waiting: Counter[str], room: int) -> list[tuple[str, int]]:
    """What one pass of a consumer asks and gets; takes it from what waits."""
    asked, claimed = [], 0
    for queue in chosen.next():
        got = min(waiting[queue], room - claimed)
        chosen.asked(queue, room - claimed, got=got)
        waiting[queue] -= got
        asked.append((queue, got))
        claimed += got
        if claimed >= room:
            break
    return asked


def passes(
    chosen: Order, waiting: Counter[str], count: int, room: int = 1
) -> list[list[tuple[str, int]]]:
    return [pass_of(chosen, waiting, room) for _ in range(count)]


def totals(asked: list[list[tuple[str, int]]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in asked:
        found.update(dict(one))
    return found


def busy(**waiting: int) -> Counter[str]:
    return Counter(waiting or dict.fromkeys(WEIGHTS, 1_000_000))


def weighted() -> Order:
    return Order(list(WEIGHTS), list(WEIGHTS.values()))


def test_strict_order_never_changes() -> None:
    strict = Order(["high", "low"], [])
    assert totals(passes(strict, busy(high=5, low=5), 7)) == {"high": 5, "low": 2}
    assert strict.next() == ["high", "low"]


@pytest.mark.parametrize("room", [1, 7, 500])
def test_shares_are_exact(room: int) -> None:
    found = totals(passes(weighted(), busy(), 100, room))
    assert found == {"high": 60 * room, "default": 30 * room, "low": 10 * room}


def test_shares_are_spread_not_in_a_row() -> None:
    firsts = [queue for [(queue, _)] in passes(weighted(), busy(), 10)]
    assert Counter(firsts) == WEIGHTS
    assert firsts[:3] == ["high", "default", "low"]
    assert "high high high high" not in " ".join(firsts)


def test_it_is_the_same_every_time() -> None:
    assert passes(weighted(), busy(), 50, 3) == passes(weighted(), busy(), 50, 3)


def test_round_robin_is_equal_weights() -> None:
    turns = Order(["a", "b", "c"], [1, 1, 1])
    firsts = [queue for [(queue, _)] in passes(turns, busy(a=9, b=9, c=9), 6)]
    assert firsts == ["a", "b", "c", "a", "b", "c"]


def test_what_an_empty_queue_leaves_is_shared_by_weight() -> None:
    found = totals(passes(weighted(), busy(default=10_000, low=10_000), 400, 10))
    assert found["default"] == pytest.approx(3000, abs=20)
    assert found["low"] == pytest.approx(1000, abs=20)


@pytest.mark.parametrize("only", WEIGHTS)
def test_an_empty_queue_is_asked_no_more_often_than_its_weight_says(only: str) -> None:
    asked = passes(weighted(), busy(**{only: 1_000_000}), 1000, 10)
    times = Counter(queue for one in asked for queue, _ in one)
    assert times[only] == 1000
    for queue in set(WEIGHTS) - {only}:
        # In strict order: at each pass, if it stands before.
        assert times[queue] <= max(1, WEIGHTS[queue] / WEIGHTS[only]) * 1000
        assert times[queue] >= min(1, WEIGHTS[queue] / WEIGHTS[only]) * 1000 * 0.9


def test_nobody_saves_up_while_empty() -> None:
    chosen = weighted()
    passes(chosen, busy(low=100_000), 1000, 10)
    found = totals(passes(chosen, busy(), 100, 10))
    assert found["low"] == pytest.approx(100, abs=20)


def test_nobody_saves_up_while_it_is_not_asked() -> None:
    chosen = weighted()
    for _ in range(600):
        chosen.asked("high", 1, got=1)
    chosen.woke("low")
    assert totals(passes(chosen, busy(high=1000, low=1000), 70))["low"] == pytest.approx(10, abs=1)


def test_nobody_owes_what_it_got_while_the_others_were_empty() -> None:
    chosen = weighted()
    waiting = busy(low=1)
    for _ in range(1000):  # one message at a time, and never another queue's
        passes(chosen, waiting, 1, 10)
        waiting["low"] += 1
    found = totals(passes(chosen, busy(), 100, 10))
    assert found["low"] == pytest.approx(100, abs=20)


def test_none_starves_whatever_arrives() -> None:
    chosen, waiting = weighted(), busy(high=0, default=0, low=50)
    last = 0
    for n in range(300):
        waiting["high"] += 10  # as much as a pass takes
        waiting["default"] += n % 3
        if dict(pass_of(chosen, waiting, 10)).get("low"):
            last = n
        assert n - last <= 11 or not waiting["low"]
    assert waiting["low"] == 0


# ----------------------------------- calls of a batch wait for others; `now` is monotonic seconds

ONE = Task(lambda requests: None, name="one", batch=3, batch_wait=0.5)
TWO = Task(lambda requests: None, name="two", batch=5, batch_wait=2.0)
PLAIN = Task(lambda: None, name="plain")
_numbers: Iterator[int] = iter(range(1, 1000))


def call(task: Task[..., Any], **fields: Any) -> Delivery:
    sent = Message(task=task.name, id=message.new_id(), queue="default", **fields)
    return Delivery("default", next(_numbers), b"", sent, task)


def batches(deliveries: list[Delivery]) -> list[list[int]]:
    return [[one.number for one in each([delivery])] for delivery in deliveries]


@pytest.fixture
def gathering() -> Gathering:
    return Gathering(1000)


def test_what_is_no_batch_goes_on_at_once(gathering: Gathering) -> None:
    plain = call(PLAIN)
    assert gathering.add([plain], 100.0) == [plain]
    assert not gathering


def test_a_full_batch_goes_on_as_one_delivery_in_order(gathering: Gathering) -> None:
    calls = [call(ONE) for _ in range(7)]
    ready = gathering.add(calls, 100.0)
    assert batches(ready) == [[c.number for c in calls[:3]], [c.number for c in calls[3:6]]]
    assert gathering
    assert gathering.missing() == 2


def test_the_first_call_waits_no_longer_than_it_should(gathering: Gathering) -> None:
    first, second = call(ONE), call(ONE)
    assert gathering.add([first], 100.0) == []
    assert gathering.add([second], 100.4) == []
    assert gathering.wait(100.4) == pytest.approx(0.1)
    assert gathering.due(100.4) == []
    assert batches(gathering.due(100.5)) == [[first.number, second.number]]
    assert not gathering
    assert gathering.due(200.0) == []


def test_each_task_has_its_own(gathering: Gathering) -> None:
    one, two = call(ONE), call(TWO)
    gathering.add([one, two], 100.0)
    assert gathering.missing() == 4
    assert batches(gathering.due(101.0)) == [[one.number]]
    assert gathering.wait(101.0) == pytest.approx(1.0)
    assert batches(gathering.take_back()) == [[two.number]]
    assert not gathering


def test_one_whose_process_died_is_run_by_itself(gathering: Gathering) -> None:
    calls = [call(ONE), call(ONE, marks=Marks(crashes=1)), call(ONE)]
    assert batches(gathering.add(calls, 100.0)) == [[calls[1].number]]
    assert batches(gathering.due(101.0)) == [[calls[0].number, calls[2].number]]


def test_a_batch_is_no_larger_than_the_board() -> None:
    calls = [call(TWO) for _ in range(4)]
    assert [len(one) for one in batches(Gathering(2).add(calls, 100.0))] == [2, 2]


# ------------------------------------ what ran in a process that died runs with nothing beside it

PLACES = 6


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.make(PLACES)
    yield board
    board.close()


class House:
    """A child's runners and its quarantine; tasks in it wait until they are let go."""

    def __init__(self, board: Board, threads: int) -> None:
        self.started: list[int] = []
        self.go = threading.Semaphore(0)
        self.done: list[Outcome] = []
        limits = Limits(ThreadTimer())
        self.recorder = Recorder("w")
        self.sync = SyncRunners("w", board, limits, self.recorder)
        self.loop = AsyncRunner("w", 2, board, limits, self.recorder)
        self.sync.done = self.loop.done = self.done.append
        self.runners = Runners(self.sync, self.loop)
        self.loop.wanted = False
        if threads > 1:
            self.sync.start(threads)
        self.quarantine = Quarantine(self.runners)

        @task(name="tests.waits", ignore_result=True)
        def waits(number: int) -> None:
            self.started.append(number)
            assert self.go.acquire(timeout=20)

        @task(name="tests.awaits", ignore_result=True)
        async def awaits(number: int) -> None:
            self.started.append(number)
            assert await asyncio.to_thread(self.go.acquire, timeout=20)

        self._task: Task[..., None] = waits
        self._async_task: Task[..., Any] = awaits

    def async_delivery(self, number: int) -> Delivery:
        task = self._async_task
        return replace(self.delivery(number, 1), task=task)

    def delivery(self, number: int, crashes: int) -> Delivery:
        sent = Message(
            task="tests.waits",
            id=str(number),
            queue="default",
            args=[number],
            marks=Marks(crashes=crashes),
        )
        return Delivery("default", number, b"", sent, self._task)

    def end(self) -> None:
        for _ in range(PLACES):
            self.go.release()
        self.sync.stop()
        self.sync.join()
        self.loop.stop()


@pytest.fixture
def house(board: Board) -> Iterator[House]:
    house = House(board, threads=3)
    yield house
    house.end()


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [d.number for d in deliveries]


def test_one_after_the_other_and_nothing_beside(house: House) -> None:
    mixed = [house.delivery(1, 0), house.delivery(2, 1), house.delivery(3, 2)]
    assert numbers(house.quarantine.hold(mixed)) == [1]
    assert house.quarantine.busy
    house.sync.submit(mixed[:1])
    wait_for(lambda: house.started == [1], what="the innocent one")
    house.quarantine.step()
    assert not house.sync.unstarted  # 1 still runs
    house.go.release()
    wait_for(lambda: len(house.done) == 1 and not house.sync.busy, what="its end")
    for nth, number in enumerate((2, 3), 2):
        house.quarantine.step()
        wait_for(lambda number=number: house.started[-1] == number, what=f"suspect {number}")
        house.quarantine.step()  # and again: the next must wait
        assert house.quarantine.busy
        assert not house.sync.unstarted
        house.go.release()
        wait_for(lambda nth=nth: len(house.done) == nth and not house.sync.busy, what="its end")
    wait_for(lambda: not house.quarantine.busy, what="the last to be counted")
    assert house.started == [1, 2, 3]


def test_one_on_the_event_loop_is_alone_too(house: House) -> None:
    house.quarantine.hold([house.async_delivery(1)])
    house.quarantine.step()
    wait_for(lambda: house.started == [1], what="it")
    assert house.quarantine.busy
    house.go.release()
    wait_for(lambda: not house.quarantine.busy, what="its end")


def test_what_waits_goes_back_when_the_worker_stops(house: House) -> None:
    house.quarantine.hold([house.delivery(n, 1) for n in (1, 2)])
    assert numbers(house.quarantine.take_back()) == [1, 2]
    assert not house.quarantine.busy


def test_where_one_at_a_time_is_run_nobody_waits(board: Board) -> None:
    house = House(board, threads=1)
    assert numbers(house.quarantine.hold([house.delivery(1, 1)])) == [1]
    assert not house.quarantine.busy


def test_an_order_of_other_queues() -> None:
    strict = Order(["high", "low"], [])
    strict.use(["low", "new"])
    assert list(strict.next()) == ["low", "new"]
    turns = Order(list(WEIGHTS), list(WEIGHTS.values()))
    passes(turns, busy(), 100)
    turns.use(["high", "low", "new"])
    asked = passes(turns, busy(high=100, low=100, new=100), 80)
    found = totals(asked)
    # New ones weigh as much as `low`.
    for queue, count in (("high", 60), ("low", 10), ("new", 10)):
        assert abs(found[queue] - count) <= 1


# ------------------------------------------------------------------------------ the whole consumer


class Away:
    """A broker that takes nothing back."""

    def release(self, *args: Any) -> None:
        raise BrokerUnavailable


def test_what_can_run_runs_although_the_rest_cannot_go_back(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer(
        "w",
        Order(["default"], ()),
        house.runners,
        house.recorder,
        board,
        burst=False,
        stop=lambda: None,
    )
    monkeypatch.setattr(broker, "get", Away)
    house.loop._places.clear()
    with pytest.raises(BrokerUnavailable):
        consumer._submit([house.async_delivery(1), house.delivery(2, 0)])
    wait_for(lambda: house.started == [2], what="the one that has a runner")


def test_a_call_is_running_as_soon_as_the_event_loop_is_handed_it(house: House) -> None:
    """Else a second message of the call might be run beside it while the loop is held up."""
    first, second, third = (house.async_delivery(n) for n in (1, 2, 3))
    assert list(house.loop.submit([first, second, third])) == [third]
    assert numbers(list(house.loop.running.values())) == [1, 2]
    assert (house.loop.busy, house.loop.room(10, 0), house.loop.idle) == (2, 0, False)
    house.go.release(2)
    wait_for(lambda: house.loop.idle, what="both to end")
    assert not house.loop.running


@pytest.mark.parametrize("awaited", [False, True])
def test_a_child_searches_only_for_calls_that_another_kind_of_runner_could_run(
    house: House, awaited: bool
) -> None:
    """Where there is no ``async def`` task, it would look again and again until a place is free."""
    house.loop.wanted = awaited
    size = ClaimSize(house.runners, house.recorder, Gathering(1))
    for number in range(house.sync.width):
        house.sync.submit([house.delivery(number, 0)])
    wait_for(lambda: house.sync.busy == house.sync.width)
    size.came_back(house.sync)
    assert size.room() == 0
    assert (size.until_search() < math.inf) is awaited
    house.go.release()
    wait_for(lambda: house.sync.busy < house.sync.width)
    assert size.room() > 0
    assert size.until_search() == math.inf


class Gathered:
    """A batch that is complete in so many seconds."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return self.seconds is not None

    def wait(self, now: float) -> float:
        return self.seconds or 0.0


@pytest.mark.parametrize(
    ("unstarted", "gathered", "burst", "for_runner", "for_bell"),
    [
        (False, None, False, 1.0, 1.0),
        (True, None, False, 0.002, 0.002),  # what waits behind a long call goes back
        (False, None, True, 1.0, 0.05),
        (True, None, True, 0.002, 0.002),
        (False, 0.3, False, 0.3, 0.3),  # nothing of it goes back
        (False, 9.0, False, 1.0, 1.0),
    ],
)
def test_how_long_a_child_with_a_long_call_waits(
    unstarted: bool, gathered: float | None, burst: bool, for_runner: float, for_bell: float
) -> None:
    runner: Any = SimpleNamespace(unstarted=[1] * unstarted, idle=False, patience=0.002)
    batch: Any = Gathered(gathered)
    idling = Idling(cast(Any, [runner]), batch, 60.0, burst=burst)
    assert idling.for_runner() == for_runner
    assert idling.for_bell(math.inf) == for_bell


def test_a_search_without_room_for_what_it_finds_does_not_spin(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = MemoryBroker()
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer, _ = consumer_of(["default"], house, board)
    monkeypatch.setattr(consumer, "_room", lambda: 0)
    monkeypatch.setattr(consumer._size, "until_search", lambda: 0.0)
    waited = []
    monkeypatch.setattr(consumer._recorder.freed, "wait", waited.append)
    consumer.step()
    assert waited == [0.05]


class Coming(MemoryBroker):
    """Each wait for the bell ends with the next of these messages."""

    def __init__(self, messages: list[bytes]) -> None:
        super().__init__()
        self.coming = messages
        self.asked: list[str] = []

    def claim(self, *args: Any) -> Claim:
        self.asked.append("claim")
        return super().claim(*args)

    def wait_and_claim(self, queue: str, *args: Any) -> Claim:
        self.asked.append("wait")
        self.push([Outgoing(queue, self.coming.pop(0))])
        return super().claim(queue, *args[:-1])


def test_a_queue_that_gave_less_than_was_asked_for_is_waited_for_at_once(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = Coming([message.encode(house.delivery(number, 0).message) for number in range(4)])
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer = Consumer(
        "w",
        Order(["default"], []),
        house.runners,
        Recorder("w"),
        board,
        burst=False,
        stop=lambda: None,
    )
    for count in (1, 2, 3):
        consumer.step()
        wait_for(lambda count=count: len(house.started) == count)
    assert port.asked == ["claim", "wait", "wait", "wait"]
    # Three runners are busy: while nobody waits for the bell, others may take it.
    house.go.release()
    while len(port.asked) < 6:
        consumer.step()
    assert port.asked[4:] == ["claim", "wait"]
    wait_for(lambda: sorted(house.started) == [0, 1, 2, 3])


@pytest.mark.parametrize("queues", [["default"], ["default", "low"]])
def test_a_child_that_can_begin_nothing_leaves_an_empty_queue_to_others(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch, queues: list[str]
) -> None:
    """However short its calls were until now: one of those that it runs may take long."""
    port = MemoryBroker()
    monkeypatch.setattr(broker, "get", lambda: port)
    waits: list[Any] = []
    monkeypatch.setattr(port, "wait", lambda *args: waits.append(args))
    monkeypatch.setattr(
        port, "wait_and_claim", lambda *args: waits.append(args) or port.claim(*args[:-1])
    )
    recorder = Recorder("w")
    consumer = Consumer(
        "w", Order(queues, []), house.runners, recorder, board, burst=False, stop=lambda: None
    )
    monkeypatch.setattr(recorder.freed, "wait", lambda timeout: None)
    house.sync.pace._average = 0.0001
    for number in range(3):
        port.push([Outgoing("default", message.encode(house.delivery(number, 0).message))])
    while len(house.started) < 3:
        consumer.step()
    consumer.step()  # it finds that there is no more
    waits.clear()
    port.push([Outgoing("default", message.encode(house.delivery(3, 0).message))])
    for _ in range(3):
        consumer.step()
    assert not waits
    assert port.stats("default").waiting == 1
    # Whoever is free looks whether there is any, since others may have taken the bells.
    house.go.release()
    wait_for(lambda: consumer.step() or len(house.started) == 4)


@pytest.mark.parametrize(
    ("due", "age", "opened", "asked"),
    [
        (True, 60, False, 1),
        (True, None, False, 1),
        (True, 0, False, 0),
        (True, 60, True, 0),
        (False, 60, False, 0),
    ],
)
def test_the_ledger_is_opened_while_a_call_is_waited_for_that_becomes_due(
    house: House,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    due: bool,
    age: int | None,
    opened: bool,
    asked: int,
) -> None:
    port = MemoryBroker()
    monkeypatch.setattr(broker, "get", lambda: port)
    monkeypatch.setattr(port, "wait_and_claim", lambda *args: port.claim(*args[:-1]))
    connection = SimpleNamespace(
        connection=object() if opened else None, settings_dict={"CONN_MAX_AGE": age}
    )
    monkeypatch.setattr(
        "jobs.worker.claim.consumer.connections", {ledger.alias(): connection, "other": None}
    )
    questions: list[Any] = []

    def ended(ids: Sequence[str]) -> set[str]:
        questions.append(ids)
        raise OperationalError("the database is away")

    monkeypatch.setattr(ledger, "ended", ended)
    if due:
        raw = message.encode(house.delivery(1, 0).message)
        port.push([Outgoing("default", raw, due=time.time() + 60)])
    consumer = Consumer(
        "w", Order(["default"], []), house.runners, Recorder("w"), board, burst=False, stop=int
    )
    for _ in range(3):  # nobody needs it yet, so that it is away stops nothing
        consumer.step()
    assert len(questions) == asked


class Rung(MemoryBroker):
    """The bell of the first queue rings, for what another consumer has taken already."""

    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        return queues[0]


def test_all_queues_are_looked_at_after_a_time_without_claims(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile others may have taken the bells of what is there."""
    port = Rung()
    monkeypatch.setattr(broker, "get", lambda: port)
    order = Order(["default", "low"], [])
    consumer = Consumer(
        "w", order, house.runners, Recorder("w"), board, burst=False, stop=lambda: None
    )
    for _ in range(2):  # both are awake at first
        consumer.step()
    port.push([Outgoing("low", message.encode(house.delivery(1, 0).message))])
    with monkeypatch.context() as patch:
        patch.setattr(consumer._size, "room", lambda: 0)
        patch.setattr(consumer._idling, "for_runner", lambda: 0.0)
        consumer.step()
    consumer.step()
    wait_for(lambda: house.started == [1])


class PartlyAway(MemoryBroker):
    """On several nodes, of which those of these queues are away."""

    def __init__(self, *queues: str) -> None:
        super().__init__()
        self.away = set(queues)
        self.waited_for: list[list[str]] = []

    def _ask(self, *queues: str) -> None:
        if self.away & set(queues):
            error = BrokerUnavailable("away")
            error.partly = True
            raise error

    def claim(self, queue: str, *args: Any) -> Claim:
        self._ask(queue)
        return super().claim(queue, *args)

    def release(self, queue: str, *args: Any) -> int:
        self._ask(queue)
        return super().release(queue, *args)

    def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        self._ask(*queues)
        self.waited_for.append(list(queues))
        return super().wait(queues, 0.0)


def consumer_of(
    queues: list[str], house: House, board: Board, *, burst: bool = False
) -> tuple[Consumer, list[str]]:
    """The second one: gets an element when the consumer wants its child to stop."""
    stopped: list[str] = []
    made = Consumer(
        "w",
        Order(queues, []),
        house.runners,
        house.recorder,
        board,
        burst=burst,
        stop=lambda: stopped.append("stop"),
    )
    return made, stopped


def test_a_node_that_is_away_holds_up_its_own_queues_alone(
    house: House,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = PartlyAway("high")
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer, _ = consumer_of(["high", "default", "low"], house, board)
    for number, queue in enumerate(["high", "default", "low"]):
        port.push([Outgoing(queue, message.encode(house.delivery(number, 0).message))])
    consumer._returning = [house.delivery(7, 0)]  # of the queue default

    def stepped(condition: Any) -> bool:
        consumer.step()
        return bool(condition())

    wait_for(lambda: stepped(lambda: sorted(house.started) == [1, 2]), what="the other queues")
    assert not consumer._returning
    house.go.release(2)
    wait_for(lambda: stepped(lambda: port.waited_for), what="a wait for the bells")
    assert port.waited_for[0] == ["default", "low"]
    port.away.clear()
    wait_for(lambda: stepped(lambda: 0 in house.started), what="the queue that was away")
    assert caplog.text.count("a part of the broker is away") == 1
    assert caplog.text.count("all of the broker is back") == 1
    wait_for(lambda: stepped(lambda: len(port.waited_for[-1]) == 3), what="all bells")


def test_all_nodes_away_is_an_outage(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = PartlyAway("default", "low")
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer, _ = consumer_of(["default", "low"], house, board)
    consumer.step()  # it has only waited for the bells
    with pytest.raises(BrokerUnavailable):
        consumer.step()


def test_a_node_that_can_t_be_waited_at_is_found_by_a_claim(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = PartlyAway()
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer, _ = consumer_of(["default", "low"], house, board)
    while not port.waited_for:
        consumer.step()
    port.away.add("low")
    while port.waited_for[-1] != ["default"]:
        consumer.step()


def test_a_burst_waits_for_a_node_that_is_away(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = PartlyAway("low")
    monkeypatch.setattr(broker, "get", lambda: port)
    consumer, stopped = consumer_of(["default", "low"], house, board, burst=True)
    for _ in range(5):
        consumer.step()
    assert not stopped
    port.away.clear()
    while not stopped:
        consumer.step()


def test_queues_that_are_taken_on_and_given_up(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = MemoryBroker()
    monkeypatch.setattr(broker, "get", lambda: port)
    monkeypatch.setattr(port, "all_shards", lambda queues: {one: [one] for one in queues})
    consumer = Consumer(
        "w",
        Order(["default"], []),
        house.runners,
        Recorder("w"),
        board,
        burst=False,
        stop=lambda: None,
    )
    monkeypatch.setattr(consumer._idling, "for_bell", lambda until: 0.0)

    def send(queue: str, number: int) -> None:
        port.push([Outgoing(queue, message.encode(house.delivery(number, 0).message))])

    def claimed() -> set[int]:
        for _ in range(4):
            consumer.step()
        return set(house.started)

    send("low", 1)
    assert claimed() == set()
    board.change_queues(["low"], [])
    wait_for(lambda: claimed() == {1})
    board.change_queues([], ["default"])
    send("default", 2)
    send("low", 3)
    assert claimed() == {1}  # the board says all that has changed: `low` is given up, too
    assert [port.stats(queue).waiting for queue in ("default", "low")] == [1, 1]
    board.change_queues(["low"], ["default"])
    wait_for(lambda: claimed() == {1, 3})
    board.change_queues([], [])
    wait_for(lambda: claimed() == {1, 2, 3})
    house.go.release(3)


class Changed(MemoryBroker):
    """While the consumer waits for the bell of its only queue, this happens, and the bell rings."""

    change: Any

    def wait_and_claim(self, queue: str, *args: Any) -> Claim:
        self.change()
        return super().claim(queue, *args[:-1])


def test_queues_that_change_while_it_waits_for_the_bell(
    house: House, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = Changed()
    monkeypatch.setattr(broker, "get", lambda: port)
    monkeypatch.setattr(port, "all_shards", lambda queues: {one: [one] for one in queues})
    consumer = Consumer(
        "w",
        Order(["default"], []),
        house.runners,
        Recorder("w"),
        board,
        burst=False,
        stop=lambda: None,
    )
    monkeypatch.setattr(consumer._idling, "for_bell", lambda until: 0.0)

    def change() -> None:
        board.change_queues(["low"], ["default"])
        for number, queue in ((1, "default"), (2, "low")):
            port.push([Outgoing(queue, message.encode(house.delivery(number, 0).message))])

    port.change = change
    for _ in range(4):
        consumer.step()
    wait_for(lambda: house.started == [2])
    assert [port.stats(queue).waiting for queue in ("default", "low")] == [1, 0]
    assert port.stats("default").in_flight == 0
