"""What `jobs_call` and `jobs_result` share: waiting for a call, and showing what the ledger has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import ledger
from jobs.api.results import AsyncResult
from jobs.exceptions import ResultTimeout
from jobs.management.operating import seconds, time_of
from jobs.models import TaskResult
from jobs.states import TERMINAL, State

#: Exit statuses: the call has failed or was revoked; it has not ended.
FAILED, UNFINISHED = 1, 3

#: Exit status of programs that Ctrl-C has ended.
_INTERRUPTED = 130

#: Columns of the ledger that are shown, as JSON has them.
_SHOWN = (
    *("id", "task", "queue", "label", "state", "error_type", "error", "traceback"),
    *("attempts", "worker", "created_at", "eta", "started_at", "finished_at"),
)


def add_wait(parser: CommandParser) -> None:
    """Take the option ``--wait``: None without it, infinity without a number of seconds."""
    parser.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=math.inf,
        metavar="SECONDS",
        help=_("wait for its end, for so many seconds at most; default: however long it takes"),
    )


def wait(result: AsyncResult, longest: float) -> None:
    """Return when the call has ended. Raises `CommandError` when it doesn't in this time, or when
    Ctrl-C ends the waiting."""
    try:
        result.get(None if math.isinf(longest) else longest, propagate=False)
    except ResultTimeout as error:
        raise CommandError(str(error), returncode=UNFINISHED) from error
    except KeyboardInterrupt:
        text = _("Waiting has ended; call %s goes on. See jobs_result.") % result.id
        raise CommandError(text, returncode=_INTERRUPTED) from None


def row_of(task_id: str) -> TaskResult | None:
    """What the ledger has of a call. None: it waits or runs and has no row yet, or there is none
    with this id."""
    return ledger.results().filter(id=task_id).defer("message").first()


def as_json(task_id: str, row: TaskResult | None, state: str) -> dict[str, Any]:
    """The call as JSON has it; ``state``: as `AsyncResult` says."""
    known = {name: getattr(row, name) if row else None for name in _SHOWN}
    succeeded = row is not None and row.state == State.SUCCESS and row.result is not None
    value = json.loads(row.result) if row and row.result and succeeded else None
    return {**known, "id": task_id, "state": state, "result": value}


def lines(row: TaskResult, state: str) -> Iterator[str]:
    """The call as text, a fact a line."""
    times = {
        _("sent"): row.created_at,
        _("not before"): row.eta,
        _("started"): row.started_at,
        _("finished"): row.finished_at,
    }
    facts = {
        _("call"): str(row),
        _("queue"): row.queue,
        _("label"): row.label,
        _("state"): state,
        _("result"): row.result or "null" if row.state == State.SUCCESS else "",
        _("error"): f"{row.error_type}: {row.error}".removeprefix(": ") if row.error else "",
        _("attempts"): str(row.attempts),
        _("worker"): row.worker,
        **{name: time_of(at) if at else "" for name, at in times.items()},
    }
    width = max(map(len, facts))
    yield from (f"{name:<{width}}  {text}" for name, text in facts.items() if text)
    if row.traceback:
        yield row.traceback.rstrip("\n")


def check_end(task_id: str, row: TaskResult | None) -> None:
    """Raise `CommandError` for a call that has not succeeded, with an exit status that says why."""
    if row is None:
        text = _("Nothing is recorded of %s: it has not ended yet, or there is no such call.")
        raise CommandError(text % task_id, returncode=UNFINISHED)
    if row.state not in TERMINAL:
        raise CommandError(_("%s has not ended yet.") % row, returncode=UNFINISHED)
    if row.state == State.REVOKED:
        raise CommandError(_("%s was revoked.") % row, returncode=FAILED)
    if row.state != State.SUCCESS:
        told = {"call": row, "error": f"{row.error_type}: {row.error}"}
        raise CommandError(_("%(call)s has failed: %(error)s") % told, returncode=FAILED)
