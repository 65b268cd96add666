"""What is going on: what the broker holds, and what the workers report.

Looking changes nothing. Workers report what they run at each renewal, and within a second of a
change.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jobs import (
    broker,
    conf,
    message,
    registry,
    serialization,
)
from jobs.broker.base import (
    PARKED,
    Consumer,
    Revoked,
    Stats,
    Survey,
    Waiting,
)
from jobs.broker.sharding import queue_of
from jobs.control.workers import FEW_QUEUES, Act, answered, ask, read
from jobs.exceptions import MessageError
from jobs.message.stamps import read_mark

_T = TypeVar("_T")

#: Seconds for which a worker without a child is believed to be alive after its last report.
_UNLEASED = 60.0

#: Seconds between two looks for the answers of workers.
_LOOK = 0.05

#: Most characters of a text in a report, and most members of a list: nobody checks what is written
#: there.
_MOST = 1000


class RevokedStamp(NamedTuple):
    """A stamp whose calls must not start."""

    name: str
    #: As text.
    value: str
    #: Whether they must not go on either.
    terminate: bool
    #: Unix seconds until which the revocation is remembered.
    until: float


class Call(NamedTuple):
    """A message as far as it can be read; the rest is empty."""

    queue: str
    id: str
    task: str
    #: JSON, with sensitive arguments hidden.
    args: str
    kwargs: str
    priority: int = 0
    #: When it is due; None: it waits for a worker, or for its task to be resumed.
    due: dt.datetime | None = None
    #: Whether it waits for its task to be resumed.
    parked: bool = False
    #: The number of its next or present attempt, from 1.
    attempt: int = 1
    label: str = ""
    #: The time that its sender has set for it; None: none.
    eta: dt.datetime | None = None


class Running(NamedTuple):
    """A call that a child is running."""

    call: Call
    #: The child's name on the broker.
    consumer: str
    #: By the clock of its machine.
    since: dt.datetime


class Process(NamedTuple):
    """A child of a worker, or its supervisor."""

    #: The child's name on the broker; of the supervisor, the worker's.
    name: str
    pid: int
    #: Bytes in memory; 0: the machine doesn't tell.
    memory: int
    #: Whether it claims messages; a supervisor doesn't.
    ready: bool


class Worker(NamedTuple):
    """A worker, by its last report. What another version of the worker doesn't report is empty."""

    name: str
    host: str
    pid: int
    started: dt.datetime
    queues: list[str]
    processes: int
    #: Tasks that its children have run since; counted when they next claim.
    processed: int
    current: list[Running]
    #: How many of those tasks have failed for good.
    failed: int = 0
    #: Ordinary tasks that it can run at once.
    capacity: int = 0
    #: "running", "quiet", "draining", "restarting" or "stopping".
    state: str = ""
    #: The versions of "jobs", "python" and "django".
    versions: dict[str, str] = {}
    #: JOBS["REVISION"]: the code that it runs.
    revision: str = ""
    #: The supervisor, then the children.
    parts: list[Process] = []
    #: Seconds since its last report, by the broker's clock; None: unknown.
    age: float | None = None
    #: Seconds between two of its reports at most.
    every: float = 0.0
    #: Whether one of its children has a lease.
    leased: bool = True

    @property
    def memory(self) -> int:
        """Bytes that its processes have in memory."""
        return sum(part.memory for part in self.parts)

    @property
    def claims(self) -> bool:
        """Whether it takes calls, now or when it has restarted its children."""
        return self.state not in ("quiet", "draining", "stopping")

    @property
    def silent(self) -> bool:
        """Whether it has missed two reports: its supervisor is suspended, cut off, or gone."""
        return self.age is not None and self.every > 0 and self.age > 2 * self.every + 2


def active() -> list[Running]:
    """The calls that run now, the oldest first, but for those acknowledged before they run."""
    return sorted((r for w in workers() for r in w.current), key=lambda running: running.since)


