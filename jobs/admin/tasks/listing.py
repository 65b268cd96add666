"""What the pages of the tasks show."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.http import HttpRequest

from jobs import broker, conf, control, ledger, registry
from jobs.admin import words
from jobs.admin.verbs import TROUBLE
from jobs.control import Pause, RateOverride, TimeLimitOverride, metrics, selecting
from jobs.control.metrics import Numbers, Range
from jobs.control.overrides import read_rates, read_time_limits
from jobs.routing import Address
from jobs.states import State
from jobs.timing import clock

#: How many of the newest failures are read to find each task's last one, and how many of the
#: newest rows of a single task.
_FAILURES, _ROWS = 1000, 1000

#: Options that the list names, where they aren't at their defaults.
_NAMED = (
    "priority",
    "max_retries",
    "retry_backoff",
    "time_limit",
    "soft_time_limit",
    "rate_limit",
    "concurrency",
    "unique",
    "batch",
    "atomic",
    "acks",
)

#: Options that are facts of their own on the page of a task.
_ELSEWHERE = ("name", "queue", "bind")


class _Plain:
    """A text in a signature, without quotation marks."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Failure(NamedTuple):
    id: str
    at: dt.datetime | None
    error: str

    @property
    def when(self) -> str:
        return words.away(self.at, clock.now()) if self.at else ""

    @property
    def kind(self) -> str:
        return words.error(self.error, "")


class TaskRow(NamedTuple):
    task: Any
    hour: Numbers | None = None
    day: Numbers | None = None
    pause: Pause | None = None
    override: RateOverride | None = None
    failure: Failure | None = None
    limits: TimeLimitOverride | None = None

    @property
    def name(self) -> str:
        return str(self.task.name)

    @property
    def queues(self) -> str:
        """Where its calls go; empty when functions decide that, call by call."""
        try:
            address: Address | None = self.task.address
        except ValueError:  # it leads nowhere: `manage.py check` says so
            return ""
        return ", ".join(address.queues) if address else ""

    @property
    def where(self) -> str:
        """Module and line of its function."""
        run = inspect.unwrap(self.task.function)
        code = getattr(run, "__code__", None)
        module = str(getattr(run, "__module__", ""))
        return f"{module}:{code.co_firstlineno}" if code else module

    @property
    def doc(self) -> str:
        # A task that is written as a class may say it there.
        return inspect.getdoc(self.task.function) or inspect.cleandoc(self.task.__doc__ or "")

    @property
    def signature(self) -> str:
        """With the defaults of sensitive parameters hidden."""
        signature: inspect.Signature = self.task._signature
        shown = []
        for name, one in signature.parameters.items():
            default = one.default
            if name in self.task.sensitive and default is not one.empty:
                default = _Plain("…")
            shown.append(one.replace(default=default, annotation=_bare(one.annotation)))
        returned = _bare(signature.return_annotation)
        return str(signature.replace(parameters=shown, return_annotation=returned))

    @property
    def options(self) -> list[tuple[str, str]]:
        """All that differ from their defaults."""
        own, left_out = self.task.options, set(_ELSEWHERE)
        if self.task.sensitive:
            left_out.add("schedule")  # it may have arguments
        return [
            (field.name, _shown(getattr(own, field.name)))
            for field in dataclasses.fields(own)
            if field.name not in left_out and getattr(own, field.name) != field.default
        ]

    @property
    def short(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.options if name in _NAMED]

    @property
    def paused_at(self) -> str:
        return words.moment(self.pause.at) if self.pause else ""

    @property
    def rate_at(self) -> str:
        return words.moment(self.override.at) if self.override else ""

    @property
    def limited_at(self) -> str:
        return words.moment(self.limits.at) if self.limits else ""

    @property
    def in_hour(self) -> int:
        return _ended(self.hour)

    @property
    def in_day(self) -> int:
        return _ended(self.day)

    @property
    def success(self) -> str:
        """The share of the day's calls that succeeded; empty when none ended."""
        if self.day is None or not self.in_day:
            return ""
        share = 100 * self.day.succeeded / self.in_day
        # 99.96 % must not look like all.
        return f"{share:.0f} %" if share in (0.0, 100.0) else f"{min(99.9, max(0.1, share)):.1f} %"

    @property
    def p50(self) -> str:
        return _percentile(self.day, 0.5)

    @property
    def p95(self) -> str:
        return _percentile(self.day, 0.95)

    @property
    def spread(self) -> list[tuple[str, int, int]]:
        """The day's durations: up to how long, how many calls, and percent of the largest."""
        if self.day is None or not self.day.run.total:
            return []
        counts: dict[float, int] = {}
        for number, count in self.day.run.buckets.items():
            upper = metrics.upper_bound(number)
            edge = next((edge for edge in _EDGES if upper <= edge), _EDGES[-1])
            counts[edge] = counts.get(edge, 0) + count
        most, first, last = max(counts.values()), min(counts), max(counts)
        return [
            (
                words.duration(dt.timedelta(seconds=edge)),
                counts.get(edge, 0),
                round(100 * counts.get(edge, 0) / most),
            )
            for edge in _EDGES
            if first <= edge <= last
        ]


