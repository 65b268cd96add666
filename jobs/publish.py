"""The one door in: every message passes `send`.

Inside a transaction the message becomes a ledger row of that transaction (the outbox) and is
published once that has committed; outside, it goes straight to the broker. `relay` publishes what
a process that died between commit and publishing left behind.
"""

from __future__ import annotations

import datetime as dt
import logging
import operator
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db import DatabaseError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from jobs import broker, conf, message, serialization, signals
from jobs.broker.base import Outgoing
from jobs.broker.limiting import Lock
from jobs.conf import RetryPolicy
from jobs.exceptions import BrokerUnavailable, MessageError
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import State

log = logging.getLogger("jobs.publish")

_COPIES = operator.attrgetter("copies")
_NO_LOCKS: Mapping[str, Lock] = {}

#: Rows of one pass of the relay, and of one INSERT.
_BATCH = 500


def send(
    messages: Sequence[Message],
    *,
    durable: bool = True,
    using: str | None = None,
    retry_policy: RetryPolicy | None = None,
    once: Hashable | None = None,
    locks: Mapping[str, Lock] = _NO_LOCKS,
) -> bool:
    """Send messages, as part of the current transaction when there is one.

    ``durable=False``: no ledger row; published after the commit, and lost if that fails then.
    ``using``: alias of the database whose transaction counts; by default the ledger's.
    ``retry_policy``: for a broker that is away; by default that of the settings.
    ``once``: nothing is sent when the transaction already holds a message sent with an equal one.
    ``locks``: in a transaction, what calls (ids) have to have when it has committed; those that
    don't get it end as REVOKED.

    Whether they were sent.

    Raises `NotSerializable`, `MessageTooLarge`, and outside a transaction `BrokerUnavailable`.
    """
    if any(map(_COPIES, messages)):
        messages = [each for one in messages for each in message.spread(one)]
    alias = using or router.db_for_write(TaskResult)
    connection = connections[alias]
    if connection.in_atomic_block:
        if once is not None and _holds(connection, once):
            return False
        _send_at_commit(messages, connection, durable=durable, once=once, locks=locks)
    else:
        if len(messages) > 1:
            message.check(messages)  # for all are sent or none, and the first go while others wait
        _push(lambda: map(_outgoing, messages), retry_policy or conf.get().retry_policy)
    if signals.task_enqueued.receivers:
        for sent in messages:
            signals.announce(signals.task_enqueued, sent.task, message=sent)
    return True


def _outgoing(sent: Message) -> Outgoing:
    return Outgoing(sent.queue, message.encode(sent), sent.priority, _due(sent.eta))


def _due(eta: dt.datetime | None) -> float | None:
    if eta is None or (due := eta.timestamp()) <= time.time():
        return None
    return due


def _push(outgoing: Callable[[], Iterable[Outgoing]], policy: RetryPolicy) -> None:
    """``outgoing``: gives the messages, as often as they are asked for."""
    try:
        broker.get().push(outgoing())
    except BrokerUnavailable:
        # What is sent from now on may be there already: only the answer may have been lost.
        again = [_copy(o) for o in outgoing()]
        for pause in policy.pauses():
            time.sleep(pause)
            try:
                return broker.get().push(again)
            except BrokerUnavailable:
                continue
        raise
    return None


def _copy(outgoing: Outgoing) -> Outgoing:
    """To be sent a second time: whoever claims it asks the ledger whether the first has ended."""
    try:
        raw, priority = message.mark_redelivered(outgoing.raw, crashed=False)
    except MessageError:
        return outgoing  # whoever claims it makes it a dead letter
    return outgoing._replace(raw=raw, priority=priority)


# ------------------------------------------------------------------------------ the outbox


class _Pending(NamedTuple):
    """A message that waits for its transaction to commit."""

    outgoing: Outgoing
    #: Its ledger row, or None for a message that isn't durable.
    id: str | None
    #: What it must have to be published.
    lock: Lock | None = None


def _send_at_commit(
    messages: Sequence[Message],
    connection: BaseDatabaseWrapper,
    *,
    durable: bool,
    once: Hashable | None,
    locks: Mapping[str, Lock],
) -> None:
    for sent in messages:
        sent.ledger = durable
    outgoing = [_outgoing(m) for m in messages]
    if durable:
        rows = [_row(m, o) for m, o in zip(messages, outgoing, strict=True)]
        TaskResult.objects.using(connection.alias).bulk_create(rows, batch_size=_BATCH)
    hook = _hook(connection)
    if once is not None and messages:
        hook.once[once] = messages[0].id if durable else None
    hook.batch += [
        _Pending(o, m.id if durable else None, locks.get(m.id) if locks else None)
        for m, o in zip(messages, outgoing, strict=True)
    ]


def _row(sent: Message, outgoing: Outgoing) -> TaskResult:
    return TaskResult(
        id=sent.id,
        task=sent.task,
        queue=sent.queue,
        args=serialization.dumps(sent.shown_args),
        kwargs=serialization.dumps(sent.shown_kwargs),
        eta=sent.eta,
        message=outgoing.raw,
        group_id=sent.group,
        group_index=sent.group_index,
        parent_id=sent.parent_id,
        root_id=sent.root_id if sent.root_id != sent.id else None,
    )


