"""What the pages of the workers show."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from jobs import conf, control, ledger
from jobs.admin import words
from jobs.admin.verbs import TROUBLE
from jobs.control import inspect
from jobs.control.inspecting import Running, Worker
from jobs.control.workers import Answer, Gone, How
from jobs.models import TaskResult
from jobs.timing import clock

#: Most running calls of one worker that the list names.
_NAMED = 5

#: The id of a command: see `control.workers.command`.
_COMMAND = re.compile(r"[0-9a-f]{16}")

#: How a worker or child has ended → the colour of its badge.
_COLOURS = {
    How.STOPPED: "",
    How.KILLED: "retry",
    How.CRASHED: "failure",
    How.LOST: "failure",
}


class CallRow(NamedTuple):
    """A call that a worker runs."""

    running: Running
    #: Whether the ledger has a row of it, and so a page.
    recorded: bool
    span: str

    @property
    def since(self) -> str:
        return words.moment(self.running.since)


class WorkerRow(NamedTuple):
    worker: Worker
    calls: list[CallRow]
    now: dt.datetime

    @property
    def named(self) -> list[CallRow]:
        return self.calls[:_NAMED]

    @property
    def besides(self) -> int:
        return max(0, len(self.calls) - _NAMED)

    @property
    def memory(self) -> str:
        return filesizeformat(self.worker.memory) if self.worker.memory else ""

    @property
    def parts(self) -> list[tuple[str, int, str]]:
        """Name, process and memory of each of its processes."""
        return [
            (part.name, part.pid, filesizeformat(part.memory) if part.memory else "")
            for part in self.worker.parts
        ]

    @property
    def state(self) -> str:
        worker = self.worker
        if worker.silent or not worker.leased:
            return _("silent")
        return {
            "running": pgettext("worker", "running"),
            "quiet": _("quiet"),
            "draining": _("draining"),
            "restarting": _("restarting"),
            "stopping": _("stopping"),
        }.get(worker.state, worker.state or pgettext("worker", "running"))

    @property
    def colour(self) -> str:
        if self.worker.silent or not self.worker.leased:
            return "failure"
        return "success" if self.worker.state in ("", "running") else "retry"

    @property
    def sign(self) -> str:
        """When it has last given a sign of life."""
        if self.worker.age is None:
            return ""
        return words.away(self.seen, self.now)

    @property
    def seen(self) -> dt.datetime:
        return self.now - dt.timedelta(seconds=self.worker.age or 0.0)

    @property
    def silent_since(self) -> str:
        """Empty while it reports as it should."""
        if not self.worker.silent and self.worker.leased:
            return ""
        return words.moment(self.seen)

    @property
    def since(self) -> str:
        return words.moment(self.worker.started)

    @property
    def up(self) -> str:
        return words.duration(self.now - self.worker.started)

    @property
    def code(self) -> str:
        """Which code it runs: what differs during a deployment."""
        versions = self.worker.versions
        return " · ".join(filter(None, (self.worker.revision, versions.get("jobs", ""))))

    @property
    def versions(self) -> list[tuple[str, str]]:
        names = {"jobs": "Jobsite", "python": "Python", "django": "Django"}
        return [(names.get(what, what), which) for what, which in self.worker.versions.items()]


class GoneRow(NamedTuple):
    gone: Gone

    @property
    def at(self) -> str:
        return words.moment(self.gone.at)

    @property
    def how(self) -> str:
        return {
            How.STOPPED: _("stopped"),
            How.KILLED: _("killed"),
            How.CRASHED: _("crashed"),
            How.LOST: _("lost"),
        }[self.gone.how]

    @property
    def colour(self) -> str:
        return _COLOURS[self.gone.how]


def listed() -> dict[str, Any]:
    """All workers and those that have ended lately, or why the broker can't be asked."""
    rows: list[WorkerRow] = []
    gone: list[GoneRow] = []
    problem = ""
    try:
        rows = rows_of(inspect.workers(lost=True))
        gone = [GoneRow(one) for one in control.workers.gone()]
    except TROUBLE as error:
        problem, rows, gone = str(error), [], []
    codes = sorted({row.code for row in rows if row.code and not row.silent_since})
    return {
        "problem": problem,
        "rows": rows,
        "gone": gone,
        "codes": codes if len(codes) > 1 else [],
        "at": words.moment(clock.now()),
    }


def one(name: str, queue: str, command: str) -> dict[str, Any]:
    """One worker, what is known of its end, and its answer to a command."""
    rows: list[WorkerRow] = []
    gone: list[GoneRow] = []
    answer, problem = None, ""
    asked = queue in conf.get().queues and bool(_COMMAND.fullmatch(command))
    try:
        rows = rows_of(worker for worker in inspect.workers(lost=True) if worker.name == name)
        gone = [GoneRow(one) for one in control.workers.gone() if is_of(one, name)]
        answer = control.workers.answered(queue, command) if asked else None
    except TROUBLE as error:
        problem = str(error)
    late = asked and answer is None and control.workers.is_late(command, clock.now())
    return {
        "name": name,
        "late": late,
        "problem": problem,
        "row": rows[0] if rows else None,
        "gone": gone,
        "asked": asked,
        "answer": answer,
        "stacks": stacks_of(answer),
        "at": words.moment(clock.now()),
    }


def is_of(gone: Gone, worker: str) -> bool:
    """Whether it is this worker or one of its children."""
    return gone.name == worker or gone.name.startswith(f"{worker}/")


def stacks_of(answer: Answer | None) -> Sequence[tuple[str, str]]:
    return [(name, text.strip()) for name, text in answer.stacks] if answer else []


def rows_of(workers: Iterable[Worker]) -> list[WorkerRow]:
    found, now = list(workers), clock.now()
    ids = [running.call.id for worker in found for running in worker.current if running.call.id]
    recorded = set(
        TaskResult.objects.using(ledger.alias()).filter(id__in=ids).values_list("id", flat=True)
        if ids
        else ()
    )
    return [
        WorkerRow(
            worker,
            [
                CallRow(running, running.call.id in recorded, words.duration(now - running.since))
                for running in sorted(worker.current, key=lambda one: one.since)
            ],
            now,
        )
        for worker in found
    ]
