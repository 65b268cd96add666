"""The signals this app sends, and the receivers that word its log lines.

Senders: the `Task` for what concerns a task, its name (str) where the task isn't known here, and
the worker's name for a worker. A receiver that raises is logged and never changes what happens
to the task. Receivers may be `async def`, and may use the ORM, wherever a signal is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.db import connections
from django.dispatch import Signal

from jobs.exceptions import SoftTimeLimitExceeded, shown

#: A message was handed to the broker, or to the outbox when inside a transaction.
#: Arguments: ``message``.
task_enqueued = Signal()
#: A worker is about to call the task. Arguments: ``message``, ``worker`` (name).
task_started = Signal()
#: The task returned. Arguments: ``message``, ``result``, ``runtime`` (seconds), ``worker``.
task_succeeded = Signal()
#: The task raised. Arguments: ``message``, ``exception``, ``runtime`` (seconds), ``worker``.
task_failed = Signal()
#: The task raised and will be tried again. Arguments: ``message``, ``exception``,
#: ``countdown`` (seconds), ``worker``.
task_retried = Signal()
#: A child process of a worker begins to claim. Arguments: ``queues``.
worker_ready = Signal()
#: A child process of a worker has stopped claiming. Arguments: ``queues``.
worker_stopping = Signal()

log = logging.getLogger("jobs")

#: Most characters of an exception in a line of the log.
_SHOWN = 1000


class Announcement(NamedTuple):
    """A signal that is to be sent."""

    signal: Signal
    sender: Any
    named: Mapping[str, Any]


#: Where `announce` puts what an async task's runner sends when it can await the receivers.
later: contextvars.ContextVar[list[Announcement] | None] = contextvars.ContextVar(
    "jobs.signals.later", default=None
)


def announce(signal: Signal, sender: Any, **named: Any) -> None:
    """Send a signal whose receivers can't disturb the caller; costs nothing when nobody listens."""
    if not signal.receivers:
        return
    one = Announcement(signal, sender, named)
    if not _on_event_loop():
        _send(one)
    elif (waiting := later.get()) is not None and signal is not task_enqueued:
        waiting.append(one)
    else:
        _send_beside(one)


async def announce_all(waiting: list[Announcement]) -> None:
    """Send what waits to be, from an event loop: sync receivers in a thread, async ones on the
    loop."""
    while waiting:
        try:
            await sync_to_async(_send, thread_sensitive=False)(waiting.pop(0))
        except Exception as error:  # noqa: BLE001  it is logged there
            # Not of a receiver itself: of what it has left behind in its thread.
            log_error(log, "a receiver of a jobs signal raised", error=error)


def _send(one: Announcement) -> None:
    try:
        answers = one.signal.send_robust(one.sender, **one.named)
    except BaseException as error:
        # What `send_robust` lets through: sys.exit() in a receiver, say. Ctrl-C in a process that
        # sends is for that process.
        if one.signal is task_enqueued and isinstance(error, KeyboardInterrupt):
            raise
        log_error(log, "a receiver of a jobs signal raised", error=error)
        return
    for receiver, answer in answers:
        if isinstance(answer, SoftTimeLimitExceeded) and one.signal is task_enqueued:
            raise answer  # meant for the task that sends
        if isinstance(answer, Exception):
            log_error(log, "receiver %r of a jobs signal raised", receiver, error=answer)


def log_error(
    to: logging.Logger,
    text: str,
    *args: object,
    error: BaseException,
    level: int = logging.ERROR,
) -> None:
    """Log an error with its traceback. That looks at what the classes of anybody's errors have
    made of themselves, and runs the project's handlers; what they raise ends nothing."""
    try:
        to.log(level, text, *args, exc_info=error)
    except SoftTimeLimitExceeded:
        raise  # meant for the task that sends
    except BaseException as trouble:  # noqa: BLE001  as the docstring says
        with contextlib.suppress(Exception):
            to.log(level, f"{text} (to log that raises %s)", *args, type(trouble).__name__)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _send_beside(one: Announcement) -> None:
    """Wait, on an event loop, until a thread has sent it: Django refuses the ORM and async
    receivers there."""

    def send() -> None:
        try:
            _send(one)
        finally:
            connections.close_all()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(send,))
    thread.start()
    thread.join()


def _name(sender: Any) -> str:
    return str(getattr(sender, "name", sender))


def _log_failed(sender: Any, message: Any, exception: BaseException, **_: Any) -> None:
    log_error(
        log,
        "task %s[%s] failed: %s",
        _name(sender),
        message.id,
        shown(exception, _SHOWN),
        error=exception,
    )


def _log_retried(
    sender: Any, message: Any, exception: BaseException, countdown: float, **_: Any
) -> None:
    log.warning(
        "task %s[%s] will be tried again in %.1f s: %s",
        _name(sender),
        message.id,
        countdown,
        shown(exception, _SHOWN),
    )


def _log_ready(sender: Any, queues: Any, **_: Any) -> None:
    log.info("%s ready, queues: %s", sender, ", ".join(queues))


def _log_stopping(sender: Any, **_: Any) -> None:
    log.info("%s stopping", sender)


# A receiver per log line keeps the wording in one place. Success has none on purpose: a line for
# each of thousands of tasks a second is neither read nor free.
task_failed.connect(_log_failed, dispatch_uid="jobs.log")
task_retried.connect(_log_retried, dispatch_uid="jobs.log")
worker_ready.connect(_log_ready, dispatch_uid="jobs.log")
worker_stopping.connect(_log_stopping, dispatch_uid="jobs.log")
