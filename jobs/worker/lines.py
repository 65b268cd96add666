"""A line for each call that a child begins and ends: `runworker -v 2`."""

from __future__ import annotations

import logging
import sys
from typing import Any

from jobs import signals
from jobs.message import Message
from jobs.states import State

log = logging.getLogger("jobs.worker")


def tell_each_call() -> None:
    """Log each call from now on or, if no handler shows that, print it to standard output."""
    signals.task_started.connect(_started, dispatch_uid=__name__)
    signals.task_finished.connect(_finished, dispatch_uid=__name__)
    signals.task_revoked.connect(_revoked, dispatch_uid=__name__)


def stop_telling() -> None:
    for signal in (signals.task_started, signals.task_finished, signals.task_revoked):
        signal.disconnect(dispatch_uid=__name__)


def _started(message: Message, **_: Any) -> None:
    attempt = f", attempt {message.attempt}" if message.attempt > 1 else ""
    _tell(f"task {message.task}[{message.id}] begins{attempt}")


def _finished(message: Message, state: str, runtime: float, **_: Any) -> None:
    if state != State.REVOKED:  # `_revoked` says why
        _tell(f"task {message.task}[{message.id}]: {state or 'goes on'} after {runtime:.3f} s")


def _revoked(message: Message, reason: str, **_: Any) -> None:
    _tell(f"task {message.task}[{message.id}]: REVOKED{f' ({reason})' if reason else ''}")


def _tell(text: str) -> None:
    if log.isEnabledFor(logging.INFO) and log.hasHandlers():
        log.info("%s", text)
    else:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
