"""Which revocations apply to the stamps of a call, whoever has sent it."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import message
from jobs.message import Message
from jobs.message.stamps import listed, mark_of, marks_of, read_mark


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


def test_what_celery_takes() -> None:
    assert listed({"a": ["x", 5], "b": "y"}) == [("a", "x"), ("a", 5), ("b", "y")]
    assert listed(["a=x=y", "b="]) == [("a", "x=y"), ("b", "")]
