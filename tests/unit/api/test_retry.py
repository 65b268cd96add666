"""When a task is tried again, and when no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.api.options import Retries


def longest(low: float, high: float) -> float:
    """The end of the span that a wait is chosen from; that it begins at 0 is checked here."""
    assert low == 0.0
    return high


def waits(count: int = 6, **options: Any) -> list[float]:
    policy = Retries(**options)
    return [policy.pause(retries, longest) for retries in range(count)]


def test_without_backoff_the_tasks_own_delay() -> None:
    assert waits(2) == [180.0, 180.0]
    assert waits(2, default_retry_delay=7) == [7, 7]


def test_backoff_doubles_up_to_its_limit() -> None:
    assert waits(retry_backoff=True, retry_jitter=False) == [1, 2, 4, 8, 16, 32]
    assert waits(retry_backoff=5, retry_jitter=False, retry_backoff_max=30) == [
        *(5, 10, 20),
        *(30, 30, 30),
    ]


def test_jitter_spreads_over_the_whole_wait() -> None:
    assert waits(retry_backoff=True) == [1, 2, 4, 8, 16, 32]
    policy = Retries(retry_backoff=10)
    drawn = [policy.pause(1) for _ in range(200)]
    assert all(0 <= wait <= 20 for wait in drawn)
    assert min(drawn) < 5
    assert max(drawn) > 15


@settings(deadline=None)
@given(st.integers(0, 1_000_000), st.floats(0.001, 1e6), st.booleans())
def test_no_wait_is_too_long(retries: int, factor: float, jitter: bool) -> None:
    policy = Retries(retry_backoff=factor, retry_backoff_max=3600, retry_jitter=jitter)
    assert 0 <= policy.pause(retries) <= 3600


@pytest.mark.parametrize(
    ("own", "asked", "exhausted"),
    [
        (3, None, [False, False, False, True, True]),
        (0, None, [True]),
        (None, None, [False] * 5),
        (3, 1, [False, True, True]),
        (1, 3, [False, False, False, True]),
        (None, 1, [False, True]),
        (3, 0, [True]),
    ],
)
def test_exhausted(own: int | None, asked: int | None, exhausted: list[bool]) -> None:
    policy = Retries(max_retries=own)
    assert [policy.exhausted(n, asked) for n in range(len(exhausted))] == exhausted


def test_by_itself_only_after_the_named_exceptions() -> None:
    policy = Retries(
        autoretry_for=(OSError, ValueError),
        dont_autoretry_for=(FileNotFoundError,),
        default_retry_delay=5,
    )
    assert policy.delay(OSError(), 0) == 5
    assert policy.delay(ConnectionResetError(), 2) == 5  # of a kind with OSError
    assert policy.delay(UnicodeError(), 0) == 5
    assert policy.delay(FileNotFoundError(), 0) is None
    assert policy.delay(KeyError(), 0) is None
    assert policy.delay(OSError(), 3) is None
    assert Retries().delay(OSError(), 0) is None


def test_what_ends_the_process_may_be_named() -> None:
    assert Retries(autoretry_for=(SystemExit,), default_retry_delay=5).delay(SystemExit(), 0) == 5


def test_a_policy_decides_alone() -> None:
    asked: list[tuple[str, int]] = []

    def decide(error: BaseException, retries: int) -> float | None:
        asked.append((str(error), retries))
        return 2.5 if str(error) == "again" else None

    policy = Retries(retry_when=decide, autoretry_for=(OSError,), dont_autoretry_for=(KeyError,))
    assert policy.delay(ValueError("again"), 1) == 2.5
    assert policy.delay(OSError("no"), 0) is None
    assert asked == [("again", 1), ("no", 0)]
    # But for the number of attempts.
    assert policy.delay(ValueError("again"), 3) is None
    assert len(asked) == 2


def test_at_once_is_a_delay() -> None:
    assert Retries(retry_when=lambda error, retries: 0.0).delay(ValueError(), 0) == 0.0
