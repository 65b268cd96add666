"""Deletes messages that no worker holds, or moves them, page by page. Safe to repeat.

A page of waiting messages is taken into flight, out of the workers' reach, then processed, then
acknowledged. A process that is killed meanwhile leaves one page at most. When its lease ends, all
of the page is back on its queue: a message that was moved before is there twice under the same id,
and runs once, like anything delivered twice.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

from jobs import (
    broker,
    conf,
    ledger,
    message,
    registry,
)
from jobs.broker.base import Outgoing, Returned, Waiting
from jobs.control import inspecting
from jobs.exceptions import JobsError, MessageError
from jobs.ledger import publish
from jobs.message import Killed, Message
from jobs.timing import clock

log = logging.getLogger("jobs.control")

#: Messages processed at once.
_PAGE = 200

#: Processes messages, and returns the ids of the calls that it has ended by that.
Process = Callable[[Sequence[Waiting]], Sequence[str]]


def purge(queue: str, *, waiting: bool = True, due: bool = False) -> int:
    """Delete what waits on a queue now or, with ``due``, is due later, for good. How many messages.

    Raises `ConfigurationError` for a queue of Celery's workers.

    Calls that the ledger knows end as REVOKED. Calls on whose end others depend (parts of
    workflows, unique ones) stay until a worker claims them and ends them, with all that follows.
    Messages that arrive meanwhile stay, and running calls go on.
    """
    registry.own_queue(queue)
    # Before the first is processed: what comes meanwhile, on whichever shard, stays.
    goals = _goals(queue) if waiting else {}
    seen, goal = 0, broker.get().stats(queue).due if due else 0
    count = 0
    while seen < goal:
        # From the beginning each time, since what was there is gone. Each message stays where it
        # is until it has been processed.
        page = list(itertools.islice(broker.get().browse(queue, due=True), min(_PAGE, goal - seen)))
        if not page:
            break
        ended = _end_calls(queue, page)
        count += broker.get().withdraw(queue, page)
        seen += len(page)
        broker.get().ack(queue, "", [], ended)
    # Those that a worker ends go out of the way of this, which would take the urgent ones again
    # before it has taken the others.
    end_calls = functools.partial(_end_calls, queue, due=clock.now().timestamp())
    count += _waiting(goals, end_calls, counted=lambda found: not _is_purged(queue, found))
    log.warning("%d messages of queue %s are purged", count, queue)
    return count


def hand_over(queue: str) -> int:
    """Put what is due later on a queue where Celery's workers take it: on the list of what waits.
    They wait for its time themselves. How many messages.

    Workers of this program that serve the queue would take them back: raises `JobsError` while one
    does. The ledger doesn't hear of the ends of calls that Celery's workers run.
    """
    registry.queue(queue)
    serve = [one.name for one in inspecting.workers() if queue in one.queues and one.claims]
    if serve:
        raise JobsError(
            f"Workers of this program claim from queue {queue!r}, and would take back what is "
            f"handed over: {', '.join(serve)}. Stop them first, or have them give up the queue "
            "(jobs_worker NAME cancel-queue). One that was killed is forgotten when its lease has "
            "ended."
        )
    goal = broker.get().stats(queue).due
    count = 0
    while count < goal:
        page = list(
            itertools.islice(broker.get().browse(queue, due=True), min(_PAGE, goal - count))
        )
        if not page:
            break
        # With ``jobs_due``, a worker of this program would trust that its time has come.
        raws = [message.mark(found.raw, jobs_due=False) for found in page]
        sent = [Outgoing(queue, raw, one.priority) for raw, one in zip(raws, page, strict=True)]
        broker.get().push(sent)
        broker.get().withdraw(queue, page)
        count += len(page)
    log.warning("%d messages of queue %s are handed over to Celery's workers", count, queue)
    return count


def move(queue: str, to: str, *, task_id: str | None = None) -> int:
    """Move what waits on a queue now to another one, in the same order; with ``task_id``, only that
    message, even if it is due later. How many messages. Of a queue of Celery's workers, those that
    these have not taken yet.

    Raises `JobsError` when only one of the queues is open: unsigned messages would begin to be run,
    or become dead letters; and when Celery's workers take the calls of the other queue. Raises
    `TypeError` or `ValueError` for what can't be the id of a call.
    """
    _check_move(queue, to)
    if task_id is None:
        return _waiting(_goals(queue), functools.partial(_push_to, to, queue))
    found = find(queue, message.checked_id(task_id))
    return int(move_one(queue, to, found)) if found else 0


def move_one(queue: str, to: str, found: Waiting) -> bool:
    """Move a message that waits on a queue, or is due later, to another one. False: it is gone.
    Raises `JobsError` as `move` does."""
    _check_move(queue, to)
    return bool(_one(queue, found, functools.partial(_push_to, to, queue)))


def delete(queue: str, found: Waiting) -> bool:
    """Delete a message that waits on a queue, or is due later, for good; its call ends as with
    `purge`. False: it is gone."""
    deleted = bool(_one(queue, found, functools.partial(_end_calls, registry.own_queue(queue))))
    if deleted:
        log.warning("a message of queue %s is deleted", queue)
    return deleted


def hasten(queue: str, found: Waiting) -> bool:
    """Run a call now that is due later. False: it doesn't wait for its time any more."""
    if not broker.get().hasten(registry.own_queue(queue), found.raw, found.priority):
        return False
    ledger.hastened(_ids(queue, [found]))
    return True


