"""Permits and slots: what both brokers promise of them."""

from __future__ import annotations

import time

import pytest

from jobs.broker.base import Broker, Outgoing
from jobs.broker.limiting import GIVEN_BACK, Rate, Slot, Wish
from tests.integration.broker.helpers import LEASE, claim, push

HOUR = Rate(3600.0, 3)


def waits(broker: Broker, *before: float, limit: str = "imports") -> list[float]:
    ((*answers,),) = broker.permits([Wish(limit, HOUR, before)])
    return [permit.wait for permit in answers]


def test_permits_then_times_an_interval_apart(broker: Broker) -> None:
    assert waits(broker, 0, 0, 0, 0, 0) == pytest.approx([0, 0, 0, 8400, 12000], abs=1)
    assert waits(broker, 0) == pytest.approx([15600], abs=10)


def test_the_time_that_is_kept_is_told(broker: Broker) -> None:
    waits(broker, 0, 0, 0)
    ((answer,),) = broker.permits([Wish("imports", HOUR, [0])])
    assert answer.at == pytest.approx(time.time() + 8400, abs=60)


def test_limits_know_nothing_of_each_other(broker: Broker) -> None:
    answers = broker.permits([Wish("a", HOUR, [0] * 4), Wish("b", HOUR, [0] * 2)])
    assert [[permit.wait > 0 for permit in one] for one in answers] == [
        [False, False, False, True],
        [False, False],
    ]


def test_what_is_not_used_is_given_back(broker: Broker) -> None:
    assert [wait > 0 for wait in waits(broker, 0, 0, 0, 0)] == [False, False, False, True]
    assert broker.permits([Wish("imports", HOUR, (), unused=2)]) == [[]]
    # Those that gave theirs back go before those that wait, and have all that is there.
    assert [wait > 0 for wait in waits(broker, *[GIVEN_BACK] * 3)] == [False, False, True]


def test_no_time_is_kept_for_who_would_not_wait(broker: Broker) -> None:
    waits(broker, 0, 0, 0)
    for _ in range(2):
        ((answer,),) = broker.permits([Wish("imports", HOUR, [0], within=60)])
        assert answer.wait == pytest.approx(8400, abs=60)


def test_a_rate_that_becomes_faster(broker: Broker) -> None:
    """What was taken and kept under the slow one would keep others away for hours."""
    waits(broker, *[0] * 30)
    minutely = Wish("imports", HOUR._replace(interval=60.0), [0, 0])
    ((first, second),) = broker.permits([minutely])
    assert first.wait == pytest.approx((3 + 4 / 3 - 2 + 27) * 60, abs=5)
    assert second.wait - first.wait == pytest.approx(60, abs=1)
    # Who was called before his time.
    ((early,),) = broker.permits([minutely._replace(before=[time.time() + 90_000])])
    assert early.wait > 0


def test_a_rate_that_becomes_slower(broker: Broker) -> None:
    """Those that wait come at their times, and get others."""
    minutely = Wish("imports", Rate(60.0), [0, 0, 0])
    broker.permits([minutely])
    assert waits(broker, 0) == pytest.approx([180], abs=5)


def test_who_is_called_early_gets_no_more_than_his_permit(broker: Broker) -> None:
    early = Wish("imports", Rate(60.0), [time.time() + 90_000] * 2)
    ((first, second),) = broker.permits([early])
    assert first.wait == 0
    assert second.wait == pytest.approx(60, abs=5)


def test_what_is_said_of_rates_is_kept(broker: Broker) -> None:
    assert broker.overrides() == {}
    assert broker.set_override("shop.x", b"first") is False
    assert broker.set_override("shop.x", b"second") is True
    assert broker.set_override("shop.é", b"\xff") is False
    assert broker.overrides() == {"shop.x": b"second", "shop.é": b"\xff"}
    assert broker.set_override("shop.x", None) is True
    assert broker.set_override("shop.x", None) is False
    assert list(broker.overrides()) == ["shop.é"]


def test_nobody_is_asked(broker: Broker) -> None:
    assert broker.permits([]) == broker.take_slots([]) == broker.lock([]) == broker.locked([]) == []
    broker.free_slots([])


def slots(*holders: str, most: int = 1, limit: str = "imports") -> list[Slot]:
    return [Slot(limit, most, holder, "mail") for holder in holders]


def wait(broker: Broker, *holders: str) -> float:
    """Until when."""
    wanted = slots(*holders)
    times = broker.take_slots(wanted)
    broker.wait_for_slots([slot._replace(due=at) for slot, at in zip(wanted, times, strict=True)])
    return times[0]


def held(broker: Broker, wanted: list[Slot]) -> list[bool]:
    return [at == 0 for at in broker.take_slots(wanted)]


def test_as_many_slots_as_there_are(broker: Broker) -> None:
    assert held(broker, slots("a", "b", "c", most=2)) == [True, True, False]
    assert held(broker, slots("a", most=2)) == [True]
    assert held(broker, slots("a", "b", limit="other")) == [True, False]


def test_a_freed_slot_is_kept_for_who_waits(broker: Broker) -> None:
    broker.take_slots(slots("a"))
    wait(broker, "first")
    time.sleep(0.002)
    wait(broker, "second")
    broker.free_slots(slots("a"))
    assert held(broker, slots("passing", "second", "first")) == [False, False, True]


def test_who_waits_is_woken(broker: Broker) -> None:
    broker.take_slots(slots("a"))
    due = wait(broker, "b")
    assert time.time() + 5 < due < time.time() + 60
    broker.push([Outgoing("mail", b"b", 0, due), Outgoing("mail", b"other", 0, due + 60)])
    assert claim(broker) == []
    broker.free_slots(slots("a"))
    assert broker.wait_and_claim("mail", "w1", 1, 10, LEASE, 5).messages == [(1, b"b")]


def test_a_slot_that_was_freed_meanwhile(broker: Broker) -> None:
    """Between the question and the message's way to the due ones."""
    broker.take_slots(slots("a"))
    (due,) = broker.take_slots(slots("b"))
    broker.free_slots(slots("a"))
    broker.push([Outgoing("mail", b"b", 0, due)])
    broker.wait_for_slots([slots("b")[0]._replace(due=due)])
    assert claim(broker) == [b"b"]
    assert held(broker, slots("passing", "b")) == [False, True]


def test_a_postponed_message_is_found_by_its_time(broker: Broker) -> None:
    """As the recorder puts it: out of flight, at the time it was told."""
    broker.take_slots(slots("a"))
    for number in range(20):
        push(broker, b"b")
        broker.claim("mail", "w1", number + 1, 1, LEASE)
        (due,) = broker.take_slots(slots("b"))
        assert broker.retry("mail", "w1", number + 1, b"b", 0, due)
        broker.wait_for_slots([slots("b")[0]._replace(due=due)])
        broker.free_slots(slots("a"))
        assert claim(broker, by=f"other {number}") == [b"b"], number
        broker.free_slots(slots("b"))
        broker.take_slots(slots("a"))


def test_slots_are_held_on_to(broker: Broker) -> None:
    broker.take_slots(slots("a"))
    broker.keep_slots(slots("a", "lost"))
    assert held(broker, slots("b")) == [False]
    broker.free_slots(slots("a"))
    assert held(broker, slots("b")) == [True]
