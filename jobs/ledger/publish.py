"""Send messages: every one passes `send`.

Inside a transaction a message becomes a ledger row of that transaction (the outbox), and is
published after the commit. Outside, it goes straight to the broker. `relay` publishes what a
process that died between commit and publishing has left.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import functools
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import redis.exceptions
from django.apps import apps
from django.db import Error as DatabaseError
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs import (
    broker,
    conf,
    message,
    registry,
    serialization,
    signals,
)
from jobs.broker.base import Outgoing
from jobs.broker.limiting import Lock
from jobs.broker.sharding import queue_of
from jobs.conf import RetryPolicy
from jobs.exceptions import BrokerUnavailable, MessageError, NotReplicated, QueueRefused
from jobs.ledger import outcomes
from jobs.ledger.outcomes import chunks, lock_rows
from jobs.message import Calls, Message, sent_by
from jobs.models import TaskResult
from jobs.models.moments import stored
from jobs.states import State

log = logging.getLogger("jobs.publish")

_NO_LOCKS: Mapping[str, Lock] = {}
_NO_CONTEXTS: Mapping[str, contextvars.Context] = {}
_ONE_TRY = RetryPolicy(max_retries=0)

#: Most rows of one INSERT, and of one transaction of the relay.
_BATCH = 500


def send(
    messages: Sequence[Message],
    *,
    durable: bool = True,
    using: str | None = None,
    retry_policy: RetryPolicy | None = None,
    once: Hashable | None = None,
    locks: Mapping[str, Lock] = _NO_LOCKS,
    contexts: Mapping[str, contextvars.Context] = _NO_CONTEXTS,
) -> bool:
    """Send messages, as part of the current transaction when there is one, and return whether they
    were sent.

    ``durable=False``: write no ledger row. The messages are published after the commit, and lost
    if the broker is away then.
    Calls for Celery's workers are sent in a transaction, and durable, in any case.
    ``using``: alias of the database whose transaction counts; by default the ledger's.
    ``retry_policy``: for a broker that is away; by default that of the settings.
    ``once``: send nothing when the transaction already holds a message sent with an equal value.
    ``locks``: in a transaction, the unique lock that each call (by id) takes after the commit; a
    call that doesn't get its lock ends as REVOKED.
    ``contexts``: the context in which receivers of `task_sending` hear of each call (by id);
    default: the present one.

    Raises `NotSerializable`, `MessageTooLarge`, and outside a transaction `BrokerUnavailable`:
    `QueueRefused` when the broker takes nothing for one of the queues; `NotReplicated` when they
    are sent, but too few replicas have them.
    """
    if not apps.ready:
        _tell_loading(messages)
    for sent in messages:
        if sent.copies:
            messages = [each for one in messages for each in message.spread(one)]
            break
    settings = conf.get()
    if settings.create_missing_queues:
        _remember({sent.queue for sent in messages})
    alias = using or router.db_for_write(TaskResult)
    connection = _connection(alias)
    eager = registry.inline if settings.always_eager else None
    foreign = conf.foreign_queues()
    if foreign and not eager and any(sent.queue in foreign for sent in messages):
        # Celery's workers know nothing of the ledger: each call there has a row before it runs.
        durable = True
        if not connection.in_atomic_block:
            with transaction.atomic(using=alias):
                return send(messages, using=alias, once=once, locks=locks, contexts=contexts)
    if once is not None and not eager and connection.in_atomic_block and _holds(connection, once):
        return False
    if signals.task_sending.receivers:
        _announce_sending(messages, contexts)
    if eager:
        message.check(messages)
        if signals.task_enqueued.receivers:
            _announce(messages)
        eager().run_here(messages)
        return True
    unsafe: NotReplicated | None = None
    if connection.in_atomic_block:
        _put_into_outbox(messages, connection, durable=durable, once=once, locks=locks)
    else:
        outgoing: Iterable[Outgoing]
        if len(messages) == 1:
            outgoing = (outgoing_of(messages[0]),)
        else:
            # All are sent or none. Encoding is lazy: the first ones would be on the broker when a
            # later one turns out to be invalid.
            message.check(messages)
            if len(queues := {sent.queue for sent in messages}) > 1:
                broker.get().check_queues(queues)
            outgoing = _Encoded(messages)
        try:
            _push(outgoing, retry_policy or settings.retry_policy, settings.broker_wait_replicas)
        except NotReplicated as error:
            unsafe = error
    if sent_by and any(sent.parent_id in sent_by for sent in messages):
        if connection.in_atomic_block:  # what is rolled back has not been sent
            connection.on_commit(functools.partial(message.note_sent, messages))
        else:
            message.note_sent(messages)
    if signals.task_enqueued.receivers:
        _announce(messages)
    if unsafe:
        unsafe.ids = tuple(sent.id for sent in messages)
        raise unsafe
    return True


def send_calls(
    calls: Calls,
    *,
    durable: bool = True,
    using: str | None = None,
    retry_policy: RetryPolicy | None = None,
) -> None:
    """`send` for calls that have all but ids and arguments in common. Outside a transaction no
    messages are made of them, unless somebody else wants to see these."""
    common, settings = calls.common, conf.get()
    if (
        not message.are_plain(calls)
        or _connection(using or router.db_for_write(TaskResult)).in_atomic_block
        or common.queue in conf.foreign_queues()
        or settings.create_missing_queues
        or settings.always_eager
        or not apps.ready
        or sent_by
        or signals.task_sending.receivers
        or signals.task_enqueued.receivers
    ):
        send(calls.messages(), durable=durable, using=using, retry_policy=retry_policy)
        return
    outgoing = _EncodedCalls(common, message.EncodedCalls(calls))
    try:
        _push(outgoing, retry_policy or settings.retry_policy, settings.broker_wait_replicas)
    except NotReplicated as error:
        error.ids = tuple(task_id for task_id, _, _ in calls.own)
        raise


def _connection(alias: str) -> BaseDatabaseWrapper:
    """This thread's ``connections[alias]``, where no event loop runs. To learn that none does,
    asgiref raises an error and catches it, which would be a tenth of a send."""
    if asyncio._get_running_loop() is None and _of_threads is not None:
        found: BaseDatabaseWrapper | None = getattr(_of_threads, alias, None)
        if found is not None:
            return found
    return connections[alias]


def _threads_of(local: object) -> threading.local | None:
    """Where asgiref keeps what belongs to a thread; None for a version that does it otherwise."""
    found = vars(local).get("_storage")
    return found if isinstance(found, threading.local) else None


_of_threads = _threads_of(connections._connections)  # type: ignore[attr-defined]


def _tell_loading(messages: Sequence[Message]) -> None:
    """Say that calls are sent by a module that is imported, or by an app's ``ready()``, which is
    hardly ever meant."""
    for name in dict.fromkeys(sent.task for sent in messages):
        log.warning(
            "task %s is sent while the project loads: each process that loads it sends the call, "
            "workers as well. Send it from a function that is called later",
            name,
        )


def _announce_sending(
    messages: Iterable[Message], contexts: Mapping[str, contextvars.Context]
) -> None:
    for sent in messages:
        # Of its own: several calls may have been sent with the same ones.
        sent.own_headers = dict(sent.headers)
        tell = functools.partial(signals.announce, signals.task_sending, sent.task, message=sent)
        if context := contexts.get(sent.id):
            context.run(tell)
        else:
            tell()


def _announce(messages: Iterable[Message]) -> None:
    for sent in messages:
        signals.announce(signals.task_enqueued, sent.task, message=sent)


def _remember(queues: Collection[str]) -> None:
    """Let operators find these queues if the settings don't declare them."""
    undeclared = [queue for queue in queues if queue not in conf.get().queues]
    try:
        with broker.get().briefly(insist=False):
            broker.get().remember_queues(undeclared)
    except BrokerUnavailable as error:
        log.debug("the queues %s are not remembered: %s", undeclared, error)