def change_priority(queue: str, task_id: str, priority: int) -> bool:
    """Change the priority of a call that waits, or is due later: 0 is the most urgent, 9 the least.
    It goes behind those that have this priority already. False: it doesn't wait."""
    if not 0 <= priority <= 9:
        raise ValueError(f"A priority is a number from 0 (the most urgent) to 9, not {priority}.")
    found = find(registry.own_queue(queue), task_id)
    if found is None:
        return False
    changed = Waiting(message.mark(found.raw, priority=priority), priority, found.due)
    if changed == found:
        return True

    def push(_messages: Sequence[Waiting]) -> Sequence[str]:
        ledger.rewritten(task_id, changed.raw)
        broker.get().push([publish.addressed(Outgoing(queue, *changed))])
        return ()

    return bool(_one(queue, found, push))


def find(queue: str, task_id: str) -> Waiting | None:
    """The message of a call that waits on a queue, or is due later; None when there is none."""
    for due in (False, True):
        for found in broker.get().browse(registry.queue(queue), due=due):
            if task_id.encode() in found.raw and task_id in _ids(queue, [found]):
                return found
    return None


# ---------------------------------------------------------------------------- steps


def _check_move(queue: str, to: str) -> None:
    if registry.queue(queue) == registry.queue(to):
        raise JobsError(f"The messages are on queue {queue!r} already.")
    if to in conf.foreign_queues():
        raise JobsError(
            f"Celery's workers take the calls of queue {to!r}, and the ledger hears of the ends of "
            "those alone that were sent there. Send new calls to it."
        )
    if conf.get().queue(queue).open != conf.get().queue(to).open:
        raise JobsError(
            f"One of the queues {queue!r} and {to!r} is open and the other isn't: what nobody "
            "signed would be run there, or given up. Move messages between queues of one kind."
        )


def _push_to(to: str, queue: str, messages: Sequence[Waiting]) -> Sequence[str]:
    # The ledger first: if it is away, no message is there twice.
    ledger.moved(_ids(queue, messages), to)
    sent = [publish.addressed(Outgoing(to, *one)) for one in messages]
    broker.get().push(sent)
    return ()


def _end_calls(queue: str, messages: Sequence[Waiting], due: float | None = None) -> Sequence[str]:
    """End the calls of messages that are deleted, or have a worker end them once they are due."""
    read = [(found, sent) for found in messages if (sent := _read(queue, found))]
    alone = [sent.id for _, sent in read if not (sent.embed or sent.unique)]
    # The ledger first, or it would wait for calls that have no message.
    ledger.mark_revoked(alone, "purged")
    # Only a worker knows what follows the end of the others.
    others = [
        Outgoing(queue, message.mark(found.raw, jobs_killed=Killed.PURGED), found.priority, due)
        for found, sent in read
        if sent.embed or sent.unique
    ]
    broker.get().push(others)
    return alone


def _goals(queue: str) -> dict[str, int]:
    """How many messages wait now on each shard of a queue."""
    shards = broker.get().shards_of(queue)
    return {shard: broker.by_shard().stats(shard).waiting for shard in shards}


def _waiting(
    goals: Mapping[str, int],
    process: Process,
    counted: Callable[[Waiting], bool] = lambda found: True,
) -> int:
    """Process so many of the messages that wait on each shard, those that are counted."""
    total = 0
    for shard, goal in goals.items():
        count = 0
        with _hands(shard) as hands:
            while count < goal and (taken := hands.take(goal - count)):
                hands.finish(process(taken))
                count += sum(map(counted, taken))
        total += count
    return total


def _one(queue: str, found: Waiting, process: Process) -> int:
    if found.due is not None:
        ended = process([found])
        count = broker.get().withdraw(queue, [found])
        broker.get().ack(queue, "", [], ended)
        return count
    for shard in broker.get().shards_of(queue):
        with _hands(shard) as hands:
            if hands.pick(found):
                hands.finish(process([found]))
                return 1
    return 0


class _Hands:
    """An operator as a consumer of one shard of a queue."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        # A name that is never used twice.
        self.name = f"operator/{secrets.token_hex(8)}"
        self._lease = conf.get().lease_seconds
        self._next = 1
        #: Delivery number → what is in flight under this name.
        self._held: dict[int, Waiting] = {}

    def take(self, limit: int) -> list[Waiting]:
        limit = min(limit, _PAGE)
        taken = broker.get().take(self._shard, self.name, self._next, limit, self._lease)
        self._hold(taken)
        return taken

    def pick(self, found: Waiting) -> bool:
        held = broker.get().pick(self._shard, self.name, self._next, self._lease, found)
        self._hold([found] if held else [])
        return held

    def finish(self, ended: Sequence[str]) -> None:
        broker.get().ack(self._shard, self.name, list(self._held), ended)
        self._held.clear()

    def leave(self) -> None:
        back = [Returned(number, held.priority) for number, held in self._held.items()]
        if back:
            broker.get().release(self._shard, self.name, back)
        broker.get().leave(self._shard, self.name)

    def _hold(self, taken: Sequence[Waiting]) -> None:
        self._held |= dict(enumerate(taken, self._next))
        self._next += len(taken)


@contextlib.contextmanager
def _hands(shard: str) -> Iterator[_Hands]:
    hands = _Hands(shard)
    try:
        yield hands
    finally:
        hands.leave()


def _ids(queue: str, messages: Sequence[Waiting]) -> list[str]:
    """Ids of the messages that are signed, or on an open queue: only those concern the ledger."""
    return [sent.id for found in messages if (sent := _read(queue, found))]


def _is_purged(queue: str, found: Waiting) -> bool:
    """Whether a message is only there for a worker to end its call."""
    sent = _read(queue, found)
    return sent is not None and sent.marks.killed == Killed.PURGED


def _read(queue: str, found: Waiting) -> Message | None:
    """None for a message that isn't ours, or can't be read."""
    try:
        return message.decode(found.raw, queue, trusted=conf.get().queue(queue).open)
    except MessageError:
        return None
