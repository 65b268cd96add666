"""Which queue is asked first."""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.worker.claim import order
from jobs.worker.claim.order import Order

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
    return order.of(list(WEIGHTS), list(WEIGHTS.values()))


def test_strict_order_never_changes() -> None:
    strict = order.of(["high", "low"], [])
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
    turns = order.of(["a", "b", "c"], [1, 1, 1])
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


# --------------------------------------------------------------------------- the command
