"""Pauses queues and tasks. Pauses are kept on the broker, so they hold for every worker, also for
one that starts later."""

from __future__ import annotations

import logging

from jobs import (
    broker,
    conf,
    registry,
)
from jobs.broker.base import Pause
from jobs.timing import clock

log = logging.getLogger("jobs.control")


def pause(queue: str, *, by: str = "", why: str = "") -> None:
    """Hand out nothing of a queue until it is resumed. Running calls go on.

    ``by`` and ``why``: who pauses it, and the reason, for others to see. A second pause replaces
    both. Raises `ConfigurationError` for a queue of Celery's workers.
    """
    broker.get().pause(registry.own_queue(queue), Pause("", by, why, clock.now()))
    log.warning("queue %s is paused by %s: %s", queue, by or "somebody", why or "no reason given")


def resume(queue: str) -> bool:
    """Hand out again what waits on a queue. False: it wasn't paused."""
    was = broker.get().resume(registry.queue(queue))
    if was:
        log.warning("queue %s is resumed", queue)
    return was


def pause_task(task: str, *, by: str = "", why: str = "") -> None:
    """Start no call of a task, on any queue, until it is resumed. ``by``, ``why``: as in `pause`.

    Meanwhile its messages wait among the due ones. Celery's workers know nothing of it. Raises
    `UnknownTask`.
    """
    registry.find(task)
    said = Pause(task, by, why, clock.now())
    for queue in conf.get().queues:
        broker.get().pause(queue, said)
    log.warning("task %s is paused by %s: %s", task, by or "somebody", why or "no reason given")


def resume_task(task: str) -> bool:
    """Start calls of a task again; those that wait are due at once. False: it wasn't paused."""
    # On every queue, whatever the first one says: an earlier call may have been interrupted.
    was = [broker.get().resume(queue, task) for queue in conf.get().queues if task]
    if any(was):
        log.warning("task %s is resumed", task)
    return any(was)


def paused() -> dict[str, Pause]:
    """Queue → its pause, of all that are paused."""
    queues = list(conf.get().queues)
    said = zip(queues, broker.get().paused_of(queues), strict=True)
    return {queue: pauses[0] for queue, pauses in said if pauses and not pauses[0].task}


def paused_tasks() -> dict[str, Pause]:
    """Task → its pause, of all that are paused."""
    said = broker.get().paused_of(list(conf.get().queues))
    return {pause.task: pause for pauses in said for pause in pauses if pause.task}
