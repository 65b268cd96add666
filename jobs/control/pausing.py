"""Queues and tasks that are not to be worked on for a while. Kept on the broker, so that it holds
for every worker, also for one that starts later."""

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
    """Hand out nothing of a queue until it is resumed. What runs already ends as usual.

    ``by``: whose doing it is. ``why``: for the others who look. Said again, it replaces both.
    """
    broker.get().pause(registry.queue(queue), Pause("", by, why, clock.now()))
    log.warning("queue %s is paused by %s: %s", queue, by or "somebody", why or "no reason given")


def resume(queue: str) -> bool:
    """Hand out what waits, from now on. False: the queue wasn't paused."""
    was = broker.get().resume(registry.queue(queue))
    if was:
        log.warning("queue %s is resumed", queue)
    return was


def pause_task(task: str, *, by: str = "", why: str = "") -> None:
    """Start no call of a task, on whichever queue, until it is resumed. ``by``, ``why``: as above.

    Its messages wait among the due ones meanwhile. Raises `UnknownTask`.
    """
    registry.find(task)
    said = Pause(task, by, why, clock.now())
    for queue in conf.get().queues:
        broker.get().pause(queue, said)
    log.warning("task %s is paused by %s: %s", task, by or "somebody", why or "no reason given")


def resume_task(task: str) -> bool:
    """Start its calls again, those that waited at once. False: the task wasn't paused."""
    # Of every queue, whatever the first one said: it may have been interrupted before.
    was = [broker.get().resume(queue, task) for queue in conf.get().queues if task]
    if any(was):
        log.warning("task %s is resumed", task)
    return any(was)


def paused() -> dict[str, Pause]:
    """Queues that are paused, and why."""
    said = {queue: broker.get().paused(queue) for queue in conf.get().queues}
    return {queue: pauses[0] for queue, pauses in said.items() if pauses and not pauses[0].task}


def paused_tasks() -> dict[str, Pause]:
    """Tasks that are paused, and why."""
    said = (pause for queue in conf.get().queues for pause in broker.get().paused(queue))
    return {pause.task: pause for pause in said if pause.task}
