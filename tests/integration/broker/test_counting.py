"""The numbers that brokers keep."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from jobs.broker.base import Broker, Outgoing
from jobs.broker.counting import KEPT, OTHER, SECONDS, TASKS, Counts, Resolution, Span, span_at
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from tests.integration.broker.helpers import claim, push

PREFIX = "{mail}:metrics:"


@pytest.fixture(params=["redis", "memory"])
def counting(request: pytest.FixtureRequest) -> Broker:
    if request.param == "memory":
        return MemoryBroker(metrics=True)
    return RedisBroker(request.getfixturevalue("broker_url"), metrics=True)


@pytest.fixture
def on_redis(broker_url: str) -> RedisBroker:
    return RedisBroker(broker_url, metrics=True)


def spans(*resolutions: Resolution, queue: str = "mail") -> list[Span]:
    return [span_at(queue, resolution, time.time()) for resolution in resolutions or Resolution]


def counts(broker: Broker, resolution: Resolution, queue: str = "mail") -> Counts:
    """The numbers of the present span and the one before it: the test may run at its end."""
    last = span_at(queue, resolution, time.time())
    found: dict[str, int] = {}
    for said in broker.counts([last._replace(number=last.number - 1), last]):
        for field, number in said.counts.items():
            found[field] = found.get(field, 0) + number
    return found


@pytest.mark.parametrize("resolution", Resolution)
def test_what_is_pushed_is_counted(counting: Broker, resolution: Resolution) -> None:
    push(counting, b"a", b"b")
    push(counting, b"c", priority=9)
    counting.push([Outgoing("mail", b"later", 0, time.time() + 60)] * 1)
    counting.push([Outgoing("mail", b"%d" % n) for n in range(450)])
    push(counting, b"elsewhere", queue="slow")
    assert counts(counting, resolution) == {"sent": 454}
    assert counts(counting, resolution, "slow") == {"sent": 1}


def test_what_moves_within_the_broker_is_not(counting: Broker) -> None:
    push(counting, b"a")
    claim(counting)
    assert counting.retry("mail", "w1", 1, b"again", 0, time.time() - 1)
    claim(counting, first=2)
    counting.dead_letter("mail", "w1", 2, "why", "w1")
    (letter,) = counting.dead_letters("mail", 1)
    assert counting.requeue("mail", letter.key)
    assert counts(counting, Resolution.DAY) == {"sent": 1}


def test_nothing_is_counted_without_metrics(broker: Broker) -> None:
    push(broker, b"a")
    broker.push([Outgoing("mail", b"later", 0, time.time() + 60)])
    assert [found.counts for found in broker.counts(spans())] == [{}] * len(Resolution)


@pytest.mark.parametrize("resolution", Resolution)
def test_counts_add_up(counting: Broker, resolution: Resolution) -> None:
    counting.count("mail", {"succeeded": 3, "w7": 2}, {"a": {"succeeded": 1}, "b": {"w7": 2}})
    counting.count("mail", {"succeeded": 1}, {"a": {"succeeded": 1, "failed": 4}})
    counting.count("slow", {"succeeded": 9}, {})
    assert counts(counting, resolution) == {"succeeded": 4, "w7": 2}
    (tasks,) = counting.task_counts(spans(resolution))
    assert tasks == {"a": {"succeeded": 2, "failed": 4}, "b": {"w7": 2}}


def test_spans_come_in_the_order_asked_for(counting: Broker) -> None:
    counting.count("mail", {"succeeded": 1}, {"a": {"failed": 1}})
    counting.count("slow", {"succeeded": 2}, {})
    (day,) = spans(Resolution.DAY)
    asked = [
        day._replace(queue="slow"),
        day,
        day._replace(number=1),
        *[day._replace(resolution=Resolution.MINUTE, number=n) for n in range(250)],
        day._replace(queue="slow"),
    ]
    found = [said.counts.get("succeeded", 0) for said in counting.counts(asked)]
    assert found == [2, 1, 0, *[0] * 250, 2]
    assert counting.task_counts(asked)[:2] == [{}, {"a": {"failed": 1}}]
    assert counting.counts([]) == counting.task_counts([]) == []


def test_a_span_has_so_many_tasks_and_others(counting: Broker) -> None:
    names = [f"task {n}" for n in range(TASKS + 7)]
    counting.count("mail", {}, {name: {"failed": 1} for name in names})
    counting.count("mail", {}, {names[0]: {"failed": 1}, "one more": {"w1": 1}, OTHER: {"w1": 1}})
    (tasks,) = counting.task_counts(spans(Resolution.DAY))
    assert len(tasks) == TASKS + 1
    assert tasks[names[0]] == {"failed": 2}
    assert tasks[OTHER] == {"failed": 7, "w1": 2}


@pytest.mark.parametrize("name", ["a:b", "=", "#", "0", "名:1", "x" * 300, "{mail}"])
def test_any_name_of_a_task(counting: Broker, name: str) -> None:
    counting.count("mail", {}, {name: {"failed": 1}, "other": {"failed": 2}})
    (tasks,) = counting.task_counts(spans(Resolution.TEN))
    assert tasks == {name: {"failed": 1}, "other": {"failed": 2}}


def test_some_fields_of_all_tasks(counting: Broker) -> None:
    names = [f"task {n}" for n in range(TASKS)]
    counting.count("mail", {}, {name: {"failed": n, "w1": 1} for n, name in enumerate(names)})
    counting.count("mail", {}, {"a:b": {"failed": 5}, names[1]: {"succeeded": 3}})
    counting.count("slow", {}, {"=": {"w1": 1}, "#": {"succeeded": 2}})
    asked = [*spans(Resolution.TEN), *spans(Resolution.DAY)]
    asked += [span._replace(queue="slow") for span in asked[:1]]
    ten, day, slow = counting.task_counts(asked, ("failed", "succeeded"))
    expected = {name: {"failed": n} for n, name in enumerate(names)}
    assert ten == day == {**expected, names[1]: {"failed": 1, "succeeded": 3}, OTHER: {"failed": 5}}
    assert slow == {"#": {"succeeded": 2}}
    assert counting.task_counts([asked[0]._replace(number=1)], ("failed",)) == [{}]


def test_old_spans_are_forgotten_in_memory() -> None:
    now = [1_000_000_000.0]
    broker = MemoryBroker(lambda: now[0], metrics=True)
    broker.count("mail", {"succeeded": 1}, {"a": {"succeeded": 1}})
    minute, day = (
        span_at("mail", resolution, now[0]) for resolution in (Resolution.MINUTE, Resolution.DAY)
    )
    now[0] += 3 * 3600
    push(broker, b"a")
    assert broker.counts([minute])[0].counts == {"succeeded": 1}
    assert broker.task_counts([minute, day]) == [{}, {"a": {"succeeded": 1}}]
    now[0] += 9 * 86_400
    push(broker, b"a")
    assert [said.counts for said in broker.counts([minute, day])] == [
        {},
        {"succeeded": 1, "sent": 1},
    ]


# ---------------------------------------------------------------------------- on Redis


def test_a_minute_is_moved_to_its_spans_by_the_first_push_of_a_later_one(
    on_redis: RedisBroker, client: redis.Redis
) -> None:
    minute = int(time.time() // 60) - 3
    client.hset(PREFIX + "sent", mapping={str(minute): 7, str(minute - 1): 2})
    both = [Span("mail", Resolution.MINUTE, minute), Span("mail", Resolution.MINUTE, minute - 1)]
    every = Span("mail", Resolution.EVER, 0)
    before = on_redis.counts([*both, every])
    assert [(said.counts["sent"], said.settled) for said in before] == [
        *[(7, False), (2, False)],
        (9, False),
    ]
    push(on_redis, b"a", b"b")
    assert {int(n) for n in client.hgetall(PREFIX + "sent").values()} == {2}
    after = on_redis.counts([*both, every])
    assert [said.counts["sent"] for said in after] == [7, 2, 11]
    assert [said.settled for said in after] == [True, True, False]
    for resolution in (Resolution.TEN, Resolution.HOUR, Resolution.DAY):
        number = minute * 60 // SECONDS[resolution]
        (found,) = on_redis.counts([Span("mail", resolution, number)])
        assert found.counts["sent"] >= 7


def test_every_key_expires(on_redis: RedisBroker, client: redis.Redis) -> None:
    client.hset(PREFIX + "sent", str(int(time.time() // 60) - 200_000), 7)
    push(on_redis, b"a")
    on_redis.push([Outgoing("mail", b"later", 0, time.time() + 60)])
    on_redis.count("mail", {"succeeded": 1}, {"a": {"succeeded": 1}})
    seen = set()
    for key in client.scan_iter(PREFIX + "*"):
        name = key.decode().removeprefix(PREFIX)
        if name == "sent":
            assert client.ttl(key) == 400 * 86_400
            continue
        resolution, _, rest = name.partition(":")
        seen.add((resolution, rest.endswith(":tasks")))
        kept = KEPT[Resolution(resolution)][rest.endswith(":tasks")]
        assert kept - 5 <= client.ttl(key) <= kept, name
    assert seen == {
        (resolution.value, tasks) for resolution in Resolution for tasks in (True, False)
    }


@pytest.mark.parametrize("key", ["sent", "minute", "day"])
def test_somebody_else_s_key_hurts_no_message(
    on_redis: RedisBroker, client: redis.Redis, key: str
) -> None:
    now = time.time()
    client.hset(PREFIX + "sent", str(int(now // 60) - 1), 7)
    if key == "sent":
        client.set(PREFIX + "sent", "somebody else's")
    for minute in (-1, 0, 1):
        span = span_at("mail", Resolution(key), now + 60 * minute) if key != "sent" else None
        if span:
            client.set(f"{PREFIX}{span.resolution}:{span.number}", "somebody else's")
    push(on_redis, b"a", b"b")
    on_redis.push([Outgoing("mail", b"later", 0, now + 60)])
    assert claim(on_redis) == [b"a", b"b"]
    assert client.zcard("{mail}:due") == 1
    on_redis.count("mail", {"succeeded": 1}, {})
    assert client.hget(f"{PREFIX}ever:0", "succeeded") == b"1"


def test_a_user_without_the_right_to_count_may_send(broker_url: str, client: redis.Redis) -> None:
    rights: Any = ("ACL", "SETUSER", "sender", "on", "nopass", "~*", "&*", "+@all")
    client.execute_command(*rights, "-hincrby", "-time")
    try:
        sender = RedisBroker(broker_url.replace("://", "://sender:any@"), metrics=True)
        push(sender, b"a")
        sender.push([Outgoing("mail", b"later", 0, time.time() + 60)])
        assert (client.llen("mail"), client.zcard("{mail}:due")) == (1, 1)
        sender.close()
    finally:
        client.execute_command("ACL", "DELUSER", "sender")
