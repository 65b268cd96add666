"""The one door in: every message passes `send`.

Inside a transaction the message becomes a ledger row of that transaction (the outbox) and is
published once that has committed; outside, it goes straight to the broker. `relay` publishes what
a process that died between commit and publishing left behind.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import operator
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import redis.exceptions
from django.db import Error as DatabaseError
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs import (
    broker,
    conf,
    message,
    serialization,
    signals,
)
from jobs.broker.base import Outgoing
from jobs.broker.limiting import Lock
from jobs.conf import RetryPolicy
from jobs.exceptions import BrokerUnavailable, MessageError, QueueRefused
from jobs.message import Message
from jobs.models import TaskResult
from jobs.models.commits import hook_before, is_committed
from jobs.states import State
from jobs.timing import clock

log = logging.getLogger("jobs.publish")

_COPIES = operator.attrgetter("copies")
_NO_LOCKS: Mapping[str, Lock] = {}
_ONE_TRY = RetryPolicy(max_retries=0)

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

    Raises `NotSerializable`, `MessageTooLarge`, and outside a transaction `BrokerUnavailable`:
    `QueueRefused` when the broker takes nothing for one of the queues.
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
            if len(queues := {sent.queue for sent in messages}) > 1:
                broker.get().check_queues(queues)
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
    """``outgoing``: gives the messages, as often as they are asked for.

    What is on its queue is not sent again; neither is what is refused. ``unsent`` of the error has
    all that is not known to be on its queue.
    """
    before = sys.exception()
    try:
        return broker.get().push(outgoing())
    except BrokerUnavailable as error:
        failed = error
    left = _left(dict(enumerate(outgoing())), failed)
    for pause in policy.pauses():
        if isinstance(failed, QueueRefused) or not _is_retried(failed, policy, before):
            break
        time.sleep(pause)
        try:
            return broker.get().push(list(left.values()))
        except BrokerUnavailable as error:
            failed, left = error, _left(left, error)
    failed.unsent = frozenset(left)
    raise failed


def _left(sent: Mapping[int, Outgoing], error: BrokerUnavailable) -> dict[int, Outgoing]:
    """By their places, those of these messages that are to be sent after a push of them failed."""
    if error.unsent is None:  # they may be there already: only the answer may have been lost
        return {place: _copy(one) for place, one in sent.items()}
    return {place: one for n, (place, one) in enumerate(sent.items()) if n in error.unsent}


#: The client's own classes → those of Python that mean the same.
_MEANT: Mapping[type[BaseException], type[BaseException]] = {
    redis.exceptions.TimeoutError: TimeoutError,
    redis.exceptions.ConnectionError: ConnectionError,
}


def _is_retried(error: BaseException, policy: RetryPolicy, before: BaseException | None) -> bool:
    """Whether an error, or what it came from, is one of the policy's; ``before``: what was being
    handled when the caller came here, which has nothing to do with it."""
    wanted = policy.retry_errors
    if wanted is None or any(issubclass(one, BrokerUnavailable) for one in wanted):
        return True
    # Ours is a ConnectionError whatever it came from.
    cause: BaseException | None = error.__cause__ or error
    while cause is not None and cause is not before:
        kinds = [type(cause), *(meant for own, meant in _MEANT.items() if isinstance(cause, own))]
        if any(issubclass(kind, wanted) for kind in kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


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
    hook = _hook(connection, once)
    hook.batch = [
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
    """The commit hook of what one call of `send` has sent.

    At the commit the first of several in a row publishes for all of them, in one push.
    """

    def __init__(self, alias: str, once: Hashable) -> None:
        self.alias = alias
        self.once = once
        self.batch: list[_Pending] = []
        #: The next hook in that row.
        self.next: _Publish | None = None
        self.done = False

    def __call__(self) -> None:
        if self.done:
            return
        row = [self]
        if is_committed(connections[self.alias]):
            while (following := row[-1].next) is not None:
                row.append(following)
        pending = [one for hook in row if not hook.done for one in hook.batch]
        for hook in row:
            hook.done = True
        publish_committed(pending, self.alias)


def _hook(connection: BaseDatabaseWrapper, once: Hashable) -> _Publish:
    """A new hook, which publishes what is sent at this moment in the transaction."""
    before = hook_before(connection, _Publish)
    hook = _Publish(connection.alias, once)
    if before is not None:
        before.next = hook
    transaction.on_commit(hook, using=connection.alias)
    return hook


def _waiting(connection: BaseDatabaseWrapper) -> Iterator[_Publish]:
    """Hooks of the open transaction whose messages are not sent yet."""
    for _, hook, *_ in connection.run_on_commit:
        if isinstance(hook, _Publish) and not hook.done:
            yield hook


def _holds(connection: BaseDatabaseWrapper, once: Hashable) -> bool:
    """Whether a message sent with an equal ``once`` waits for the commit."""
    for hook in _waiting(connection):
        if hook.batch and hook.once == once and _kept([hook.batch[0].id], connection)[0]:
            # A test that captures hooks finds it among those of this moment, too.
            transaction.on_commit(functools.partial(hook), using=connection.alias)
            return True
    return False


def locks_waiting(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Name → call, of the locks that are taken when the open transaction commits."""
    pending = [p for hook in _waiting(connection) for p in hook.batch if p.lock]
    kept = _kept([p.id for p in pending], connection)
    return {
        p.lock.name: p.lock.task_id
        for p, there in zip(pending, kept, strict=True)
        if p.lock and there
    }


