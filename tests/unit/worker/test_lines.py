"""The lines of `runworker -v 2`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import signals
from jobs.message import Message
from jobs.worker import lines

LINES = [
    "task shop.tasks.pay[id-1] begins",
    "task shop.tasks.pay[id-1] begins, attempt 2",
    "task shop.tasks.pay[id-1]: SUCCESS after 0.250 s",
    "task shop.tasks.pay[id-1]: goes on after 0.250 s",
    "task shop.tasks.pay[id-1]: REVOKED (expired)",
]


@pytest.fixture(autouse=True)
def telling() -> Iterator[None]:
    lines.tell_each_call()
    yield
    lines.stop_telling()


def announce() -> None:
    def tell(signal: Any, **named: Any) -> None:
        sent = Message(task="shop.tasks.pay", id="id-1", queue="mail", retries=named.pop("n", 0))
        signals.announce(signal, "shop.tasks.pay", message=sent, worker="w1/1", **named)

    tell(signals.task_started)
    tell(signals.task_started, n=1)
    tell(signals.task_finished, state="SUCCESS", runtime=0.25)
    tell(signals.task_finished, state="", runtime=0.25)
    tell(signals.task_finished, state="REVOKED", runtime=0.25)
    tell(signals.task_revoked, reason="expired")


def test_they_are_logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    announce()
    assert caplog.messages == LINES
    assert capsys.readouterr().out == ""


def test_they_are_printed_where_no_handler_shows_them(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING, "jobs")
    announce()
    assert capsys.readouterr().out.splitlines() == LINES
