"""How an exception is stored."""

from __future__ import annotations

from jobs import serialization
from jobs.worker.claim import admission
from jobs.worker.record import rows


def test_a_long_error_keeps_its_head_and_its_tail() -> None:
    told = rows.describe(ValueError("head" + "x" * 1_000_000 + "tail"))
    for text in (told.text, told.traceback):
        assert len(text) < rows.ERROR_MOST + 100
        assert text.rstrip().endswith("tail")
        assert "characters are left out" in text
    assert told.text.startswith("head")
    assert len(told.stored) < 2 * rows.ERROR_MOST
    assert serialization.loads(told.stored)["exc_type"] == "ValueError"
    assert len(admission.reason(ValueError("x" * 1_000_000))) < rows.ERROR_MOST + 200


def test_a_short_error_is_stored_as_it_is() -> None:
    told = rows.describe(ValueError("why", 3))
    assert told.text == "('why', 3)"
    assert serialization.loads(told.stored)["exc_message"] == ["why", 3]