def outgoing_of(sent: Message, raw: bytes | None = None) -> Outgoing:
    """A message in the form in which the broker takes it. ``raw``: its wire form, if that is known
    already."""
    queue = sent.queue
    if sent.shard_key:
        queue = broker.get().address_for(queue, sent.shard_key)
    due = None if sent.eta is None else _due(sent.eta)
    if raw is None:
        raw = message.encode(sent)
    # `Outgoing(…)` itself takes twice as long.
    return tuple.__new__(Outgoing, (queue, raw, sent.priority, due, bool(sent.fair), ""))


class _Encoded:
    """Messages in that form, each of which is encoded when its turn comes: not all of them are in
    memory at once. They can be gone through again."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Outgoing]:
        return map(outgoing_of, self._messages)


class _EncodedCalls:
    """The same for calls that have all but ids and arguments in common."""

    def __init__(self, common: Message, encoded: Iterable[bytes]) -> None:
        self._common = common
        self._encoded = encoded

    def __iter__(self) -> Iterator[Outgoing]:
        queue, _, priority, due, fair, once = outgoing_of(self._common, b"")
        for raw in self._encoded:
            yield tuple.__new__(Outgoing, (queue, raw, priority, due, fair, once))


def addressed(outgoing: Outgoing) -> Outgoing:
    """A message that was encoded before, to the shard of its key, or in the form for Celery's
    workers. These take it once: a message that waits for its time waits in their hands."""
    if outgoing.queue in conf.foreign_queues():
        try:
            handed = message.for_celery(outgoing.raw)
        except MessageError:
            return outgoing  # whoever takes it says what is wrong with it
        return Outgoing(outgoing.queue, handed.raw, handed.priority, fair=False, once=handed.tag)
    key = message.shard_key_of(outgoing.raw)
    if not key:
        return outgoing
    return outgoing._replace(queue=broker.get().address_for(outgoing.queue, key))


def _due(eta: dt.datetime | None) -> float | None:
    if eta is None or (due := eta.timestamp()) <= time.time():
        return None
    return due


def _push(outgoing: Iterable[Outgoing], policy: RetryPolicy, replicas: int = 0) -> None:
    """Push messages, with as many tries as the policy allows. Those that are on their queue are not
    pushed again, and those that the broker refuses are not tried again.

    ``outgoing`` may be gone through more than once. ``replicas``: as for `Broker.push`.
    ``unsent`` of the error has the places of all that are not known to be on their queues.
    """
    before = sys.exception()
    push = broker.get().push
    if replicas:
        push = functools.partial(push, replicas=replicas)
    try:
        return push(outgoing)
    except NotReplicated:
        raise  # they are on their queues
    except BrokerUnavailable as error:
        failed = error
    left = _left(dict(enumerate(outgoing)), failed)
    for pause in policy.pauses():
        if isinstance(failed, QueueRefused) or not _is_retried(failed, policy, before):
            break
        time.sleep(pause)
        try:
            return push(list(left.values()))
        except NotReplicated:
            raise
        except BrokerUnavailable as error:
            failed, left = error, _left(left, error)
    failed.unsent = frozenset(left)
    raise failed


def _left(sent: Mapping[int, Outgoing], error: BrokerUnavailable) -> dict[int, Outgoing]:
    """The messages that are still to be sent after a push of them failed, by their places."""
    if error.unsent is None:  # any may be there already: perhaps only the answer was lost
        return {place: _copy(one) for place, one in sent.items()}
    return {place: one for n, (place, one) in enumerate(sent.items()) if n in error.unsent}


#: The client's own classes → those of Python that mean the same.
_MEANT: Mapping[type[BaseException], type[BaseException]] = {
    redis.exceptions.TimeoutError: TimeoutError,
    redis.exceptions.ConnectionError: ConnectionError,
}


def _is_retried(error: BaseException, policy: RetryPolicy, before: BaseException | None) -> bool:
    """Whether an error, or a cause of it, is one of the policy's. ``before``: the exception that
    the caller was handling, which is none of its causes."""
    wanted = policy.retry_errors
    if wanted is None or any(issubclass(one, BrokerUnavailable) for one in wanted):
        return True
    # `BrokerUnavailable` is a ConnectionError itself, so its cause is what counts.
    cause: BaseException | None = error.__cause__ or error
    while cause is not None and cause is not before:
        kinds = [type(cause), *(meant for own, meant in _MEANT.items() if isinstance(cause, own))]
        if any(issubclass(kind, wanted) for kind in kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _copy(outgoing: Outgoing) -> Outgoing:
    """The same message, marked as redelivered: its worker asks the ledger whether the call has
    ended."""
    try:
        raw, priority = message.mark_redelivered(outgoing.raw, crashed=False)
    except MessageError:
        return outgoing  # its worker makes it a dead letter
    return outgoing._replace(raw=raw, priority=priority)


# ------------------------------------------------------------------------------ the outbox


class _Pending(NamedTuple):
    """A message that waits for its transaction to commit."""

    outgoing: Outgoing
    #: Its ledger row, or None for a message that isn't durable.
    id: str | None
    #: The lock that it needs to be published.
    lock: Lock | None = None


def _put_into_outbox(
    messages: Sequence[Message],
    connection: BaseDatabaseWrapper,
    *,
    durable: bool,
    once: Hashable | None,
    locks: Mapping[str, Lock],
) -> None:
    for sent in messages:
        sent.ledger = durable
    outgoing = [outgoing_of(sent) for sent in messages]
    if durable:
        now = dt.datetime.now(dt.UTC)
        rows = [
            outcomes.Pending(
                id=sent.id,
                task=sent.task,
                queue=sent.queue,
                args=serialization.dumps(sent.shown_args),
                kwargs=serialization.dumps(sent.shown_kwargs),
                created_at=now,
                eta=sent.eta,
                message=out.raw,
                group_id=sent.group,
                group_index=sent.group_index,
                parent_id=sent.parent_id,
                root_id=sent.root_id if sent.root_id != sent.id else None,
                label=sent.label,
            )
            for sent, out in zip(messages, outgoing, strict=True)
        ]
        outcomes.insert(rows, connection)
    if foreign := conf.foreign_queues():
        outgoing = [addressed(out) if out.queue in foreign else out for out in outgoing]
    hook = _Publish(
        connection.alias,
        once,
        [
            _Pending(out, sent.id if durable else None, locks.get(sent.id) if locks else None)
            for sent, out in zip(messages, outgoing, strict=True)
        ],
    )
    if connection.run_on_commit:
        savepoints, before = connection.run_on_commit[-1][:2]
        # With the same savepoints: a rollback to one of them drops both hooks.
        if isinstance(before, _Publish) and set(savepoints) == set(connection.savepoint_ids):
            before.next = hook
    transaction.on_commit(hook, using=connection.alias)


class _Publish:
    """The commit hook of one call of `send`.

    At the commit, the first of several hooks in a row publishes for all of them, in one push. Each
    call still registers its own: a block of `TestCase.captureOnCommitCallbacks` gets only hooks
    that were registered inside it, and must find in them what was sent inside it.
    """

    def __init__(self, alias: str, once: Hashable, batch: Sequence[_Pending]) -> None:
        self.alias = alias
        self.once = once
        self.batch = batch
        #: The next hook in that row.
        self.next: _Publish | None = None
        self.done = False

    def __call__(self) -> None:
        if self.done:
            return
        row = [self]
        # A real commit calls this outside of any atomic block. Inside of one, a test has captured
        # this hook and calls it: publish its messages alone.
        if not connections[self.alias].in_atomic_block:
            while (following := row[-1].next) is not None:
                row.append(following)
        pending = [one for hook in row if not hook.done for one in hook.batch]
        for hook in row:
            hook.done = True
        publish_committed(pending, self.alias)


def _waiting(connection: BaseDatabaseWrapper) -> Iterator[_Publish]:
    """Hooks of the open transaction whose messages are not sent yet."""
    for _, hook, *_ in connection.run_on_commit:
        if isinstance(hook, _Publish) and not hook.done:
            yield hook


def publish_waiting(connection: BaseDatabaseWrapper) -> None:
    """Publish what waits for the commit of the open transaction, as if that had come: for tests,
    whose transactions never commit."""
    for hook in list(_waiting(connection)):
        hook()


def _holds(connection: BaseDatabaseWrapper, once: Hashable) -> bool:
    """Whether a message sent with an equal ``once`` waits for the commit."""
    for hook in _waiting(connection):
        if hook.batch and hook.once == once and _kept(hook.batch[:1], connection):
            # Registered again, so that a test that captures hooks from here on finds it as well.
            transaction.on_commit(functools.partial(hook), using=connection.alias)
            return True
    return False


def locks_waiting(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Name → call, of the locks that are taken when the open transaction commits."""
    pending = [p for hook in _waiting(connection) for p in hook.batch if p.lock]
    return {p.lock.name: p.lock.task_id for p in _kept(pending, connection) if p.lock}


