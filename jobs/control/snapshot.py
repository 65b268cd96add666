"""What the broker holds at this moment, taken once for everybody who looks.

A snapshot is one round trip to the broker, and a second one for the messages of running calls. All
threads of a process share it for `FRESH` seconds, so that a hundred open pages cost what one costs.
Taking it changes nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from jobs import broker, conf, message
from jobs.broker.base import Broker, Pause, Stats, Survey
from jobs.control import inspecting
from jobs.control.workers import read
from jobs.exceptions import BrokerUnavailable, ConfigurationError, MessageError
from jobs.timing import clock

#: Seconds for which a snapshot is shared.
FRESH = 0.9

#: Most undeclared queues in a snapshot, those used last.
_UNDECLARED = 200

#: Most running calls of one worker that are looked up.
_RUNNING = 200

_T = TypeVar("_T")


class Queue(NamedTuple):
    name: str
    stats: Stats
    #: None when it isn't paused.
    pause: Pause | None = None
    #: Since when the oldest of its next messages could run; None when nothing waits, or the
    #: message doesn't say (it comes from another program).
    oldest: dt.datetime | None = None
    #: Whether JOBS["QUEUES"] has it.
    declared: bool = True
    #: Why the broker refuses to say anything of it; then the rest is empty.
    problem: str = ""

    @property
    def deserted(self) -> bool:
        """Messages wait and nobody claims them."""
        return bool((self.stats.waiting or self.stats.due) and not self.stats.consumers)


class Doing(NamedTuple):
    """A call that a process is running, by its worker's last report."""

    #: Empty when the message can't be read.
    task: str
    since: dt.datetime


