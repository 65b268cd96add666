"""The signals this app sends, and the receivers that word its log lines.

Senders: the `Task` for what concerns a task, its name (str) where the task isn't known here, and
the worker's name for a worker. A receiver that raises is logged and never changes what happens
to the task.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

from jobs.values import shown

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


def announce(signal: Signal, sender: Any, **named: Any) -> None:
    """Send a signal whose receivers can't disturb the caller; costs nothing when nobody listens."""
    if not signal.receivers:
        return
    for receiver, answer in signal.send_robust(sender, **named):
        if isinstance(answer, Exception):
            log.error("receiver %r of a jobs signal raised", receiver, exc_info=answer)


def _name(sender: Any) -> str:
    return str(getattr(sender, "name", sender))


def _log_failed(sender: Any, message: Any, exception: BaseException, **_: Any) -> None:
    log.error(
        "task %s[%s] failed: %s",
        _name(sender),
        message.id,
        shown(exception, _SHOWN),
        exc_info=exception,
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
