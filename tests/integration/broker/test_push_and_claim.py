"""The contract of every broker: messages on their way to a consumer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from jobs.broker.base import Broker, Claim, Outgoing
from tests.integration.broker.helpers import LEASE, claim, numbered, push, waiting
from tests.services import wait_for


def test_oldest_first(broker: Broker) -> None:
    push(broker, b"a", b"b")
    push(broker, b"c")
    assert claim(broker) == [b"a", b"b", b"c"]


def test_very_many_at_once_keep_their_order(broker: Broker) -> None:
    broker.push(Outgoing("mail", raw) for raw in numbered(950))
    assert claim(broker, 1000) == numbered(950)


def test_an_error_while_they_are_asked_for_leaves_the_broker_usable(broker: Broker) -> None:
    def some() -> Iterator[Outgoing]:
        yield from (Outgoing("mail", raw) for raw in numbered(250))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        broker.push(some())
    push(broker, b"the next")
    left = claim(broker, 1000)
    assert left == [*numbered(len(left) - 1), b"the next"]


def test_an_empty_queue_gives_nothing(broker: Broker) -> None:
    assert broker.claim("mail", "w1", 1, 10, LEASE) == Claim([], None)


def test_a_claimed_message_is_claimed_by_nobody_else(broker: Broker) -> None:
    push(broker, b"a", b"b")
    assert claim(broker, 1, by="w1") == [b"a"]
    assert claim(broker, by="w2") == [b"b"]
    assert claim(broker, by="w3") == []


def test_no_more_than_the_limit(broker: Broker) -> None:
    push(broker, *numbered(5))
    assert claim(broker, 2) == numbered(5)[:2]
    assert broker.stats("mail").waiting == 3


def test_a_limit_of_nothing_claims_nothing(broker: Broker) -> None:
    push(broker, b"a")
    assert claim(broker, 0) == []
    assert waiting(broker) == [b"a"]


def test_numbers_count_up_from_the_first(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c")
    assert broker.claim("mail", "w1", 7, 2, LEASE).messages == [(7, b"a"), (8, b"b")]
    assert broker.claim("mail", "w1", 9, 2, LEASE).messages == [(9, b"c")]


def test_a_repeated_claim_gives_again_what_is_held(broker: Broker) -> None:
    """The caller of one whose answer was lost can't know whether it took something."""
    push(broker, b"a", b"b", b"c")
    assert claim(broker, 2) == [b"a", b"b"]
    assert claim(broker, 10) == [b"a", b"b"]
    assert claim(broker, 1) == [b"a"]
    assert claim(broker, 10, first=2) == [b"b"]
    assert claim(broker, 10, first=3) == [b"c"]
    assert claim(broker, 10) == [b"a", b"b", b"c"]
    assert broker.ack("mail", "w1", [1, 2, 3]) == 3
    assert claim(broker, 10) == []


def test_queues_are_apart(broker: Broker) -> None:
    broker.push([Outgoing("mail", b"a"), Outgoing("other", b"b"), Outgoing("mail", b"c")])
    assert claim(broker) == [b"a", b"c"]
    assert broker.claim("other", "w1", 1, 10, LEASE).messages == [(1, b"b")]


def test_most_urgent_first_and_oldest_first_within_a_step(broker: Broker) -> None:
    sent = [9, 0, 3, 5, 4, 2, 8, 6, 1, 7]
    broker.push([Outgoing("mail", b"%d" % priority, priority) for priority in sent])
    steps = [[b"0", b"2", b"1"], [b"3", b"5", b"4"], [b"8", b"6", b"7"], [b"9"]]
    assert claim(broker) == [raw for step in steps for raw in step]


def test_one_claim_reaches_across_priorities(broker: Broker) -> None:
    push(broker, b"late", priority=9)
    push(broker, b"early", priority=0)
    assert broker.claim("mail", "w1", 4, 10, LEASE).messages == [(4, b"early"), (5, b"late")]


