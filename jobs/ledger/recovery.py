"""Calls that the ledger waits for and whose messages the broker has lost.

`lost` compares the two, `put_back` sends again. Both may be called at any time, by several
processes at once: a call that is put back although its message was only overlooked is marked as
redelivered, so that its end is recorded once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec
from django.db import connections, transaction
from django.db.models import Count, Q

from jobs import (
    broker,
    conf,
    ledger,
    message,
)
from jobs.broker.base import Outgoing
from jobs.exceptions import MessageError
from jobs.models.results import TaskResult, TaskResultQuerySet
from jobs.states import State
from jobs.timing import clock

#: Calls that are compared in one reading of the queues.
_COMPARED = 50_000
#: Calls that are sent again in one transaction.
_BATCH = 500


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
    unless: Collection[str] = (),
    read: Callable[[], object] = lambda: None,
) -> Iterator[list[Call]]:
    """Calls that were handed to the broker before this moment and are on none of its queues.

    ``unless``: names of tasks to leave alone: of one that is acknowledged before it runs, nobody
    can tell whether it has run. ``read``: called for each message that is looked at.
    Raises `BrokerUnavailable`.
    """
    for state in (State.PENDING, State.RETRY):
        rows = _handed_over(before).filter(state=state).exclude(task__in=unless).order_by("id")
        last = ""
        while True:
            part = rows.filter(id__gt=last).values_list(*Call._fields)[:_COMPARED]
            calls = [Call(*values) for values in part]
            if not calls:
                break
            missing = _missing({call.id for call in calls}, read)
            yield [call for call in calls if call.id in missing]
            last = calls[-1].id


def put_back(calls: Sequence[Call], before: dt.datetime) -> int:
    """Send these calls again, those that wait for their next attempt at its time. How many.

    ``before``: that of `lost`. What has ended, was put back or was tried again since is left alone.
    Raises `BrokerUnavailable`, with nothing marked of the batch at which it failed.
    """
    ids = [call.id for call in calls]
    return sum(
        _put_back(ids[start : start + _BATCH], before) for start in range(0, len(ids), _BATCH)
    )


def undeclared(before: dt.datetime) -> dict[str, int]:
    """Queues that the settings don't declare any more → how many calls wait on them."""
    rows = _waiting(before).exclude(queue__in=conf.get().queues)
    return dict(rows.order_by("queue").values_list("queue").annotate(Count("id")))


def _waiting(before: dt.datetime) -> TaskResultQuerySet:
    """Rows without an end, whose message left the ledger before this moment, and for a worker
    that has not tried them since."""
    # What has never left is the relay's to send.
    left = Q(state=State.PENDING, published_at__lt=before) | (
        Q(state=State.RETRY) & (Q(published_at=None) | Q(published_at__lt=before))
    )
    untouched = Q(started_at=None) | Q(started_at__lt=before)
    return TaskResult.objects.using(ledger.alias()).filter(left, untouched)


def _handed_over(before: dt.datetime) -> TaskResultQuerySet:
    return _waiting(before).filter(queue__in=conf.get().queues).exclude(message=b"")


def _missing(ids: set[str], read: Callable[[], object]) -> set[str]:
    """Those of these ids that no message of any queue has; takes the others out of the set."""
    # A message that is given back moves against the direction of reading, and may be overlooked
    # once.
    for _again in range(2):
        for queue in conf.get().queues:
            for raw in broker.get().scan(queue):
                read()
                ids.discard(_id_of(raw))
                if not ids:
                    return ids
    return ids


def _put_back(ids: Sequence[str], before: dt.datetime) -> int:
    alias = ledger.alias()
    features = connections[alias].features
    with transaction.atomic(using=alias):
        rows = _handed_over(before).filter(id__in=ids)
        if features.has_select_for_update:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        found = list(rows.only("id", "queue", "eta", "message"))
        sent = {row.id: again for row in found if (again := _again(row))}
        broker.get().push(list(sent.values()))
        # From now on they count as new: the next run leaves them alone for a while.
        rows = TaskResult.objects.using(alias).filter(id__in=list(sent))
        rows.update(published_at=clock.now())
    return len(sent)


def _again(row: TaskResult) -> Outgoing | None:
    """Its message, not to be run before its time; None when it can't be read."""
    try:
        raw, priority = message.mark_redelivered(bytes(row.message), crashed=False)
    except MessageError:
        return None
    later = row.eta is not None and row.eta > clock.now()
    return Outgoing(row.queue, raw, priority, row.eta.timestamp() if row.eta and later else None)


class _Headers(msgspec.Struct):
    id: str = ""


class _Envelope(msgspec.Struct):
    headers: _Headers


_envelope = msgspec.json.Decoder(_Envelope)


def _id_of(raw: bytes) -> str:
    """The id of a message, whoever signed it; empty when it can't be read."""
    try:
        return _envelope.decode(raw).headers.id
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return ""
