"""What the next attempt of a call is given, where `retry` gives it other arguments."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.api.parameters import given_anew, signature_of


def run(x: int, y: int = 0, *more: int, z: int = 0) -> None: ...
def by_place(x: int, /, y: int, **named: int) -> None: ...


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        (([], {"x": 1, "y": 2}), ([5], None), ([5], {"y": 2})),
        (([1], {"y": 2, "z": 3}), ([5, 6], None), ([5, 6], {"z": 3})),
        (([1, 2, 3], {"z": 4}), (None, {"x": 5}), ([5, 2, 3], {})),
        (([1], {"z": 4}), (None, {"y": 5}), ([1], {"y": 5})),
        (([1], {"z": 4}), ([5], {"z": 6}), ([5], {"z": 6})),
        (([1], {"z": 4}), ([], {}), ([], {})),
    ],
)
def test_what_is_not_given_stays(before: Any, given: Any, expected: Any) -> None:
    signature, _ = signature_of(run, bind=False)
    assert given_anew(signature, before, *given) == expected


def test_a_parameter_that_has_no_name_for_callers_is_not_given_by_name() -> None:
    signature, _ = signature_of(by_place, bind=False)
    assert given_anew(signature, ([1], {"y": 2}), None, {"x": 5, "y": 3}) == ([1], {"x": 5, "y": 3})
    assert given_anew(signature, ([], {"x": 4, "y": 2}), [5], None) == ([5], {"x": 4, "y": 2})
