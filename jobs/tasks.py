"""This app's own tasks, and those that Celery's clients expect of a worker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature, Signer
from django.db import OperationalError
from django.http import HttpRequest

from jobs import broker, ledger
from jobs.api.compositions import signature
from jobs.api.task import task
from jobs.control import acts, selecting
from jobs.exceptions import BrokerUnavailable, Ignore
from jobs.ledger import pruning
from jobs.message import workflow
from jobs.running import progress
from jobs.states import State
from jobs.timing import clock
from jobs.timing.celery import crontab
from jobs.timing.periodic import Periodic

#: Seconds after which a run stops, to let the worker do other tasks.
_SECONDS = 20.0
#: Results that an act takes between two looks at whether it is to stop.
_AT_ONCE = 100

_signer = Signer(salt="jobs.act_on_results")


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


@task(
    name="jobs.act_on_results",
    # The broker or the database may be away for a while; the loop goes on where it stopped.
    autoretry_for=(BrokerUnavailable, OperationalError),
    max_retries=20,
    retry_backoff=True,
)
def act_on_results(
    act: str, selection: Mapping[str, Any], user: str, seal: str = "", **options: Any
) -> dict[str, int]:
    """Do one of `jobs.control.acts` to all results that match, as the person who asked for it.
    ``user``: their key. ``seal``: see `seal_of`. How many it was done to, and how many were passed
    over."""
    own = act_on_results.request
    if not own.called_directly:
        try:
            _signer.unsign(f"{_sealed(own.id, act, selection, user, options)}:{seal}")
        except BadSignature:
            raise PermissionDenied("Only the list of results sends this call.") from None
    person = get_user_model()._base_manager.get(pk=user)
    chosen = acts.ACTS[act]
    if not (person.is_active and person.is_staff and person.has_perm(chosen.permission)):
        raise PermissionDenied(f"{person} may not do that any more ({chosen.permission}).")
    request = HttpRequest()
    request.user = person
    rows = selecting.seen_by(request, ledger.results())
    rows = chosen.among(selecting.read(selection).all_of(rows))
    counts: Counter[str] = Counter()
    before = None if own.called_directly else progress.read(own.id)
    if before and isinstance(before.meta, dict):  # of a run that was interrupted
        counts.update(before.meta)
    for batch in act_on_results.iterate_batches(rows, size=_AT_ONCE):
        if not own.called_directly and any(broker.get().revoked(own.queue, [own.id])):
            act_on_results.update_state(
                state=State.REVOKED, meta=f"stopped after {counts['done']} of them"
            )
            raise Ignore
        done = chosen.run(batch, options)
        counts.update({"done": done, "left_as_they_are": len(batch) - done})
        act_on_results.update_state(meta=dict(counts))
    return dict(counts)


def seal_of(
    task_id: str, act: str, selection: Mapping[str, Any], user: str, options: Mapping[str, Any]
) -> str:
    """What shows that this person has asked for this call of `act_on_results`.

    Whoever may run tasks with arguments of their choice could act as somebody else without it.
    """
    return _signer.signature(_sealed(task_id, act, selection, user, options))


def _sealed(task_id: str, act: str, selection: Mapping[str, Any], *values: Any) -> str:
    # A worker of a former version would pass over a filter that it doesn't know, and act on more
    # than somebody asked for. It doesn't know this form of the seal either, so it refuses the call.
    later = [name for name in selecting.LATER if name in selection]
    return json.dumps([task_id, act, selection, *values, *later], sort_keys=True)


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