def running(ids: Collection[str], queues: Collection[str]) -> dict[str, Running]:
    """Those of these calls that run now, by id. ``queues``: where they were sent.

    It asks only for what was claimed from these queues, and only of workers whose report can be
    read.
    """
    if not ids:
        return {}
    chosen = [place for place in reported() if place.queue in queues]
    return {one.call.id: one for one in current(chosen) if one and one.call.id in ids}


def waiting(queue: str, count: int = 100) -> list[Call]:
    """Up to ``count`` calls that wait on a queue, the next first."""
    registry.queue(queue)
    found: list[Waiting] = []
    # In pages, since Redis gives a thousand at a time.
    while (left := count - len(found)) > 0:
        page = broker.get().peek(queue, len(found), min(1000, left))
        if not page:
            break
        found += page
    return [_listed(queue, one) for one in found]


def due(queue: str, count: int = 100) -> list[Call]:
    """Up to ``count`` calls of a queue that are due later, the next first; parked ones last."""
    found = broker.get().browse(registry.queue(queue), due=True)
    return [_listed(queue, one) for one in itertools.islice(found, count)]


def revoked(count: int = 100) -> list[Revoked]:
    """Up to ``count`` revoked calls, those remembered longest first."""
    return _revocations(count, lambda one: read_mark(one.id) is None)


def revoked_stamps(count: int = 100) -> list[RevokedStamp]:
    """Up to ``count`` stamps whose calls are revoked, those remembered longest first."""
    said = _revocations(count, lambda one: read_mark(one.id) is not None)
    stamps = [(read_mark(one.id), one) for one in said]
    return [RevokedStamp(*stamp, one.terminate, one.until) for stamp, one in stamps if stamp]


def _revocations(count: int, wanted: Callable[[Revoked], bool]) -> list[Revoked]:
    """The first of those that are wanted. The broker keeps ids and stamps together, so that there
    may be any number of others among them."""
    asked = count
    while count > 0:
        pages = [broker.get().revocations(queue, asked) for queue in conf.get().queues]
        # A call is revoked on every queue, since nobody knows on which one it is.
        said = {one.id: one for page in pages for one in page}
        found = sorted(filter(wanted, said.values()), key=lambda one: -one.until)[:count]
        if len(found) == count or max(map(len, pages)) < asked:
            return found
        asked *= 4
    return []


def registered() -> list[str]:
    """Names of the tasks in this process; workers with the same code have the same ones."""
    return sorted(registry.tasks)


def registered_by_worker(
    timeout: float = 5.0, queues: Collection[str] = ()
) -> dict[str, list[str] | None]:
    """Worker → names of the tasks that it knows. All workers are asked, and answer within about a
    second; None for one that has not within ``timeout`` seconds, or can't.

    ``queues``: only workers that claim from one of these; by default all. Raises
    `BrokerUnavailable`.
    """
    place: dict[str, tuple[str, str]] = {}
    for worker in workers():
        if worker.queues and (not queues or not set(queues).isdisjoint(worker.queues)):
            # A worker reports, and takes commands, on the first of its queues.
            queue = worker.queues[0]
            place[worker.name] = queue, ask(queue, worker.name, Act.TASKS)
    found: dict[str, list[str] | None] = dict.fromkeys(place)
    ends = time.monotonic() + timeout
    while place:
        for name, asked in list(place.items()):
            if answer := answered(*asked):
                found[name] = answer.text.splitlines() if answer.done else None
                del place[name]
        if not place or time.monotonic() >= ends:
            break
        time.sleep(_LOOK)  # nobody tells of an answer
    return found