def publish_committed(pending: Sequence[_Pending], alias: str) -> None:
    """Publish after the commit. Never raises: the caller's transaction has succeeded, and what
    fails here is the relay's to send.

    Nor does it take long: the broker has one second to answer, and is not asked again by those who
    commit within the next three. What is not durable has only this chance: it is tried in any case
    and, where the broker fails at once, as often as the settings' retry policy says.
    """
    light = any(p.id is None for p in pending)
    policy = conf.peek().retry_policy if light else _ONE_TRY
    try:
        with broker.get().briefly(insist=light):
            pending = _with_locks(_with_rows(pending, alias), alias)
            _publish(pending, alias, policy)
    except Exception as error:
        expected = isinstance(error, DatabaseError | BrokerUnavailable)
        log.warning(
            "%d committed messages are left to the relay: %s",
            len(pending),
            error,
            exc_info=None if expected else error,
        )


def _publish(pending: Sequence[_Pending], alias: str, policy: RetryPolicy) -> None:
    sent = range(len(pending))
    unsent: Collection[int] = ()
    try:
        _push(lambda: [p.outgoing for p in pending], policy)
        _refusals.none({p.outgoing.queue for p in pending})
    except BrokerUnavailable as error:
        unsent = sent if error.unsent is None else error.unsent
        left = [pending[n] for n in unsent]
        lost = sum(p.id is None for p in left)
        if isinstance(error, QueueRefused):
            queues = [p.outgoing.queue for p in left]
            _refusals.told(error, queues)
            _refusals.none({p.outgoing.queue for p in pending} - set(queues))
        if lost or not isinstance(error, QueueRefused):
            log.warning(
                "%d committed messages wait in the ledger for the broker, %d that are not durable "
                "are lost: %s",
                len(left) - lost,
                lost,
                error,
            )
    durable = [p.id for n in sent if n not in unsent and (p := pending[n]).id is not None]
    if durable:
        _mark_published(durable, alias)


class _Refusals:
    """The queues that the broker takes nothing for, as far as this process has met them: each is
    logged when that begins and when it ends."""

    def __init__(self) -> None:
        #: Queue → how many messages were refused, each as often as it was tried.
        self._counts: Counter[str] = Counter()

    def told(self, error: QueueRefused, queues: Iterable[str]) -> None:
        """``queues``: of each message that was refused."""
        counts = Counter(queues)
        if new := [queue for queue in counts if queue not in self._counts]:
            log.error(
                "%d messages wait in the ledger until they may be sent (%s): %s",
                sum(counts[queue] for queue in new),
                ", ".join(f"{queue}: {counts[queue]}" for queue in new),
                error,
            )
        self._counts.update(counts)

    def none(self, queues: Iterable[str]) -> None:
        """These queues have taken messages."""
        if not self._counts:
            return
        for queue in queues:
            if count := self._counts.pop(queue, 0):
                log.warning("queue %s takes messages again, after %d refusals", queue, count)


_refusals = _Refusals()


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
        rows.update(state=State.REVOKED, error=text, finished_at=clock.now())
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


#: Ends a call whose message can't be on the broker, by why not.
GiveUp = Callable[[TaskResult, Exception], None]