def _kept(pending: Sequence[_Pending], connection: BaseDatabaseWrapper) -> Sequence[_Pending]:
    """Without messages whose rows are gone: `transaction.savepoint_rollback` takes back rows, but
    not Django's hooks."""
    if not connection.savepoint_state:
        return pending  # this connection has never had a savepoint
    rows = TaskResult.objects.using(connection.alias)
    kept: set[str | None] = {None}
    for part in chunks([p.id for p in pending if p.id]):
        kept.update(rows.filter(id__in=part).values_list("id", flat=True))
    return [p for p in pending if p.id in kept]


def publish_committed(pending: Sequence[_Pending], alias: str) -> None:
    """Publish after the commit. Never raises: the caller's transaction has succeeded, and the relay
    sends what fails here.

    It is quick: it waits one second for the broker at most. After a time-out, other commits of
    this process don't try at all for three seconds. The relay never sees messages that aren't
    durable, so these are always tried, with the settings' retry policy.
    """
    any_not_durable = any(p.id is None for p in pending)
    policy = conf.peek().retry_policy if any_not_durable else _ONE_TRY
    unsent: Collection[int] = ()
    try:
        with broker.get().briefly(insist=any_not_durable):
            pending = _with_locks(_kept(pending, connections[alias]), alias)
            try:
                _push(tuple(p.outgoing for p in pending), policy)
                _refusals.end(queue_of(p.outgoing.queue) for p in pending)
            except BrokerUnavailable as error:
                unsent = range(len(pending)) if error.unsent is None else error.unsent
                lost = sum(pending[n].id is None for n in unsent)
                if isinstance(error, QueueRefused):
                    _refusals.add(error, [queue_of(p.outgoing.queue) for p in pending])
                if lost or not isinstance(error, QueueRefused):
                    log.warning(
                        "%d committed messages wait in the ledger for the broker, %d that are not "
                        "durable are lost: %s",
                        len(unsent) - lost,
                        lost,
                        error,
                    )
            sent = [p.id for n, p in enumerate(pending) if n not in unsent and p.id is not None]
            try:
                _mark_published(sent, alias)
            except DatabaseError as error:
                # The relay sends them again, marked as redelivered, so none is recorded twice.
                log.warning(
                    "%d published messages could not be marked as such: %s", len(sent), error
                )
    except Exception as error:
        expected = isinstance(error, DatabaseError | BrokerUnavailable)
        log.warning(
            "%d committed messages are left to the relay: %s",
            len(pending),
            error,
            exc_info=None if expected else error,
        )


