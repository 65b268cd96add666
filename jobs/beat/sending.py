"""From a schedule and a due time to a message in the outbox."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import router, transaction

from jobs import (
    conf,
    ledger,
    registry,
    routing,
    serialization,
)
from jobs.api.compositions import as_dicts
from jobs.api.sending import check_linked, python_options
from jobs.api.task import claim
from jobs.broker.limiting import Lock
from jobs.exceptions import NoRoute, SendError, UnknownQueue
from jobs.ledger import publish
from jobs.message import LONGEST, Message, id_at, new_id
from jobs.message.call import SCHEDULED, Send, end, new_message
from jobs.models import Schedule, TaskResult
from jobs.models.schedules import ExpiresFrom
from jobs.states import State
from jobs.timing import clock

log = logging.getLogger("jobs.beat")


def run_id(pk: object, due: dt.datetime) -> str:
    """The id of a schedule's message for a due time: the same, whoever sends it.

    A UUID of version 7, as all ids, so that its row sorts by the due time.
    """
    due = due.astimezone(dt.UTC)
    noise = hashlib.sha256(f"{pk}:{due.isoformat()}".encode()).digest()
    return id_at(int(due.timestamp() * 1000), noise)


def start_of(schedule: Schedule, due: dt.datetime) -> dt.datetime:
    """The due time and a random part of the jitter, the same one in every beat."""
    if not schedule.jitter:
        return due
    drawn = hashlib.sha256(f"jitter:{run_id(schedule.pk, due)}".encode()).digest()
    return due + schedule.jitter * (int.from_bytes(drawn[:4]) / 2**32)


def run_of(schedule: Schedule, due: dt.datetime) -> Message:
    """The message of a due time."""
    return _message(schedule, run_id(schedule.pk, due), due)


def send_now(schedule: Schedule) -> str:
    """Send a schedule's task now, beside its due times; gives the id of the call.

    Raises `SendError` when it can't be sent.
    """
    one = _message(schedule, new_id(), None)
    _send_together([one], router.db_for_write(Schedule))
    return one.id


def send(runs: Sequence[Message], alias: str) -> None:
    """Write messages to the outbox; what can't be sent becomes a failed result.

    To be called in a transaction.
    """
    try:
        _send_together(runs, alias)
    except SendError:
        for one in runs:
            try:
                _send_together([one], alias)
            except SendError as error:
                log.error("schedule %r: %s", one.headers["periodic_task_name"], error)
                # Recorded as failed, it neither vanishes nor holds up the others.
                TaskResult.objects.using(alias).create(
                    id=one.id,
                    task=one.task,
                    queue=one.queue,
                    state=State.FAILURE,
                    args=serialization.dumps(one.args),
                    kwargs=serialization.dumps(one.kwargs),
                    label=one.label,
                    error_type=f"{type(error).__module__}.{type(error).__qualname__}",
                    error=str(error),
                    finished_at=clock.now(),
                )


def _send_together(messages: Sequence[Message], alias: str) -> None:
    for one in messages:
        if not one.queue or not conf.get().knows(one.queue):
            # Raises the error again that `_message` has passed over.
            routing.get().place(one, _address(one))
    locks = {one.id: lock for one in messages if (lock := _lock(one))}
    with transaction.atomic(using=alias):
        publish.send(messages, using=alias, locks=locks)


def _lock(one: Message) -> Lock | None:
    """The lock that the run of a unique task has to get once the transaction has committed. Without
    it the run ends as REVOKED, whatever the task's ``on_conflict`` is: nobody is there to get an
    exception."""
    task = registry.tasks.get(one.task)
    if task is None or task.uniqueness is None:
        return None
    try:
        task.check_arguments(one.args, one.kwargs)
    except TypeError:
        return None  # it is for the worker to say what it takes
    try:
        return claim(task, one)
    except SendError:
        raise
    except Exception as error:  # the task's own function
        raise SendError(f"Task {one.task!r}: its unique_key can't be made: {error!r}") from error


def _message(schedule: Schedule, task_id: str, due: dt.datetime | None) -> Message:
    task = registry.tasks.get(schedule.task)
    own = schedule.headers if isinstance(schedule.headers, dict) else {}
    headers = {**own, "periodic_task_name": schedule.name}  # the name that Celery's beat gives it
    eta = start_of(schedule, due) if due and schedule.jitter else None
    expires = _end(schedule, due)
    further = _options(schedule)
    if seconds := further.pop("countdown", None):
        eta = (eta or due or clock.now()) + dt.timedelta(seconds=seconds)
    elif "eta" in further:
        eta = max(further.pop("eta"), eta or clock.now())
    options = {**_address(schedule), "priority": schedule.priority}
    if task is not None:
        with contextlib.suppress(TypeError, ValueError):
            # Functions that route the call see its values, not the tagged form that rows have.
            args, kwargs = serialization.revived([schedule.args, schedule.kwargs])
            task.check_arguments(args, kwargs)
            one: Message = task.message(
                args,
                kwargs,
                task_id=task_id,
                headers=headers,
                eta=eta,
                expires=expires,
                **{"fair": _tenant(task, args, kwargs), **further},
                **options,
            )
            return one
    # The worker decides whether it can be run, since its code may be newer than what this process
    # has loaded. If it can't, the message becomes a dead letter there.
    send = Send(task_id=task_id, headers=headers, eta=eta, expires=expires, **further)
    one = new_message(schedule.task, None, send)
    one.args, one.kwargs = schedule.args, schedule.kwargs
    try:
        routing.get().place(one, options)
    except (UnknownQueue, NoRoute):
        # `_send_together` raises it when the call is sent.
        one.queue, one.exchange = schedule.queue, schedule.exchange
        one.routing_key = schedule.routing_key
    return one


def _options(schedule: Schedule) -> dict[str, Any]:
    """Its further options. Those that can't be used are left out, since the call must be sent."""
    if not isinstance(schedule.options, dict):
        return {}
    try:
        found = python_options(serialization.revived(schedule.options))
        if others := sorted(found.keys() - SCHEDULED):
            log.error("schedule %r is sent without its options %s", schedule.name, others)
        found = {k: v for k, v in found.items() if k in SCHEDULED and v is not None}
        Send(**found).checked()
        for name in ("link", "link_error"):
            if name in found:
                found[name] = as_dicts(found[name])
        if schedule.task in registry.tasks:
            check_linked(found)
    except (TypeError, ValueError, SendError) as error:
        log.error("schedule %r is sent without its options: %s", schedule.name, error)
        return {}
    if "eta" in found:
        found["eta"] = clock.aware(found["eta"])
    return found


