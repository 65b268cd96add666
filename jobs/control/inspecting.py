"""What is going on: a look at the broker, and at what the workers say of themselves.

Nothing is changed by looking. What workers do now is as they last said it: when it changed, a
second ago at most, else at their last renewal.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
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
    """A message, as far as it can be read; what can't is empty."""

    queue: str
    id: str
    task: str
    #: JSON, without what is sensitive.
    args: str
    kwargs: str
    priority: int = 0
    #: When it is due; None: it waits for nothing but a worker, or for its task to be resumed.
    due: dt.datetime | None = None
    #: It waits for its task to be resumed.
    parked: bool = False


class Running(NamedTuple):
    """What one place of a child is doing."""

    call: Call
    #: The child, as the broker knows it.
    consumer: str
    #: By the clock of its machine.
    since: dt.datetime


class Worker(NamedTuple):
    """A worker, as it last said of itself."""

    name: str
    host: str
    pid: int
    started: dt.datetime
    queues: list[str]
    processes: int
    #: Tasks that its children have run since then; counted when they next claim.
    processed: int
    current: list[Running]


def active() -> list[Running]:
    """What runs now, the longest first. Not told: calls that were acknowledged before they ran."""
    return sorted((r for w in workers() for r in w.current), key=lambda running: running.since)


def waiting(queue: str, count: int = 100) -> list[Call]:
    """What waits on a queue, the next first, so many at most."""
    found = broker.get().browse(registry.queue(queue), due=False)
    return [_listed(queue, one) for one in itertools.islice(found, count)]


def due(queue: str, count: int = 100) -> list[Call]:
    """What waits for its time, the next first, so many at most; then what is parked."""
    found = broker.get().browse(registry.queue(queue), due=True)
    return [_listed(queue, one) for one in itertools.islice(found, count)]


def revoked(count: int = 100) -> list[Revoked]:
    """Calls that are not to start, the last to be forgotten first, so many at most."""
    # Said of every queue, since nobody knows on which one a call is.
    said = {r.id: r for q in conf.get().queues for r in broker.get().revocations(q, count)}
    return sorted(said.values(), key=lambda one: -one.until)[:count]


def registered() -> list[str]:
    """Names of the tasks that this process knows; workers of the same code know the same."""
    return sorted(registry.tasks)


def workers() -> list[Worker]:
    """Workers that are alive, by name."""
    alive, found = _consumers(), []
    for queue in conf.get().queues:
        for name, text in broker.get().reports(queue).items():
            said = json.loads(text)
            if alive.isdisjoint(said["consumers"]):
                broker.get().report(queue, name, None)  # it was killed, and can't do so itself
            else:
                found.append(_worker(name, said))
    return sorted(found)


def _worker(name: str, said: dict[str, Any]) -> Worker:
    return Worker(
        name=name,
        host=said["host"],
        pid=said["pid"],
        started=_moment(said["started"]),
        queues=said["queues"],
        processes=said["processes"],
        processed=said["processed"],
        current=list(_current(said["running"])),
    )


def _consumers() -> set[str]:
    """Names of those whose lease is running."""
    queues = conf.get().queues
    return {c.name for queue in queues for c in broker.get().consumers(queue) if c.lease > 0}


def _current(said: Iterable[tuple[str, str, int, float]]) -> Iterator[Running]:
    """What a worker said to run, without what has ended since."""
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
        # For the eye only, so whoever signed it.
        sent = message.decode(raw, queue, trusted=True)
    except MessageError:
        return Call(queue, "", "", "", "")
    task: Any = registry.tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else message.hidden_by_sender(sent)
    args, kwargs = _text(sent.shown_args), _text(sent.shown_kwargs)
    return Call(queue, sent.id, sent.task, args, kwargs, sent.priority)


def _text(value: Any) -> str:
    return serialization.dumps(value)


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
