"""What is going on: what the broker holds, and what the workers report.

Looking changes nothing. Workers report what they run at each renewal, and within a second of a
change.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from jobs import (
    broker,
    conf,
    message,
    registry,
    serialization,
)
from jobs.broker.base import (
    PARKED,
    Revoked,
    Waiting,
)
from jobs.exceptions import MessageError


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


class Running(NamedTuple):
    """A call that a child is running."""

    call: Call
    #: The child's name on the broker.
    consumer: str
    #: By the clock of its machine.
    since: dt.datetime


class Worker(NamedTuple):
    """A worker, by its last report."""

    name: str
    host: str
    pid: int
    started: dt.datetime
    queues: list[str]
    processes: int
    #: Tasks that its children have run since; counted when they next claim.
    processed: int
    current: list[Running]


def active() -> list[Running]:
    """The calls that run now, the oldest first, but for those acknowledged before they run."""
    return sorted((r for w in workers() for r in w.current), key=lambda running: running.since)


def running(ids: Collection[str], queues: Collection[str]) -> dict[str, Running]:
    """Those of these calls that run now, by id. ``queues``: where they were sent.

    It asks only for what was claimed from these queues, and only of workers whose report can be
    read.
    """
    found: dict[str, Running] = {}
    if not ids:
        return found
    for reports in conf.get().queues:
        for text in broker.get().reports(reports).values():
            try:
                said = [one for one in json.loads(text)["running"] if one[0] in queues]
                current = list(_current(said))
            except (ValueError, TypeError, LookupError, ArithmeticError):
                continue  # another version's
            found |= {one.call.id: one for one in current if one.call.id in ids}
    return found


def waiting(queue: str, count: int = 100) -> list[Call]:
    """Up to ``count`` calls that wait on a queue, the next first."""
    found = broker.get().browse(registry.queue(queue), due=False)
    return [_listed(queue, one) for one in itertools.islice(found, count)]


def due(queue: str, count: int = 100) -> list[Call]:
    """Up to ``count`` calls of a queue that are due later, the next first; parked ones last."""
    found = broker.get().browse(registry.queue(queue), due=True)
    return [_listed(queue, one) for one in itertools.islice(found, count)]


def revoked(count: int = 100) -> list[Revoked]:
    """Up to ``count`` revoked calls, those remembered longest first."""
    # A call is revoked on every queue, since nobody knows on which one it is.
    said = {r.id: r for q in conf.get().queues for r in broker.get().revocations(q, count)}
    return sorted(said.values(), key=lambda one: -one.until)[:count]


def registered() -> list[str]:
    """Names of the tasks in this process; workers with the same code have the same ones."""
    return sorted(registry.tasks)


def workers() -> list[Worker]:
    """Workers that are alive, by name."""
    queues, found = conf.get().queues, []
    alive = {c.name for queue in queues for c in broker.get().consumers(queue) if c.lease > 0}
    for queue in queues:
        for name, text in broker.get().reports(queue).items():
            said = json.loads(text)
            if alive.isdisjoint(said["consumers"]):
                continue  # the worker was killed; another one removes its report
            worker = Worker(
                name=name,
                host=said["host"],
                pid=said["pid"],
                started=_moment(said["started"]),
                queues=said["queues"],
                processes=said["processes"],
                processed=said["processed"],
                current=list(_current(said["running"])),
            )
            found.append(worker)
    return sorted(found)


def _current(said: Iterable[tuple[str, str, int, float]]) -> Iterator[Running]:
    """What a worker has reported to run, without what has ended since."""
    by_consumer: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for queue, consumer, number, since in said:
        by_consumer[queue, consumer][number] = since
    for (queue, consumer), began in by_consumer.items():
        held = broker.get().holding(queue, consumer, list(began))
        for raw, since in zip(held, began.values(), strict=True):
            if raw is not None:
                yield Running(_call(queue, raw), consumer, _moment(since))


def _listed(queue: str, found: Waiting) -> Call:
    call = _call(queue, found.raw)
    if found.due is None:
        return call
    if found.due >= PARKED:
        return call._replace(parked=True)
    return call._replace(due=_moment(found.due))


def _call(queue: str, raw: bytes) -> Call:
    try:
        # The signature doesn't matter: it is only shown.
        sent = message.decode(raw, queue, trusted=True)
    except MessageError:
        return Call(queue, "", "", "", "")
    task: Any = registry.tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else message.hidden_by_sender(sent)
    args, kwargs = _text(sent.shown_args), _text(sent.shown_kwargs)
    return Call(queue, sent.id, sent.task, args, kwargs, sent.priority, attempt=sent.attempt)


def _text(value: Any) -> str:
    return serialization.dumps(value)


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