def _tenant(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The tenant of a run. If the task's own function fails, the run is nobody's: it is sent all
    the same, since nobody is there to be told."""
    try:
        return str(task.tenant_of(args, kwargs)) if task.tenant_of else ""
    except (TypeError, ValueError) as error:
        log.error("a scheduled call of %s is sent as nobody's: %s", task.name, error)
        return ""


def _address(said: Schedule | Message) -> dict[str, Any]:
    """What a schedule says about where its calls go, or its message does, as options of a call."""
    return {name: getattr(said, name) or None for name in ("queue", "exchange", "routing_key")}


def _end(schedule: Schedule, due: dt.datetime | None) -> dt.datetime | None:
    """When a run that is sent now expires."""
    if not schedule.expires:
        return None
    if due is not None and schedule.expires_from == ExpiresFrom.DUE:
        return due + schedule.expires
    return end(schedule.expires)


def record_failure(schedule: Schedule, task_id: str, error: Exception, alias: str) -> None:
    """Record a run as failed that can't be made, or that the database refuses. The row has as
    little in it as possible."""
    TaskResult.objects.using(alias).create(
        id=task_id,
        task=ledger.plain(schedule.task)[:LONGEST],
        queue=ledger.plain(schedule.queue)[:LONGEST],
        state=State.FAILURE,
        error_type=f"{type(error).__module__}.{type(error).__qualname__}"[:LONGEST],
        error=ledger.plain(f"Schedule {schedule.name!r} can't be sent: {error}"),
        finished_at=clock.now(),
    )
