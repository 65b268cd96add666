"""What code declares: JOBS["BEAT_SCHEDULE"], ``@task(schedule=…)`` and `add_periodic_task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from django.core.exceptions import ValidationError

from jobs import (
    conf,
    registry,
    serialization,
    timing,
)
from jobs.api.compositions import Signature, plain_options
from jobs.api.sending import python_options
from jobs.api.task import Task
from jobs.exceptions import ConfigurationError
from jobs.message import celery_names
from jobs.message.call import SCHEDULED, stamped
from jobs.models import Schedule
from jobs.schedules import merge
from jobs.timing.celery import Crontab
from jobs.timing.periodic import (
    Periodic,
    Rule,
    span,
)

#: Options of a call that are fields of a schedule.
_OPTIONS = ("queue", "exchange", "routing_key", "priority", "expires", "headers")
#: What may stand beside them.
_MORE = ("description", "enabled", "misfire", "misfire_window", "overlap", "jitter")
_ENTRY = ("task", "schedule", "args", "kwargs", "options", *_MORE)
_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Declaration:
    """One schedule, as code declares it."""

    name: str
    #: Where it stands, for messages.
    source: str
    task: str = ""
    periodic: Periodic | None = None
    #: Why it can't become a row; empty when it can.
    problem: str = ""

    def schedule(self) -> Schedule:
        """The row that it would be, not saved."""
        declared = self.periodic
        assert declared is not None
        made = Schedule(
            name=self.name,
            task=self.task,
            args=list(declared.args),
            kwargs=dict(declared.kwargs),
            queue=declared.queue,
            exchange=declared.exchange,
            routing_key=declared.routing_key,
            priority=declared.priority,
            expires=None if declared.expires is None else span(declared.expires),
            headers=dict(declared.headers),
            options=plain_options(declared.options) or None,
            description=declared.description,
            enabled=declared.enabled,
            misfire=declared.misfire,
            misfire_window=span(declared.misfire_window),
            overlap=declared.overlap,
            jitter=None if declared.jitter is None else span(declared.jitter),
            timezone=timing.default_zone(),
        )
        rule = declared.schedule
        if isinstance(rule, Crontab):
            made.crontab, made.timezone = rule.text, rule.timezone or made.timezone
        elif isinstance(rule, str):
            made.crontab = rule
        else:
            made.interval = span(rule)
        return made

    def values(self) -> dict[str, Any]:
        """The row's fields, in their plain form."""
        values: dict[str, Any] = serialization.plain(merge.plain(self.schedule()))
        return values


# ------------------------------------------------------------------------- add_periodic_task

#: Name → declaration, of every call of `add_periodic_task` in this process.
_added: dict[str, Declaration] = {}


