"""Messages that no worker holds: deleted, or put elsewhere. In pages, and safe to repeat.

A page of what waits is first taken out of the workers' way, into flight, then dealt with, then
acknowledged. A process that is killed on the way leaves at most one page: what was not dealt with
is back on its queue at the end of the lease, what was is there a second time under the same id, and
is run once like anything delivered twice.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence

from jobs import (
    broker,
    conf,
    ledger,
    message,
    registry,
)
from jobs.broker.base import Outgoing, Returned, Waiting
from jobs.exceptions import JobsError, MessageError
from jobs.message import Killed, Message

log = logging.getLogger("jobs.control")

#: Messages dealt with at once.
_PAGE = 200

#: Does something with messages; ids of the calls that have ended by that.
Deal = Callable[[Sequence[Waiting]], Sequence[str]]


def purge(queue: str, *, waiting: bool = True, due: bool = False) -> int:
    """Delete what waits on a queue now, or is due, for good. How many messages.

    Calls that the ledger knows end as REVOKED. Calls whose end others wait for (parts of workflows,
    unique ones) are ended by the next worker that claims them, with all that comes of it. What
    comes meanwhile stays, as does what runs.
    """
    registry.queue(queue)

    def give_up(messages: Sequence[Waiting]) -> Sequence[str]:
        read = [(found, _read(queue, found)) for found in messages]
        alone = [sent.id for _, sent in read if sent and not _concerns_others(sent)]
        # First the ledger: else it would wait for calls that are nowhere.
        ledger.give_up_all(alone, "purged")
        _leave_to_workers(queue, [found for found, sent in read if sent and _concerns_others(sent)])
        return alone

    count = _waiting(queue, give_up) if waiting else 0
    count += _due(queue, give_up) if due else 0
    log.warning("%d messages of queue %s are purged", count, queue)
    return count


def move(queue: str, to: str, *, task_id: str = "") -> int:
    """Put what waits on a queue now on another one, in the same order; with ``task_id``,
    that one message alone, also if it is due. How many messages.

    Raises `JobsError` when only one of the two is open, since what nobody signed would be run, or
    given up, by that.
    """
    _check_alike(registry.queue(queue), registry.queue(to))

    def push(messages: Sequence[Waiting]) -> Sequence[str]:
        # The ledger first: should it be away, nothing is there twice.
        ledger.moved(_ids(queue, messages), to)
        broker.get().push([Outgoing(to, raw, priority, due) for raw, priority, due in messages])
        return ()

    if not task_id:
        return _waiting(queue, push)
    found = find(queue, task_id)
    return _one(queue, found, push) if found else 0


def change_priority(queue: str, task_id: str, priority: int) -> bool:
    """Have a call that waits, or is due, run before or after others: 0 is the most urgent
    priority, 9 the least. It is put behind those that have it already. False: it doesn't wait."""
    if not 0 <= priority <= 9:
        raise ValueError(f"A priority is a number from 0 (the most urgent) to 9, not {priority}.")
    found = find(queue, task_id)
    if found is None:
        return False
    changed = Waiting(message.mark(found.raw, priority=priority), priority, found.due)
    if changed == found:
        return True

    def push(_messages: Sequence[Waiting]) -> Sequence[str]:
        ledger.rewritten(task_id, changed.raw)
        broker.get().push([Outgoing(queue, *changed)])
        return ()

    return bool(_one(queue, found, push))


def find(queue: str, task_id: str) -> Waiting | None:
    """The message of a call that waits on a queue, or is due; None when there is none."""
    for due in (False, True):
        for found in broker.get().browse(registry.queue(queue), due=due):
            if task_id.encode() in found.raw and task_id in _ids(queue, [found]):
                return found
    return None


def _concerns_others(sent: Message) -> bool:
    return bool(sent.embed or sent.unique)


def _leave_to_workers(queue: str, messages: Sequence[Waiting]) -> None:
    """Only a worker knows what comes of the end of these."""
    broker.get().push(
        [
            Outgoing(queue, message.mark(found.raw, jobs_killed=Killed.PURGED), found.priority)
            for found in messages
        ]
    )


# ---------------------------------------------------------------------------- steps


def _waiting(queue: str, deal: Deal) -> int:
    """Deal with as many as wait at the beginning."""
    count, goal = 0, broker.get().stats(queue).waiting
    with _hands(queue) as hands:
        while count < goal and (taken := hands.take(goal - count)):
            hands.finish(deal(taken))
            count += len(taken)
    return count


def _due(queue: str, deal: Deal) -> int:
    """The same with what is due. Each stays where it is until it has been dealt with."""
    count, seen, goal = 0, 0, broker.get().stats(queue).due
    while seen < goal:
        # From the beginning each time: what was there has gone.
        page = list(itertools.islice(broker.get().browse(queue, due=True), min(_PAGE, goal - seen)))
        if not page:
            break
        ended = deal(page)
        count += broker.get().withdraw(queue, page)
        seen += len(page)
        broker.get().ack(queue, "", [], ended)
    return count


def _one(queue: str, found: Waiting, deal: Deal) -> int:
    if found.due is not None:
        deal([found])
        broker.get().withdraw(queue, [found])
        return 1
    with _hands(queue) as hands:
        if not hands.pick(found):
            return 0
        hands.finish(deal([found]))
    return 1


class _Hands:
    """An operator as a consumer of a queue."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        # Never used twice.
        self.name = f"operator/{secrets.token_hex(8)}"
        self._lease = conf.get().lease_seconds
        self._next = 1
        #: What is in flight under this name, by number.
        self._held: dict[int, Waiting] = {}

    def take(self, limit: int) -> list[Waiting]:
        limit = min(limit, _PAGE)
        taken = broker.get().take(self._queue, self.name, self._next, limit, self._lease)
        self._hold(taken)
        return taken

    def pick(self, found: Waiting) -> bool:
        held = broker.get().pick(self._queue, self.name, self._next, self._lease, found)
        self._hold([found] if held else [])
        return held

    def finish(self, ended: Sequence[str]) -> None:
        broker.get().ack(self._queue, self.name, list(self._held), ended)
        self._held.clear()

    def leave(self) -> None:
        back = [Returned(number, held.priority) for number, held in self._held.items()]
        if back:
            broker.get().release(self._queue, self.name, back)
        broker.get().leave(self._queue, self.name)

    def _hold(self, taken: Sequence[Waiting]) -> None:
        self._held |= dict(enumerate(taken, self._next))
        self._next += len(taken)


@contextlib.contextmanager
def _hands(queue: str) -> Iterator[_Hands]:
    hands = _Hands(queue)
    try:
        yield hands
    finally:
        hands.leave()


def _ids(queue: str, messages: Sequence[Waiting]) -> list[str]:
    """Ids of those for which somebody has vouched: of others the ledger isn't touched."""
    return [sent.id for found in messages if (sent := _read(queue, found))]


def _read(queue: str, found: Waiting) -> Message | None:
    try:
        return message.decode(found.raw, queue, trusted=conf.get().queue(queue).open)
    except MessageError:
        return None


def _check_alike(queue: str, to: str) -> None:
    if queue == to:
        raise JobsError(f"The messages are on queue {queue!r} already.")
    if conf.get().queue(queue).open != conf.get().queue(to).open:
        raise JobsError(
            f"One of the queues {queue!r} and {to!r} is open and the other isn't: what nobody "
            "signed would be run there, or given up. Move messages between queues of one kind."
        )