def _with_locks(pending: Sequence[_Pending], alias: str) -> Sequence[_Pending]:
    """Take the locks of unique calls. Calls whose key another call has taken since they were sent
    end, and are left out."""
    locks = [p.lock for p in pending if p.lock]
    if not locks:
        return pending
    holders = broker.get().lock(locks)
    lost = {lock.task_id: who for lock, who in zip(locks, holders, strict=True) if who}
    for task_id, holder in lost.items():
        rows = TaskResult.objects.using(alias).filter(id=task_id, state=State.PENDING)
        text = f"call {holder} of the same unique key was there before the commit"
        rows.update(state=State.REVOKED, error=text, finished_at=dt.datetime.now(dt.UTC))
        log.info("task %s does not run: %s", task_id, text)
    return [p for p in pending if not (p.lock and p.lock.task_id in lost)]


def _mark_published(ids: Sequence[str], alias: str) -> None:
    connection = connections[alias]
    for part in chunks(ids, _BATCH):
        # Each commit with messages does this: the ORM takes three times as much of this process's
        # time for one row.
        with connection.cursor() as cursor:
            now = stored(dt.datetime.now(dt.UTC), connection)
            cursor.execute(f"{_PUBLISHED} ({', '.join(['%s'] * len(part))})", [now, *part])