class Process(NamedTuple):
    """One consumer, with all queues that it claims from."""

    name: str
    queues: list[str]
    in_flight: int
    #: Seconds until its lease ends; negative when it has ended.
    lease: float
    #: What it runs now, the longest first.
    running: tuple[Doing, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    at: dt.datetime
    queues: list[Queue] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    #: Task → its pause.
    paused_tasks: Mapping[str, Pause] = field(default_factory=dict)
    #: Worker → its last report as far as it can be read, of those that have a living process.
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Why the broker can't be asked; then there is nothing else. Half of an answer would look like
    #: all of it.
    problem: str = ""


class Shared(Generic[_T]):
    """A value that is made anew at most once in a while, by one thread for all."""

    def __init__(self, make: Callable[[], _T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._value: _T | None = None
        self._made_at = float("-inf")
        #: The settings' broker for which it was made.
        self._broker: Broker | None = None

    def get(self, *, now: bool = False) -> _T:
        """``now``: not older than this call, for somebody who has just changed something."""
        asked_at = time.monotonic()
        with self._lock:
            oldest = asked_at if now else time.monotonic() - self._seconds
            current = _broker()
            if self._value is None or self._made_at < oldest or self._broker is not current:
                # Its age counts from before it was made: what comes meanwhile may be missing.
                made_at = time.monotonic()
                self._value = self._make()
                self._made_at, self._broker = made_at, current
            return self._value


def latest(*, now: bool = False) -> Snapshot:
    """The snapshot that everybody shares. ``now``: not older than this call."""
    return _shared.get(now=now)


def take() -> Snapshot:
    """A new snapshot."""
    try:
        port = broker.get()
        with port.briefly(insist=True):
            names = known_queues()
            surveys = dict(zip(names, port.survey(names), strict=True))
            reports = _reports(surveys)
            running = _running(port, reports)
    except (BrokerUnavailable, ConfigurationError) as error:
        return Snapshot(at=clock.now(), problem=str(error))
    refused = [said.problem for said in surveys.values() if said.problem]
    if refused and len(refused) == len(surveys):
        return Snapshot(at=clock.now(), problem=refused[0])
    claimers = inspecting.without_leases(reports.values(), _leases(surveys))
    surveys |= {
        name: inspecting.completed(surveys[name], claimers[name])
        for name in surveys.keys() & claimers.keys()
    }
    declared = conf.get().queues
    queues = [_queue(name, said, declared=name in declared) for name, said in surveys.items()]
    pauses = [pause for said in surveys.values() for pause in said.pauses if pause.task]
    return Snapshot(
        at=clock.now(),
        # An undeclared queue that nobody uses any more isn't one.
        queues=[q for q in queues if q.declared or any(q.stats) or q.pause or q.problem],
        processes=_processes(surveys, running),
        paused_tasks={pause.task: pause for pause in pauses},
        reports=reports,
    )


def known_queues() -> list[str]:
    """The declared queues, and with ``CREATE_MISSING_QUEUES`` the others that were used lately."""
    declared = list(conf.get().queues)
    if not conf.get().create_missing_queues:
        return declared
    found = broker.get().remembered_queues(_UNDECLARED)
    used = {name for name in found if conf.get().knows(name)}
    return declared + sorted(used.difference(declared))


def _queue(name: str, said: Survey, *, declared: bool) -> Queue:
    pause = next((pause for pause in said.pauses if not pause.task), None)
    times = [at for raw in said.next_ones if (at := runnable_since(raw, name)) is not None]
    return Queue(name, said.stats, pause, min(times, default=None), declared, said.problem)


def runnable_since(raw: bytes, queue: str) -> dt.datetime | None:
    """When a waiting message was sent or, if that is later, due; None when it doesn't say."""
    try:
        # The signature doesn't matter: it is only looked at.
        sent = message.decode(raw, queue, trusted=True)
    except MessageError:
        return None
    made = message.id_time(sent.id)
    at = None if made is None else dt.datetime.fromtimestamp(made, dt.UTC)
    times = [moment for moment in (at, sent.eta) if moment is not None]
    return min(max(times), clock.now()) if times else None


def _leases(surveys: Mapping[str, Survey]) -> dict[str, float]:
    """Consumer → the seconds until its lease ends, of those that have one."""
    return {c.name: c.lease for said in surveys.values() for c in said.consumers if c.lease > 0}


def _reports(surveys: Mapping[str, Survey]) -> dict[str, Mapping[str, Any]]:
    alive = _leases(surveys)
    found: dict[str, Mapping[str, Any]] = {}
    for said in surveys.values():
        for name, text in said.reports.items():
            try:
                report = read(text)
            except ValueError:
                continue
            # Another version may report something else.
            consumers = report.get("consumers") if isinstance(report, dict) else None
            if isinstance(consumers, list) and any(
                isinstance(one, str) and one in alive for one in consumers
            ):
                found[name] = report
    return found


def _running(port: Broker, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Doing]]:
    """Consumer → what it runs. What has ended since the report is left out."""
    running: list[tuple[inspecting.Place, dt.datetime]] = []
    for report in reports.values():
        for place in inspecting.places(report.get("running"))[:_RUNNING]:
            with contextlib.suppress(ValueError, OverflowError, OSError):
                running.append((place, dt.datetime.fromtimestamp(place.since, dt.UTC)))
    held = port.held_by([(place.queue, place.consumer, [place.number]) for place, _ in running])
    found: dict[str, list[Doing]] = {}
    for (place, at), raw in zip(running, held, strict=True):
        if raw is None:
            continue
        try:
            task = message.decode(raw, place.queue, trusted=True).task
        except MessageError:
            task = ""
        found.setdefault(place.consumer, []).append(Doing(task, at))
    return found


def _processes(
    surveys: Mapping[str, Survey], running: Mapping[str, Sequence[Doing]]
) -> list[Process]:
    by_name: dict[str, list[tuple[str, int, float]]] = {}
    for queue, said in surveys.items():
        for name, lease, in_flight in said.consumers:
            by_name.setdefault(name, []).append((queue, in_flight, lease))
    return sorted(_process(name, places, running.get(name, ())) for name, places in by_name.items())


def _process(
    name: str, places: Sequence[tuple[str, int, float]], running: Iterable[Doing]
) -> Process:
    return Process(
        name,
        [queue for queue, _, _ in places],
        sum(in_flight for _, in_flight, _ in places),
        min(lease for _, _, lease in places),
        tuple(sorted(running, key=lambda doing: doing.since)),
    )


def _broker() -> Broker | None:
    try:
        return broker.get()
    except ConfigurationError:
        return None


_shared = Shared(take, FRESH)
