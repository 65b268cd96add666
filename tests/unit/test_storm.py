"""Which calls a storm excuses: see `tests.storm.failovers`."""

from __future__ import annotations

import time

import pytest

from jobs.message import new_id
from tests.storm.failovers import LAG, Failover, sent_at


def test_an_id_says_when_it_was_made() -> None:
    before = time.time()
    assert before - 0.001 <= sent_at(new_id()) <= time.time()


@pytest.mark.parametrize(
    ("seconds", "may"), [(-LAG - 0.1, False), (-0.1, True), (0.1, True), (2.9, True), (3.1, False)]
)
def test_what_was_sent_just_before_a_failover_may_be_lost(seconds: float, may: bool) -> None:
    id_ = new_id()
    # The old master is gone three seconds after the failover has begun.
    began = sent_at(id_) - seconds
    assert Failover(began, began + 1, began + 3, frozenset()).may_lose(id_) is may
