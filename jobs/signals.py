"""The signals this app sends, and the receivers that write its log lines.

The sender is the `Task`, or its name (str) where the task isn't known; for signals of a worker it
is the worker's name. An error of a receiver is logged and never changes what happens to the task.
Receivers may be `async def`, and may use the ORM, wherever a signal is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django import dispatch
from django.db import connections
from django.dispatch import receiver

from jobs.exceptions import SoftTimeLimitExceeded, shown


class Signal(dispatch.Signal):
    """Django's, whose `connect` is a decorator as well, as Celery's is."""

    def connect(self, receiver: Any = None, *args: Any, **named: Any) -> Any:
        """As Django's, and returns the receiver; without one, a decorator."""
        if receiver is None:
            return lambda function: self.connect(function, *args, **named)
        super().connect(receiver, *args, **named)
        return receiver


#: A message is about to be sent. What a receiver puts into ``message.headers`` travels with it.
#: Arguments: ``message``.
task_sending = Signal()
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
#: The task has run, whatever came of it: after `task_succeeded`, `task_failed` or `task_retried`,
#: if one of these was sent. Arguments: ``message``, ``state`` (SUCCESS, FAILURE, RETRY, REVOKED;
#: empty if the call goes on otherwise), ``runtime`` (seconds), ``worker``.
task_finished = Signal()
#: A call has ended as REVOKED: revoked, expired or ignored. Arguments: ``message``, ``reason``
#: (text; empty if the call has no row), ``worker``, and Celery's ``request``, ``expired``,
#: ``terminated``, ``signum``.
task_revoked = Signal()
#: A message is a dead letter. Arguments: ``message`` (None if it can't be told whose it is),
#: ``reason`` (text), ``queue``, ``worker``.
task_dead_lettered = Signal()
#: A child process of a worker begins to claim. Arguments: ``queues``.
worker_ready = Signal()
#: A child process of a worker has stopped claiming. Arguments: ``queues``.
worker_stopping = Signal()

log = logging.getLogger("jobs")

#: Longest exception, in characters, in a line of the log.
_SHOWN = 1000

#: Sent where a call is sent: an error meant for the code that sends it goes on.
_OF_SENDING = (task_sending, task_enqueued)


class Announcement(NamedTuple):
    """A signal to be sent."""

    signal: dispatch.Signal
    sender: Any
    named: Mapping[str, Any]


#: Set while an async task runs: `announce` puts the sending of signals here, for the runner.
later: contextvars.ContextVar[list[Callable[[], None]] | None] = contextvars.ContextVar(
    "jobs.signals.later", default=None
)


def on_loop() -> bool:
    """Whether an event loop runs in this thread, on which nothing may block."""
    try:
        return bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


class ExceptionInfo:
    """An exception as Celery's hooks and signals tell it, their ``einfo``: `str` is the text of its
    traceback."""

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception
        self.type = type(exception)
        self.tb = exception.__traceback__

    @property
    def exc_info(self) -> tuple[type[BaseException], BaseException, types.TracebackType | None]:
        return self.type, self.exception, self.tb

    @property
    def traceback(self) -> str:
        try:
            return "".join(traceback.format_exception(self.exception))
        except BaseException:  # noqa: BLE001  it calls methods of the exception's class
            return "".join(traceback.format_tb(self.tb)) + self.type.__qualname__

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {shown(self.exception)}>"


def announce(signal: dispatch.Signal, sender: Any, **named: Any) -> None:
    """Send a signal; its receivers can't disturb the caller. Costs nothing without receivers."""
    if not signal.receivers:
        return
    one = Announcement(signal, sender, named)
    if not on_loop():
        _send(one)
        return
    if (waiting := later.get()) is not None and signal not in _OF_SENDING:
        waiting.append(functools.partial(_send, one))
        return

    def send() -> None:
        try:
            _send(one)
        finally:
            connections.close_all()

    # In a thread, for which the event loop waits: on a loop Django refuses the ORM and async
    # receivers.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(send,))
    thread.start()
    thread.join()


def announce_aside(waiting: list[Announcement]) -> None:
    """Send these in a thread of their own, and wait for it: whatever receivers do to their database
    connections, the caller keeps its own."""

    def send() -> None:
        try:
            for one in waiting:
                _send(one)
        finally:
            connections.close_all()

    thread = threading.Thread(target=send, name="jobs-signals")
    thread.start()
    thread.join()


async def announce_all(waiting: list[Callable[[], None]]) -> None:
    """Send what waits, from an event loop: to sync receivers in a thread, to async ones on the
    loop."""
    while waiting:
        try:
            await sync_to_async(waiting.pop(0), thread_sensitive=False)()
        except Exception as error:  # noqa: BLE001  it is logged there
            # Not raised by a receiver, but by what it has left behind in its thread.
            log_error(log, "a receiver of a jobs signal raised", error=error)


