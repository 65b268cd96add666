"""The contract of every broker: sleeping until there is something to do."""

from __future__ import annotations

import datetime as dt
import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
import redis

from jobs.broker.base import Broker, Outgoing, Pause, Returned, Subscription, ended
from jobs.broker.memory import MemoryBroker
from tests.integration.broker.helpers import LEASE, claim, dead, push
from tests.services import wait_for

#: Seconds for which a test waits for what must come at once, and those after which what has missed
#: it would come by itself.
SOON, LONG = 45.0, 90.0


def seconds_of(broker: Broker, queues: list[str], timeout: float) -> float:
    start = time.monotonic()
    broker.wait(queues, timeout)
    return time.monotonic() - start


@pytest.fixture
def slow_clock(broker: Broker, request: pytest.FixtureRequest) -> Iterator[None]:
    """The server looks only once a second which of its own time-outs have passed."""
    if isinstance(broker, MemoryBroker) or broker.address.startswith("redis+cluster"):
        yield  # a node of a Cluster does more at its ticks
        return
    plain: redis.Redis = request.getfixturevalue("client")
    plain.config_set("hz", 1)
    yield
    plain.config_set("hz", 10)


@pytest.mark.usefixtures("slow_clock")
def test_it_returns_at_its_timeout(broker: Broker) -> None:
    seconds_of(broker, ["mail"], 0.001)  # connects
    # By its own time-out the server would come a second late each time, but for the first.
    _, *late = [seconds_of(broker, ["mail"], 0.05) - 0.05 for _ in range(7)]
    assert -0.002 <= min(late) < 0.25


def test_no_time_at_all(broker: Broker) -> None:
    for timeout in (0, -1):
        assert seconds_of(broker, ["mail"], timeout) < SOON


def test_a_message_that_came_before(broker: Broker) -> None:
    push(broker, b"a")
    assert seconds_of(broker, ["other", "mail"], LONG) < SOON


def test_the_queue_whose_bell_rang(broker: Broker) -> None:
    queues = ["mail", "p\u00f3st"]
    push(broker, b"a", queue=queues[1])
    assert broker.wait(queues, LONG) == queues[1]
    assert broker.wait(queues, 0.01) is None


@pytest.mark.parametrize("count", [3, 700])
def test_which_of_many_queues_have_something(broker: Broker, count: int) -> None:
    queues = ["mail", *(f"q{n}" for n in range(count))]
    assert broker.stirring(queues, queues) == []
    push(broker, b"a", queue=queues[-1], priority=9)
    broker.push([Outgoing(queues[1], b"later", due=4e9)])
    assert broker.stirring(queues) == [queues[1], queues[-1]]  # the first by its bell
    assert broker.wait([queues[1]], 0) == queues[1]
    assert broker.stirring(queues) == [queues[-1]]
    assert broker.stirring(queues, [queues[1]]) == [queues[1], queues[-1]]
    broker.claim(queues[-1], "w1", 1, 10, LEASE)
    assert broker.stirring(queues) == []
    assert broker.stirring([], []) == []


def test_a_paused_queue_says_so(broker: Broker) -> None:
    push(broker, b"a")
    broker.pause("mail", Pause("", "ada", "", dt.datetime.now(dt.UTC)))
    assert broker.claim("mail", "w1", 1, 1, LEASE).paused
    assert broker.stirring(["mail"]) == ["mail"]
    broker.resume("mail")
    assert not broker.claim("mail", "w1", 1, 1, LEASE).paused


