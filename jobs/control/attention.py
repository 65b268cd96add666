"""What needs a person now: a list of matters, made from what broker, ledger and metrics say.

`matters` is pure; `Surroundings` is what it needs besides the snapshot, and `look` reads that.
"""

from __future__ import annotations

import datetime as dt
import enum
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db import DatabaseError, router
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, ledger, registry
from jobs.broker.base import SCHEDULES, Keeping
from jobs.control import metrics, throughput
from jobs.control.metrics import Numbers, Range
from jobs.control.snapshot import Shared, Snapshot, known_queues
from jobs.control.throughput import Rate
from jobs.exceptions import BrokerUnavailable, ConfigurationError, QueueRefused
from jobs.models import Schedule, TaskResult
from jobs.timing import clock

#: A task is failing when so many calls of it failed in the last hour, and this share of all.
FAILED, FAILED_SHARE = 5, 0.2

#: The broker's memory is short when this share of its limit is in use.
MEMORY_SHARE = 0.8

#: Rows that are counted at most.
MOST = 1000

#: Seconds for which a beat may be away before somebody is told.
BEAT_AWAY = 60.0

#: Seconds for which the surroundings are shared: what is asked here changes slowly.
_FRESH = 5.0


class Kind(enum.StrEnum):
    """What kind of matter it is; the most urgent first."""

    DISK = "disk"
    MEMORY = "memory"
    EVICTION = "eviction"
    REFUSED = "refused"
    DAMAGED = "damaged"
    DESERTED = "deserted"
    BEAT = "beat"
    LATE = "late"
    BACKLOG = "backlog"
    FAILING = "failing"
    DEAD = "dead"
    PAUSED_QUEUE = "paused_queue"
    PAUSED_TASK = "paused_task"
    VERSIONS = "versions"
    LEDGER = "ledger"