def relay(now: dt.datetime | None = None, give_up: GiveUp | None = None) -> int:
    """Publish what was committed ``RELAY_AFTER_SECONDS`` ago and is still unpublished.

    Any number of processes may do this at once. How many messages were published. What the broker
    refuses stays, for a later pass, and holds up nothing else; ``give_up`` is called for what it
    will never have: a message that can't be read, or that breaks the connection at several passes.
    Raises `BrokerUnavailable` when it is away.
    """
    grace = dt.timedelta(seconds=conf.get().relay_after_seconds)
    before = (now or clock.now()) - grace
    total = 0
    passed = _Passed(set(), set(), [])
    while True:
        found, sent = _relay_some(before, passed)
        total += sent
        # Not within the transaction that holds the rows.
        while passed.hopeless:
            row, error = passed.hopeless.pop()
            if give_up is not None:
                _breaking.pop(row.id, None)
                give_up(row, error)
        if found < _BATCH:
            return total


class _Passed(NamedTuple):
    """What one pass of the relay leaves alone from now on."""

    queues: set[str]
    ids: set[str]
    #: What will never be sent, and why not.
    hopeless: list[tuple[TaskResult, Exception]]


def _relay_some(before: dt.datetime, passed: _Passed) -> tuple[int, int]:
    """How many rows were found, and how many of them were published."""
    alias = router.db_for_write(TaskResult)
    rows = TaskResult.objects.using(alias).unpublished(before)
    rows = rows.exclude(queue__in=passed.queues).exclude(id__in=passed.ids)
    if not rows.exists():
        return 0, 0  # without a write lock, which SQLite's transactions take at once
    features = connections[alias].features
    away: BrokerUnavailable | None = None
    with transaction.atomic(using=alias):
        if features.has_select_for_update:
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        found = list(rows.only("id", "queue", "eta", "message")[:_BATCH])
        sent: list[str] = []
        try:
            _relay_rows(_readable(found, passed), sent, passed)
        except BrokerUnavailable as error:
            away = error
        TaskResult.objects.using(alias).mark_published(sent)
    if away is not None:
        raise away
    return len(found), len(sent)


def _readable(rows: Sequence[TaskResult], passed: _Passed) -> Sequence[TaskResult]:
    found = []
    for row in rows:
        try:
            message.decode(bytes(row.message), row.queue, trusted=True)
        except MessageError as error:
            # Of whom it is known whose call it is, a worker can say the end.
            if getattr(error, "call", None) is None:
                passed.ids.add(row.id)
                passed.hopeless.append((row, error))
                continue
        found.append(row)
    return found


def _relay_rows(rows: Sequence[TaskResult], sent: list[str], passed: _Passed) -> None:
    """Send the messages of these rows; puts the ids of those that were sent into ``sent``."""
    if not rows:
        return
    try:
        broker.get().push([_again(row) for row in rows])
    except BrokerUnavailable as error:
        if error.cut:
            _find_what_breaks(rows, error, sent, passed)
            return
        if error.unsent is None:
            raise
        sent += [row.id for n, row in enumerate(rows) if n not in error.unsent]
        if not isinstance(error, QueueRefused):
            raise
        passed.queues.update(error.queues)
        _refusals.told(error, [rows[n].queue for n in sorted(error.unsent)])
        _refusals.none({row.queue for row in rows}.difference(error.queues))
    else:
        sent += [row.id for row in rows]
        _refusals.none({row.queue for row in rows})


def _find_what_breaks(
    rows: Sequence[TaskResult], error: BrokerUnavailable, sent: list[str], passed: _Passed
) -> None:
    """The connection broke, and it may be one of these messages that breaks it: the server cuts
    off who sends more than it takes at once. Such a one must not keep the others."""
    broker.get().ping()  # away, all of it: that is the error, then
    if len(rows) == 1:
        passed.ids.add(rows[0].id)
        _breaking[rows[0].id] += 1
        if _breaking[rows[0].id] >= _HOPELESS:
            passed.hopeless.append((rows[0], error))
        if _breaking[rows[0].id] == 1:
            log.error(
                "the message of call %s for queue %s, of %d bytes, waits in the ledger: Redis cuts "
                "the connection when it is sent. Is it above the server's proto-max-bulk-len? %s",
                rows[0].id,
                rows[0].queue,
                len(rows[0].message),
                error,
            )
        return
    half = len(rows) // 2
    for part in (rows[:half], rows[half:]):
        _relay_rows(part, sent, passed)


#: Calls whose messages break the connection → at how many passes they have.
_breaking: Counter[str] = Counter()
#: Passes after which such a one is given up: an accident of the network comes at one of them.
_HOPELESS = 3


def _again(row: TaskResult) -> Outgoing:
    # Its process may have died after publishing, before it could say so.
    return _copy(Outgoing(row.queue, bytes(row.message), due=_due(row.eta)))