def test_pushing_nothing_does_nothing(broker: Broker) -> None:
    broker.push([])
    assert broker.stats("mail") == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "raw", [b"", bytes(range(256)), b"\xff\x00\r\n", b"3|x", "čau 🙂".encode()]
)
def test_bytes_arrive_as_they_were_sent(broker: Broker, raw: bytes) -> None:
    past = time.time() - 1
    broker.push([Outgoing("mail", raw, 0), Outgoing("mail", raw, 9, past)])
    assert claim(broker) == [raw, raw]


def test_a_huge_message(broker: Broker) -> None:
    raw = bytes(range(256)) * 65_536  # 16 MiB
    push(broker, raw)
    assert claim(broker) == [raw]


def test_thousands_of_messages_in_one_push(broker: Broker) -> None:
    raws = numbered(2_500)
    push(broker, *raws)
    claimed = claim(broker, 1000)
    claimed += claim(broker, 1000, first=1001)
    claimed += claim(broker, 1000, first=2001)
    assert claimed == raws
    assert broker.stats("mail").in_flight == 2_500


def test_thousands_of_messages_that_are_due(broker: Broker) -> None:
    past = time.time() - 100
    raws = numbered(1_700)
    broker.push([Outgoing("mail", raw, 0, past + n / 1000) for n, raw in enumerate(raws)])
    claimed: list[bytes] = []
    while batch := claim(broker, 700, first=len(claimed) + 1):
        claimed += batch
    assert claimed == raws


def test_a_late_claim_gets_nothing(broker: Broker) -> None:
    """Of numbers that are settled: nobody would learn of what it took."""
    push(broker, b"a", b"b")
    assert claim(broker, 2) == [b"a", b"b"]
    broker.ack("mail", "w1", [1])
    push(broker, b"c")
    late = broker.claim("mail", "w1", 1, 10, LEASE)
    assert (late.messages, late.resume) == ([], 3)
    assert broker.held("mail", "w1", [1, 2]) == {2}
    assert claim(broker, first=late.resume) == [b"c"]


def test_a_due_message_waits_for_its_time(broker: Broker) -> None:
    broker.push([Outgoing("mail", b"later", 0, time.time() + 30)])
    messages, next_due, *_ = broker.claim("mail", "w1", 1, 10, LEASE)
    assert messages == []
    assert next_due == pytest.approx(30, abs=5)
    assert broker.stats("mail").due == 1


def test_what_is_past_due_is_claimed_in_the_order_of_its_times(broker: Broker) -> None:
    now = time.time()
    ages = {b"b": 2.0, b"c": 1.0, b"a": 3.0}
    broker.push([Outgoing("mail", raw, 0, now - age) for raw, age in ages.items()])
    assert claim(broker) == [b"a", b"b", b"c"]
    assert broker.stats("mail").due == 0


def test_what_falls_due_keeps_its_priority(broker: Broker) -> None:
    past = time.time() - 1
    broker.push([Outgoing("mail", b"least", 9, past), Outgoing("mail", b"most", 0, past + 0.5)])
    assert claim(broker) == [b"most", b"least"]


def test_what_falls_due_goes_behind_what_waits(broker: Broker) -> None:
    push(broker, b"waits")
    broker.push([Outgoing("mail", b"due", 0, time.time() - 1)])
    assert claim(broker) == [b"waits", b"due"]


def test_nothing_runs_before_its_time(broker: Broker) -> None:
    due = time.time() + 0.05
    broker.push([Outgoing("mail", b"soon", 0, due)])
    assert wait_for(lambda: claim(broker), 5) == [b"soon"]
    assert time.time() >= due


def test_the_next_due_message_is_told_also_when_others_are_claimed(broker: Broker) -> None:
    now = time.time()
    broker.push([Outgoing("mail", b"%d" % n, 0, now + n) for n in (50, 20, -1)])
    messages, next_due, *_ = broker.claim("mail", "w1", 1, 10, LEASE)
    assert [raw for _, raw in messages] == [b"-1"]
    assert next_due == pytest.approx(20, abs=5)


def test_a_prefix_keeps_projects_apart(broker_url: str) -> None:
    from jobs.broker.redis import RedisBroker

    one, two = RedisBroker(broker_url, prefix="one:"), RedisBroker(broker_url, prefix="two:")
    push(one, b"a")
    assert claim(two) == []
    assert claim(one) == [b"a"]
    one.close()
    two.close()
