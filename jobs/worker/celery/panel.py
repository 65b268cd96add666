"""The commands of Celery's clients.

Answers have the form of those that Celery's own workers give. What a worker can't do is answered
by a sentence under "error".
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import django

from jobs import broker, conf, control, registry
from jobs.control import inspecting
from jobs.control.inspecting import Call
from jobs.control.remote import control_command, inspect_command
from jobs.control.workers import Act
from jobs.exceptions import JobsError, UnknownTask, shown
from jobs.worker.celery.state import Active, WorkerState

#: Most calls of a queue that one answer lists.
_MOST = 1000

#: Most calls that one command revokes.
_REVOKED_MOST = 1000

#: Who is named in the log for what clients ask: they don't say who they are.
BY = "a client of Celery"

_Answer = dict[str, Any]


def _ok(text: str) -> _Answer:
    return {"ok": text}


def _error(text: str) -> _Answer:
    return {"error": text}


# ------------------------------------------------------------------------------- looking


@inspect_command
def ping(state: WorkerState, **_: Any) -> _Answer:
    return _ok("pong")


@inspect_command
def clock(state: WorkerState, **_: Any) -> _Answer:
    return {"clock": state.clock}


@inspect_command
def report(state: WorkerState) -> _Answer:
    lines = [
        f"jobs:{sys.modules['jobs'].__version__} django:{django.get_version()} "
        f"py:{platform.python_version()}",
        f"platform -> system:{platform.system()} machine:{platform.machine()}",
        f"broker -> {broker.get().address}",
        f"worker -> {state.worker} queues:{','.join(state.queues)}",
    ]
    return _ok("\n".join(lines))


@inspect_command(name="conf", alias="dump_conf")
def settings_in_force(state: WorkerState, with_defaults: bool = False, **_: Any) -> _Answer:
    """``JOBS``, without what may have a password in it; of dicts only their keys."""
    current = conf.get()
    default = conf.Conf()
    found = {}
    for name, field in current.__dataclass_fields__.items():
        value = getattr(current, name)
        if field.repr and (with_defaults or value != getattr(default, name)):
            if isinstance(value, Mapping):
                value = list(value)  # arguments of schedules are nobody's business
            plain = value is None or isinstance(value, bool | int | float | str | list)
            found[name.upper()] = value if plain else repr(value)
    return found


@inspect_command(alias="dump_tasks")
def registered(
    state: WorkerState, taskinfoitems: Iterable[str] | None = None, builtins: bool = False, **_: Any
) -> list[str]:
    """``taskinfoitems``: options and other plain attributes of tasks to show."""
    items = [
        item
        for item in taskinfoitems or ("rate_limit",)
        if isinstance(item, str) and not item.startswith("_")
    ]
    set_now: dict[str, dict[str, Any]] = {}
    for name, rate in control.rate_limits().items():
        set_now.setdefault(name, {})["rate_limit"] = rate.rate
    for name, limits in control.time_limits().items():
        both = {"soft_time_limit": limits.soft, "time_limit": limits.hard}
        set_now.setdefault(name, {}).update(both)
    return [
        _described(name, items, set_now.get(name, {}))
        for name in sorted(registry.tasks)
        if builtins or not name.startswith(("celery.", "jobs."))
    ]


def _described(name: str, items: Iterable[str], set_now: Mapping[str, Any]) -> str:
    # Only what lies there: a property of a task's class would be run, and may show a secret.
    task = registry.tasks[name]
    options, own = getattr(task, "options", None), vars(task)
    here = {item: own.get(item, getattr(options, item, None)) for item in items}
    values = {**here, **{item: set_now[item] for item in here if item in set_now}}
    said = " ".join(
        f"{item}={value}"
        for item, value in values.items()
        if isinstance(value, bool | int | float | str)
    )
    return f"{name} [{said}]" if said else name


@inspect_command(alias="dump_active")
def active(state: WorkerState, safe: bool = False, **_: Any) -> list[_Answer]:
    return [_running(state, one, safe) for one in state.active()]


@inspect_command(alias="dump_reserved")
def reserved(state: WorkerState, **_: Any) -> list[_Answer]:
    return [_info(state, call) for call in _reserved(state)]


def _reserved(state: WorkerState) -> Iterator[Call]:
    """What children have claimed, and don't run yet."""
    own = state.pids()
    running = {place[:3] for place in state.places()}
    for queue in state.queues:
        for held in broker.get().peek_in_flight(queue, 0, _MOST):
            place = (held.shard or queue, held.consumer, held.number)
            if held.consumer in own and place not in running:
                yield inspecting.call_of(queue, held.raw)


@inspect_command(alias="dump_schedule")
def scheduled(state: WorkerState, **_: Any) -> list[_Answer]:
    """Calls that are due later. They wait on Redis, for all workers of their queues."""
    return [_waiting(state, call) for call in _scheduled(state)]


def _scheduled(state: WorkerState) -> Iterator[Call]:
    for queue in state.queues:
        yield from inspecting.due(queue, _MOST)


