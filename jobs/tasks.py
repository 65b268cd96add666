"""Tasks of this app itself, and those that Celery's programs expect of a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.api.compositions import signature
from jobs.api.task import task
from jobs.ledger import pruning
from jobs.message import workflow
from jobs.timing import clock
from jobs.timing.celery import crontab
from jobs.timing.periodic import Periodic

#: How long one run may take, in seconds: it must not keep a worker from other tasks.
_SECONDS = 20.0


@task(
    name="jobs.prune",
    schedule=Periodic(
        crontab(minute=17, hour=3),
        name="jobs: prune results",
        description="Deletes results and the history of schedules when they are old enough.",
        overlap="skip",
    ),
    priority=9,
)
def prune() -> dict[str, int]:
    """Delete results and the history of schedules that are older than the settings keep them. How
    many rows of each kind."""
    gone: Counter[str] = Counter()
    if not pruning.prune(
        clock.now(), seconds=_SECONDS, done=lambda what, count: gone.update({what: count})
    ):
        prune.delay()  # the rest, after what else waits
    return dict(gone)


# Items are not shown: they may be sensitive arguments of the task.
@task(name="celery.map", sensitive=["it"])
def map_items(task: Mapping[str, Any], it: Sequence[Any]) -> list[Any]:
    """What `jobs.Task.map` sends."""
    call = signature(task)
    return [call(item) for item in it]


@task(name="celery.starmap", sensitive=["it"])
def starmap_items(task: Mapping[str, Any], it: Sequence[Sequence[Any]]) -> list[Any]:
    """What `jobs.Task.starmap` and ``chunks`` send."""
    call = signature(task)
    return [call(*items) for items in it]


@task(name=workflow.ACCUMULATE)
def accumulate(*args: Any, index: int | None = None) -> Any:
    """Its arguments, or one of them: the end of what has a group for its own end."""
    return args if index is None else args[index]