def _send(one: Announcement) -> None:
    try:
        answers = one.signal.send_robust(one.sender, **one.named)
    except BaseException as error:
        # `send_robust` doesn't catch this: sys.exit() in a receiver, say. Ctrl-C in a process that
        # sends a task is meant for that process.
        if one.signal in _OF_SENDING and isinstance(error, KeyboardInterrupt):
            raise
        log_error(log, "a receiver of a jobs signal raised", error=error)
        return
    for listener, answer in answers:
        if isinstance(answer, SoftTimeLimitExceeded) and one.signal in _OF_SENDING:
            raise answer  # meant for the task that sends
        if isinstance(answer, Exception):
            log_error(log, "receiver %r of a jobs signal raised", listener, error=answer)


def log_error(
    to: logging.Logger,
    text: str,
    *args: object,
    error: BaseException,
    level: int = logging.ERROR,
) -> None:
    """Log an error with its traceback. That runs code of the error's class and of the project's
    handlers; what they raise goes no further."""
    try:
        to.log(level, text, *args, exc_info=error)
    except SoftTimeLimitExceeded:
        raise  # meant for the task that sends
    except BaseException as trouble:  # noqa: BLE001  as the docstring says
        with contextlib.suppress(Exception):
            to.log(level, f"{text} (to log that raises %s)", *args, type(trouble).__name__)


def _name(sender: Any) -> str:
    return str(getattr(sender, "name", sender))


# A receiver for each log line keeps the wording in one place. Success has none on purpose: a line
# for each of thousands of tasks a second is neither read nor free.


@receiver(task_failed, dispatch_uid="jobs.log")
def _log_failed(sender: Any, message: Any, exception: BaseException, **_: Any) -> None:
    what = shown(exception, _SHOWN)
    if isinstance(exception, getattr(sender, "throws", ())):
        log.info("task %s[%s] failed as it may: %s", _name(sender), message.id, what)
        return
    log_error(log, "task %s[%s] failed: %s", _name(sender), message.id, what, error=exception)


@receiver(task_retried, dispatch_uid="jobs.log")
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


@receiver(worker_ready, dispatch_uid="jobs.log")
def _log_ready(sender: Any, queues: Any, **_: Any) -> None:
    log.info("%s ready, queues: %s", sender, ", ".join(queues))


@receiver(worker_stopping, dispatch_uid="jobs.log")
def _log_stopping(sender: Any, **_: Any) -> None:
    log.info("%s stopping", sender)


# ------------------------------------------------------------------------- Celery's signals


class Alias(Signal):
    """A signal under Celery's name and with Celery's arguments. One of ours tells it, of which
    nothing is asked before somebody connects."""

    def __init__(self, *ours: Signal, tell: Callable[..., None]) -> None:
        """``tell``: a receiver of ours, which calls `say`."""
        super().__init__()
        self._ours = ours
        self._tell = tell

    def connect(self, receiver: Any = None, *args: Any, **named: Any) -> Any:
        if receiver is not None:
            for one in self._ours:
                one.connect(self._tell, weak=False, dispatch_uid=f"jobs.celery {id(self)}")
        return super().connect(receiver, *args, **named)

    def disconnect(self, *args: Any, **named: Any) -> Any:
        found = super().disconnect(*args, **named)
        if not self.receivers:
            for one in self._ours:
                one.disconnect(dispatch_uid=f"jobs.celery {id(self)}")
        return found

    def say(self, sender: Any, **named: Any) -> None:
        if self.receivers:
            _send(Announcement(self, sender, named))


def _protocol_headers(message: Any) -> dict[str, Any]:
    """The headers that receivers of Celery's signals read most."""
    return {
        "lang": "py",
        "task": message.task,
        "id": message.id,
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "group": message.group,
        "retries": message.retries,
        "eta": message.eta and message.eta.isoformat(),
        "expires": message.expires and message.expires.isoformat(),
        "timelimit": list(message.timelimit),
        "ignore_result": message.ignore_result,
        "origin": message.origin,
    }


def _about_publish(message: Any) -> dict[str, Any]:
    return {
        "body": (tuple(message.args), message.kwargs, message.embed),
        "exchange": message.exchange,
        "routing_key": message.routing_key or message.queue,
    }


def _before_publish(sender: Any, message: Any, **_: Any) -> None:
    fixed = _protocol_headers(message)
    headers = fixed | message.headers
    before_task_publish.say(
        message.task,
        **_about_publish(message),
        headers=headers,
        properties={"correlation_id": message.id, "priority": message.priority},
        declare=[],
        retry_policy=None,
    )
    # What receivers have put in goes along; the protocol's own is not theirs to set.
    message.headers.update({k: v for k, v in headers.items() if k not in fixed})


def _after_publish(sender: Any, message: Any, **_: Any) -> None:
    headers = _protocol_headers(message) | message.headers
    after_task_publish.say(message.task, **_about_publish(message), headers=headers)


