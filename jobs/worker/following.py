"""What a message asks to be sent after its task, and what becomes of what never will be.

On success: its callbacks, and the next call of its chain. On failure: its errbacks; the rest of its
chain ends as it did. Ids are chosen before, so that a second run of the same message sends nothing
twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.utils import timezone

from jobs import conf, message, routing
from jobs.exceptions import SendError
from jobs.ledger import Record
from jobs.message import Message
from jobs.registry import tasks
from jobs.states import State
from jobs.worker import record
from jobs.worker.record import Run

log = logging.getLogger("jobs.worker")

Call = Mapping[str, Any]


def after_success(sent: Message, result: Any) -> list[Message]:
    """The messages to be sent. Raises `SendError` for a result that can't be in them."""
    if sent.embed.get("chord"):
        log.error("task %s[%s] belongs to a chord, which is not joined here", sent.task, sent.id)
    found = [_follow(sent, call, [result], n) for n, call in _calls(sent, "callbacks")]
    chain = sent.embed.get("chain")
    if chain:
        *rest, following = chain
        found.append(_follow(sent, following, [result], -1, rest))
    made = [one for one in found if one is not None]
    for one in made:
        message.encode(one)  # now, when it can still be the task's failure
    return made


class Following(NamedTuple):
    """What follows a call that did not succeed."""

    messages: list[Message] = []
    #: The ends of the calls that will not follow: as that of the call that did not succeed.
    ends: list[Record] = []


def after_end(
    sent: Message, raw: bytes, run: Run, why: BaseException, state: State = State.FAILURE
) -> Following:
    """After an end other than success. Errbacks are told of failures, not of revocations."""
    if not sent.embed:
        return Following()
    told = _calls(sent, "errbacks") if state == State.FAILURE else []
    found = [_follow(sent, call, [sent.id], n) for n, call in told]
    rest = sent.embed.get("chain")
    ends = _ends(sent, rest, record.failure(sent, raw, run, why, state)) if rest else []
    return Following([one for one in found if one is not None], ends)


def _ends(sent: Message, rest: Sequence[Call], ended: Record) -> list[Record]:
    ids = [(_options(call).get("task_id"), call) for call in reversed(rest)]
    return [
        ended._replace(
            id=task_id,
            task=str(call.get("task")),
            queue=_address(call)["queue"],
            args="[]",
            kwargs="{}",
            traceback="",
            attempts=1,
            error=f"{sent.task}[{sent.id}], before it in its chain: {ended.error}",
            started_at=None,
            message=b"",
        )
        for task_id, call in ids
        if isinstance(task_id, str) and task_id
    ]


def _calls(sent: Message, kind: str) -> Sequence[tuple[int, Call]]:
    return list(enumerate(sent.embed.get(kind) or ()))


def _options(call: Call) -> Mapping[str, Any]:
    return call.get("options") or {}


def _address(call: Call) -> dict[str, Any]:
    """Queue and priority, as fields of its message. By its own arguments: what the call before it
    gives it is not looked at."""
    name, options = str(call.get("task")), _options(call)
    args, kwargs = call.get("args") or (), call.get("kwargs") or {}
    try:
        address, priority = routing.get().find(name, args, kwargs, options, tasks.get(name))
        return {**address.fields(), "priority": min(max(int(priority), 0), 9)}
    except (SendError, TypeError, ValueError) as error:  # a foreign call's options are anything
        default = conf.get().default_queue
        log.error("%s is sent to queue %r: %s", name, default, error)
        return {"queue": default}


def _follow(
    sent: Message, call: Call, before: list[Any], n: int, rest: Sequence[Call] = ()
) -> Message | None:
    """The message of a call in its JSON form; None for what is no call of a single task."""
    name, options = call.get("task"), _options(call)
    if not isinstance(name, str) or call.get("subtask_type"):
        log.error("task %s[%s] is followed by what can't be sent: %r", sent.task, sent.id, call)
        return None
    task = tasks.get(name)
    args = list(call.get("args") or ())
    eta = _eta(options)
    return Message(
        task=name,
        id=options.get("task_id") or _derived(sent, n),
        **_address(call),
        args=args if call.get("immutable") else [*before, *args],
        kwargs=dict(call.get("kwargs") or {}),
        embed={
            "callbacks": _listed(options.get("link")),
            "errbacks": _listed(options.get("link_error")),
            "chain": [*rest, *(options.get("chain") or ())] or None,
            "chord": None,
        },
        eta=eta,
        expires=_expires(options, eta),
        ignore_result=options.get("ignore_result", task.ignore_result if task else None),
        root_id=sent.root_id or sent.id,
        parent_id=sent.id,
        own_headers=dict(options.get("headers") or {}),
        sensitive=task.sensitive if task else frozenset(),
    )


def _derived(sent: Message, n: int) -> str:
    """The same, however often its task is run."""
    noise = hashlib.sha256(f"{sent.id}/{n}".encode()).digest()
    made = message.id_time(sent.id) or time.time()
    return message.id_at(int(made * 1000), noise)


def _listed(calls: Any) -> list[Any] | None:
    if not calls:
        return None
    return list(calls) if isinstance(calls, list | tuple) else [calls]


def _eta(options: Mapping[str, Any]) -> dt.datetime | None:
    if options.get("countdown") is not None:
        return timezone.now() + dt.timedelta(seconds=float(options["countdown"]))
    return _moment(options.get("eta"))


def _expires(options: Mapping[str, Any], eta: dt.datetime | None) -> dt.datetime | None:
    expires = options.get("expires")
    if isinstance(expires, int | float):
        return (eta or timezone.now()) + dt.timedelta(seconds=expires)
    return _moment(expires)


def _moment(text: Any) -> dt.datetime | None:
    if not isinstance(text, str):
        return None
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
