"""Celery's events: what Flower and other monitors read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jobs import broker, message, registry
from jobs.control.inspecting import Running
from jobs.control.metrics import FAILED, RETRIED, REVOKED, SUCCEEDED
from jobs.exceptions import BrokerUnavailable
from jobs.message import Message
from jobs.worker.record.outcome import Dead, Later, Outcome

log = logging.getLogger("jobs.worker")

#: The kind of a list of events about tasks.
MANY = "task.multi"

#: Seconds between two tries while nobody listens.
_DEAF = 3.0

#: Most characters of arguments, results and errors.
_MOST = 1024
_TRACEBACK_MOST = 10_000


def hostname_of(worker: str) -> str:
    """The name of a worker for Celery's clients, who expect a host in it."""
    return worker if "@" in worker else f"celery@{worker}"


def head(kind: str, hostname: str, at: float, pid: int = 0) -> dict[str, Any]:
    """What every event has. ``at``: when it happened (Unix seconds)."""
    offset = time.localtime(at).tm_gmtoff // -3600
    pid = pid or os.getpid()
    return {"type": kind, "hostname": hostname, "timestamp": at, "utcoffset": offset, "pid": pid}


def of_begin(running: Running, hostname: str, pid: int) -> Iterator[dict[str, Any]]:
    """The events of a call that has begun to run."""
    call, at = running.call, running.since.timestamp()
    yield {
        **head("task-received", hostname, at, pid),
        "uuid": call.id,
        "name": call.task,
        "args": call.args[:_MOST],
        "kwargs": call.kwargs[:_MOST],
        "retries": call.attempt - 1,
        "eta": call.eta.isoformat() if call.eta else None,
        "expires": None,
        "root_id": None,
        "parent_id": None,
    }
    yield {**head("task-started", hostname, at, pid), "uuid": call.id}


def of_outcome(outcome: Outcome, hostname: str) -> Iterator[dict[str, Any]]:
    """The events of a call from its receipt to this outcome; none if its message can't be read."""
    sent = outcome.call
    if sent is None:
        return
    over = outcome.over or time.time()
    began = outcome.began or over
    yield {**head("task-received", hostname, began), **_described(sent)}
    if outcome.began:
        yield {**head("task-started", hostname, began), "uuid": sent.id}
    if ended := _ended(outcome, over - began):
        kind, fields = ended
        yield {**head(kind, hostname, over), "uuid": sent.id, **fields}


def _described(sent: Message) -> dict[str, Any]:
    task: Any = registry.tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else sent.sensitive or message.hidden_by_sender(sent)
    return {
        "uuid": sent.id,
        "name": sent.task,
        "args": repr(sent.shown_args)[:_MOST],
        "kwargs": repr(sent.shown_kwargs)[:_MOST],
        "retries": sent.retries,
        "eta": sent.eta.isoformat() if sent.eta else None,
        "expires": sent.expires.isoformat() if sent.expires else None,
        "root_id": sent.root_id,
        "parent_id": sent.parent_id,
    }


def _ended(outcome: Outcome, runtime: float) -> tuple[str, dict[str, Any]] | None:
    """The kind of an outcome's event, and its fields; None: this outcome has no event."""
    if isinstance(outcome, Dead):
        return "task-rejected", {"requeue": False}
    record = outcome.record
    if outcome.counts == SUCCEEDED:
        result = (record.result if record else None) or "null"
        return "task-succeeded", {"result": result[:_MOST], "runtime": runtime}
    if outcome.counts == REVOKED:
        return "task-revoked", {"terminated": False, "signum": None, "expired": False}
    if outcome.counts not in (FAILED, RETRIED):
        return None
    failed: Any = outcome.attempt if isinstance(outcome, Later) else record
    kind = "task-retried" if outcome.counts == RETRIED else "task-failed"
    if failed is None:
        return kind, {"exception": "", "traceback": ""}
    name = failed.error_type.rpartition(".")[2]
    return kind, {
        "exception": f"{name}({failed.error[:_MOST]!r})",
        "traceback": failed.traceback[-_TRACEBACK_MOST:],
    }


class Teller:
    """Sends the events of the calls that one child has run, while somebody listens. For one thread
    alone."""

    def __init__(self, consumer: str) -> None:
        """``consumer``: the child's name, which begins with its worker's."""
        self._hostname = hostname_of(consumer.rpartition("/")[0] or consumer)
        self._channels = broker.get().celery()
        self._heard = False
        #: When to try again whether somebody listens (monotonic).
        self._next = 0.0
        self._failing = False

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Send the events of these outcomes, which are recorded now. Events may be lost; what the
        recorder does may not be held up."""
        if not self._heard and time.monotonic() < self._next:
            return
        try:
            told = [event for one in outcomes for event in of_outcome(one, self._hostname)]
            if not told:
                return
            with broker.get().briefly(insist=False):
                self._heard = self._channels.tell(MANY, told, self._hostname) > 0
        except Exception as error:
            self._heard = False
            if not self._failing:
                expected = isinstance(error, BrokerUnavailable)
                log.warning("events are lost: %s", error, exc_info=None if expected else error)
            self._failing = True
        else:
            self._failing = False
        self._next = time.monotonic() + _DEAF
