"""Tasks: what the decorator makes of a function, and the table of those known here."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import sys
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

from asgiref.sync import sync_to_async
from django.db.models import Model
from django.dispatch import Signal
from django.utils.module_loading import autodiscover_modules

from jobs import (
    celery_names,
    clock,
    conf,
    functions,
    known,
    publish,
    triggers,
    unique,
)
from jobs.broker.limiting import Lock
from jobs.calling import (
    NONE,
    Calling,
)
from jobs.canvas import Composing
from jobs.exceptions import (
    AlreadyQueued,
    BrokerUnavailable,
    ConfigurationError,
    MaxRetriesExceeded,
    Retry,
)
from jobs.message import Message, encode
from jobs.options import Options, SingleOptions, TaskOptions, understood
from jobs.parameters import ANY, Key, places_of, signature_of
from jobs.rates import Rate
from jobs.request import Request, current, direct, direct_calls, entered, request_of, said
from jobs.results import AsyncResult
from jobs.retry import check_asked, exception_of, no_attempt_left
from jobs.routing import Route
from jobs.running import Running
from jobs.sending import Send, SendOptions, SharedOptions, When
from jobs.values import check_text, sentence

log = logging.getLogger("jobs.publish")

P = ParamSpec("P")
R = TypeVar("R")

#: Name → task, of every task whose module has been imported.
tasks: dict[str, Task[..., Any]] = known.tasks


def autodiscover() -> None:
    """Import the module ``tasks`` (JOBS["TASK_MODULE"]) of every installed app that has one."""
    autodiscover_modules(conf.peek().task_module)


class Task(Calling, Running, Composing, Generic[P, R]):
    """A function that can be sent to a worker. Calling it runs it here and now."""

    def __init_subclass__(cls) -> NoReturn:
        raise ConfigurationError(
            f"class {cls.__qualname__}(Task): a task is a function. Decorate one by @task; with "
            "bind=True it gets self."
        )

    def __init__(self, run: Callable[..., R], **options: Unpack[TaskOptions]) -> None:
        if isinstance(run, Task):
            raise ConfigurationError(
                f"@task of {run.name!r}: that is a task already. Give all options to one @task."
            )
        try:
            self.options = Options(**understood(options))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"@task of {functions.place_of(run)}: {sentence(error)}"
            ) from error
        functions.check(run, named=bool(self.options.name), bind=self.options.bind)
        functools.update_wrapper(self, run, updated=())
        self.__dict__.update(functions.attributes(run, Task))
        self.run = run
        self._origin = functions.origin()
        self.name = self.options.name or functions.place_of(run)
        try:
            check_text("the name", self.name)
        except ValueError as error:
            raise ConfigurationError(
                f"@task of {functions.place_of(run)}: {error}. Give it another: @task(name=…)."
            ) from None
        # Asked for at every call.
        self.queue = self.options.queue
        self.priority = self.options.priority or 0
        self.route = Route(
            self.queue,
            self.options.exchange,
            self.options.routing_key,
            self.options.priority,
        )
        self.bind = self.options.bind
        self.ignore_result = self.options.ignore_result
        self.durable = self.options.durable
        self.expires = self.options.expires
        self.atomic = self.options.atomic
        self.acks_early = self.options.acks == "early"
        self.time_limit = self.options.time_limit
        self.soft_time_limit = self.options.soft_time_limit
        self.batch = self.options.batch or 0
        self.max_retries = self.options.max_retries
        self.default_retry_delay = self.options.default_retry_delay
        self.is_async = functions.is_async(run)
        place = functions.place_of(run)
        if self.is_async and self.options.atomic:
            raise ConfigurationError(
                f"@task of {place}: Django's transactions are not for 'async def'; an atomic task "
                "is an ordinary function."
            )
        if self.is_async and self.batch:
            raise ConfigurationError(
                f"@task of {place}: a task with batch= is an ordinary function, not 'async def'."
            )
        # What a function that gets many calls wants of each, it alone knows.
        self._signature, self._arity = ANY if self.batch else signature_of(run, bind=self.bind)
        self.sensitive = places_of(self._signature, self.options.sensitive, self.name)
        self.concurrency = self.options.concurrency
        # Asked for at every delivery: whether there is any limit, then which.
        self.rate: Rate | None
        self.limited: bool
        use_rate(self, self.options.rate())
        self.key = self.options.key and Key(self._signature, self.options.key, "key", self.name)
        self.uniqueness = self.options.uniqueness()
        self._unique_key = self.uniqueness and Key(
            self._signature, self.options.unique_key, "unique_key", self.name
        )

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.TASK))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.bind:
            return self.run(*args, **kwargs)
        running = current.get()
        if running is not None and running[0].task == self.name and entered.get() is not running:
            entered.set(running)
            return self.run(self, *args, **kwargs)
        if self.batch:
            return self.run(self, *args, **kwargs)
        if self.is_async:
            return self._await_directly(args, kwargs)  # type: ignore[return-value]
        with self._called_directly(args, kwargs):
            return self.run(self, *args, **kwargs)

    async def _await_directly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        with self._called_directly(args, kwargs):
            return await self.run(self, *args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def _called_directly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[None]:
        token = direct_calls.set((*direct_calls.get(), (self.name, direct(args, kwargs))))
        try:
            yield
        finally:
            direct_calls.reset(token)

    @property
    def request(self) -> Request:
        """The call of this task that is running; of one that is called directly, and outside of
        any, ``called_directly`` is True."""
        for name, request in reversed(direct_calls.get()):
            if name == self.name:
                return request
        running = current.get()
        if running is None or running[0].task != self.name:
            return direct()
        return request_of(*running)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | type[BaseException] | None = None,
        throw: bool = True,
        eta: dt.datetime | None = None,
        countdown: float | dt.timedelta | None = None,
        max_retries: int | None = None,
        expires: When | None = None,
        **celerys: Any,
    ) -> Retry:
        """End this attempt and have the call tried again, after ``countdown`` seconds, at ``eta``,
        or after the task's own delay; with other arguments and another end of the time in which it
        may start, if any are given.

        Raises `Retry`, which the worker understands; with ``throw=False`` it is returned, and the
        call is tried again however this attempt ends. With no attempt left, ``exc`` is raised or,
        without one, `MaxRetriesExceeded`. In a task that was called directly, ``exc`` is raised, or
        `Retry`. Raises `TypeError` or `ValueError` for what can't be asked for.
        """
        handled = sys.exception()
        if celerys:
            raise TypeError(
                f"retry() of task {self.name!r} has no option {next(iter(celerys))!r}: the next "
                "attempt keeps what its call was sent with, but for args, kwargs and expires. "
                "With another queue or priority, send a call of its own, or self.replace(…)."
            )
        why = exception_of(exc)
        check_asked(
            exc=why,
            countdown=countdown,
            eta=eta,
            max_retries=max_retries,
            args=args,
            kwargs=kwargs,
            expires=expires,
        )
        request = self.request
        if request.called_directly and not self.batch:
            raise (why or Retry("Task can be retried")) from _other(handled, why)
        if not self.batch and self.options.exhausted(request.retries, max_retries):
            last = why or no_attempt_left(self.name, request.id, request.retries)
            said[request.id] = last
            raise last from _other(handled, last)
        asked = Retry(
            exc=why,
            countdown=countdown,
            eta=eta,
            max_retries=max_retries,
            args=args,
            kwargs=kwargs,
            expires=expires,
        )
        asked.__cause__ = handled if why is None else why
        if throw:
            raise asked
        if not self.batch:
            said[request.id] = asked
        return asked

    #: What `retry` raises when there is no attempt left.
    MaxRetriesExceededError = MaxRetriesExceeded

    #: What sending raises when the broker is away, under Celery's name.
    OperationalError = BrokerUnavailable

    # ------------------------------------------------------------------ sending

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send this call to a worker: `apply_async` with no options."""
        return self.apply_async(args, kwargs)

    #: Celery's names for what holds here always: in a transaction, a call is sent when it commits.
    delay_on_commit = delay

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay`, from async code."""
        return await self.aapply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Send this call to a worker, inside a transaction as part of it.

        ``options``: see `jobs.sending.Send`. Raises `TypeError` for arguments that the task
        doesn't take, `TypeError` or `ValueError` for options that can't be, `NotSerializable`,
        `MessageTooLarge`, `UnknownQueue`, `NoRoute`, and outside a transaction `BrokerUnavailable`.
        """
        send = self._send(options)
        sent = self._message(args, kwargs or NONE, self._shared(send), send)
        if self.uniqueness is not None and not send.chain:
            # The first of a chain isn't: with its place taken the rest would never come.
            return self._send_unique((sent,), send)[0]
        publish.send((sent,), durable=self.durable, using=send.using, retry_policy=send.policy())
        return self._handle(sent)

    apply_async_on_commit = apply_async

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """`apply_async`, from async code.

        Runs in the thread in which Django runs synchronous code of this request, whose
        transaction it joins.
        """
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    def enqueue_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        **options: Unpack[SharedOptions],
    ) -> list[AsyncResult[R]]:
        """Send many calls in one round trip: all of them or, if one is refused, none.

        Each call is a tuple of positional arguments or a dict of keyword arguments; ``options``
        are those of `apply_async`, for each of them::

            resize.enqueue_many([(1,), (2,), {"pk": 3, "crop": True}], queue="low")
        """
        if "task_id" in options:
            raise TypeError(f"Task {self.name!r} can't be sent many times with one task_id.")
        send = self._send(options)
        shared = self._shared(send)
        sent = []
        for call in calls:
            if isinstance(call, Mapping):
                sent.append(self._message((), call, shared, send))
            else:
                sent.append(self._message(call, NONE, shared, send))
        if sent and self.uniqueness is not None:
            return self._send_unique(sent, send)
        if sent:
            publish.send(sent, durable=self.durable, using=send.using, retry_policy=send.policy())
        return [self._handle(message) for message in sent]

    def _handle(self, sent: Message) -> AsyncResult[R]:
        return AsyncResult(sent.id, ignored=bool(sent.ignore_result))

    def _send_unique(
        self, messages: Sequence[Message], send: Send, once: Hashable | None = None
    ) -> list[AsyncResult[R]]:
        """Those that no other call stands for; for each the handle of the one that does."""
        assert self.uniqueness is not None
        for sent in messages:
            claim(self, sent)
        ids = unique.send(
            messages,
            self.uniqueness,
            durable=self.durable,
            using=send.using,
            retry_policy=send.policy(),
            once=once,
        )
        ignored = bool(messages[0].ignore_result)
        return [AsyncResult(task_id, ignored=ignored) for task_id in ids]

    def _lock_name(self, sent: Message) -> str:
        assert self._unique_key is not None
        try:
            return f"{self.name}:{self._unique_key(sent.args, sent.kwargs)}"
        except (TypeError, ValueError, RecursionError):
            encode(sent)  # raises by name for an argument that has no form in JSON
            raise

    def on(
        self,
        signal: Signal,
        *,
        sender: type[Model] | str | None = None,
        when: Callable[..., bool] | None = None,
        args: Callable[..., Sequence[Any]] = triggers.by_primary_key,
    ) -> None:
        """Send this task at a model's signal, as part of the transaction that is open then.

        ``when`` and ``args`` get what a receiver of the signal gets (``instance``, ``created``,
        …): whether to send, and the task's arguments, by default ``(instance.pk,)``. Several
        signals of one instance in one transaction send it once, with the first's arguments: pass
        keys and let the task read the rest.
        """
        triggers.connect(
            self._send_once,
            f"{self.name}:{id(signal)}:{sender}",
            signal,
            sender=sender,
            when=when,
            args=args,
        )

    def _send_once(self, args: Sequence[Any], *, once: Hashable | None) -> None:
        sent = self.message(args, {})
        if self.uniqueness is None:
            publish.send((sent,), durable=self.durable, once=once)
            return
        try:
            self._send_unique((sent,), Send(), once)
        except AlreadyQueued as error:
            # Whoever saves a row has not asked for the task: that must not fail.
            log.info("a trigger of task %s sends nothing: %s", self.name, error)


def claim(task: Task[..., Any], sent: Message) -> Lock | None:
    """Have the message of a call name its lock; that lock, None where calls are not unique.

    Raises what the function of the key raises.
    """
    if task.uniqueness is None:
        return None
    if task.uniqueness.quiet and sent.eta is None:
        sent.eta = clock.now() + dt.timedelta(seconds=task.uniqueness.quiet)
    sent.unique = task._lock_name(sent)
    return unique.lock_of(sent, task.uniqueness)


def use_rate(task: Task[..., Any], rate: Rate | None) -> None:
    """Limit a task's calls in this worker by this rate, whatever its code says; None: by none."""
    task.rate = rate
    task.limited = rate is not None or task.concurrency is not None


# ------------------------------------------------------------------------- the decorator


@overload
def task(run: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[SingleOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[..., Any]], Task[..., Any]]: ...


def task(run: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function, bare or with options: see `jobs.options.Options`."""
    if run is None:
        return lambda function: task_of(function, **options)
    return task_of(run, **options)


def task_of(run: Callable[..., R], **options: Unpack[TaskOptions]) -> Task[..., R]:
    """Register a function as a task."""
    made: Task[..., R] = Task(run, **options)
    known = tasks.get(made.name)
    if known is not None:
        functions.check_same(made.name, (known.run, known._origin), (run, made._origin))
        if known.run is run and known.options != made.options:
            raise ConfigurationError(
                f"Task {made.name!r} is made twice of one function, with other options "
                f"({known._origin.line} and {made._origin.line}). Give one of them another name: "
                "@task(name=…)."
            )
    tasks[made.name] = made
    return made


#: Celery's name for a task of a reusable app; here every task is one.
shared_task = task


def _other(cause: BaseException | None, error: BaseException | None) -> BaseException | None:
    """The cause of an exception that may be itself what is being handled."""
    return error.__cause__ if cause is error and error is not None else cause