_PUBLISHED = (
    f"UPDATE {TaskResult._meta.db_table} SET published_at = %s "  # noqa: S608  no values
    "WHERE published_at IS NULL AND id IN"
)


class _Refusals:
    """The queues that the broker takes nothing for, as far as this process has met them. Logs once
    when that begins, and once when it ends."""

    def __init__(self) -> None:
        #: Queue → how many messages were refused, each as often as it was tried.
        self._counts: Counter[str] = Counter()

    def add(self, error: QueueRefused, queues: Sequence[str]) -> None:
        """``queues``: of each message that was sent. The error says which of them were refused."""
        unsent = range(len(queues)) if error.unsent is None else sorted(error.unsent)
        counts = Counter(queues[n] for n in unsent)
        if new := [queue for queue in counts if queue not in self._counts]:
            log.error(
                "%d messages wait in the ledger until they may be sent (%s): %s",
                sum(counts[queue] for queue in new),
                ", ".join(f"{queue}: {counts[queue]}" for queue in new),
                error,
            )
        self._counts.update(counts)
        self.end(set(queues).difference(counts))

    def end(self, queues: Iterable[str]) -> None:
        """``queues``: have taken messages."""
        if not self._counts:
            return
        for queue in queues:
            if count := self._counts.pop(queue, 0):
                log.warning("queue %s takes messages again, after %d refusals", queue, count)