def workers(*, lost: bool = False) -> list[Worker]:
    """Workers that are alive, by name; with ``lost``, also those whose leases have ended."""
    port, queues = broker.get(), list(conf.get().queues)
    surveys = [
        (queue, said)
        for queue, said in zip(queues, port.survey(queues), strict=True)
        if said.reports
    ]
    if not surveys:
        return []
    known: list[tuple[str, dict[str, Any], set[str], float | None]] = []
    for (_, said), ages in zip(
        surveys, port.report_ages_of([queue for queue, _ in surveys]), strict=True
    ):
        # A worker's children have leases on all its queues, so also on the one with its reports.
        leased = {consumer.name for consumer in said.consumers if consumer.lease > 0}
        for name, text in said.reports.items():
            known.append((name, _readable(text), leased, ages.get(name)))
    running = [places(report.get("running")) for _, report, _, _ in known]
    current_ones = iter(current(list(itertools.chain.from_iterable(running))))
    found = []
    for (name, report, leased, age), own in zip(known, running, strict=True):
        runs = [one for one in itertools.islice(current_ones, len(own)) if one]
        worker = _worker(name, report, runs, leased, age)
        if worker.leased or lost:
            found.append(worker)
    return sorted(found, key=lambda worker: worker.name)


def without_leases(
    reports: Iterable[Mapping[str, Any]], leases: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Queue → the living consumers that claim from it, and have a lease there only while they hold
    something of it, as those of workers with many queues.

    Each consumer with the seconds until its lease ends; ``leases``: those of all that have one.
    """
    found: dict[str, dict[str, float]] = {}
    for report in reports:
        queues, consumers = report.get("queues"), report.get("consumers")
        if not (isinstance(queues, list) and isinstance(consumers, list)):
            continue  # of another version
        if FEW_QUEUES < len(queues) <= _MOST:
            names = [one for one in consumers if isinstance(one, str) and one in leases]
            for queue in queues:
                if isinstance(queue, str):
                    found.setdefault(queue, {}).update((name, leases[name]) for name in names)
    return found


def claimers() -> dict[str, dict[str, float]]:
    """`without_leases` by what the broker holds now. Raises `BrokerUnavailable`."""
    port, queues = broker.get(), list(conf.get().queues)
    reports: list[dict[str, Any]] = []
    leases: dict[str, float] = {}
    for queue, said in zip(queues, port.reports_of(queues), strict=True):
        own = [_readable(text) for text in said.values()]
        if any(isinstance(one.get("queues"), list) for one in own):
            reports += own
            leases |= {one.name: one.lease for one in port.consumers(queue) if one.lease > 0}
    return without_leases(reports, leases)


def consumers(queue: str, claimers: Mapping[str, Mapping[str, float]]) -> list[Consumer]:
    """Every known consumer of a queue, with those that hold nothing of it (`claimers`)."""
    found = broker.get().consumers(queue)
    return found + _missing(found, claimers.get(queue, {}))


def stats(queue: str, claimers: Mapping[str, Mapping[str, float]]) -> Stats:
    """Counts of a queue, with those of its consumers that hold nothing of it (`claimers`)."""
    found = broker.get().stats(queue)
    if queue in claimers:
        more = _missing(broker.get().consumers(queue), claimers[queue])
        found = found._replace(consumers=found.consumers + len(more))
    return found


def completed(said: Survey, claimers: Mapping[str, float]) -> Survey:
    """The survey of a queue, with those of its consumers that hold nothing of it."""
    more = _missing(said.consumers, claimers)
    stats = said.stats._replace(consumers=said.stats.consumers + len(more))
    return said._replace(stats=stats, consumers=[*said.consumers, *more])


def _missing(known: Iterable[Consumer], claimers: Mapping[str, float]) -> list[Consumer]:
    leased = {one.name for one in known if one.lease > 0}
    return [Consumer(name, lease, 0) for name, lease in claimers.items() if name not in leased]


def _readable(text: bytes) -> dict[str, Any]:
    """A report as far as that can be read: it may be another version's."""
    try:
        said = read(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _worker(
    name: str, said: dict[str, Any], current: list[Running], leased: set[str], age: float | None
) -> Worker:
    """A worker by its report, as far as that can be read."""

    def get(key: str, otherwise: _T) -> _T:
        value = said.get(key)
        if isinstance(otherwise, float):
            try:
                return float(value)  # type: ignore[arg-type, return-value]
            except (TypeError, ValueError, OverflowError):
                return otherwise
        if not isinstance(value, type(otherwise)):
            return otherwise
        return value[:_MOST] if isinstance(value, str | list) else value  # type: ignore[return-value]

    none: list[Any] = []
    nothing: dict[str, Any] = {}
    consumers = {one for one in get("consumers", none) if isinstance(one, str)}
    parts = [_part(part) for part in get("parts", none)]
    return Worker(
        name=name,
        host=get("host", ""),
        pid=get("pid", 0),
        started=_moment(get("started", 0.0)),
        queues=[str(queue) for queue in get("queues", none)],
        processes=get("processes", 0),
        processed=get("processed", 0),
        current=current,
        failed=get("failed", 0),
        capacity=get("capacity", get("processes", 0)),
        state=get("state", ""),
        versions={str(what): str(which) for what, which in get("versions", nothing).items()},
        revision=get("revision", ""),
        parts=[part for part in parts if part],
        age=age,
        every=get("every", 0.0),
        # One whose children can't start has no lease.
        leased=not leased.isdisjoint(consumers) or (not consumers and (age or 0.0) < _UNLEASED),
    )


def _part(said: Any) -> Process | None:
    try:
        name, pid, memory, ready = said
        return Process(str(name), int(pid), int(memory), bool(ready))
    except (ValueError, TypeError, OverflowError):
        return None


class Place(NamedTuple):
    """Where a call runs, as a worker reports it."""

    #: The shard of its queue.
    shard: str
    consumer: str
    number: int
    #: Unix seconds.
    since: float

    @property
    def queue(self) -> str:
        return queue_of(self.shard)


def places(said: Any) -> list[Place]:
    """What a worker has reported to run, each delivery once."""
    found: dict[tuple[str, str, int], Place] = {}
    for one in said if isinstance(said, list) else ():
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # of another version
            queue, consumer, number, since = one
            place = Place(str(queue), str(consumer), int(number), float(since))
            if queue:  # "": a place of the board that nobody knows
                found[place[:3]] = place
    return list(found.values())


def reported() -> list[Place]:
    """What runs, by the last reports of all workers."""
    # A worker reports to one of its queues, whatever it runs.
    reports = broker.get().reports_of(list(conf.get().queues))
    texts = itertools.chain.from_iterable(said.values() for said in reports)
    return [place for text in texts for place in places(_readable(text).get("running"))]


def current(places: Sequence[Place]) -> list[Running | None]:
    """What runs at each of these places, in one round trip; None: it has ended since the report."""
    held = broker.get().held_by([(place.shard, place.consumer, [place.number]) for place in places])
    return [
        None if raw is None else Running(call_of(at.queue, raw), at.consumer, _moment(at.since))
        for at, raw in zip(places, held, strict=True)
    ]


def _listed(queue: str, found: Waiting) -> Call:
    call = call_of(queue, found.raw)
    if found.due is None:
        return call
    if found.due >= PARKED:
        return call._replace(parked=True)
    return call._replace(due=_moment(found.due))


def call_of(queue: str, raw: bytes) -> Call:
    """A message as far as it can be read."""
    try:
        # The signature doesn't matter: it is only shown.
        sent = message.decode(raw, queue, trusted=True)
    except MessageError:
        return Call(queue, "", "", "", "")
    task: Any = registry.tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else message.hidden_by_sender(sent)
    args, kwargs = _text(sent.shown_args), _text(sent.shown_kwargs)
    return Call(
        queue,
        sent.id,
        sent.task,
        args,
        kwargs,
        sent.priority,
        attempt=sent.attempt,
        label=sent.label,
        eta=sent.eta,
    )


def _text(value: Any) -> str:
    return serialization.dumps(value)


def _moment(seconds: float) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):  # of another version
        return dt.datetime.fromtimestamp(0, dt.UTC)