def _waiting(state: WorkerState, call: Call) -> _Answer:
    # The broker knows milliseconds, the sender said more. A later attempt has a time of its own.
    eta = call.due
    if call.eta and call.due and abs((call.due - call.eta).total_seconds()) < 0.01:
        eta = call.eta
    return {
        "eta": eta.isoformat() if eta else None,
        "priority": call.priority,
        "request": _info(state, call),
    }


@inspect_command(alias="dump_revoked")
def revoked(state: WorkerState, **_: Any) -> list[str]:
    return [one.id for one in control.inspect.revoked(_MOST)]


@inspect_command
def query_task(state: WorkerState, ids: str | Iterable[str], **_: Any) -> _Answer:
    """What this worker runs or has claimed of these calls, and what waits for it on Redis."""
    wanted = set(_listed(ids))
    found: _Answer = {}
    for due in _scheduled(state):
        if due.id in wanted:
            found[due.id] = ["scheduled", _info(state, due)]
    for held in _reserved(state):
        if held.id in wanted:
            found[held.id] = ["reserved", _info(state, held)]
    for one in state.active():
        if one.running.call.id in wanted:
            found[one.running.call.id] = ["active", _running(state, one, False)]
    return found


@inspect_command
def active_queues(state: WorkerState) -> list[_Answer]:
    nothing = dict.fromkeys(
        (
            *("alias", "no_declare", "expires", "message_ttl", "max_length", "max_length_bytes"),
            *("max_priority", "queue_arguments", "binding_arguments", "consumer_arguments"),
        )
    )
    exchange = {"type": "direct", "durable": True, "auto_delete": False, "delivery_mode": None}
    exchange |= {"arguments": None, "no_declare": False, "passive": False}
    return [
        {
            **nothing,
            "name": queue,
            "exchange": {"name": queue, **exchange},
            "routing_key": queue,
            "bindings": [],
            "durable": True,
            "exclusive": False,
            "auto_delete": False,
            "no_ack": False,
        }
        for queue in state.queues
    ]


@inspect_command
def stats(state: WorkerState, **_: Any) -> _Answer:
    options = state.options
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = [name for name in dir(used) if name.startswith("ru_")]
    address = broker.get().address
    return {
        # Celery has a number for each task. A worker here counts all together, under a name that no
        # task has, so that the sum is right.
        "total": {"(all tasks)": state.processed} if state.processed else {},
        "pid": state.pid,
        "clock": str(state.clock),
        "uptime": round(time.monotonic() - state.started),
        "pool": {
            "implementation": "jobs.worker",
            "max-concurrency": state.size.wanted * max(1, options.threads),
            "processes": list(state.pids().values()),
            "max-tasks-per-child": conf.get().max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [options.soft_time_limit or 0, options.time_limit or 0],
        },
        "broker": {"transport": address.partition(":")[0], "hostname": address},
        "prefetch_count": 0,
        "rusage": {name.removeprefix("ru_"): getattr(used, name) for name in names},
    }


@inspect_command
def memsample(state: WorkerState, **_: Any) -> _Answer:
    return _error("This worker takes no samples of its memory; manage.py jobs_status shows it.")


@inspect_command
def memdump(state: WorkerState, samples: int = 10, **_: Any) -> _Answer:
    return memsample(state)


@inspect_command
def objgraph(state: WorkerState, **_: Any) -> _Answer:
    return _error("This worker draws no graphs of its objects.")


@inspect_command
def hello(state: WorkerState, from_node: str, **_: Any) -> _Answer | None:
    """What one of Celery's own workers asks the others when it starts."""
    if from_node == state.hostname:
        return None
    return {"revoked": revoked(state), "clock": state.forward()}


@inspect_command
def election(state: WorkerState, **_: Any) -> None:
    """Of one of Celery's own workers by the others; those of this program need no leader."""


@inspect_command
def enable_events(state: WorkerState) -> _Answer:
    if conf.get().celery_events:
        return _ok("task events already enabled")
    return _error("Events are off: set JOBS['CELERY_EVENTS'] to True and restart the worker.")


@inspect_command
def disable_events(state: WorkerState) -> _Answer:
    if conf.get().celery_events:
        return _error("Events are sent while somebody listens, and need not be disabled.")
    return _ok("task events already disabled")


@inspect_command
def heartbeat(state: WorkerState) -> None:
    state.beat.set()


# ------------------------------------------------------------------------------- changing


@control_command
def revoke(
    state: WorkerState, task_id: str | Iterable[str], terminate: bool = False, **_: Any
) -> _Answer:
    """``signal`` is left out: a process that is terminated is killed."""
    ids = _listed(task_id)
    for one in ids:
        control.revoke(one, terminate=terminate is True)
    if terminate is True:
        return _ok(f"terminate: {', '.join(ids)}")
    return _ok(f"tasks {', '.join(ids)} flagged as revoked")


@control_command
def terminate(state: WorkerState, signal: str, task_id: str | Iterable[str], **_: Any) -> _Answer:
    return revoke(state, task_id, terminate=True)