def test_a_message_that_comes_meanwhile(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    waiter = threads.submit(seconds_of, broker, ["other", "mail"], LONG)
    wait_for(lambda: asleep() == 1)
    push(broker, b"a")
    assert waiter.result(timeout=SOON) < SOON


def two_asleep(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> set[Future[str | None]]:
    waiters = {threads.submit(broker.wait, ["mail"], LONG) for _ in range(2)}
    wait_for(lambda: asleep() == 2)
    return waiters


def test_one_message_wakes_one_of_two(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    waiters = two_asleep(broker, asleep, threads)
    push(broker, b"a")
    woken, others = wait(waiters, timeout=SOON, return_when="FIRST_COMPLETED")
    assert len(woken) == 1
    wait_for(lambda: asleep() == 1)
    push(broker, b"b")
    assert not wait(others, timeout=SOON).not_done


def test_two_messages_wake_two(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    waiters = two_asleep(broker, asleep, threads)
    push(broker, b"a", b"b")
    assert not wait(waiters, timeout=SOON).not_done


def test_each_way_back_to_the_queue_wakes_one(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    dead(broker, [b"dead"])
    push(broker, b"a", b"b", b"c")
    claim(broker)
    claim(broker)  # finds the queue empty, so that no bell rings any more
    letter = broker.dead_letters("mail", 1)[0]
    ways: list[Callable[[], object]] = [
        lambda: broker.release("mail", "w1", [Returned(1)]),
        lambda: broker.retry("mail", "w1", 2, b"b2", 0, time.time() - 1),
        lambda: broker.reclaim("mail", "w1", lambda number, raw: Returned(number)),
        lambda: broker.requeue("mail", letter.key),
        lambda: broker.push([Outgoing("mail", b"later", 0, time.time() + 60)]),
    ]
    for way in ways:
        waiter = threads.submit(broker.wait, ["mail"], LONG)
        wait_for(lambda: asleep() == 1)
        way()
        waiter.result(timeout=SOON)


def test_an_emptied_queue_rings_no_more(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c")
    claim(broker)
    start = time.monotonic()
    broker.wait(["mail"], 0.05)
    assert time.monotonic() - start >= 0.048


def test_waiting_again_and_again(broker: Broker) -> None:
    for _ in range(5):
        push(broker, b"a")
        assert seconds_of(broker, ["mail"], LONG) < SOON
        assert claim(broker, 1) == [b"a"]


def test_the_end_of_a_task_is_heard(broker: Broker) -> None:
    with broker.listen("id-1") as heard:
        assert heard(0) is False
        broker.ack("mail", "w1", [], ["id-1"])
        assert heard(SOON) is True


def test_it_was_noted_before_anybody_asked(broker: Broker) -> None:
    with broker.listen("id-1") as heard:
        broker.ack("mail", "w1", [], ["other", "id-1"])
        assert heard(SOON) is True


def test_other_tasks_are_not_heard(broker: Broker) -> None:
    with broker.listen("id-1") as heard:
        broker.ack("mail", "w1", [], ["id-2", "id-11", ""])
        start = time.monotonic()
        assert heard(0.02) is False
        assert time.monotonic() - start >= 0.019
        assert heard(-1) is False


def test_all_listeners_hear(broker: Broker, threads: ThreadPoolExecutor) -> None:
    with broker.listen("id-1") as one, broker.listen("id-1") as two:
        answers = [threads.submit(one, LONG), threads.submit(two, LONG)]
        broker.ack("mail", "w1", [], [f"other-{n}" for n in range(2_000)] + ["id-1"])
        assert [answer.result(timeout=SOON) for answer in answers] == [True, True]


def test_acks_and_ends_in_one_call(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker)
    with broker.listen("id-1") as heard:
        assert broker.ack("mail", "w1", [1], ["id-1"]) == 1
        assert heard(SOON)


def test_ping_and_close(broker: Broker) -> None:
    broker.ping()
    broker.close()
    broker.close()
    broker.ping()  # connects anew


def test_nothing_is_pushed_and_then_something(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.broker.connection._IDLE", -1.0)  # each connection has been idle
    broker.close()
    push(broker)
    push(broker, b"a")
    assert claim(broker) == [b"a"]


def test_a_topic_is_heard_by_those_subscribed_to_it(broker: Broker) -> None:
    with broker.subscribe("schedules") as before:
        broker.notify("schedules")
        # On a Cluster it reaches the other nodes a moment later.
        assert before(10)
    with broker.subscribe("schedules") as one, broker.subscribe("other") as other:
        assert not one(0.01)  # what was said before is not kept
        broker.notify("schedules")
        broker.notify("schedules")
        assert one(10)
        assert one(10)
        assert not one(0)
        assert not other(0.01)


def test_a_subscription_can_be_waited_for_beside_others(broker: Broker) -> None:
    with broker.subscribe("schedules") as heard:
        assert select.select([heard], [], [], 0)[0] == []
        broker.notify("schedules")
        assert select.select([heard], [], [], 10)[0] == [heard]
        assert heard(0)
        assert select.select([heard], [], [], 0)[0] == []


def taken(heard: Subscription) -> list[str]:
    """What comes next, once anything has come."""
    assert select.select([heard], [], [], 10)[0] == [heard]
    return heard.take()


def test_a_subscription_asks_for_topics_and_leaves_them(broker: Broker) -> None:
    with broker.subscribe() as heard:
        assert heard.take() == []
        heard.ask(["one", "two"])
        found = taken(heard)
        while len(found) < 2:
            found += taken(heard)
        assert sorted(found) == ["one", "two"]  # from here on, nothing of them is missed
        broker.notify("other")
        broker.notify("two")
        assert taken(heard) == ["two"]
        heard.leave(["two", "unknown"])
        heard.ask(["three"])
        while "three" not in taken(heard):
            pass
        broker.notify("two")
        broker.notify("one")
        assert taken(heard) == ["one"]
        assert heard.take() == []
    broker.notify("one")  # to nobody


def test_one_subscription_hears_of_many_ends(broker: Broker) -> None:
    ids = [f"id-{n}" for n in range(2000)]
    with broker.subscribe() as heard:
        heard.ask([ended(one) for one in ids])
        found: list[str] = []
        while len(found) < len(ids):
            found += taken(heard)
        broker.ack("mail", "w1", [], ids)
        found = []
        while len(found) < len(ids):
            found += taken(heard)
        assert found == [ended(one) for one in ids]


def test_what_one_waits_for_comes_with_the_bell(
    broker: Broker, threads: ThreadPoolExecutor
) -> None:
    waiter = threads.submit(broker.wait_and_claim, "mail", "w1", 1, 10, LEASE, LONG)
    push(broker, b"a")
    assert waiter.result(timeout=SOON).messages == [(1, b"a")]
    # Its answer may have been lost: the same number gets the same message.
    assert broker.wait_and_claim("mail", "w1", 1, 10, LEASE, 0).messages == [(1, b"a")]
    assert broker.ack("mail", "w1", [1]) == 1


def test_nothing_comes_in_time(broker: Broker) -> None:
    due = time.time() + 60
    broker.push([Outgoing("mail", b"later", 0, due)])
    found = broker.wait_and_claim("mail", "w1", 1, 10, LEASE, 0.01)
    assert found.messages == []
    assert 0 < found.next_due <= 60.1


def test_a_ring_for_what_came_without_one(broker: Broker, threads: ThreadPoolExecutor) -> None:
    """And the messages stay where they are, in their order."""
    assert broker.ring_for_foreign("mail", 0.01) == 0
    rung = threads.submit(broker.ring_for_foreign, "mail", LONG)
    push(broker, b"a", b"b")
    assert rung.result(timeout=SOON) in (1, 2)
    while broker.wait(["mail"], 0) is not None:
        pass  # as if their sender had rung no bell
    push(broker, b"c", priority=9)
    assert broker.ring_for_foreign("mail", LONG) == 3
    assert [broker.wait(["mail"], 0) for _ in range(4)] == ["mail", "mail", "mail", None]
    broker.pause("mail", Pause("", "ada", "", dt.datetime.now(dt.UTC)))
    assert broker.ring_for_foreign("mail", LONG) == 3
    assert broker.wait(["mail"], 0) is None
    broker.resume("mail")
    assert claim(broker) == [b"a", b"b", b"c"]
