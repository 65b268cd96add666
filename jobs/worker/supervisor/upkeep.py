"""Keeps the queues in order. Every worker may do this at once."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from django.db import close_old_connections, connections

from jobs import (
    broker,
    conf,
    control,
    logs,
    message,
)
from jobs.broker.base import Returned
from jobs.broker.sharding import queue_of, shown
from jobs.exceptions import JobsError, MessageError
from jobs.ledger import publish
from jobs.message import Killed, Message
from jobs.models import TaskResult
from jobs.registry import tasks
from jobs.worker.board import key
from jobs.worker.loops import AWAY, Backoff
from jobs.worker.record.following import after_end
from jobs.worker.record.outcome import Done, Run, failure, lock_of
from jobs.worker.record.recorder import Recorder

log = logging.getLogger("jobs.worker")

#: How many of the workers that have been silent for longest are looked at at once. Each worker
#: looks at each renewal: would it look at all, the work of all would grow with their square.
_LATE = 20
#: Seconds between two looks at how the broker keeps its data.
_LOOK = 60.0
#: The shortest and the longest pause between two rings for messages of foreign senders, in seconds.
_RINGS = (0.005, 0.1)
#: Seconds for which one wait for them lasts. It ends when a message of the most urgent list comes;
#: the other lists are looked at then. So it is shorter for a while after something was found there.
_LISTENS, _LISTENS_CLOSELY = 0.5, 0.1
#: Seconds of that while.
_CLOSELY = 30.0


def return_deliveries(
    queues: Sequence[str],
    consumer: str,
    *,
    blamed: Collection[int] | Literal["all"] = (),
    killed: Mapping[int, Killed] | None = None,
) -> int:
    """Return to these shards of queues the deliveries of a vanished consumer. How many messages.

    ``blamed``: the deliveries (keys of the board) that were running when the process died by
    itself; "all" when nobody knows. ``killed``: those for which it was killed.
    """
    killed = killed or {}

    def returned(queue: str, number: int, raw: bytes) -> Returned:
        place = key(queue, number)
        try:
            crashed = blamed == "all" or place in blamed
            marked, priority = message.mark_redelivered(raw, crashed=crashed)
            if place in killed:
                marked = message.mark(marked, jobs_killed=killed[place])
            # Of a vanished machine nobody knows what ran: most of what it held did not.
            if place in killed or (crashed and blamed != "all"):
                _log_death(queue, raw, consumer, killed.get(place))
        except MessageError:
            return Returned(number)  # the next worker makes it a dead letter
        return Returned(number, priority, marked)

    return sum(
        broker.get().reclaim(queue, consumer, functools.partial(returned, queue))
        for queue in queues
    )


def _log_death(queue: str, raw: bytes, consumer: str, why: Killed | None) -> None:
    """Log which call was running when its process ended. ``why``: for what that was killed; None:
    it died by itself. Raises `MessageError`."""
    sent = message.decode(raw, queue_of(queue), trusted=True)
    text, level = "the process of task %s[%s] died while it ran", logging.ERROR
    if why is not None:
        text = f"the process of task %s[%s] was killed: {why.value}"
        level = logging.ERROR if why == Killed.TIME_LIMIT else logging.WARNING
    log.log(level, text, sent.task, sent.id, extra=logs.about(sent, consumer))


def reclaim_expired(queues: Sequence[str], *, alive: Collection[str] = ()) -> int:
    """Give back the messages of consumers whose lease has ended, as on a vanished machine. Returns
    how many.

    ``alive``: consumers to leave alone. This process may have been suspended since it renewed
    their leases.
    """
    count = 0
    for queue in queues:
        for consumer in broker.get().expired(queue):
            if consumer in alive:
                continue
            returned = return_deliveries([queue], consumer, blamed="all")
            log.warning(
                "the lease of %s has ended; %d of its messages are back in queue %s",
                consumer,
                returned,
                shown(queue),
            )
            count += returned
    return count


def note_lost(queues: Sequence[str]) -> None:
    """Replace the reports of workers whose leases have ended by notes that they were lost."""
    for queue in queues:
        lease, ages = conf.get().lease_seconds, broker.get().report_ages(queue, _LATE)
        late = [name for name, age in ages.items() if age > lease]
        if not late:
            continue
        reports = broker.get().reports(queue)
        alive = {one.name for one in broker.get().consumers(queue) if one.lease > 0}
        for name in late:
            consumers: list[str] = []
            with contextlib.suppress(ValueError, TypeError, KeyError):  # of another version
                consumers = json.loads(reports[name])["consumers"]
            lost = alive.isdisjoint(consumers)
            if lost and control.workers.note_lost(queue, name, reports.get(name, b"")):
                log.warning("worker %s is lost: its lease has ended", name)


def end_unsendable(row: TaskResult, error: Exception) -> None:
    """End a call whose message the broker can't take, with all that follows its end."""
    raw, run = bytes(row.message), Run("", time.time())
    try:
        sent = message.decode(raw, row.queue, trusted=True)
    except MessageError:
        sent = Message(task=row.task, id=row.id, queue=row.queue)
        sent.group, sent.group_index = row.group_id, row.group_index
        sent.root_id, sent.parent_id, sent.label = row.root_id, row.parent_id, row.label
    why = JobsError(f"Its message, of {len(raw):,} bytes, can't be put on its queue: {error}")
    log.error("task %s[%s] ends, for it can't be sent: %s", sent.task, sent.id, error)
    recorder = Recorder("relay")
    recorder.add(
        Done(
            row.queue,
            0,
            held=False,
            lock=lock_of(sent, tasks.get(sent.task)),
            record=failure(sent, raw, run, why),
            following=after_end(sent, raw, run, why),
            ended=row.id,
        )
    )
    recorder.step()


