"""The task's name is read without the rest of the message."""

from __future__ import annotations

import pytest

from jobs import message
from jobs.message import Message


def test_it_reads_what_is_sent() -> None:
    for task in ("shop.pay", "商店:1", 'a "quote"'):
        raw = message.encode(Message(id=message.new_id(), task=task, queue="mail", args=["x"]))
        assert message.task_of(raw, "mail") == message.decode(raw, "mail").task


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        b'{"headers": {}}',
        b'{"headers": {"task": 7}}',
        b'{"headers": {"task": "a\\u0000b"}}',
        b'{"headers": ' + b"[" * 100_000,
    ],
)
def test_what_names_no_task(raw: bytes) -> None:
    assert message.task_of(raw, "mail") == ""


def test_a_body_that_nobody_can_read_does_not_matter() -> None:
    raw = b'{"body": "?", "headers": {"task": "shop.pay"}, "properties": 1}'
    assert message.task_of(raw, "mail") == "shop.pay"