def _about_call(sender: Any, message: Any) -> dict[str, Any]:
    return {"task_id": message.id, "args": message.args, "kwargs": message.kwargs}


def _prerun(sender: Any, message: Any, **_: Any) -> None:
    task_prerun.say(sender, task=sender, **_about_call(sender, message))


#: What tasks have returned or raised that have not been announced as finished yet, by their
#: messages' places in memory: two deliveries of one call may run at once.
_ends: dict[int, Any] = {}


def _postrun(sender: Any, message: Any, state: Any = None, **named: Any) -> None:
    if state is None:  # the signal before the last
        _ends[id(message)] = named.get("exception", named.get("result"))
        return
    retval = _ends.pop(id(message), None)
    about = _about_call(sender, message)
    task_postrun.say(sender, task=sender, **about, retval=retval, state=str(state))


def _success(sender: Any, message: Any, result: Any, runtime: float, **_: Any) -> None:
    task_success.say(sender, result=result, runtime=runtime)


def _failure(sender: Any, message: Any, exception: BaseException, **_: Any) -> None:
    task_failure.say(
        sender,
        **_about_call(sender, message),
        exception=exception,
        traceback=exception.__traceback__,
        einfo=ExceptionInfo(exception),
    )


def _retry(sender: Any, message: Any, exception: BaseException, **_: Any) -> None:
    task_retry.say(
        sender,
        request=getattr(sender, "request", None),
        reason=exception,
        einfo=ExceptionInfo(exception),
    )


def _process_init(sender: Any, **_: Any) -> None:
    worker_process_init.say(sender)


def _process_shutdown(sender: Any, **_: Any) -> None:
    worker_process_shutdown.say(sender, pid=os.getpid(), exitcode=0)


#: The sender is the name of the task, and receivers may add headers. Arguments: ``body`` (args,
#: kwargs, what follows), ``exchange``, ``routing_key``, ``headers``, ``properties``, ``declare``,
#: ``retry_policy``.
before_task_publish = Alias(task_sending, tell=_before_publish)
#: Arguments: ``body``, ``exchange``, ``routing_key``, ``headers``.
after_task_publish = Alias(task_enqueued, tell=_after_publish)
#: Arguments: ``task_id``, ``task``, ``args``, ``kwargs``.
task_prerun = Alias(task_started, tell=_prerun)
#: Arguments: ``task_id``, ``task``, ``args``, ``kwargs``, ``retval``, ``state``.
task_postrun = Alias(task_succeeded, task_failed, task_retried, task_finished, tell=_postrun)
#: Arguments: ``result``, ``runtime`` (seconds).
task_success = Alias(task_succeeded, tell=_success)
#: Arguments: ``task_id``, ``exception``, ``args``, ``kwargs``, ``traceback``, ``einfo``.
task_failure = Alias(task_failed, tell=_failure)
#: Arguments: ``request``, ``reason`` (the exception), ``einfo``.
task_retry = Alias(task_retried, tell=_retry)
#: As `worker_ready`, which every child process sends.
worker_process_init = Alias(worker_ready, tell=_process_init)
#: As `worker_stopping`. Arguments: ``pid``, ``exitcode``.
worker_process_shutdown = Alias(worker_stopping, tell=_process_shutdown)

_IN_CHILDREN = "connect to worker_ready or worker_stopping, which each child process sends"
_LOGGING = "write Django's LOGGING, which workers obey"

#: Celery's signals that are not sent here, and what to write instead.
_NOT_SENT = {
    **dict.fromkeys(
        ("celeryd_init", "worker_init", "import_modules"),
        "AppConfig.ready() of your app runs in each worker; or connect to worker_ready",
    ),
    "celeryd_after_setup": "runworker --queues names a worker's queues, and AppConfig.ready() of "
    "your app runs in each worker",
    **dict.fromkeys(
        ("worker_shutdown", "worker_shutting_down", "worker_before_create_process"), _IN_CHILDREN
    ),
    **dict.fromkeys(("setup_logging", "after_setup_logger", "after_setup_task_logger"), _LOGGING),
    **dict.fromkeys(
        ("task_rejected", "task_unknown", "task_internal_error"), "connect to task_dead_lettered"
    ),
    "task_received": "connect to task_started: calls wait on the broker until they run",
    "task_sent": "connect to task_enqueued",
    "heartbeat_sent": "workers report by themselves; see jobs.control.workers",
    **dict.fromkeys(
        ("beat_init", "beat_embedded_init"), "AppConfig.ready() of your app runs in beat as well"
    ),
}


def not_sent(name: str) -> str:
    """What to do in place of a signal of Celery's that isn't sent here; "" for any other name."""
    return _NOT_SENT.get(name, "")


def __getattr__(name: str) -> Any:
    if name in _NOT_SENT:
        # What `from … import` says of an AttributeError would leave out the text.
        raise ImportError(f"{name!r} isn't sent here: {_NOT_SENT[name]}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
