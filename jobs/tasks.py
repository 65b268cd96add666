"""This app's own tasks, and those that Celery's clients expect of a worker."""

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

#: Seconds after which a run stops, to let the worker do other tasks.
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
    """Delete results and schedule history beyond the age in the settings. How many rows of each
    kind."""
    gone: Counter[str] = Counter()
    if not pruning.prune(
        clock.now(), seconds=_SECONDS, done=lambda what, count: gone.update({what: count})
    ):
        prune.delay()  # the rest, after other waiting tasks
    return dict(gone)


# Items are hidden: they may be sensitive arguments of the task.
@task(name="celery.map", sensitive=["it"])
def map_items(task: Mapping[str, Any], it: Sequence[Any]) -> list[Any]:
    """The task behind `jobs.Task.map`."""
    call = signature(task)
    return [call(item) for item in it]


@task(name="celery.starmap", sensitive=["it"])
def starmap_items(task: Mapping[str, Any], it: Sequence[Sequence[Any]]) -> list[Any]:
    """The task behind `jobs.Task.starmap` and ``chunks``."""
    call = signature(task)
    return [call(*items) for items in it]


@task(name=workflow.ACCUMULATE)
def accumulate(*args: Any, index: int | None = None) -> Any:
    """Return the arguments, or one of them: the last call of a workflow that ends with a group."""
    return args if index is None else args[index]
