"""What the broker holds at this moment, taken once for everybody who looks.

A snapshot is one round trip to the broker. All threads of a process share it for `FRESH` seconds,
so that a hundred open pages cost what one costs. Taking it changes nothing.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
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
    #: Whether Celery's workers take its calls. What these hold isn't seen here.
    foreign: bool = False

    @property
    def deserted(self) -> bool:
        """Messages wait and nobody claims them, as far as is seen here."""
        if self.foreign:
            return False
        return bool((self.stats.waiting or self.stats.due) and not self.stats.consumers)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    at: dt.datetime
    queues: list[Queue] = field(default_factory=list)
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
    return Queue(
        name,
        said.stats,
        pause,
        min(times, default=None),
        declared,
        said.problem,
        name in conf.foreign_queues(),
    )


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


def _broker() -> Broker | None:
    try:
        return broker.get()
    except ConfigurationError:
        return None


_shared = Shared(take, FRESH)
