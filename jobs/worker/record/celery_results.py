"""Results in Celery's keys, for the clients of Celery that have sent the calls.

A state for such a client is read from the ledger, after the outcome is recorded and before its
message is acknowledged. So both agree, whoever recorded the end. If the process is killed in
between, the message is delivered again, and the next process stores the state.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs import ledger, message
from jobs.broker.base import CeleryResult
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import TERMINAL, State
from jobs.timing.clock import aware
from jobs.worker.record.following import ids_behind
from jobs.worker.record.outcome import Later, Outcome

#: Results of the calls that a call has sent, in the form in which Celery stores them:
#: ``[[id, parent], null]``, or ``[[group id, parent], [result, …]]``.
Children = list[Any]

#: Our errors → where Celery's clients find theirs of the same meaning. They look only in modules
#: that they have imported.
_ERRORS = {
    "UnknownTask": ("celery.exceptions", "NotRegistered"),
    "TaskRevoked": ("celery.exceptions", "TaskRevokedError"),
    "MaxRetriesExceeded": ("celery.exceptions", "MaxRetriesExceededError"),
    "ChordError": ("celery.exceptions", "ChordError"),
    "Ignore": ("celery.exceptions", "Ignore"),
    "Reject": ("celery.exceptions", "Reject"),
    "Retry": ("celery.exceptions", "Retry"),
    "MalformedMessage": ("celery.exceptions", "InvalidTaskError"),
    "ConfigurationError": ("celery.exceptions", "ImproperlyConfigured"),
    "SoftTimeLimitExceeded": ("billiard.exceptions", "SoftTimeLimitExceeded"),
    "TimeLimitExceeded": ("billiard.exceptions", "TimeLimitExceeded"),
    "WorkerLost": ("billiard.exceptions", "WorkerLostError"),
    "ResultNotSerializable": ("kombu.exceptions", "EncodeError"),
    "WrongArguments": ("builtins", "TypeError"),
}


def asked(batch: Iterable[Outcome], *, everything: bool) -> dict[str, Children | None]:
    """The calls whose states Celery's clients may look for after these outcomes: id → its
    children, or None where the ledger has to be asked for them.

    ``everything``: also calls that no such client has sent.
    """
    found: dict[str, Children | None] = {}
    for o in batch:
        call = o.call
        if call is None or not (call.celery or everything):
            continue
        if type(o) is Later and o.record is None:
            continue  # it waits, and says nothing new
        if o.record is not None or o.ended:
            found[call.id] = _children(o, call)
        for end in o.following.ends:
            found.setdefault(end.id, [])
        for task_id in ids_behind(call, succeeded=_succeeded(o)):
            found.setdefault(task_id, None)
    return found


def _children(outcome: Outcome, call: Message) -> Children | None:
    if not outcome.counts:
        return None  # it has ended before
    if call.celery:
        return [*outcome.children, *outcome.following.children]
    return [[[one.id, None], None] for one in outcome.following.messages]


def _succeeded(outcome: Outcome) -> bool:
    return outcome.record is not None and outcome.record.state == State.SUCCESS


def told(calls: Mapping[str, Children | None]) -> list[CeleryResult]:
    """The states of these calls for Celery's clients; calls that have not begun are left out."""
    fields = ("id", "state", "result", "error_type", "error", "traceback", "finished_at")
    more = ("parent_id", "root_id", "group_id", "worker")
    rows: dict[str, TaskResult] = {}
    for part in ledger.chunks(list(calls)):
        known = ledger.results().filter(id__in=part).exclude(state=State.PENDING)
        rows |= {row.id: row for row in known.only(*fields, *more)}
    unknown = _children_of([row for row in rows.values() if calls[row.id] is None])
    # In the order of the calls: who hears of the end of a chain finds those of all its calls.
    return [
        _told(rows[task_id], children or unknown.get(task_id) or [])
        for task_id, children in calls.items()
        if task_id in rows
    ]


