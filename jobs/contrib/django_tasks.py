"""A backend for ``django.tasks``: Django's tasks, run by this package's workers.

In the settings::

    TASKS = {"default": {"BACKEND": "jobs.contrib.django_tasks.JobsBackend"}}

Django has ``django.tasks`` from 6.0 on; for 5.2, install ``django-tasks`` and import from
``django_tasks`` instead. Each function that Django's ``@task`` decorates becomes a task of this
package under its import path, so that routes, limits, metrics and the admin know it.

Django imports backends while it loads models, so nothing here may import them before the apps are
ready.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import importlib
import importlib.util
import inspect
import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from jobs import conf
from jobs.exceptions import ConfigurationError

log = logging.getLogger("jobs")

#: Django's package, or its backport.
PACKAGE = "django.tasks" if importlib.util.find_spec("django.tasks") else "django_tasks"
try:
    package: Any = importlib.import_module(PACKAGE)
    base: Any = importlib.import_module(f"{PACKAGE}.base")
    backends: Any = importlib.import_module(f"{PACKAGE}.backends.base")
    exceptions: Any = importlib.import_module(f"{PACKAGE}.exceptions")
    signals: Any = importlib.import_module(f"{PACKAGE}.signals")
except ModuleNotFoundError as error:
    raise ConfigurationError(
        "Django has django.tasks from version 6.0 on. For this one, pip install django-tasks."
    ) from error

#: The backport's last release has another name for it.
InvalidTask: type[Exception] = (
    getattr(exceptions, "InvalidTask", None) or exceptions.InvalidTaskError
)

#: Longest id of a worker that Django's contract allows, in characters.
_LONGEST_WORKER = 63

#: Import path → the task that Django knows, of all that run here.
_tasks: dict[str, Any] = {}
#: Those that were made before the apps were ready.
_early: list[JobTask] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask(base.Task):  # type: ignore[misc]  # known when it runs
    """A task of Django's, with what its contract lacks: attempts and a time limit.

    ``@task(max_attempts=…)`` takes these from Django 6.1 on and with the backport; on Django 6.0
    write `task` of this module.
    """

    #: How often it is run at most until it succeeds.
    max_attempts: int = 1
    #: Seconds before another attempt, or a function of the number of attempts so far that gives
    #: them.
    backoff: float | Callable[[int], float] = 0.0
    #: Seconds after which it is interrupted, and fails; None: none.
    timeout: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.run_after, dt.timedelta):
            due = timezone.now() + self.run_after
            object.__setattr__(self, "run_after", due)
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise InvalidTask(
                f"max_attempts must be a whole number from 1, not {self.max_attempts!r}."
            )
        if not callable(self.backoff) and not _is_seconds(self.backoff):
            raise InvalidTask(f"backoff must be seconds or a function, not {self.backoff!r}.")
        if self.timeout is not None and not (_is_seconds(self.timeout) and self.timeout > 0):
            raise InvalidTask(f"timeout must be seconds, more than 0, not {self.timeout!r}.")
        base.Task.__post_init__(self)
        if not hasattr(self.func, "_jobs_gone"):
            _note(self)


def task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Django's ``@task``, which takes the options of `JobTask` on each version of Django."""
    alias = options.pop("backend", "default")
    defaults = {"priority": 0, "queue_name": "default", "run_after": None, "takes_context": False}
    if "run_after" in options:
        raise TypeError("run_after belongs to a call: write task.using(run_after=…).")

    def made(decorated: Callable[..., Any]) -> Any:
        values = {**defaults, **options, "func": decorated, "backend": alias}
        return package.task_backends[alias].task_class(**values)

    return made if function is None else made(function)


