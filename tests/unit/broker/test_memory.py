"""What only the memory broker has; the contract's tests are in `tests/integration/broker`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_django import Settings

from jobs import broker as brokers
from jobs.broker.base import Claim, Outgoing, Returned
from jobs.broker.memory import MemoryBroker


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> MemoryBroker:
    return MemoryBroker(clock)


def test_time_passes_as_the_clock_says(broker: MemoryBroker, clock: Clock) -> None:
    broker.push([Outgoing("mail", b"a", 0, clock.now + 10)])
    assert broker.claim("mail", "w1", 1, 1, 60) == Claim([], 10)
    clock.now += 9.5
    assert broker.claim("mail", "w1", 1, 1, 60) == Claim([], 0.5)
    clock.now += 0.5
    assert broker.claim("mail", "w1", 1, 1, 60) == Claim([(1, b"a")], None)


def test_leases_end_as_the_clock_says(broker: MemoryBroker, clock: Clock) -> None:
    broker.push([Outgoing("mail", b"a")])
    broker.claim("mail", "w1", 1, 1, 15)
    clock.now += 14
    broker.renew("mail", ["w1"], 15)
    clock.now += 14
    assert broker.expired("mail") == []
    assert broker.consumers("mail") == [("w1", 1, 1)]
    clock.now += 2
    assert broker.expired("mail") == ["w1"]
    assert broker.stats("mail").consumers == 0


def test_dead_letters_carry_the_clock_s_time(broker: MemoryBroker, clock: Clock) -> None:
    broker.push([Outgoing("mail", b"a")])
    broker.claim("mail", "w1", 1, 1, 60)
    broker.dead_letter("mail", "w1", 1, "why", "worker-1")
    assert broker.dead_letters("mail", 1)[0].at.timestamp() == clock.now


def test_threads_lose_and_double_nothing(broker: MemoryBroker) -> None:
    """Six threads claim, give back now and then, and ack, until all is done."""
    sent = [b"%d" % n for n in range(3_000)]

    def produce(part: int) -> None:
        for raw in sent[part::2]:
            broker.push([Outgoing("mail", raw)])

    def consume(name: str) -> list[bytes]:
        done: list[bytes] = []
        number = 1
        while True:
            claimed = broker.claim("mail", name, number, 7, 60).messages
            if not claimed and producers_ended() and broker.stats("mail").waiting == 0:
                return done
            if not claimed:
                broker.wait(["mail"], 0.01)
            number += len(claimed)
            kept = [(n, raw) for n, raw in claimed if n % 5]
            broker.release("mail", name, [Returned(n) for n, _ in claimed if not n % 5])
            assert broker.ack("mail", name, [n for n, _ in kept]) == len(kept)
            done += [raw for _, raw in kept]

    with ThreadPoolExecutor(8) as pool:
        producers = [pool.submit(produce, part) for part in range(2)]

        def producers_ended() -> bool:
            return all(producer.done() for producer in producers)

        done = list(pool.map(consume, [f"w{n}" for n in range(6)]))
    everything = [raw for part in done for raw in part]
    # What one thread gave back just as another ended is still there.
    left = [raw for _, raw in broker.claim("mail", "last", 1, 100, 60).messages]
    assert sorted(everything + left) == sorted(sent)


def test_the_address_of_the_memory_broker(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "memory://"}
    first = brokers.get()
    assert isinstance(first.by_shard, MemoryBroker)
    assert brokers.get() is first
