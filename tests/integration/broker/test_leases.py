"""The contract of every broker: consumers, their leases, and what the vanished leave behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.broker.base import Broker, Returned
from tests.integration.broker.helpers import LEASE, claim, expire, numbered, push, waiting
from tests.services import wait_for

NO_TIME = 0.001


def keep(number: int, _raw: bytes) -> Returned:
    return Returned(number)


def names(broker: Broker) -> list[str]:
    return sorted(consumer.name for consumer in broker.consumers("mail"))


def test_a_claim_makes_a_consumer_known(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c")
    claim(broker, 2, by="w1")
    claim(broker, by="w2")
    found = {consumer.name: consumer for consumer in broker.consumers("mail")}
    assert {name: consumer.in_flight for name, consumer in found.items()} == {"w1": 2, "w2": 1}
    assert found["w1"].lease == pytest.approx(LEASE, abs=5)
    assert broker.stats("mail") == (0, 3, 0, 0, 2)


def test_a_claim_does_not_extend_a_lease(broker: Broker) -> None:
    push(broker, b"a", b"b")
    broker.claim("mail", "w1", 1, 1, LEASE)
    broker.claim("mail", "w1", 2, 1, 10 * LEASE)
    assert broker.consumers("mail")[0].lease <= LEASE


def test_a_lease_ends_by_itself(broker: Broker) -> None:
    push(broker, b"a", b"b")
    broker.claim("mail", "gone", 1, 1, NO_TIME)
    broker.claim("mail", "here", 1, 1, LEASE)
    assert wait_for(lambda: broker.expired("mail"), 5) == ["gone"]
    assert broker.stats("mail") == (0, 2, 0, 0, 1)
    ended = next(c for c in broker.consumers("mail") if c.name == "gone")
    assert ended.lease < 0
    assert ended.in_flight == 1


def test_leases_are_a_queue_s_own(broker: Broker) -> None:
    expire(broker, "w1")
    assert broker.expired("mail") == ["w1"]
    assert broker.expired("other") == []
    assert broker.consumers("other") == []


def test_a_renewed_lease_has_not_ended(broker: Broker) -> None:
    for name in ("w1", "w2"):
        expire(broker, name)
    broker.renew("mail", ["w1"], LEASE)
    assert broker.expired("mail") == ["w2"]
    assert max(c.lease for c in broker.consumers("mail")) == pytest.approx(LEASE, abs=5)


def test_a_renewal_may_shorten_a_lease(broker: Broker) -> None:
    broker.renew("mail", ["w1"], LEASE)
    broker.renew("mail", ["w1"], NO_TIME)
    wait_for(lambda: broker.expired("mail") == ["w1"], 5)


def test_a_renewal_makes_a_consumer_known(broker: Broker) -> None:
    broker.renew("mail", [], LEASE)
    assert broker.consumers("mail") == []
    broker.renew("mail", ["w1"], LEASE)
    [consumer] = broker.consumers("mail")
    assert (consumer.name, consumer.in_flight) == ("w1", 0)
    assert consumer.lease == pytest.approx(LEASE, abs=5)


def test_thousands_of_renewals_at_once(broker: Broker) -> None:
    expire(broker, "w2400")
    broker.renew("mail", [f"w{n}" for n in range(2_500)], LEASE)
    assert broker.expired("mail") == []


def test_only_who_holds_something_is_retained(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker, by="w1")
    broker.renew("mail", ["w2", "of another worker"], LEASE)
    broker.retain("mail", ["w1", "w2"], 3 * LEASE)
    assert names(broker) == ["of another worker", "w1"]
    assert max(c.lease for c in broker.consumers("mail")) == pytest.approx(3 * LEASE, abs=5)
    broker.ack("mail", "w1", [1])
    broker.retain("mail", ["w1", "w2"], LEASE)
    assert names(broker) == ["of another worker"]


def test_who_was_not_retained_is_known_again_by_a_claim(broker: Broker) -> None:
    broker.renew("mail", ["w1"], NO_TIME)
    broker.retain("mail", ["w1"], LEASE)
    push(broker, b"a")
    claim(broker, by="w1")
    assert broker.expired("mail") == []


@pytest.mark.parametrize("count", [3, 700])
def test_which_of_many_queues_have_consumers_or_reports(broker: Broker, count: int) -> None:
    queues = ["mail", *(f"q{n}" for n in range(count))]
    assert broker.attended(queues) == []
    broker.renew(queues[-1], ["w1"], LEASE)
    broker.report(queues[1], "worker", b"idle")
    expire(broker, "gone")
    assert broker.attended(queues) == ["mail", queues[1], queues[-1]]
    assert broker.attended([]) == []


def test_who_leaves_is_unknown(broker: Broker) -> None:
    broker.renew("mail", ["w1"], LEASE)
    broker.leave("mail", "w1")
    broker.leave("mail", "w1")
    assert broker.consumers("mail") == []


def test_who_leaves_with_something_in_hand_stays_known(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker, by="w1")
    broker.leave("mail", "w1")
    assert names(broker) == ["w1"]
    broker.ack("mail", "w1", [1])
    broker.leave("mail", "w1")
    assert names(broker) == []


def test_who_left_may_come_back(broker: Broker) -> None:
    broker.renew("mail", ["w1"], LEASE)
    broker.leave("mail", "w1")
    push(broker, b"a")
    assert claim(broker, by="w1") == [b"a"]
    assert names(broker) == ["w1"]


def test_reclaimed_comes_first_and_its_consumer_is_forgotten(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c")
    claim(broker, 2, by="gone")
    assert broker.reclaim("mail", "gone", keep) == 2
    assert broker.consumers("mail") == []
    assert waiting(broker) == [b"a", b"b", b"c"]


def test_reclaimed_as_edited(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker, by="gone")
    seen: list[tuple[int, bytes]] = []

    def edit(number: int, raw: bytes) -> Returned:
        seen.append((number, raw))
        return Returned(number, 9 if raw == b"a" else 0, raw + b" again")

    assert broker.reclaim("mail", "gone", edit) == 2
    assert sorted(seen) == [(1, b"a"), (2, b"b")]
    assert waiting(broker) == [b"b again", b"a again"]


def test_nothing_to_reclaim(broker: Broker) -> None:
    assert broker.reclaim("mail", "nobody", keep) == 0
    broker.renew("mail", ["idle"], LEASE)
    assert broker.reclaim("mail", "idle", keep) == 0
    assert broker.consumers("mail") == []


def test_reclaiming_takes_nothing_of_others(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker, 1, by="gone")
    claim(broker, 1, by="here")
    assert broker.reclaim("mail", "gone", keep) == 1
    assert names(broker) == ["here"]
    assert broker.ack("mail", "here", [1]) == 1


def test_reclaiming_thousands(broker: Broker) -> None:
    raws = numbered(2_500)
    push(broker, *raws)
    for first in (1, 1001, 2001):
        claim(broker, 1000, by="gone", first=first)
    assert broker.reclaim("mail", "gone", keep) == 2_500
    again = [raw for n in range(3) for raw in claim(broker, 1000, first=n * 1000 + 1)]
    assert sorted(again) == sorted(raws)


def test_many_reclaim_at_once_and_each_message_comes_back_once(
    broker: Broker, threads: ThreadPoolExecutor
) -> None:
    raws = numbered(1_200)
    push(broker, *raws)
    claim(broker, 1000, by="gone", first=1)
    claim(broker, 1000, by="gone", first=1001)
    counts = list(threads.map(lambda _: broker.reclaim("mail", "gone", keep), range(6)))
    assert sum(counts) == 1_200
    again = claim(broker, 1000) + claim(broker, 1000, first=1001)
    assert sorted(again) == sorted(raws)


def test_an_edit_that_raises_loses_nothing(broker: Broker) -> None:
    def edit(number: int, raw: bytes) -> Returned:
        raise LookupError(raw)

    push(broker, b"a")
    claim(broker, by="gone")
    with pytest.raises(LookupError):
        broker.reclaim("mail", "gone", edit)
    assert broker.reclaim("mail", "gone", keep) == 1