_refusals = _Refusals()


# ------------------------------------------------------------------------------- the relay


#: Called with the row and the error, to end a call whose message can never be sent.
EndUnsendable = Callable[[TaskResult, Exception], None]


def relay(now: dt.datetime | None = None, end_unsendable: EndUnsendable | None = None) -> int:
    """Publish what was committed ``RELAY_AFTER_SECONDS`` ago and is still unpublished, and return
    how many messages that were. Any number of processes may do so at once.

    A message that the broker refuses stays for a later pass, and holds up no other.
    ``end_unsendable`` is called for one that never will be on the broker: it can't be read, or
    breaks the connection at several passes. Raises `BrokerUnavailable` when the broker is away.
    """
    grace = dt.timedelta(seconds=conf.get().relay_after_seconds)
    before = (now or dt.datetime.now(dt.UTC)) - grace
    total = 0
    passed = _Passed(set(), set(), [])
    while True:
        found, sent = _relay_some(before, passed)
        total += sent
        # Not within the transaction that holds the rows.
        while passed.hopeless:
            row, error = passed.hopeless.pop()
            # The whole row, read where it is written: a column that is left out is read by way of
            # the router, perhaps from a replica.
            rows = TaskResult.objects.using(router.db_for_write(TaskResult))
            whole = None if end_unsendable is None else rows.filter(pk=row.pk).first()
            if end_unsendable is not None and whole is not None:
                _breaking.pop(row.id, None)
                end_unsendable(whole, error)
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
    away: BrokerUnavailable | None = None
    with transaction.atomic(using=alias):
        found = list(lock_rows(rows).only("id", "queue", "eta", "message")[:_BATCH])
        readable = []
        for row in found:
            try:
                message.decode(bytes(row.message), row.queue, trusted=True)
            except MessageError as error:
                # If the call is known all the same, a worker can end it.
                if getattr(error, "call", None) is None:
                    passed.ids.add(row.id)
                    passed.hopeless.append((row, error))
                    continue
            readable.append(row)
        sent: list[str] = []
        try:
            _relay_rows(readable, sent, passed)
        except BrokerUnavailable as error:
            away = error
        _mark_published(sent, alias)
    if away is not None:
        raise away
    return len(found), len(sent)


def _relay_rows(rows: Sequence[TaskResult], sent: list[str], passed: _Passed) -> None:
    """Send the messages of these rows; adds the ids of those that were sent to ``sent``."""
    if not rows:
        return
    try:
        # As copies: a process may have died after publishing, before it could mark them.
        broker.get().push(
            [
                _copy(addressed(Outgoing(row.queue, bytes(row.message), due=_due(row.eta))))
                for row in rows
            ]
        )
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
        _refusals.add(error, [row.queue for row in rows])
    else:
        sent += [row.id for row in rows]
        _refusals.end(row.queue for row in rows)


def _find_what_breaks(
    rows: Sequence[TaskResult], error: BrokerUnavailable, sent: list[str], passed: _Passed
) -> None:
    """Send each half by itself. The connection broke, perhaps at one of these messages: the server
    cuts off a client that sends more at once than it takes. Such a message must not hold up the
    others."""
    broker.get().ping()  # raises when the whole server is away
    if len(rows) > 1:
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            _relay_rows(part, sent, passed)
        return
    (row,) = rows
    passed.ids.add(row.id)
    _breaking[row.id] += 1
    if _breaking[row.id] >= _HOPELESS:
        passed.hopeless.append((row, error))
    if _breaking[row.id] == 1:
        log.error(
            "the message of call %s for queue %s, of %d bytes, waits in the ledger: Redis cuts "
            "the connection when it is sent. Is it above the server's proto-max-bulk-len? %s",
            row.id,
            row.queue,
            len(row.message),
            error,
        )


#: Call id → in how many passes of the relay its message broke the connection.
_breaking: Counter[str] = Counter()
#: After so many passes the call is given up. One is not enough: it may have been the network.
_HOPELESS = 3
