"""The table of tasks by name, which ``@task`` fills, and the lookup of queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jobs import conf
from jobs.exceptions import ConfigurationError, UnknownQueue, UnknownTask, shown


class Sendable(Protocol):
    """What senders need of a `jobs.Task`."""

    name: str
    durable: bool
    ignore_result: bool

    def message(self, args: Sequence[Any], kwargs: Mapping[str, Any], **options: Any) -> Any: ...

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None: ...

    def check_options(self, options: Mapping[str, Any]) -> None: ...

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any: ...


class Inline(Protocol):
    """Runs calls in the caller's thread: `jobs.worker.inline`."""

    def run_here(self, messages: Sequence[Any]) -> None: ...

    def apply(self, sent: Any) -> Any: ...


#: Name → task, of every task whose module has been imported.
tasks: dict[str, Any] = {}

#: Loads what runs calls here. The app sets it: workers know tasks, and not the reverse.
inline: Callable[[], Inline] | None = None

#: Makes what sends calls of a task that isn't known here, by its name. `jobs.api.task` sets it.
elsewhere: Callable[[str], Any] | None = None


def find(name: str) -> Sendable:
    """The task of this name. Raises `UnknownTask`."""
    try:
        found: Sendable = tasks[name]
    except (KeyError, TypeError):  # the latter: it can't be a key, and so no name
        raise UnknownTask(
            f"No task {shown(name)} is known here.{conf.nearest(name, tasks)} Import the module "
            "that has it, or correct the name. If only another service has it, say where its calls "
            "go: by queue=, in JOBS['TASK_ROUTES'], or by jobs.send_task(…)."
        ) from None
    return found


#: Celery's tasks that run another one for each of many items.
MAPS = frozenset({"celery.map", "celery.starmap"})


def routed_as(name: str, kwargs: Mapping[str, Any], task: Any = None) -> tuple[str, Any]:
    """Which task decides where a call goes: its name, and the task if it is known here.

    It is the call's own, ``task``. Calls of `map` and `starmap` go where the task goes that they
    run.
    """
    if name in MAPS and isinstance(call := kwargs.get("task"), Mapping):
        name, task = str(call.get("task")), None
    return name, task or tasks.get(name)


def queue(name: str) -> str:
    """The name, if a queue of this name is declared. Raises `UnknownQueue`."""
    settings = conf.get()
    if not isinstance(name, str) or not settings.knows(name):
        near = conf.nearest(name, settings.queues)
        raise UnknownQueue(f"Queue {shown(name)} is not declared in JOBS['QUEUES'].{near}")
    return name


def own_queue(name: str) -> str:
    """The name, if this program's workers take the calls of that queue. Raises `UnknownQueue`, and
    `ConfigurationError` for one of Celery's workers."""
    if queue(name) in conf.foreign_queues():
        raise ConfigurationError(
            f"Celery's workers take the calls of queue {name!r} ('foreign_workers' in "
            "JOBS['QUEUES']), and do nothing of the kind. Revoke single calls, or ask Celery's "
            "workers: celery control."
        )
    return name