class Matter(NamedTuple):
    kind: Kind
    #: A sentence in the language of whoever asks.
    text: str
    #: The queue, task or key that it is about; empty: none.
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What changes slowly around the queues."""

    keeping: Keeping = Keeping()  # noqa: RUF009  it can't be changed
    #: Whether no beat has been connected for a minute; False when the server doesn't say.
    beatless: bool = False
    #: Whether any schedule is enabled, or declared in code that no beat has made rows of yet.
    scheduled: bool = False
    #: How many schedules are late (at most `MOST` are counted), and since when the first is due.
    late: int = 0
    late_since: dt.datetime | None = None
    #: How many committed calls nobody has published (likewise), and when the first was sent.
    backlog: int = 0
    backlog_since: dt.datetime | None = None
    #: Task → its numbers of the last hour.
    by_task: Mapping[str, Numbers] = field(default_factory=dict)
    #: Queue → how fast calls come and leave.
    rates: Mapping[str, Rate] = field(default_factory=dict)
    #: Keys of the broker that hold something else than they should.
    damaged: tuple[str, ...] = ()
    #: Why the ledger can't be asked.
    problem: str = ""


def surroundings() -> Surroundings:
    """Those that everybody shares."""
    return _shared.get()


def look() -> Surroundings:
    """Ask broker, ledger and metrics. The number of rows that are read is bounded."""
    now = clock.now()
    try:
        with broker.get().briefly(insist=False):
            keeping, beatless = broker.get().keeping(), _beatless()
            by_task, rates = _measured(known_queues())
            damaged = tuple(broker.get().damaged())
    except (BrokerUnavailable, ConfigurationError):  # the snapshot says so
        return Surroundings()
    try:
        schedules = Schedule.objects.using(router.db_for_write(Schedule))
        settings = conf.get()
        due = schedules.due(now - dt.timedelta(seconds=settings.misfire_grace_seconds))
        late = list(due.values_list("next_run_at", flat=True)[:MOST])
        # Twice: a healthy relay looks once in that time.
        unpublished = TaskResult.objects.using(ledger.alias()).unpublished(
            now - dt.timedelta(seconds=2 * max(1.0, settings.relay_after_seconds))
        )
        left = list(unpublished.order_by("created_at").values_list("created_at", flat=True)[:MOST])
        scheduled = needs_beat()
    except DatabaseError as error:
        return Surroundings(
            keeping=keeping,
            beatless=beatless,
            by_task=by_task,
            rates=rates,
            damaged=damaged,
            problem=str(error),
        )
    return Surroundings(
        keeping=keeping,
        beatless=beatless,
        damaged=damaged,
        scheduled=scheduled,
        late=len(late),
        late_since=late[0] if late else None,
        backlog=len(left),
        backlog_since=left[0] if left else None,
        by_task=by_task,
        rates=rates,
    )


def _beatless() -> bool:
    """Whether no beat is connected, and this process has seen none for a minute: one that restarts
    is away for some seconds."""
    global _beat_seen
    beats = broker.get().listeners(SCHEDULES)
    if beats:
        _beat_seen = time.monotonic()
    return beats == 0 and time.monotonic() - _beat_seen > BEAT_AWAY


def needs_beat() -> bool:
    """Whether any schedule is enabled, or declared in code that no beat has made rows of yet."""
    schedules = Schedule.objects.using(router.db_for_write(Schedule))
    return schedules.earliest() is not None or (_declared() and not schedules.exists())


def no_beat() -> str:
    """What there is to say while no beat runs."""
    return _("No beat is running: schedules send nothing. Start one: manage.py runbeat.")


def _declared() -> bool:
    """Whether the project's code declares a schedule, besides this app's own."""
    tasks = registry.tasks.items()
    return any(conf.get().beat_schedule.values()) or any(
        task.options.schedule is not None and not name.startswith("jobs.") for name, task in tasks
    )


def _measured(queues: list[str]) -> tuple[dict[str, Numbers], dict[str, Rate]]:
    try:
        by_task = metrics.by_task(
            Range.HOUR, queues=queues, fields=(metrics.SUCCEEDED, metrics.FAILED)
        )
        return by_task, throughput.rates(queues)
    except QueueRefused:  # there is more to say than this
        return {}, {}


def matters(taken: Snapshot, around: Surroundings) -> list[Matter]:
    """What needs a person, the most urgent first."""
    found = [*_of_the_server(around.keeping), *_of_the_queues(taken), *_of_the_ledger(around)]
    found += [Matter(Kind.DAMAGED, damaged(key), key) for key in around.damaged]
    found += [*_of_the_tasks(around.by_task), *_of_the_workers(taken)]
    order = list(Kind)
    return sorted(found, key=lambda matter: order.index(matter.kind))


def damaged(key: str) -> str:
    """What there is to say of a key that holds something else than it should."""
    return _(
        "The key “%(key)s” on Redis holds something else than it should, so what belongs there "
        "isn’t shown. Look at it (TYPE), and rename or delete it."
    ) % {"key": key}


def _of_the_server(keeping: Keeping) -> Iterator[Matter]:
    if keeping.failing:
        yield Matter(
            Kind.DISK,
            _("Redis could not write to its disk; see its log. What it holds may be lost."),
        )
    elif keeping.on_disk is False:
        yield Matter(
            Kind.DISK,
            _("Redis keeps nothing on disk: all messages are lost when it restarts."),
        )
    if keeping.limit and keeping.used >= MEMORY_SHARE * keeping.limit:
        share = 100 * keeping.used / keeping.limit
        yield Matter(
            Kind.MEMORY,
            _(
                "Redis uses %(share).0f %% of its memory (maxmemory). When it is full, no task can "
                "be sent."
            )
            % {"share": share},
        )
    if keeping.eviction.startswith("allkeys-"):
        text = _(
            "Redis has the maxmemory-policy %(policy)s: messages are lost when its memory is full. "
            "Set it to noeviction."
        )
        yield Matter(Kind.EVICTION, text % {"policy": keeping.eviction})
    elif keeping.eviction.startswith("volatile-"):
        text = _(
            "Redis has the maxmemory-policy %(policy)s: locks, limits and revocations are "
            "forgotten when its memory is full. Set it to noeviction."
        )
        yield Matter(Kind.EVICTION, text % {"policy": keeping.eviction})


def _of_the_queues(taken: Snapshot) -> Iterator[Matter]:
    for queue in taken.queues:
        named = {"queue": queue.name}
        if queue.problem:
            text = _("Queue “%(queue)s” can’t be read: %(why)s")
            yield Matter(Kind.REFUSED, text % {**named, "why": queue.problem}, queue.name)
        if queue.deserted and queue.pause is None:
            text = _("Messages wait in queue “%(queue)s”, and no worker takes them.")
            yield Matter(Kind.DESERTED, text % named, queue.name)
        if dead := queue.stats.dead:
            text = ngettext(
                "%(n)s dead letter in queue “%(queue)s”.",
                "%(n)s dead letters in queue “%(queue)s”.",
                dead,
            )
            yield Matter(Kind.DEAD, text % {"n": f"{dead:,}", **named}, queue.name)
        if queue.pause:
            said = {**named, "by": queue.pause.by or "?", "why": queue.pause.why}
            text = _("Queue “%(queue)s” is paused by %(by)s.") % said
            yield Matter(Kind.PAUSED_QUEUE, _with_why(text, queue.pause.why), queue.name)
    for task, pause in taken.paused_tasks.items():
        text = _("Task “%(task)s” is paused by %(by)s.") % {"task": task, "by": pause.by or "?"}
        yield Matter(Kind.PAUSED_TASK, _with_why(text, pause.why), task)


def _with_why(text: str, why: str) -> str:
    return f"{text} “{why}”" if why else text


def _of_the_ledger(around: Surroundings) -> Iterator[Matter]:
    if around.problem:
        text = _("The ledger’s database can’t be asked: %(why)s")
        yield Matter(Kind.LEDGER, text % {"why": around.problem})
    if around.scheduled and around.beatless:
        yield Matter(Kind.BEAT, no_beat())
    if around.late:
        text = ngettext(
            "%(n)s schedule is late, by %(seconds)s s.",
            "%(n)s schedules are late, the first by %(seconds)s s.",
            around.late,
        )
        yield Matter(Kind.LATE, text % _counted(around.late, around.late_since))
    if around.backlog:
        text = ngettext(
            "%(n)s call is committed and not on its queue yet, for %(seconds)s s.",
            "%(n)s calls are committed and not on their queues yet, the first for %(seconds)s s.",
            around.backlog,
        )
        yield Matter(Kind.BACKLOG, text % _counted(around.backlog, around.backlog_since))


def _counted(count: int, since: dt.datetime | None) -> dict[str, str]:
    seconds = (clock.now() - since).total_seconds() if since else 0
    more = "+" if count >= MOST else ""
    return {"n": f"{count:,}{more}", "seconds": f"{max(seconds, 0):,.0f}"}


def _of_the_tasks(by_task: Mapping[str, Numbers]) -> Iterator[Matter]:
    for task, numbers in by_task.items():
        ended = numbers.succeeded + numbers.failed
        if numbers.failed >= FAILED and numbers.failed >= FAILED_SHARE * ended:
            text = _("Task “%(task)s” fails: %(failed)s of %(ended)s calls in the last hour.")
            said = {"task": task, "failed": f"{numbers.failed:,}", "ended": f"{ended:,}"}
            yield Matter(Kind.FAILING, text % said, task)


def _of_the_workers(taken: Snapshot) -> Iterator[Matter]:
    reports = taken.reports.values()
    versions = [report.get("versions") for report in reports]
    for said, text in (
        (
            [report.get("revision") for report in reports],
            _("Workers run different revisions of the code: %(all)s."),
        ),
        (
            [one.get("jobs") if isinstance(one, Mapping) else None for one in versions],
            _("Workers run different versions of Jobsite: %(all)s."),
        ),
    ):
        different = _different(said)
        if len(different) > 1:
            yield Matter(Kind.VERSIONS, text % {"all": ", ".join(sorted(different))})


def _different(said: Collection[object]) -> set[str]:
    """The values that are texts; a worker that says none is another version, too."""
    if not any(isinstance(one, str) and one for one in said):
        return set()
    return {one if isinstance(one, str) and one else "?" for one in said}


#: When this process has last seen a beat (`time.monotonic`).
_beat_seen = float("-inf")

_shared = Shared(look, _FRESH)
