"""The contract of every broker: what becomes of a delivery."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from jobs.broker.base import Broker, Returned
from tests.integration.broker.helpers import LEASE, claim, dead, numbered, push, waiting


def test_acked_is_gone(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker)
    assert broker.ack("mail", "w1", [1, 2]) == 2
    assert broker.stats("mail") == (0, 0, 0, 0, 1)


def test_acks_count_what_was_held(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker)
    assert broker.ack("mail", "w1", [1, 99]) == 1
    assert broker.ack("mail", "w1", [1, 2]) == 1
    assert broker.ack("mail", "w1", []) == 0


@pytest.mark.parametrize("numbers", [[2, 3, 4, 7, 9], [9, 4, 3, 2, 7], [2, 2, 3, 4, 7, 9]])
def test_acks_with_gaps_in_any_order(broker: Broker, numbers: list[int]) -> None:
    push(broker, *numbered(9))
    claim(broker, 9)
    assert broker.ack("mail", "w1", numbers, ["id"]) == 5
    assert broker.numbers_held(["mail"], "w1") == {"mail": {1, 5, 6, 8}}


def test_thousands_of_acks_at_once(broker: Broker) -> None:
    push(broker, *numbered(2_500))
    for first in (1, 1001, 2001):
        claim(broker, 1000, first=first)
    assert broker.ack("mail", "w1", range(1, 3_001)) == 2_500
    assert broker.stats("mail").in_flight == 0


def test_a_retry_waits_for_its_time_in_its_new_form(broker: Broker) -> None:
    push(broker, b"first try")
    claim(broker)
    assert broker.retry("mail", "w1", 1, b"second try", 0, time.time() + 30)
    assert broker.stats("mail") == (0, 0, 1, 0, 1)
    assert claim(broker, first=2) == []


def test_a_retry_that_is_due_is_claimed_by_its_priority(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker)
    assert broker.retry("mail", "w1", 1, b"a2", 9, time.time() - 1)
    assert broker.retry("mail", "w1", 2, b"b2", 0, time.time() - 1)
    assert waiting(broker) == [b"b2", b"a2"]


def test_released_comes_first_and_in_order(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c")
    claim(broker, 2)
    assert broker.release("mail", "w1", [Returned(1), Returned(2)]) == 2
    assert waiting(broker) == [b"a", b"b", b"c"]


def test_released_in_any_order_comes_oldest_first(broker: Broker) -> None:
    push(broker, *numbered(4))
    claim(broker)
    broker.release("mail", "w1", [Returned(n) for n in (3, 1, 4, 2)])
    assert waiting(broker) == numbered(4)


def test_released_with_a_new_form_and_priority(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker)
    broker.release("mail", "w1", [Returned(1, 9, b"a2"), Returned(2, 3)])
    assert waiting(broker) == [b"b", b"a2"]


def test_thousands_released_at_once(broker: Broker) -> None:
    raws = numbered(2_500)
    push(broker, *raws)
    for first in (1, 1001, 2001):
        claim(broker, 1000, first=first)
    assert broker.release("mail", "w1", [Returned(n) for n in range(1, 2_501)]) == 2_500
    assert broker.stats("mail").in_flight == 0
    again = [raw for n in range(3) for raw in claim(broker, 1000, first=3_000 + n * 1000)]
    assert again == raws


def test_nothing_is_done_to_what_is_not_held(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker)
    broker.ack("mail", "w1", [1])
    assert broker.retry("mail", "w1", 1, b"a2", 0, time.time() - 1) is False
    assert broker.release("mail", "w1", [Returned(1), Returned(1, 0, b"a3")]) == 0
    assert broker.dead_letter("mail", "w1", 1, "why", "worker-1") is False
    assert broker.stats("mail") == (0, 0, 0, 0, 1)


def test_it_is_known_whose_messages_were_taken_away(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker, by="w1")
    assert not broker.taken("mail", "w1")
    broker.reclaim("mail", "w1", lambda number, raw: Returned(number))
    claim(broker, by="w2")
    assert broker.taken("mail", "w1")
    assert not broker.taken("mail", "w2")
    assert not broker.taken("other", "w1")


def test_nobody_touches_what_another_holds(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker, by="w1")
    assert broker.ack("mail", "w2", [1]) == 0
    assert broker.ack("other", "w1", [1]) == 0
    assert broker.retry("mail", "w2", 1, b"a2", 0, 0) is False
    assert broker.release("mail", "w2", [Returned(1)]) == 0
    assert broker.dead_letter("mail", "w2", 1, "why", "worker-1") is False
    assert broker.ack("mail", "w1", [1]) == 1


def test_a_late_worker_loses(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker, by="w1")
    broker.reclaim("mail", "w1", lambda number, raw: Returned(number))
    assert claim(broker, by="w2") == [b"a"]
    assert broker.ack("mail", "w1", [1]) == 0
    assert broker.ack("mail", "w2", [1]) == 1


def test_a_dead_letter_is_kept_whole(broker: Broker) -> None:
    raw = bytes(range(256))
    push(broker, raw)
    claim(broker)
    assert broker.dead_letter("mail", "w1", 1, "není úloha", "worker-1")
    assert broker.stats("mail") == (0, 0, 0, 1, 1)
    [letter] = broker.dead_letters("mail", 10)
    assert letter[1:3] == (raw, "není úloha")
    assert letter.worker == "worker-1"
    assert abs(dt.datetime.now(dt.UTC) - letter.at) < dt.timedelta(seconds=5)


def test_dead_letters_come_newest_first_in_pages(broker: Broker) -> None:
    raws = numbered(25)
    dead(broker, raws)
    found: list[bytes] = []
    before = None
    while page := broker.dead_letters("mail", 10, before):
        assert len(page) <= 10
        found += [letter.raw for letter in page]
        before = page[-1].key
    assert found == raws[::-1]


def test_a_page_goes_on_where_its_letter_was_deleted(broker: Broker) -> None:
    dead(broker, numbered(3))
    newest, *older = broker.dead_letters("mail", 3)
    broker.discard("mail", newest.key)
    assert broker.dead_letters("mail", 3, newest.key) == older


def test_dead_letters_of_the_same_instant_have_keys_of_their_own(broker: Broker) -> None:
    dead(broker, numbered(50))
    assert len({letter.key for letter in broker.dead_letters("mail", 100)}) == 50


def test_a_dead_letter_by_its_key(broker: Broker) -> None:
    dead(broker, [b"a", b"b"])
    for letter in broker.dead_letters("mail", 10):
        assert broker.dead_letter_at("mail", letter.key) == letter
    broker.discard("mail", letter.key)
    assert broker.dead_letter_at("mail", letter.key) is None
    assert broker.dead_letter_at("other", letter.key) is None


@pytest.mark.parametrize("priority", [0, 3, 8, 9])
def test_a_dead_letter_goes_back_to_its_queue_once(broker: Broker, priority: int) -> None:
    dead(broker, [b"a"])
    [letter] = broker.dead_letters("mail", 1)
    assert broker.requeue("mail", letter.key, priority) is True
    assert broker.requeue("mail", letter.key, priority) is False
    assert broker.dead_letters("mail", 1) == []
    assert waiting(broker) == [b"a"]


def test_a_requeued_letter_has_its_priority(broker: Broker) -> None:
    dead(broker, [b"a"])
    push(broker, b"b", priority=3)
    broker.requeue("mail", broker.dead_letters("mail", 1)[0].key, 9)
    assert waiting(broker) == [b"b", b"a"]


def test_a_discarded_letter_is_gone(broker: Broker) -> None:
    dead(broker, [b"a", b"b"])
    newest, oldest = broker.dead_letters("mail", 10)
    assert broker.discard("mail", newest.key) is True
    assert broker.discard("mail", newest.key) is False
    assert broker.dead_letters("mail", 10) == [oldest]
    assert broker.stats("mail").dead == 1


def test_letters_of_another_queue_are_out_of_reach(broker: Broker) -> None:
    dead(broker, [b"a"])
    [letter] = broker.dead_letters("mail", 1)
    assert broker.dead_letters("other", 10) == []
    assert broker.requeue("other", letter.key) is False
    assert broker.discard("other", letter.key) is False


def test_a_lease_is_all_a_consumer_leaves_behind(broker: Broker) -> None:
    push(broker, b"a")
    broker.claim("mail", "w1", 1, 1, LEASE)
    broker.ack("mail", "w1", [1])
    broker.leave("mail", "w1")
    assert broker.stats("mail") == (0, 0, 0, 0, 0)


def test_what_was_acknowledged_can_still_be_a_dead_letter(broker: Broker) -> None:
    broker.bury("mail", b"whole \x00 \xff", "Reject: \udcff", "w1")
    (letter,) = broker.dead_letters("mail", 10)
    assert (letter.raw, letter.worker) == (b"whole \x00 \xff", "w1")
    assert letter.reason.startswith("Reject: ")
    assert broker.requeue("mail", letter.key)
    assert waiting(broker) == [b"whole \x00 \xff"]