class JobsBackend(backends.BaseTaskBackend):  # type: ignore[misc]  # as above
    """Sends tasks as messages of this package. Its options: none."""

    task_class = JobTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if "QUEUES" not in params:
            self.queues = set(conf.peek().queues)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Send a task; inside a transaction, as part of that.

        Raises what `jobs.Task.apply_async` raises, and `TypeError` for arguments that aren't JSON.
        """
        from jobs import ledger

        self.validate_task(task)
        # As the task will see them: JSON has no keys that are numbers.
        plain = json.loads(json.dumps(base.normalize_json([list(args), dict(kwargs)])))
        enqueued_at = timezone.now()
        # In a transaction, so that it has a row: its result can be asked for from now on.
        with transaction.atomic(using=ledger.alias()):
            sent = _twin(task).apply_async(
                *plain,
                queue=task.queue_name,
                priority=priority_of(task.priority),
                eta=task.run_after,
            )
        result = base.TaskResult(
            task=task,
            id=sent.id,
            status=base.TaskResultStatus.READY,
            enqueued_at=enqueued_at,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=plain[0],
            kwargs=plain[1],
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """The result of a call, from the ledger. Raises Django's ``TaskResultDoesNotExist``."""
        from jobs import ledger

        row = ledger.results().filter(id=str(result_id)).defer("message").first()
        found = None if row is None else _task_of(row.task, self.alias)
        if row is None or found is None:
            raise exceptions.TaskResultDoesNotExist(f"There is no result {result_id!r} of a task.")
        return _result_of(row, found, self.alias)

    async def aget_result(self, result_id: str) -> Any:
        return await sync_to_async(self.get_result)(result_id)

    def check(self, **kwargs: Any) -> Iterator[CheckMessage]:
        """What is wrong with the settings of this backend."""
        if not apps.is_installed("jobs"):
            yield Error(f"TASKS[{self.alias!r}] needs 'jobs' in INSTALLED_APPS.", id="jobs.E020")
        if self.options:
            yield Error(
                f"TASKS[{self.alias!r}]['OPTIONS'] has {', '.join(map(repr, self.options))}, and "
                "JobsBackend takes none. What concerns broker and queues is in JOBS.",
                id="jobs.E021",
            )
        declared = conf.peek()
        for queue in sorted(self.queues):
            if not declared.knows(queue):
                yield Error(
                    f"TASKS[{self.alias!r}]['QUEUES'] has {queue!r}, which JOBS['QUEUES'] does not "
                    f"declare.{conf.nearest(queue, declared.queues)}",
                    id="jobs.E022",
                )

    def close(self) -> None:
        """Nothing is held here."""


def priority_of(djangos: int) -> int:
    """Django's priorities go from −100 to 100, the most urgent; ours from 0, the most urgent, to 9.
    Django's usual 0 is 4 here."""
    return (100 - djangos) * 9 // 200


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


# ------------------------------------------------------------------------------ the twins


def register_tasks() -> None:
    """Make tasks of this package of Django's: of those that were made before the apps were ready,
    and those of another backend in the apps' modules, which ``using(backend=…)`` can send here."""
    while _early:
        _register(_early.pop(0))
    names = tuple(config.name for config in apps.get_app_configs())
    for name, module in list(sys.modules.items()):
        if name.startswith(names):
            for found in list(vars(module).values()):
                if isinstance(found, base.Task) and found.module_path not in _tasks:
                    _note(found)


def _note(made: Any) -> None:
    known = _tasks.setdefault(made.module_path, made)
    if known is made or known.func is not made.func:
        _tasks[made.module_path] = made
        if apps.ready:
            _register(made)
        else:
            _early.append(made)


def _twin(made: Any) -> Any:
    """This package's task of the same function."""
    from jobs import registry

    if made.module_path not in _tasks:
        _note(made)
    return registry.tasks[made.module_path]


def _register(made: Any) -> None:
    from jobs.api.task import task as our_task

    options: dict[str, Any] = {}
    own = isinstance(made, JobTask)
    if own and made.max_attempts > 1:
        options = {"max_retries": made.max_attempts - 1, "retry_when": _policy(made)}
    decorate: Callable[[Callable[..., Any]], Any] = our_task(
        name=made.module_path,
        bind=True,
        track_started=True,  # the status RUNNING is part of the contract
        soft_time_limit=made.timeout if own else None,
        **options,
    )
    decorate(_runner(made))


def _policy(made: JobTask) -> Callable[[BaseException, int], float | None]:
    def when(error: BaseException, retries: int) -> float | None:
        if retries + 1 >= made.max_attempts or not isinstance(error, Exception):
            return None
        return made.backoff(retries + 1) if callable(made.backoff) else made.backoff

    return when


