"""Limited tasks, with a real worker: what gets no permit waits among the due ones."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest
import redis

from jobs import broker, limits, message
from jobs.broker.limiting import Slot
from jobs.exceptions import BrokerUnavailable, LimitReached
from jobs.message import Message
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from tests.models import Run
from tests.services import wait_for
from tests.tasks import (
    async_one_at_a_time,
    both_limits,
    hourly,
    hourly_each,
    hundredth,
    keyed_badly,
    one_at_a_time,
    trace,
)
from tests.workers import dead_letters, on_redis, put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

ONE = "tests.tasks.one_at_a_time"


@pytest.fixture
def client(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as plain:
        yield plain


def ran() -> list[str]:
    return list(Run.objects.values_list("label", flat=True))


def due(client: Any) -> list[float]:
    """Seconds until each due message may start."""
    found = client.zrange("{default}:due", 0, -1, withscores=True)
    return [at / 1000 - time.time() for _, at in found]


def waiting(client: Any) -> list[Message]:
    """The due messages, in order."""
    found = client.zrange("{default}:due", 0, -1)
    return [message.decode(member.partition(b"|")[2], "default") for member in found]


def held(name: str) -> bool:
    """Whether the only slot of a limit is held; takes it for a moment if not."""
    probe = Slot(name, 1, "probe")
    taken = broker.get().take_slots([probe])[0] == 0
    if taken:
        broker.get().free_slots([probe])
    return not taken


def until_ready(*results: Any) -> None:
    def ready() -> bool:
        work()
        return all(result.ready() for result in results)

    wait_for(ready, 20, what="the calls to end")


# ------------------------------------------------------------------------------------- rates


def test_what_gets_no_permit_waits_its_turn(client: Any) -> None:
    results = hourly.enqueue_many([(str(n),) for n in range(5)])
    trace.delay("not limited")
    work()
    assert sorted(ran()) == ["0", "1", "not limited"]
    assert due(client) == pytest.approx([6000, 9600, 13200], abs=60)
    assert [sent.args for sent in waiting(client)] == [["2"], ["3"], ["4"]]
    assert on_redis() == (0, 0)
    assert [result.state for result in results] == [State.SUCCESS] * 2 + [State.PENDING] * 3


def test_waiting_is_neither_an_attempt_nor_a_redelivery(client: Any) -> None:
    sent = [message.encode(hourly.message((str(n),), {})) for n in range(3)]
    for raw in sent:
        put(raw)
    work()
    (found,) = waiting(client)
    before = message.decode(sent[2], "default")
    assert (found.id, found.retries, found.marks.redelivered) == (before.id, 0, False)
    assert found.marks.permit > time.time()
    assert TaskAttempt.objects.count() == 0


def test_at_the_rate() -> None:
    labels = [f"{n:02}" for n in range(30)]
    hundredth.enqueue_many([(label,) for label in labels])
    began = time.monotonic()

    def all_ran() -> bool:
        work()
        return Run.objects.count() >= 30

    wait_for(all_ran, 30, what="30 runs")
    assert time.monotonic() - began >= 0.28
    assert sorted(ran()) == labels


def test_each_key_has_a_rate_of_its_own() -> None:
    for customer, n in itertools.product((1, 2), range(2)):
        hourly_each.delay(f"{customer}/{n}", customer=customer)
    work()
    assert sorted(ran()) == ["1/0", "2/0"]


def test_code_that_is_no_task_shares_the_rate(client: Any) -> None:
    shared = limits.rate("tests.tasks.hourly", "1/h", burst=2)
    shared.acquire()
    with shared:
        pass
    hourly.delay("later")
    work()
    assert ran() == []
    with pytest.raises(LimitReached, match=r"'tests.tasks.hourly' has no permit within 0.5 s"):
        shared.acquire(timeout=0.5)
    assert due(client) == pytest.approx([6000], abs=60)


def test_waiting_for_a_permit() -> None:
    quick = limits.rate("quick", 50, burst=1)
    began = time.monotonic()
    for _ in range(5):
        quick.acquire(timeout=10)
    assert time.monotonic() - began >= 0.078


# -------------------------------------------------------------------------------- concurrency


def test_the_slot_is_free_when_the_call_has_ended() -> None:
    results = [one_at_a_time.delay() for _ in range(3)]
    until_ready(*results)
    assert [result.state for result in results] == [State.SUCCESS] * 3
    assert not held(ONE)


def test_a_retry_frees_it_and_takes_another() -> None:
    result = one_at_a_time.delay("no")
    until_ready(result)
    assert result.state == State.FAILURE
    assert not held(ONE)


def test_a_held_slot_keeps_others_waiting(client: Any) -> None:
    with limits.concurrency(ONE, 1):
        result = one_at_a_time.delay()
        work()
        assert result.state == State.PENDING
        assert due(client) == pytest.approx([10], abs=5)
        with pytest.raises(LimitReached, match="All 1 slots"), limits.concurrency(ONE, 1):
            pass
    # Its end has woken the task, for which the slot is kept.
    assert held(ONE)
    assert due(client)[0] <= 0
    work()
    assert result.state == State.SUCCESS


def test_a_call_that_was_killed_frees_what_its_process_held() -> None:
    sent = one_at_a_time.message((), {})
    broker.get().take_slots([Slot(ONE, 1, sent.id, "default")])
    put(message.mark(message.encode(sent), jobs_killed="time limit"))
    work()
    assert TaskResult.objects.get(id=sent.id).state == State.FAILURE
    assert not held(ONE)


def test_what_comes_back_from_a_dead_process_finds_its_own_slot() -> None:
    sent = one_at_a_time.message((), {})
    broker.get().take_slots([Slot(ONE, 1, sent.id, "default")])
    put(message.mark_redelivered(message.encode(sent), crashed=True)[0])
    work()
    assert TaskResult.objects.get(id=sent.id).state == State.SUCCESS
    assert not held(ONE)


def test_an_asynchronous_task_that_is_acknowledged_early() -> None:
    first, second = async_one_at_a_time.delay(), async_one_at_a_time.delay()
    until_ready(first, second)
    assert not held("tests.tasks.async_one_at_a_time")


def test_no_slot_is_held_by_what_waits_for_a_permit(client: Any) -> None:
    for _ in range(3):
        both_limits.delay()
        work()
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 1
    assert due(client) == pytest.approx([3600, 7200], abs=60)
    assert not held("tests.tasks.both_limits")


def test_the_broker_is_away_between_the_slot_and_the_permit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = broker.get()
    ask, away = port.permits, [BrokerUnavailable()]

    def permits(wishes: Any) -> Any:
        if away:
            raise away.pop()
        return ask(wishes)

    monkeypatch.setattr(port, "permits", permits)
    result = both_limits.delay()
    until_ready(result)
    assert (result.state, away) == (State.SUCCESS, [])
    assert not held("tests.tasks.both_limits")
    assert limits.keeper.held() == []


def test_what_is_in_use_is_held_on_to(client: Any) -> None:
    with limits.concurrency("imports", 1):
        (slot,) = limits.keeper.held()
        client.zadd("{limit:imports}:held", {slot.holder: (time.time() + 5) * 1000})
        limits.keeper.step()
        assert client.zscore("{limit:imports}:held", slot.holder) > (time.time() + 30) * 1000
    assert limits.keeper.held() == []


def test_a_key_that_can_t_be_made_fails_the_call() -> None:
    result, good = keyed_badly.delay(0), keyed_badly.delay(1)
    work()
    with pytest.raises(ZeroDivisionError):
        result.get(timeout=0)
    assert good.state == State.SUCCESS
    assert dead_letters() == []


def test_a_process_that_waits_for_a_slot_gets_it() -> None:
    entered = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with limits.concurrency("imports", 1):
            entered.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(20)
    threading.Timer(0.05, leave.set).start()
    with limits.concurrency("imports", 1, timeout=20):
        assert leave.is_set()
    holder.join()
    assert not held("imports")


def test_an_unlimited_task_asks_for_nothing(client: Any) -> None:
    client.config_resetstat()
    trace.delay("plain")
    work()
    # Scripts of sending, claiming and acknowledging, and no key of a limit.
    assert client.keys("{limit:*") == client.keys("{unique:*") == []