@control_command
def revoke_by_stamped_headers(
    state: WorkerState,
    headers: Mapping[str, Any] | Sequence[str],
    terminate: bool = False,
    **_: Any,
) -> _Answer:
    """Running calls are killed within a second, wherever they run."""
    control.revoke_by_stamped_headers(headers, terminate=terminate is True, by=BY)
    end = "revoked and terminated" if terminate is True else "flagged as revoked"
    return _ok(f"headers {headers} {end}")


@control_command
def rate_limit(
    state: WorkerState, task_name: str, rate_limit: str | float | None, **_: Any
) -> _Answer:
    """For the whole fleet, and until it is taken back."""
    off = rate_limit in (None, "", "0", 0)
    try:
        control.rate_limit(task_name, control.UNLIMITED if off else rate_limit, by=BY)
    except UnknownTask:
        return _error("unknown task")
    except (TypeError, ValueError) as error:
        return _error(f"Invalid rate limit string: {error}")
    return _ok("rate limit disabled successfully" if off else "new rate limit set successfully")


@control_command
def time_limit(
    state: WorkerState,
    task_name: str,
    hard: float | None = None,
    soft: float | None = None,
    **_: Any,
) -> _Answer:
    """For the whole fleet, and until it is taken back: by neither, or by 0."""
    try:
        control.time_limit(task_name, soft=soft or None, hard=hard or None, by=BY)
    except UnknownTask:
        return _error("unknown task")
    except (TypeError, ValueError) as error:
        return _error(str(error))
    return _ok("time limits set successfully")


@control_command
def add_consumer(state: WorkerState, queue: str, **_: Any) -> _Answer:
    """Until the worker is restarted. The exchange and key that a client names are left out: the
    settings say which queues there are, and where they are bound."""
    try:
        changed = state.changing.take_on(queue)
    except JobsError as error:
        return _error(str(error))
    return _ok(f"add consumer {queue}" if changed else f"already consuming from {queue!r}")


@control_command
def cancel_consumer(state: WorkerState, queue: str, **_: Any) -> _Answer:
    """Until the worker is restarted."""
    try:
        changed = state.changing.give_up(queue)
    except JobsError as error:
        return _error(str(error))
    return _ok(f"no longer consuming from {queue}" if changed else f"not consuming from {queue!r}")


@control_command
def pool_grow(state: WorkerState, n: int = 1, **_: Any) -> _Answer:
    """Until the worker is restarted."""
    return _resized(state, n, 1, "pool will grow")


@control_command
def pool_shrink(state: WorkerState, n: int = 1, **_: Any) -> _Answer:
    """Until the worker is restarted. Those that go finish what they run."""
    return _resized(state, n, -1, "pool will shrink")


def _resized(state: WorkerState, n: Any, sign: int, text: str) -> _Answer:
    if not isinstance(n, int) or isinstance(n, bool):
        return _error(f"A worker gets or loses a whole number of processes, not {shown(n)}.")
    try:
        state.size.change(sign * n)
    except JobsError as error:
        return _error(str(error))
    return _ok(text)


@control_command
def shutdown(state: WorkerState, **_: Any) -> _Answer:
    return _commanded(state, Act.STOP, "the worker stops, and what runs may finish")


@control_command
def pool_restart(state: WorkerState, **_: Any) -> _Answer:
    """All children are replaced, one by one, by new ones with the current code."""
    return _commanded(state, Act.RESTART, "reload started")


def _commanded(state: WorkerState, act: Act, text: str) -> _Answer:
    try:
        control.workers.command(state.worker, act, by=BY)
    except JobsError as error:
        return _error(str(error))
    return _ok(text)


@control_command
def autoscale(state: WorkerState, *_: Any, **__: Any) -> _Answer:
    return _error("A worker has as many processes as it is told: see pool_grow and pool_shrink.")


# ------------------------------------------------------------------------------- parts of answers


def _listed(ids: str | Iterable[str]) -> list[str]:
    """Raises `ValueError` for what is no list of ids."""
    found = [ids] if isinstance(ids, str) else list(ids)
    texts = all(isinstance(one, str) and 0 < len(one) < 256 for one in found)
    if len(found) > _REVOKED_MOST or not texts:
        raise ValueError(f"{_REVOKED_MOST} ids at most are taken, each a text")
    return found


def _running(state: WorkerState, one: Active, safe: bool) -> _Answer:
    info = _info(state, one.running.call, safe)
    return {**info, "time_start": one.running.since.timestamp(), "worker_pid": one.pid or None}


def _info(state: WorkerState, call: Call, safe: bool = False) -> _Answer:
    read: Callable[[str], Any] = str if safe else _values
    return {
        "id": call.id,
        "name": call.task,
        "args": read(call.args),
        "kwargs": read(call.kwargs),
        "type": call.task,
        "hostname": state.hostname,
        "time_start": None,
        # In Celery's words: whether the message is gone. Here it is kept until the end is recorded.
        "acknowledged": False,
        "delivery_info": {
            "exchange": "",
            "routing_key": call.queue,
            "priority": call.priority,
            "redelivered": False,
        },
        "worker_pid": None,
    }


def _values(text: str) -> Any:
    """Arguments as values of JSON, if they can be read."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def load_average() -> list[float]:
    """Of the machine: over 1, 5 and 15 minutes."""
    try:
        return [round(one, 2) for one in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]