def _runner(made: Any) -> Callable[..., Any]:
    """What a worker calls. It takes the arguments of a call, without the context."""
    func = made.func

    def context(request: Any) -> Any:
        backend = package.task_backends[made.backend]
        return base.TaskContext(task_result=backend.get_result(request.id))

    last = made.max_attempts if isinstance(made, JobTask) else 1

    if inspect.iscoroutinefunction(func):

        async def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            request = self.request
            await sync_to_async(_started)(made, request)
            try:
                if made.takes_context:
                    args = (await sync_to_async(context)(request), *args)
                value = await func(*args, **kwargs)
            except BaseException as error:
                if request.retries + 1 >= last:
                    await sync_to_async(_failed)(made, request, error)
                raise
            await sync_to_async(_succeeded)(made, request, value)
            return value

    else:

        def run(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            request = self.request
            _started(made, request)
            try:
                value = (
                    func(context(request), *args, **kwargs)
                    if made.takes_context
                    else func(*args, **kwargs)
                )
            except BaseException as error:
                if request.retries + 1 >= last:
                    _failed(made, request, error)
                raise
            _succeeded(made, request, value)
            return value

    functools.update_wrapper(run, func)
    own = inspect.signature(func)
    taken = [*own.parameters.values()][int(made.takes_context) :]
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = own.replace(parameters=[first, *taken])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def _task_of(path: str, alias: str) -> Any:
    """Django's task of this path; one that can't be run if its function is gone; None for a task
    that isn't Django's."""
    if path in _tasks:
        return _tasks[path]
    try:
        found = import_string(path)
    except ImportError:
        return _gone(path, alias)
    return found if isinstance(found, base.Task) else None


def _gone(path: str, alias: str) -> JobTask:
    def gone(*args: Any, **kwargs: Any) -> None:
        raise ImportError(f"The function {path} is not there any more.")

    gone.__module__, _, gone.__name__ = path.rpartition(".")
    gone.__qualname__ = gone.__name__
    gone._jobs_gone = True  # type: ignore[attr-defined]
    queue = min(conf.peek().queues)
    values: dict[str, Any] = {"priority": 0, "queue_name": queue, "run_after": None}
    values["takes_context"] = False
    return JobTask(func=gone, backend=alias, **values)


# ------------------------------------------------------------------------------ results


def _result_of(row: Any, made: Any, alias: str) -> Any:
    """A row of the ledger as a result of Django's."""
    from jobs import ledger, serialization
    from jobs.models import TaskAttempt
    from jobs.states import State

    statuses = base.TaskResultStatus
    status = {
        State.STARTED: statuses.RUNNING,
        State.SUCCESS: statuses.SUCCESSFUL,
        State.FAILURE: statuses.FAILED,
        State.REVOKED: statuses.FAILED,
    }.get(State(row.state), statuses.READY)
    # Where they are written: the row's own relation would ask the router.
    kept = TaskAttempt.objects.using(ledger.alias()).filter(result_id=row.pk)
    attempts = sorted(kept.order_by(), key=lambda one: one.number)
    workers = [one.worker for one in attempts]
    if row.worker and row.state != State.RETRY and len(workers) < max(1, row.attempts):
        workers.append(row.worker)
    errors = [_error(one.error_type, one.traceback) for one in attempts]
    if status == statuses.FAILED:
        kind = row.error_type or "jobs.exceptions.TaskRevoked"
        errors.append(_error(kind, row.traceback or row.error))
    started = attempts[0].started_at if attempts else row.started_at
    result = base.TaskResult(
        task=dataclasses.replace(made, run_after=row.eta) if row.eta else made,
        id=row.pk,
        status=status,
        enqueued_at=row.created_at,
        started_at=started,
        finished_at=row.finished_at,
        last_attempted_at=row.started_at or started,
        args=serialization.loads(row.args),
        kwargs=serialization.loads(row.kwargs),
        backend=alias,
        errors=errors,
        worker_ids=[worker[:_LONGEST_WORKER] for worker in workers],
    )
    if status == statuses.SUCCESSFUL and row.result is not None:
        object.__setattr__(result, "_return_value", serialization.loads(row.result))
    return result


def _error(kind: str, text: str) -> Any:
    return base.TaskError(exception_class_path=kind, traceback=text)


# ------------------------------------------------------------------------------ signals


def _started(made: Any, request: Any) -> None:
    _send(signals.task_started, made, request, base.TaskResultStatus.RUNNING)


def _succeeded(made: Any, request: Any, value: Any) -> None:
    _send(signals.task_finished, made, request, base.TaskResultStatus.SUCCESSFUL, value=value)


def _failed(made: Any, request: Any, error: BaseException) -> None:
    """Called while the error is being handled: Django's receiver logs that."""
    _send(signals.task_finished, made, request, base.TaskResultStatus.FAILED, error=error)


def _send(
    signal: Any,
    made: Any,
    request: Any,
    status: Any,
    value: Any = None,
    error: BaseException | None = None,
) -> None:
    """Send a signal of Django's. What it tells is known here: nothing is read for it. What a
    receiver raises is logged."""
    from jobs.message import id_time

    now, sent = timezone.now(), id_time(request.id)
    kind = type(error)
    text = "" if error is None else "".join(traceback.format_exception(error))
    result = base.TaskResult(
        task=made,
        id=request.id,
        status=status,
        enqueued_at=None if sent is None else _moment(sent),
        started_at=now,
        finished_at=None if status == base.TaskResultStatus.RUNNING else now,
        last_attempted_at=now,
        args=list(request.args),
        kwargs=dict(request.kwargs),
        backend=made.backend,
        errors=[] if error is None else [_error(f"{kind.__module__}.{kind.__qualname__}", text)],
        worker_ids=[request.worker[:_LONGEST_WORKER]] * (request.retries + 1),
    )
    object.__setattr__(result, "_return_value", value)
    sender = type(package.task_backends[made.backend])
    for receiver, answer in signal.send_robust(sender, task_result=result):
        if isinstance(answer, Exception):
            text = "receiver %r of a signal of Django's tasks raised"
            log.error(text, receiver, exc_info=answer)


def _moment(seconds: float) -> dt.datetime:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment)