def add_periodic_task(
    schedule: Rule,
    call: Signature | Task[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    **options: Any,
) -> str:
    """Have beat send a call: in a tasks module or ``AppConfig.ready``, where every process runs it.
    Returns the name of the schedule.

    ``call``: a task, or ``task.s(…)``, to which ``args`` and ``kwargs`` are given besides.
    ``name``: of the schedule; by default task and arguments. ``options``: those of
    `jobs.Task.apply_async` but for ``task_id``, and those of `jobs.Periodic`.

    Raises `ConfigurationError` for mistakes that show here; `manage.py check` finds the rest.
    """
    if isinstance(call, Task):
        call = call.s()
    if call.subtask_type in ("chain", "group", "chord"):
        raise ConfigurationError(
            f"add_periodic_task: a schedule sends a call of one task, not a {call.subtask_type}. "
            "Let it send a task that sends the others."
        )
    call = call.clone(args, kwargs)
    task, args, kwargs = call.task, tuple(call.args), dict(call.kwargs)
    options = {**{k: v for k, v in call.options.items() if v is not None}, **options}
    if not name:
        values = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        name = f"{task}({', '.join(values)})"[:_NAME_LENGTH]
    try:
        options = celery_names.left_of(options, celery_names.CALL)
        options = dict(stamped(options))
        _check_keys(options, (*_OPTIONS, *_MORE, *sorted(SCHEDULED)))
        periodic = _periodic(schedule, args, kwargs, options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"add_periodic_task of {name!r}: {error}.") from error
    added = Declaration(name, f"add_periodic_task of {task!r}", task, periodic)
    first = _added.setdefault(name, added)
    if first != added:
        raise ConfigurationError(
            f"add_periodic_task: two schedules are called {name!r}, of {first.task!r} and of "
            f"{task!r}. Give one another name=."
        )
    return name


def _check_keys(given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(
                f"{key!r} is not known to schedules; there are {', '.join(known)}."
                f"{conf.nearest(str(key), known)}"
            )


def _periodic(rule: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Periodic:
    given = {key: value for key, value in options.items() if value is not None}
    further = {key: given.pop(key) for key in SCHEDULED if key in given}
    return Periodic(rule, args, kwargs, options=further, **given)


# -------------------------------------------------------------------------------- gathering


def find() -> list[Declaration]:
    """Every declaration of this code, each name once; one that can't become a row says why."""
    entries = conf.get().beat_schedule
    given = [_of_settings(name, entry) for name, entry in entries.items() if entry is not None]
    others = []
    for task in registry.tasks.values():
        declared = task.options.schedule
        if declared is not None:
            periodic = declared if isinstance(declared, Periodic) else Periodic(declared)
            name = periodic.name or task.name
            others.append(Declaration(name, f"@task {task.name!r}", task.name, periodic))
    # The settings have the last word, also about schedules that other people's apps declare.
    given += [one for one in (*others, *_added.values()) if one.name not in entries]
    found: dict[str, Declaration] = {}
    for one in given:
        if (earlier := found.get(one.name)) is not None:
            told = f"{earlier.source} declares it as well. Give one of them another name."
            found[one.name] = Declaration(one.name, one.source, problem=told)
        else:
            found[one.name] = replace(one, problem=one.problem or _problem(one))
    return list(found.values())


def problems() -> list[str]:
    """A sentence for each declaration that can't become a row."""
    return [
        f"The schedule {one.name!r}, by {one.source}: {one.problem}"
        for one in find()
        if one.problem
    ]


def _of_settings(name: str, entry: Mapping[str, Any]) -> Declaration:
    source = "JOBS['BEAT_SCHEDULE']"
    try:
        task = str(entry["task"])
        entry = celery_names.left_of(entry, celery_names.SCHEDULE)
        _check_keys(entry, _ENTRY)
        options = entry.get("options") or {}
        if not isinstance(options, Mapping):
            raise TypeError(f"options must be a dict, not {options!r}")
        options = stamped(celery_names.left_of(options, celery_names.CALL))
        _check_keys(options, (*_OPTIONS, *sorted(SCHEDULED)))
        more = {key: entry[key] for key in _MORE if key in entry}
        args, kwargs = entry.get("args") or (), entry.get("kwargs") or {}
        periodic = _periodic(entry["schedule"], args, kwargs, {**options, **more})
    except KeyError as error:
        return Declaration(name, source, problem=f"it has no {error}.")
    except (TypeError, ValueError) as error:
        return Declaration(name, source, problem=f"{error}.")
    return Declaration(name, source, task, periodic)


# --------------------------------------------------------------------------------- checking


def _problem(one: Declaration) -> str:
    """Why a declaration can't become a row; empty when it can."""
    task = registry.tasks.get(one.task)
    if task is None:
        return f"no task is called {one.task!r}.{conf.nearest(one.task, registry.tasks)}"
    declared, queues = one.periodic, conf.get().queues
    assert declared is not None
    if declared.queue and not conf.get().knows(declared.queue):
        return (
            f"JOBS['QUEUES'] does not declare its queue {declared.queue!r}."
            f"{conf.nearest(declared.queue, queues)}"
        )
    try:
        task.check_arguments(declared.args, declared.kwargs)
        serialization.dumps([declared.args, declared.kwargs, declared.headers])
        task.check_options(python_options(plain_options(declared.options)))
        one.schedule().full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        if not hasattr(error, "error_dict"):
            return f"schedule: {' '.join(error.messages)}"
        names = {field.name for field in fields(Periodic)}
        return " ".join(
            f"{field if field in names else 'schedule'}: {' '.join(texts)}"
            for field, texts in error.message_dict.items()
        )
    except (TypeError, ValueError) as error:
        return str(error).rstrip(".") + "."
    return ""