#: Upper bounds, in seconds, of the bars that show how long calls take.
_EDGES = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)


def _bare(annotation: Any) -> Any:
    """An annotation that is text, as with ``from __future__ import annotations``, as it stands in
    the code."""
    return _Plain(annotation) if isinstance(annotation, str) else annotation


def _ended(numbers: Numbers | None) -> int:
    return numbers.succeeded + numbers.failed if numbers else 0


def _percentile(numbers: Numbers | None, share: float) -> str:
    seconds = numbers.run.percentile(share) if numbers else None
    return "" if seconds is None else words.duration(dt.timedelta(seconds=seconds))


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(map(_shown, value))
    if callable(value):
        return str(getattr(value, "__qualname__", "…"))
    return str(value)


def listed(request: HttpRequest, names: Sequence[str]) -> dict[str, Any]:
    """These tasks, and why the broker can't be asked, if it can't."""
    problem = ""
    hour: Mapping[str, Numbers] = {}
    day: Mapping[str, Numbers] = {}
    pauses: Mapping[str, Pause] = {}
    overrides: Mapping[str, RateOverride] = {}
    limits: Mapping[str, TimeLimitOverride] = {}
    try:
        if conf.get().metrics:
            hour = metrics.by_task(
                Range.HOUR, tasks=names, fields=(metrics.SUCCEEDED, metrics.FAILED)
            )
            day = metrics.by_task(Range.DAY, tasks=names)
        pauses, texts = control.paused_tasks(), broker.get().overrides()
        overrides, limits = read_rates(texts), read_time_limits(texts)
    except TROUBLE as error:
        problem = str(error)
    failures = last_failures(request)
    rows = [
        TaskRow(
            registry.tasks[name],
            hour.get(name),
            day.get(name),
            pauses.get(name),
            overrides.get(name),
            failures.get(name),
            limits.get(name),
        )
        for name in names
    ]
    return {"rows": rows, "problem": problem, "metrics": conf.get().metrics}


def last_failures(request: HttpRequest) -> dict[str, Failure]:
    """Task → its last failure, of the newest in the ledger that this person may see."""
    newest = ledger.results().in_state(State.FAILURE).order_by("-id").values("id")[:_FAILURES]
    rows = selecting.seen_by(request, ledger.results()).filter(id__in=newest).order_by("-id")
    found: dict[str, Failure] = {}
    for task, failure in _failures(rows[:_FAILURES]):
        found.setdefault(task, failure)
    return found


def last_failure(request: HttpRequest, task: str) -> Failure | None:
    """The last failure among the newest calls of a task, if this person may see it."""
    rows = ledger.results().filter(task=task).order_by("-id")
    newest = selecting.seen_by(request, ledger.results()).filter(
        id__in=rows.values("id")[:_ROWS], state=State.FAILURE
    )
    return next((failure for _, failure in _failures(newest.order_by("-id")[:1])), None)


def _failures(rows: Any) -> Iterable[tuple[str, Failure]]:
    for task, *values in rows.values_list("task", "id", "finished_at", "error_type"):
        yield task, Failure(*values)