class Ringer:
    """A thread that wakes idle consumers for what foreign senders put on an open queue, since
    these ring no bell."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._stopping = threading.Event()
        self._patience = Backoff(
            log,
            f"can't wait for messages of foreign senders on {queue}, for the {{what}} is away",
            f"waits for messages of foreign senders on {queue} again",
        )
        self._pause = _RINGS[0]
        #: Until when less urgent messages are expected (monotonic).
        self._closely_until = 0.0
        self._thread = threading.Thread(target=self._loop, name="jobs-ringer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = self.step()

    def step(self) -> float:
        """Wait for messages, and ring for them. Seconds until the next time."""
        began = time.monotonic()
        listens = _LISTENS_CLOSELY if began < self._closely_until else _LISTENS
        try:
            waiting = broker.get().ring_for_foreign(self.queue, listens)
        except AWAY as error:
            return self._patience.away(error)
        self._patience.back()
        if waiting and time.monotonic() - began >= listens:
            self._closely_until = time.monotonic() + _CLOSELY
        if time.monotonic() - began > _RINGS[0] or not waiting:
            self._pause = _RINGS[0]
        else:
            # Messages waited already, so the consumers are busy and look by themselves.
            self._pause = min(2 * self._pause, _RINGS[1])
        return self._pause


class Relay:
    """A thread that publishes what is left in the outbox."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._patience = Backoff(
            log,
            "the relay can't publish what waits in the ledger, for the {what} is away",
            "the relay can publish again: the {what} is back",
            failing="the relay can't publish what waits in the ledger; it tries again",
            working="the relay can publish again",
        )
        #: What the broker may lose when it is full, as last logged, and when to look again.
        self._loses = ""
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="jobs-relay", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Whether it has ended within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        every = max(1.0, conf.get().relay_after_seconds)
        self.look()
        while not self._stopping.wait(every):
            self.step()
        connections.close_all()

    def step(self) -> None:
        """One pass. Whatever fails is tried again in the next: no error must end this thread."""
        try:
            count = publish.relay(end_unsendable=end_unsendable)
            close_old_connections()
        except AWAY as error:
            self._patience.away(error)
            connections.close_all()
            return
        except Exception as error:  # noqa: BLE001  it is logged there
            self._patience.failed(error)
            connections.close_all()
            return
        self._patience.back()
        if count:
            log.warning("the relay published %d messages that were left in the ledger", count)
        if time.monotonic() >= self._look_at:
            self.look()

    def look(self) -> None:
        """Log what the broker may lose, if that has changed."""
        self._look_at = time.monotonic() + _LOOK
        try:
            loses = broker.get().keeping().loses
        except Exception as error:  # noqa: BLE001  it is only advice
            log.debug("the broker's memory policy can't be read: %s", error)
            return
        if loses != self._loses:
            log.warning("%s", loses or "Redis has the maxmemory-policy noeviction now.")
        self._loses = loses