def failed_chords(batch: Iterable[Outcome]) -> dict[str, list[tuple[int, str]]]:
    """The failed ones among the chords of Celery's clients that have members in this batch: group →
    place and JSON of each member's end, in the form in which Celery counts them."""
    ids = {
        o.call.group
        for o in batch
        if o.call is not None and o.call.celery and o.call.group and o.call.embed.get("chord")
    }
    if not ids:
        return {}
    failed = (
        ledger.groups().filter(id__in=ids, size__gt=0, remaining=0).values_list("id", flat=True)
    )
    found: dict[str, list[tuple[int, str]]] = {}
    for group_id in failed:
        rows = ledger.results().filter(group_id=group_id).order_by("group_index")
        found[group_id] = [_part(row) for row in rows.only(*_PART).iterator()]
    return found


_PART = ("id", "state", "result", "error_type", "error", "group_index")


def _part(row: TaskResult) -> tuple[int, str]:
    result = (row.result or "null") if row.state == State.SUCCESS else _error(row)
    return row.group_index or 0, f"[1, {json.dumps(row.id)}, {json.dumps(row.state)}, {result}]"


def _children_of(rows: Sequence[TaskResult]) -> dict[str, Children]:
    found: dict[str, Children] = defaultdict(list)
    for part in ledger.chunks(rows):
        # By the workflow, of which there is an index.
        roots = {row.root_id or row.id for row in part}
        of_these = ledger.results().filter(root_id__in=roots, parent_id__in=[r.id for r in part])
        sent = of_these.order_by("created_at", "id")
        for task_id, parent_id in sent.values_list("id", "parent_id"):
            found[str(parent_id)].append([[task_id, None], None])
    for row in rows:
        if row.state == State.FAILURE and row.id in found:  # errbacks are sent as a group
            group_id = message.derived_id(row.id, "errbacks")
            found[row.id] = [[[group_id, None], found[row.id]]]
    return found


def _told(row: TaskResult, children: Children) -> CeleryResult:
    failed = row.state in (State.FAILURE, State.RETRY, State.REVOKED)
    if row.state == State.STARTED:
        return started(row.id, row.worker)
    result = _error(row) if failed else row.result or "null"
    about: dict[str, Any] = {
        "traceback": row.traceback or None if row.state != State.REVOKED else None,
        "children": children,
        "date_done": aware(row.finished_at).isoformat() if row.finished_at else None,
        "task_id": row.id,
    }
    if row.group_id:
        about["group_id"] = row.group_id
    if row.parent_id:
        about["parent_id"] = row.parent_id
    return CeleryResult(row.id, _text(row.state, result, about), row.state in TERMINAL)


def started(task_id: str, worker: str) -> CeleryResult:
    """The state of a running call for Celery's clients."""
    result = json.dumps({"hostname": worker, "pid": None})
    about: dict[str, Any] = {
        "traceback": None,
        "children": [],
        "date_done": None,
        "task_id": task_id,
    }
    return CeleryResult(task_id, _text(State.STARTED, result, about), ended=False)


def _text(state: str, result: str, about: Mapping[str, Any]) -> str:
    """``result``: its JSON. The state comes first, since the script that stores it looks there."""
    return f'{{"status": "{state}", "result": {result}, {json.dumps(about)[1:]}'


def _error(row: TaskResult) -> str:
    """The JSON of an exception that a client rebuilds."""
    stored = json.loads(row.result) if row.result else None
    if not isinstance(stored, dict) or "exc_type" not in stored:
        # Of an attempt that failed, and of a call that was revoked before it had a worker.
        kind = row.error_type or "jobs.exceptions.TaskRevoked"
        module, _, name = kind.rpartition(".")
        stored = {"exc_type": name, "exc_message": [row.error], "exc_module": module}
    if stored.get("exc_module") == "jobs.exceptions":
        module, name = _ERRORS.get(stored["exc_type"], ("jobs.exceptions", stored["exc_type"]))
        stored = {**stored, "exc_type": name, "exc_module": module}
    return json.dumps(stored)
