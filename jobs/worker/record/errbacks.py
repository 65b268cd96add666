"""Errbacks that take ``(request, exc, traceback)``: what they are given, to the wire and back.

Celery calls them in the worker where the call has failed. Here they are calls like others: they
have rows and attempts of their own, and are not lost with a process.
"""

from __future__ import annotations

from typing import Any

from jobs import conf, serialization
from jobs.api.results import rebuild
from jobs.message import Message
from jobs.models import TaskResult
from jobs.running.request import request_of
from jobs.states import State
from jobs.worker.record.outcome import describe

#: What an errback gets to know about the failed call.
_TOLD = ("task", "id", "queue", "root_id", "parent_id", "group", "group_index", "retries", "label")


def to_wire(failed: Message, why: BaseException) -> list[Any]:
    """The first arguments of an errback after this call has failed, in JSON types."""
    told = describe(why)
    request = {name: getattr(failed, name) for name in _TOLD}
    # Beside the error, those of a large call could make the errback too large to be sent.
    if 2 * len(failed.body or "") <= conf.get().message_max_bytes:
        try:
            request["args"] = serialization.plain(failed.shown_args)
            request["kwargs"] = serialization.plain(failed.shown_kwargs)
        except (TypeError, ValueError, RecursionError):
            pass  # the task has put something else into its arguments
    error = {"kind": told.kind, "text": told.text, "stored": told.stored}
    return [request, error, told.traceback]


def arguments(sent: Message, worker: str) -> list[Any]:
    """The arguments of an errback, of those in its message. Raises what another message raises."""
    request, error, traceback, *own = sent.args
    row = TaskResult(
        state=State.FAILURE,
        error_type=error["kind"],
        error=error["text"],
        result=error["stored"],
    )
    return [request_of(Message(**request), worker), rebuild(row), traceback, *own]