class _Publish:
    """The commit hook of all messages sent in a row under the same savepoints."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.batch: list[_Pending] = []
        #: What is sent once a transaction → the ledger row of its message, if it has one.
        self.once: dict[Hashable, str | None] = {}

    def __call__(self) -> None:
        publish_committed(self.batch, self.alias)


def _hook(connection: BaseDatabaseWrapper) -> _Publish:
    """The hook that publishes what is sent at this moment in the transaction.

    Django drops the hooks of a rolled-back savepoint. Messages therefore share a hook only with
    the hook registered just before, and only under exactly the same savepoints: what rolls back
    one rolls back the other.
    """
    hooks = connection.run_on_commit
    if hooks:
        savepoints, hook = hooks[-1][:2]
        if isinstance(hook, _Publish) and set(savepoints) == set(connection.savepoint_ids):
            return hook
    hook = _Publish(connection.alias)
    transaction.on_commit(hook, using=connection.alias)
    return hook


def _holds(connection: BaseDatabaseWrapper, once: Hashable) -> bool:
    found = [hook.once[once] for hook in _hooks(connection) if once in hook.once]
    return any(_kept(found, connection))


def _hooks(connection: BaseDatabaseWrapper) -> list[_Publish]:
    return [hook[1] for hook in connection.run_on_commit if isinstance(hook[1], _Publish)]


def locks_waiting(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Name → call, of the locks that are taken when the open transaction commits."""
    pending = [p for hook in _hooks(connection) for p in hook.batch if p.lock]
    kept = _kept([p.id for p in pending], connection)
    return {
        p.lock.name: p.lock.task_id
        for p, there in zip(pending, kept, strict=True)
        if p.lock and there
    }


def publish_committed(pending: Sequence[_Pending], alias: str) -> None:
    """Publish after the commit. Never raises: the caller's transaction has succeeded, and what
    fails here is the relay's to send."""
    try:
        pending = _with_locks(_with_rows(pending, alias), alias)
        durable = [p.id for p in pending if p.id is not None]
    except (DatabaseError, BrokerUnavailable) as error:
        log.warning("%d committed messages are left to the relay: %s", len(pending), error)
        return
    try:
        _push(lambda: [p.outgoing for p in pending], conf.get().retry_policy)
    except Exception as error:  # also what the server refuses: a right, a key's type
        lost = len(pending) - len(durable)
        log.warning(
            "%d committed messages wait in the ledger for the broker, %d that are not durable "
            "are lost: %s",
            len(durable),
            lost,
            error,
            exc_info=None if isinstance(error, BrokerUnavailable) else error,
        )
        return
    if durable:
        _mark_published(durable, alias)


def _with_rows(pending: Sequence[_Pending], alias: str) -> Sequence[_Pending]:
    if not connections[alias].savepoint_state:
        return pending
    kept = _kept([p.id for p in pending], connections[alias])
    return [p for p, there in zip(pending, kept, strict=True) if there]


def _kept(ids: Sequence[str | None], connection: BaseDatabaseWrapper) -> list[bool]:
    """Which of these rows (None: there is none) are there: a savepoint takes rows back that was
    rolled back by hand (`transaction.savepoint_rollback`), of which Django's hooks know nothing."""
    if not connection.savepoint_state:
        return [True] * len(ids)  # this connection has never had a savepoint
    rows = TaskResult.objects.using(connection.alias)
    kept: set[str | None] = {None}
    for part in _parts([task_id for task_id in ids if task_id]):
        kept.update(rows.filter(id__in=part).values_list("id", flat=True))
    return [task_id in kept for task_id in ids]


def _with_locks(pending: Sequence[_Pending], alias: str) -> Sequence[_Pending]:
    """Without unique calls whose key another call has taken since they were sent: they end."""
    locks = [p.lock for p in pending if p.lock]
    if not locks:
        return pending
    holders = broker.get().lock(locks)
    lost = {lock.task_id: who for lock, who in zip(locks, holders, strict=True) if who}
    for task_id, holder in lost.items():
        rows = TaskResult.objects.using(alias).filter(id=task_id, state=State.PENDING)
        text = f"call {holder} of the same unique key was there before the commit"
        rows.update(state=State.REVOKED, error=text, finished_at=timezone.now())
        log.info("task %s does not run: %s", task_id, text)
    return [p for p in pending if not (p.lock and p.lock.task_id in lost)]


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as one statement may have parameters on every database."""
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _mark_published(ids: Sequence[str], alias: str) -> None:
    try:
        for part in _parts(ids):
            TaskResult.objects.using(alias).mark_published(part)
    except DatabaseError as error:
        # The relay will send them again, marked as redelivered, so that none is recorded twice.
        log.warning("%d published messages could not be marked as such: %s", len(ids), error)


# ------------------------------------------------------------------------------- the relay


def relay(now: dt.datetime | None = None) -> int:
    """Publish what was committed ``RELAY_AFTER_SECONDS`` ago and is still unpublished.

    Any number of processes may do this at once. How many messages were published.
    Raises `BrokerUnavailable` with nothing marked.
    """
    grace = dt.timedelta(seconds=conf.get().relay_after_seconds)
    before = (now or timezone.now()) - grace
    total = 0
    while True:
        count = _relay_some(before)
        total += count
        if count < _BATCH:
            return total


def _relay_some(before: dt.datetime) -> int:
    alias = router.db_for_write(TaskResult)
    rows = TaskResult.objects.using(alias).unpublished(before)
    if not rows.exists():
        return 0  # without a write lock, which SQLite's transactions take at once
    features = connections[alias].features
    with transaction.atomic(using=alias):
        if features.has_select_for_update:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        found = list(rows.only("id", "queue", "eta", "message")[:_BATCH])
        broker.get().push([_again(row) for row in found])
        TaskResult.objects.using(alias).mark_published(row.id for row in found)
    return len(found)


def _again(row: TaskResult) -> Outgoing:
    # Its process may have died after publishing, before it could say so.
    return _copy(Outgoing(row.queue, bytes(row.message), due=_due(row.eta)))
