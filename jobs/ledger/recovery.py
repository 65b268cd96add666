"""Find calls that wait in the ledger and whose messages the broker has lost.

`lost` compares the two, `put_back` sends again. Both may be called at any time, by several
processes at once. A message that is put back is marked as redelivered, so that a call whose first
message was only overlooked still ends once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from django.db import transaction
from django.db.models import Count, Q

from jobs import (
    broker,
    conf,
    ledger,
    message,
)
from jobs.broker.base import Outgoing
from jobs.exceptions import MessageError, QueueRefused
from jobs.ledger import publish
from jobs.models.results import TaskResult, TaskResultQuerySet
from jobs.states import State
from jobs.timing import clock

#: Calls that are compared in one reading of the queues: with 250,000, their ids take some 30 MB.
_COMPARED = 250_000

#: Most messages that `some_lost` reads, and most rows that it counts.
_READ, _COUNTED = 5_000, 100_000


class Call(NamedTuple):
    """A row of the ledger. Fields are its columns."""

    id: str
    task: str
    queue: str
    state: str
    eta: dt.datetime | None


def lost(
    before: dt.datetime,
    *,
    queues: Collection[str] = (),
    unless: Collection[str] = (),
    read: Callable[[], object] = lambda: None,
    between: Callable[[], object] = lambda: None,
) -> Iterator[list[Call]]:
    """Calls that were handed to the broker before this moment and are on none of its queues. Not
    those that Celery's workers were given: what these hold is seen by nobody else.

    ``queues``: those whose calls are looked at; by default all that are declared.
    ``unless``: names of tasks to leave alone. (A call that is acknowledged before it runs may have
    run.) ``read``: called for each message that is looked at. ``between``: called when some are
    missing, before the queues are read once more.
    Raises `BrokerUnavailable`.
    """
    rows = _handed_over(before, queues).exclude(task__in=unless)
    asked = queues or conf.get().queues
    others = [queue for queue in conf.get().queues if queue not in asked]
    for state in (State.PENDING, State.STARTED, State.RETRY):
        ids = rows.in_state(state).order_by("id").values_list("id", flat=True)
        last = ""
        while compared := list(ids.filter(id__gt=last)[:_COMPARED]):
            last = compared[-1]
            missing = sorted(_missing(set(compared), asked, others, read, between))
            del compared
            for part in ledger.chunks(missing):
                found = rows.filter(id__in=part).order_by("id").values_list(*Call._fields)
                yield [Call(*values) for values in found]


def any_open(queues: Collection[str]) -> bool:
    """Whether any committed call of these queues has not ended. (One that isn't marked as published
    may have been pushed a moment ago.)"""
    states = (State.PENDING, State.STARTED, State.RETRY)
    return ledger.results().in_state(*states).filter(queue__in=queues).exists()


def some_lost(before: dt.datetime, messages: int, *, unless: Collection[str] = ()) -> int:
    """How many calls are lost at least, found with little work: at most `_READ` messages are read,
    and at most `_COUNTED` rows counted.

    ``messages``: how many the queues hold in all, dead letters included. The rest as for `lost`.
    """
    open_ = _handed_over(before).in_state(State.PENDING, State.STARTED, State.RETRY)
    rows = open_.exclude(task__in=unless)
    if messages > _READ:
        # Each of these rows has a message, or has lost it.
        found = rows[: messages + 1].count() if messages < _COUNTED else 0
        return max(0, found - messages)
    ids = rows.order_by().values_list("id", flat=True)[:_COUNTED]
    missing = _missing(set(ids), conf.get().queues)
    # Once more: what was acknowledged meanwhile has its end recorded by now.
    return sum(rows.filter(id__in=some).count() for some in ledger.chunks(sorted(missing)[:_READ]))


def put_back(calls: Sequence[Call], before: dt.datetime) -> int:
    """Send these calls again, retries at their time, and return how many were sent.

    ``before``: the same as for `lost`. Calls that have ended, were put back or were tried again
    since are left alone. Raises `BrokerUnavailable`, with nothing marked of the batch that failed.
    """
    count = 0
    for ids in ledger.chunks([call.id for call in calls]):
        with transaction.atomic(using=ledger.alias()):
            waiting = _waiting(before).exclude(queue__in=conf.foreign_queues())
            rows = ledger.lock_rows(waiting.filter(id__in=ids).exclude(message=b""))
            found = rows.only("id", "queue", "eta", "message")
            sent = {row.id: again for row in found if (again := _again(row))}
            broker.get().push(list(sent.values()))
            # From now on they count as new: the next recovery leaves them alone for a while.
            ledger.results().filter(id__in=list(sent)).update(published_at=clock.now())
        count += len(sent)
    return count


def with_celery(before: dt.datetime) -> dict[str, int]:
    """Queues of Celery's workers → how many calls were handed to these and have not ended."""
    rows = _waiting(before).filter(queue__in=conf.foreign_queues())
    return dict(rows.order_by("queue").values_list("queue").annotate(Count("id")))


