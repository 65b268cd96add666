"""Which revocations apply to the stamps of a call, whoever has sent it."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import pytest
from django.utils.translation import gettext_lazy

from jobs import message
from jobs.message import Message
from jobs.message.stamps import listed, mark_of, marks_of, read_mark

UUID = uuid.UUID("01a221c4-5356-76da-bfc4-b0635c49fc70")


def sent_with(headers: dict[str, Any]) -> Message:
    sent = Message(task="x", id="id", queue="default", own_headers=headers)
    return message.decode(message.encode(sent), "default", trusted=True)


@pytest.mark.parametrize(
    ("headers", "marks"),
    [
        ({}, []),
        ({"customer": "acme"}, []),
        ({"stamped_headers": ["a"], "stamps": {"a": "x", "b": "y"}}, [("a", "x")]),
        ({"stamped_headers": ["a"], "stamps": {"a": ["x", 5]}}, [("a", "x"), ("a", "5")]),
        ({"stamped_headers": ["a"], "stamps": {"a": None}}, []),
        ({"stamped_headers": ["a", "b"], "stamps": {"a": "x" * 256, "b": 1}}, [("b", "1")]),
        # Of anybody.
        ({"stamped_headers": [1, ["a"], None, ""], "stamps": {"": "x"}}, []),
        ({"stamped_headers": "ab", "stamps": {"a": "x"}}, []),
        ({"stamped_headers": ["a"], "stamps": ["a"]}, []),
        ({"stamped_headers": ["a"]}, []),
        ({"stamped_headers": None, "stamps": {}}, []),
    ],
)
def test_marks_of_a_call(headers: dict[str, Any], marks: list[tuple[str, str]]) -> None:
    assert [read_mark(mark) for mark in marks_of(sent_with(headers))] == marks


def test_marks_are_no_ids() -> None:
    assert not message.is_name(mark_of("a", "x"))
    assert read_mark("an-id") is None
    assert read_mark(mark_of("a", "x\0y")) == ("a", "x\0y")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UUID, str(UUID)),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (dt.datetime(2026, 3, 1, 14, tzinfo=dt.UTC), "2026-03-01T14:00:00+00:00"),
        (dt.time(14, 30), "14:30:00"),
        (decimal.Decimal("1.50"), "1.50"),
        (gettext_lazy("Yes"), "Yes"),
        (True, "true"),
        (b"x", None),
        ({"a": [1]}, None),
    ],
)
def test_values_that_are_no_text(value: object, text: str | None) -> None:
    sent = sent_with({"stamped_headers": ["a"], "stamps": {"a": value}})
    assert marks_of(sent) == [mark_of("a", value)]
    if text is not None:
        assert mark_of("a", value) == mark_of("a", text)


@pytest.mark.parametrize("value", [object(), "\ud800", {("a",): 1}, float("nan"), "x" * 256])
def test_values_that_no_stamp_has(value: object) -> None:
    with pytest.raises(ValueError, match="A stamp has a name and a value"):
        mark_of("a", value)


def test_what_celery_takes() -> None:
    assert listed({"a": ["x", 5], "b": "y"}) == [("a", "x"), ("a", 5), ("b", "y")]
    assert listed(["a=x=y", "b="]) == [("a", "x=y"), ("b", "")]
