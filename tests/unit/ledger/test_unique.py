"""What ``unique=`` and its kin come to."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from jobs.ledger.unique import Uniqueness, uniqueness

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"unique": None}, None),
        ({"unique": "until_end"}, Uniqueness("until_end")),
        (
            {"unique": "until_start", "on_conflict": "replace"},
            Uniqueness("until_start", 0, "replace"),
        ),
        ({"unique": 60}, Uniqueness("", 60.0)),
        (
            {"unique": dt.timedelta(minutes=1), "on_conflict": "raise"},
            Uniqueness("", 60.0, "raise"),
        ),
        ({"unique": None, "throttle": 5}, Uniqueness("", 5.0)),
        ({"unique": None, "debounce": 5}, Uniqueness("until_start", 0.0, "replace", 5.0)),
    ],
)
def test_what_it_comes_to(given: dict[str, Any], expected: Uniqueness | None) -> None:
    assert uniqueness(**given) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"unique": "for ever"}, "'until_start', 'until_end', seconds or a timedelta"),
        ({"unique": 0}, "unique must be more than 0 seconds, not 0"),
        ({"unique": True}, "unique must be seconds or a timedelta, not True"),
        ({"unique": None, "throttle": -1}, "throttle must be more than 0 seconds"),
        ({"unique": None, "debounce": "5"}, "debounce must be seconds or a timedelta"),
        (
            {"unique": "until_end", "on_conflict": "wait"},
            "'drop', 'replace' or 'raise', not 'wait'",
        ),
        ({"unique": None, "on_conflict": "raise"}, "on_conflict is for a task with unique="),
        ({"unique": 5, "throttle": 5}, "unique and throttle are given; give one of them"),
        ({"unique": None, "debounce": 5, "on_conflict": "raise"}, "leave out on_conflict"),
        ({"unique": "until_end", "on_conflict": "replace"}, "what runs can't be replaced"),
        ({"unique": 5, "on_conflict": "replace"}, "needs unique='until_start'"),
    ],
)
def test_what_it_can_t_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        uniqueness(**given)


def test_for_how_long_others_are_kept_away_at_most() -> None:
    later = dt.datetime.fromtimestamp(NOW + 3600, dt.UTC)
    assert uniqueness("until_end").seconds(None, NOW) == 86_400  # type: ignore[union-attr]
    assert uniqueness("until_end").seconds(later, NOW) == 90_000  # type: ignore[union-attr]
    assert uniqueness(60).seconds(later, NOW) == 60  # type: ignore[union-attr]