def undeclared(before: dt.datetime) -> dict[str, int]:
    """Queues that the settings no longer declare → how many calls wait on them."""
    rows = _waiting(before).exclude(queue__in=conf.get().queues)
    return dict(rows.order_by("queue").values_list("queue").annotate(Count("id")))


def _waiting(before: dt.datetime) -> TaskResultQuerySet:
    """Rows without an end whose message left the ledger before this moment, and which no worker
    has tried since."""
    # The relay sends what has never left.
    left = Q(state=State.PENDING, published_at__lt=before) | (
        Q(state__in=(State.STARTED, State.RETRY))
        & (Q(published_at=None) | Q(published_at__lt=before))
    )
    untouched = Q(started_at=None) | Q(started_at__lt=before)
    open_ = ledger.results().in_state(State.PENDING, State.STARTED, State.RETRY)
    return open_.filter(left, untouched)


def _handed_over(before: dt.datetime, queues: Collection[str] = ()) -> TaskResultQuerySet:
    asked = set(queues or conf.get().queues) - conf.foreign_queues()
    return _waiting(before).filter(queue__in=asked).exclude(message=b"")


def _missing(
    ids: set[str],
    queues: Iterable[str],
    others: Iterable[str] = (),
    read: Callable[[], object] = lambda: None,
    between: Callable[[], object] = lambda: None,
) -> set[str]:
    """Return the ids that no message of these queues has; removes the others from the set.

    ``others``: queues that messages may have been moved to; left out if the broker refuses them.
    """
    # Twice: a message that is given back moves against the direction of reading, and may be
    # overlooked once.
    for again in range(2):
        if again:
            between()
        for queue in queues:
            _discard(ids, queue, read)
        for queue in others:
            with contextlib.suppress(QueueRefused):
                _discard(ids, queue, read)
        if not ids:
            break
    return ids


def _discard(ids: set[str], queue: str, read: Callable[[], object]) -> None:
    """Remove from the set the ids that the messages of a queue have."""
    if not ids:
        return
    for raw in broker.get().scan(queue):
        read()
        with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
            ids.discard(_envelope.decode(raw).headers.id)
        if not ids:
            return


def _again(row: TaskResult) -> Outgoing | None:
    """The message of a row, due at the row's time; None when it can't be read."""
    try:
        raw, priority = message.mark_redelivered(bytes(row.message), crashed=False)
    except MessageError:
        return None
    later = row.eta is not None and row.eta > clock.now()
    due = row.eta.timestamp() if row.eta and later else None
    return publish.addressed(Outgoing(row.queue, raw, priority, due))


class _Headers(msgspec.Struct):
    id: str = ""


class _Envelope(msgspec.Struct):
    headers: _Headers


#: Reads the id of a message, whoever signed it.
_envelope = msgspec.json.Decoder(_Envelope)
