"""However many lists a queue has: the contract of both brokers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import redis

from jobs.broker.base import Broker, Outgoing, Returned, Waiting
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker

Make = Callable[[Sequence[int]], Broker]


@pytest.fixture(params=["redis", "memory"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "memory":
        yield lambda steps: MemoryBroker(steps=steps)
        return
    url = request.getfixturevalue("broker_url")
    made: list[Broker] = []

    def on_redis(steps: Sequence[int]) -> Broker:
        made.append(RedisBroker(url, steps=steps))
        return made[-1]

    yield on_redis
    for one in made:
        one.close()


def raw(priority: int) -> bytes:
    return b"%d" % priority


MIXED = [9, 0, 3, 5, 4, 2, 8, 6, 1, 7]


def claimed(broker: Broker, limit: int = 100, first: int = 1) -> list[bytes]:
    return [raw for _, raw in broker.claim("mail", "w1", first, limit, 60).messages]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (range(10), range(10)),
        ([0, 3, 6, 9], [0, 2, 1, 3, 5, 4, 8, 6, 7, 9]),
        ([0, 5], [0, 3, 4, 2, 1, 9, 5, 8, 6, 7]),
        ([0], MIXED),
    ],
)
def test_lists_are_claimed_in_order(make: Make, steps: Sequence[int], expected: object) -> None:
    broker = make(steps)
    broker.push([Outgoing("mail", raw(n), n) for n in MIXED])
    assert broker.stats("mail").waiting == 10
    assert sorted(broker.scan("mail")) == [raw(n) for n in range(10)]
    assert [int(one) for one in claimed(broker)] == list(expected)  # type: ignore[call-overload]


def test_one_claim_reaches_over_all_of_them(make: Make) -> None:
    broker = make(range(10))
    broker.push([Outgoing("mail", raw(n), n) for n in (9, 4, 0)])
    assert claimed(broker, limit=2) == [b"0", b"4"]
    assert claimed(broker, first=3) == [b"9"]


def test_what_is_due_goes_to_the_list_of_its_priority(make: Make) -> None:
    broker = make(range(10))
    broker.push([Outgoing("mail", raw(n), n, time.time() - 10 + n) for n in MIXED])
    assert claimed(broker) == [raw(n) for n in range(10)]


def test_what_is_given_back_keeps_its_priority(make: Make) -> None:
    broker = make(range(10))
    broker.push([Outgoing("mail", raw(n), n) for n in MIXED])
    claimed(broker)
    broker.push([Outgoing("mail", b"new", 4)])
    assert broker.release("mail", "w1", [Returned(n + 1, n) for n in range(10)]) == 10
    back = [b"0", b"1", b"2", b"3", b"4", b"new", b"5", b"6", b"7", b"8", b"9"]
    assert claimed(broker, first=11) == back


def test_what_is_requeued_keeps_its_priority(make: Make) -> None:
    broker = make(range(10))
    broker.bury("mail", b"letter", "why", "w1")
    [letter] = broker.dead_letters("mail", 1)
    broker.push([Outgoing("mail", b"7", 7), Outgoing("mail", b"5", 5)])
    assert broker.requeue("mail", letter.key, 6)
    assert claimed(broker) == [b"5", b"letter", b"7"]


def test_operators_see_and_take_each_priority(make: Make) -> None:
    broker = make(range(10))
    broker.push([Outgoing("mail", raw(n), n) for n in MIXED])
    everything = [Waiting(raw(n), n) for n in range(10)]
    assert list(broker.browse("mail", due=False)) == everything
    assert broker.pick("mail", "operator", 1, 60, Waiting(b"7", 7))
    del everything[7]
    assert broker.take("mail", "operator", 2, 100, 60) == everything


def test_keys_are_celery_s(broker_url: str, client: redis.Redis) -> None:
    broker = RedisBroker(broker_url, steps=(0, 1, 9))
    broker.push([Outgoing("mail", raw(n), n) for n in (0, 5, 9)])
    broker.close()
    lists = {key: client.lrange(key, 0, -1) for key in client.keys("mail*")}
    assert lists == {b"mail": [b"0"], b"mail\x06\x161": [b"5"], b"mail\x06\x169": [b"9"]}


def test_a_claim_of_ten_lists_is_one_script(broker_url: str, client: redis.Redis) -> None:
    broker = RedisBroker(broker_url, steps=range(10))
    broker.push([Outgoing("mail", raw(n), n) for n in MIXED])
    claimed(broker, 1)  # the script is known from here on
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(claimed(broker, first=2)) == 9
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    broker.close()
