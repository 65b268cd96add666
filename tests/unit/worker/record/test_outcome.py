"""Outcomes as values, and how an exception is stored."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import serialization
from jobs.worker.record import outcome


def test_a_long_error_keeps_its_head_and_its_tail() -> None:
    told = outcome.describe(ValueError("head" + "x" * 1_000_000 + "tail"))
    for text in (told.text, told.traceback):
        assert len(text) < outcome.ERROR_MOST + 100
        assert text.rstrip().endswith("tail")
        assert "characters are left out" in text
    assert told.text.startswith("head")
    assert len(told.stored) < 2 * outcome.ERROR_MOST
    assert serialization.loads(told.stored)["exc_type"] == "ValueError"
    assert len(outcome.reason(ValueError("x" * 1_000_000))) < outcome.ERROR_MOST + 200


def test_a_short_error_is_stored_as_it_is() -> None:
    told = outcome.describe(ValueError("why", 3))
    assert told.text == "('why', 3)"
    assert serialization.loads(told.stored)["exc_message"] == ["why", 3]


@pytest.mark.parametrize(
    "given",
    [[1, -2, True, None], [2**70], [1.5], ["é\x7f\n"], [[1], {"a": 1}], [], {"a": 1}, (1, 2)],
    ids=str,
)
def test_arguments_have_one_form(given: Any) -> None:
    assert outcome._arguments(given) == serialization.dumps(given)


def test_an_outcome_never_changes() -> None:
    done = outcome.Done("default", 1)
    with pytest.raises(AttributeError):
        done.held = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("found", "raw"),
    [
        (outcome.Done("default", 1, held=False, ended="a", reported="a"), b""),
        (outcome.Later("default", 1, held=False, raw=b"again", priority=3, due=1.0), b"again"),
        (outcome.Dead("default", 1, held=False, reason="first", raw=b"bad"), b"bad"),
    ],
    ids=["done", "later", "dead"],
)
def test_what_cannot_be_recorded_is_a_dead_letter(found: outcome.Outcome, raw: bytes) -> None:
    dead = outcome.buried(found, "why")
    assert (dead.reason, dead.raw, dead.failed, dead.held) == ("why", raw, True, False)
    assert (dead.ended, dead.reported) == (found.ended, found.reported)
