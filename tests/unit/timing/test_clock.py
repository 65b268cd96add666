"""Pauses between tries."""

from __future__ import annotations

from jobs.timing.clock import growing_pause


def test_pauses_double_up_to_the_longest() -> None:
    assert [growing_pause(n, 0.5, 5.0) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_an_outage_of_hours_has_a_pause_as_well() -> None:
    assert growing_pause(5000, 0.5, 30.0) == 30.0
