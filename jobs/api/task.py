"""What ``@task`` makes of a function: a `Task`, whose calls are sent, composed and tried again."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime as dt
import functools
import inspect
import logging
import sys
import types
from collections.abc import (
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
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

from jobs import conf, registry, routing
from jobs.api import bases, functions, results, triggers
from jobs.api.compositions import Signature, as_dicts, chunks, group, xmap, xstarmap
from jobs.api.inside import add_to_chord, replacement
from jobs.api.options import (
    CommonOptions,
    Options,
    SingleOptions,
    TaskOptions,
    check_again,
    check_asked,
    exception_of,
    no_attempt_left,
    understood,
)
from jobs.api.parameters import (
    ANY,
    Key,
    Tenant,
    given_anew,
    places_of,
    shown,
    signature_of,
)
from jobs.api.results import EagerResult
from jobs.api.sending import check_linked
from jobs.api.validation import Validation
from jobs.broker.limiting import Lock, Rate
from jobs.conf.values import check_text, sentence
from jobs.exceptions import (
    AlreadyQueued,
    BrokerUnavailable,
    ConfigurationError,
    MaxRetriesExceeded,
    Replaced,
    Retry,
    WorkflowError,
)
from jobs.exceptions import shown as told
from jobs.ledger import publish, unique
from jobs.message import Calls, Message, celery_names, encode, new_id
from jobs.message.call import (
    OPTIONS,
    PLAINLY,
    Send,
    SendOptions,
    SharedOptions,
    new_message,
    stamped,
)
from jobs.routing import Address, Plan, Route
from jobs.running import iteration, progress
from jobs.running.request import (
    Request,
    current,
    direct,
    direct_calls,
    entered,
    request_of,
    said,
)
from jobs.signals import ExceptionInfo
from jobs.timing import clock

log = logging.getLogger("jobs.publish")

P = ParamSpec("P")
R = TypeVar("R")
#: What calling a task gives; it only ever comes out of one.
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_Task = TypeVar("T_Task", bound="Task[..., Any]")

_PAGE = "docs/reference/tasks.md has all of them"

_NO_KWARGS: Mapping[str, Any] = {}


def autodiscover() -> None:
    """Import the module ``tasks`` (JOBS["TASK_MODULE"]) of every installed app that has one."""
    autodiscover_modules(conf.peek().task_module)


class Task(Generic[P, R_co]):
    """A function that can be sent to a worker. Calling it runs it here and now.

    A subclass adds what several tasks share: hooks, methods, options as attributes. Give it to the
    decorator by ``base=``; or write ``run`` in it, and register an instance by `register_task`.
    """

    name: str
    #: What it was made of: the function or, of a class, its ``run`` without ``self``.
    function: Callable[..., Any]
    #: Whether calling it does more than to call `run`.
    called: bool
    #: What it was made of: that function or, if it is written as a class, the class.
    source: Callable[..., Any]
    #: Which of `jobs.api.bases.HOOKS` it has.
    hooks: frozenset[str]

    # Options, see `jobs.api.options.Options`
    exchange: str
    routing_key: str
    rate_limit: str | float | None
    throws: tuple[type[BaseException], ...]
    typing: bool
    store_errors_even_if_ignored: bool
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    acks_late: bool
    #: Celery's: whether a call is run again after its process has died.
    reject_on_worker_lost: bool
    # Celery's, the same for all tasks
    serializer = "json"
    trail = True
    send_events = True

    #: The signature that callers see, and how many positional arguments fit it by themselves;
    #: None: only binding can tell.
    _signature: inspect.Signature
    _arity: range | None
    #: How many positional arguments are sent as they are given, without a further look.
    _fitting: range
    #: Whether they decide more than what it is called with: whose the call is, for example.
    _looks_at_arguments: bool
    #: Where calls go that name no queue, as long as the router is the same.
    _plan: Plan | None = None
    #: The message of a call without options, but for id and arguments; likewise.
    _plainly: tuple[routing.Router, Message] | None = None

    def __init__(
        self, run: Callable[..., R_co] | None = None, **options: Unpack[TaskOptions]
    ) -> None:
        if run is not None:
            self._set_up(run, options, run)

    def _set_up(self, run: Callable[..., Any], given: Mapping[str, Any], source: Any) -> None:
        """Make it a task of this function. ``given``: its options, those of its class aside.
        ``source``: the function or, if ``run`` is a method of it, the class."""
        if isinstance(run, Task):
            raise ConfigurationError(
                f"@task of {run.name!r}: that is a task already. Give all options to one @task."
            )
        place = functions.place_of(source)
        try:
            options, attributes = bases.split(self, Task, given)
            options = _with_settings(options, options.get("name") or place, source)
            own = self.options = Options(**understood(options))
        except (TypeError, ValueError) as error:
            settings_too = any(conf.options_of_task(given.get("name") or place))
            more = " (JOBS['TASK_OPTIONS'] counts, too.)" if settings_too else ""
            raise ConfigurationError(f"@task of {place}: {sentence(error)}{more}") from error
        if source is run:
            functions.check(run, named=bool(own.name), bind=own.bind)
        functools.update_wrapper(self, source, updated=())
        self.__wrapped__ = run
        self.__dict__.update(functions.attributes(run, Task))
        self.__dict__.update(attributes)
        self.function = run
        self.source = source
        #: Turns models of pydantic into arguments and back; None: the task doesn't ask for it.
        self.validation: Validation | None = None
        if own.pydantic:
            self.validation = Validation(run, own, place)
            run = self.validation.wrapped()
        self.__dict__["run"] = types.MethodType(run, self) if own.bind else run
        self._origin = functions.origin()
        self.name = own.name or place
        try:
            check_text("the name", self.name)
        except ValueError as error:
            raise ConfigurationError(
                f"@task of {place}: {error}. Give it another: @task(name=…)."
            ) from None
        self.is_async = functions.is_async(run)
        if self.is_async and own.atomic:
            raise ConfigurationError(
                f"@task of {place}: Django's transactions are not for 'async def'; an atomic task "
                "is an ordinary function."
            )
        if self.is_async and own.batch:
            raise ConfigurationError(
                f"@task of {place}: a task with batch= is an ordinary function, not 'async def'."
            )
        self.hooks = bases.hooks_of(self, Task)
        self.called = own.bind or type(self).__call__ is not Task.__call__
        # These options are public attributes, as in Celery,
        self.__dict__.update({name: getattr(own, name) for name in bases.SHOWN})
        self.acks_late = own.acks == "late"
        self.reject_on_worker_lost = own.max_crashes != 0
        self.queue = own.queue
        self.priority = own.priority or 0
        self.bind = own.bind
        self.ignore_result = own.ignore_result
        self.durable = own.durable
        self.expires = own.expires
        self.label = own.label
        self.time_limit = own.time_limit
        self.soft_time_limit = own.soft_time_limit
        self.max_retries = own.max_retries
        self.default_retry_delay = own.default_retry_delay
        # and these a worker reads at every delivery. All others are read from `options`.
        self.atomic = own.atomic
        self.acks_early = not self.acks_late
        self.track_started = own.track_started
        self.batch = own.batch or 0
        self.concurrency = own.concurrency
        self.rate: Rate | None
        self.limited: bool
        use_rate(self, own.rate())
        self.route = Route(own.queue, own.exchange, own.routing_key, own.priority)
        # Only the function of a batch knows what arguments each of its calls must have.
        signature, arity = ANY if self.batch else signature_of(run, bind=self.bind)
        self._signature, self._arity = (signature, arity) if own.typing else ANY
        self.sensitive = places_of(signature, own.sensitive, self.name)
        #: Whose a call is by its arguments; None: no call names a tenant by itself.
        self.tenant_of: Callable[[Sequence[Any], Mapping[str, Any]], str] | None = None
        if own.fair_by is not None:
            self.tenant_of = Tenant(signature, own.fair_by, self.sensitive, self.name)
        elif self.name in registry.MAPS:
            starred = self.name == "celery.starmap"
            self.tenant_of = functools.partial(_tenant_of_items, starred)
        self.key = own.key and Key(signature, own.key, "key", self.name)
        self.shard_by = own.shard_by and Key(signature, own.shard_by, "shard_by", self.name)
        looked_at = self.validation or self.tenant_of or self.shard_by
        self._fitting = range(0) if looked_at or self._arity is None else self._arity
        self._looks_at_arguments = bool(looked_at)
        self.uniqueness = own.uniqueness()
        self._unique_key = self.uniqueness and Key(
            signature, own.unique_key, "unique_key", self.name
        )

    def __repr__(self) -> str:
        return f"<Task: {getattr(self, 'name', type(self).__qualname__)}>"

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the task does: the decorated function without ``self``, or what a subclass writes
        here."""
        raise NotImplementedError(f"{type(self).__qualname__} has no method run.")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        if not self.bind:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        running = current.get()
        if running is not None and running[0].task == self.name and entered.get() is not running:
            entered.set(running)
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        if self.batch:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        if self.is_async:
            return self._await_directly(args, kwargs)  # type: ignore[return-value]
        with self._called_directly(args, kwargs):
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]

    async def _await_directly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        with self._called_directly(args, kwargs):
            return await self.run(*args, **kwargs)

    @contextlib.contextmanager
    def _called_directly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[None]:
        token = direct_calls.set((*direct_calls.get(), (self.name, direct(args, kwargs))))
        try:
            yield
        finally:
            direct_calls.reset(token)

    @property
    def request(self) -> Request:
        """The call of this task that is running. Its ``called_directly`` is True if the task was
        called as a function, or isn't running."""
        for name, request in reversed(direct_calls.get()):
            if name == self.name:
                return request
        running = current.get()
        if running is None or running[0].task != self.name:
            return direct()
        return request_of(*running)

    # ------------------------------------------------------------------ hooks
    #
    # For subclasses, with Celery's names and arguments. They may be ``async def``.

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Called by the worker before each attempt. What it raises counts as raised by the task,
        which isn't called then."""

    def on_success(
        self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Called by the worker when the call has succeeded."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> Any:
        """Called by the worker after an attempt that is followed by another."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> Any:
        """Called by the worker when the call has failed, and is not tried again."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo | None,
    ) -> Any:
        """Called after `on_success` or `on_failure`. ``status``: SUCCESS or FAILURE. ``retval``:
        what the task returned, or the exception."""

    def on_replace(self, sig: Signature) -> Any:
        """Called by `replace` with the call that is to take this one's place; ends this one.
        Return ``super().on_replace(sig)``."""
        running = current.get()
        if running is None:
            raise RuntimeError(f"Task {self.name!r} is not being run by a worker.")
        raise Replaced(call=replacement(sig, running[0]))

    # ------------------------------------------------------------------ running here

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell whoever follows the running call that so much of ``total`` is done.

        It costs some microseconds: at most five reports a second are sent, always the newest.
        Outside of a worker it does nothing. Raises `TypeError` for anything but numbers.
        """
        progress.report(done, total, message)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None
    ) -> None:
        """Give the running call a state of its own until it ends, and JSON that says more.

        It is sent as `progress` is. SUCCESS, FAILURE and REVOKED are kept until the task raises
        `Ignore`: then that is its end, and ``meta`` its result.

        ``task_id``: give the state to another call, of any task and from anywhere. It is sent at
        once. A call that has ended isn't changed, and whatever that call's own worker says replaces
        it.

        Raises `ValueError` for a state that only workers give, which for another call includes
        SUCCESS, FAILURE and REVOKED; `NotSerializable`, `MessageTooLarge`, and for another call
        `BrokerUnavailable`.
        """
        running = current.get()
        if task_id is None or (running is not None and running[0].id == task_id):
            progress.update_state(state, meta)
        else:
            check_text("task_id", task_id)
            progress.update_state_of(task_id, results.row_of, state, meta)

    def iterate(
        self,
        items: Iterable[T],
        *,
        key: str = "pk",
        size: int = 1000,
        total: int | None = None,
    ) -> Iterator[T]:
        """Loop over items so that the next run of this call goes on where this one stopped: after
        a stop of the worker, a crash, or a failed attempt.

        ``items``: a queryset, read ``size`` rows at a time in the order of the unique column
        ``key``; or anything that gives the same items in the same order each time. ``total``: how
        many there are, if counting them takes too long. Each step is done once or, after a crash,
        again. Raises `TypeError` or `ValueError` for items that can't be looped over like that.
        """
        source = iteration.source_of(items, key, size)
        return iteration.loop(source, iteration.one_by_one, total)

    def iterate_batches(
        self,
        items: Iterable[T],
        *,
        key: str = "pk",
        size: int = 1000,
        total: int | None = None,
    ) -> Iterator[list[T]]:
        """`iterate` in lists of ``size`` items, such as for one transaction each."""
        source = iteration.source_of(items, key, size)
        return iteration.loop(source, iteration.by_pages, total)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | type[BaseException] | None = None,
        throw: bool = True,
        eta: dt.datetime | None = None,
        countdown: float | dt.timedelta | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this attempt and have the call tried again: after ``countdown`` seconds, at ``eta``,
        or after the task's own delay; with other ``args`` and ``kwargs`` if given. ``options``:
        others for the next attempt, of those in `jobs.api.options.AGAIN`.

        Raises `Retry`, which the worker understands. With ``throw=False`` that is returned, and the
        call is tried again however this attempt ends. If no attempt is left, raises ``exc`` or,
        without one, `MaxRetriesExceeded`. In a task that was called as a function, raises ``exc``
        or `Retry`. Raises `TypeError` or `ValueError` for wrong arguments.
        """
        handled = sys.exception()
        again = check_again(self.name, options)
        why = exception_of(exc)
        check_asked(
            exc=why,
            countdown=countdown,
            eta=eta,
            max_retries=max_retries,
            args=args,
            kwargs=kwargs,
        )
        request = self.request
        if request.called_directly and not self.batch:
            raise (why or Retry("Task can be retried")) from _other(handled, why)
        if not self.batch and self.options.exhausted(request.retries, max_retries):
            last = why or no_attempt_left(self.name, request.id, request.retries)
            said[request.id] = last
            raise last from _other(handled, last)
        if args is not None or kwargs is not None:
            before = request.args, request.kwargs
            args, kwargs = given_anew(self._signature, before, args, kwargs)
        asked = Retry(
            exc=why,
            countdown=countdown,
            eta=eta,
            max_retries=max_retries,
            args=args,
            kwargs=kwargs,
            options=again,
        )
        asked.__cause__ = handled if why is None else why
        if throw:
            raise asked
        if not self.batch:
            said[request.id] = asked
        return asked

    #: What `retry` raises when there is no attempt left.
    MaxRetriesExceededError = MaxRetriesExceeded

    def AsyncResult(self, task_id: str, **celerys: Any) -> results.AsyncResult[Any]:
        """The handle of a call of this id."""
        return results.AsyncResult(task_id)

    #: What sending raises when the broker is away, under Celery's name.
    OperationalError = BrokerUnavailable

    # ------------------------------------------------------------------ sending

    # The result of an ``async def`` task is what awaiting it gives, hence two forms of each.

    @overload
    def delay(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> results.AsyncResult[T]: ...
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[R_co]: ...
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[Any]:
        """Send this call to a worker: `apply_async` with no options."""
        return self.apply_async(args, kwargs)

    #: Celery's names for what holds here always: in a transaction, a call is sent when it commits.
    delay_on_commit = delay

    @overload
    async def adelay(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> results.AsyncResult[T]: ...
    @overload
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[R_co]: ...
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[Any]:
        """`delay`, from async code."""
        return await self.aapply_async(args, kwargs)

    @overload
    def apply_async(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[T]: ...
    @overload
    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[R_co]: ...
    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[Any]:
        """Send this call to a worker; inside a transaction, as part of that.

        ``options``: see `jobs.message.call.Send`. Raises `TypeError` for arguments that the task
        doesn't take, `TypeError` or `ValueError` for wrong options, `NotSerializable`,
        `MessageTooLarge`, `UnknownQueue`, `NoRoute`, and outside a transaction `BrokerUnavailable`.
        """
        send = self._send(options) if options else PLAINLY
        sent = self._fill(self._empty(send), args, kwargs or _NO_KWARGS, send)
        if self.uniqueness is not None and not send.chain:
            # The first call of a chain is not unique: were it dropped, the rest would never come.
            return self._send_unique((sent,), send)[0]
        policy = None if send is PLAINLY else send.policy()
        publish.send((sent,), durable=self.durable, using=send.using, retry_policy=policy)
        return results.handle(sent.id, bool(sent.ignore_result))

    apply_async_on_commit = apply_async

    @overload
    def apply(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[SendOptions],
    ) -> EagerResult[T]: ...
    @overload
    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[SendOptions],
    ) -> EagerResult[R_co]: ...
    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[SendOptions],
    ) -> EagerResult[Any]:
        """Run this call here and now, as a worker would run it: its arguments go through JSON,
        failed attempts are made again at once, and calls that are linked to it follow. Nothing is
        sent for that, and nothing recorded.

        ``throw``: raise the task's error; by default as JOBS["EAGER_PROPAGATES"] says. ``options``
        are those of `apply_async`. Raises what that raises, but for `BrokerUnavailable`.
        """
        if registry.inline is None:
            raise ConfigurationError("apply() needs Django's apps: call django.setup() first.")
        sent = self.message(args, kwargs or _NO_KWARGS, **options)
        result: EagerResult[R_co] = EagerResult(registry.inline().apply(sent))
        if conf.get().eager_propagates if throw is None else throw:
            result.get()
        return result

    @overload
    async def aapply_async(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[T]: ...
    @overload
    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[R_co]: ...
    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> results.AsyncResult[Any]:
        """`apply_async`, from async code.

        It runs in the thread in which Django runs this request's synchronous code, and so joins
        its transaction.
        """
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    @overload
    def enqueue_many(
        self: Task[P, Coroutine[Any, Any, T]],
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        **options: Unpack[SharedOptions],
    ) -> list[results.AsyncResult[T]]: ...
    @overload
    def enqueue_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        **options: Unpack[SharedOptions],
    ) -> list[results.AsyncResult[R_co]]: ...
    def enqueue_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        **options: Unpack[SharedOptions],
    ) -> list[results.AsyncResult[Any]]:
        """Send many calls in one round trip: all of them or, if one is refused, none.

        Each call is a tuple of positional arguments or a dict of keyword arguments; ``options``
        are those of `apply_async`, for each of them::

            resize.enqueue_many([(1,), (2,), {"pk": 3, "crop": True}], queue="low")
        """
        if "task_id" in options:
            raise TypeError(f"Task {self.name!r} can't be sent many times with one task_id.")
        send = self._send(options)
        common = self._empty(send)
        if not common.queue or self._looks_at_arguments or self.uniqueness is not None:
            return self._send_each(calls, common, send)
        own: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = []
        fitting = self._fitting
        for call in calls:
            if type(call) is tuple and len(call) in fitting:
                own.append((new_id(), call, _NO_KWARGS))
            else:
                args, kwargs = _arguments_of(call)
                self.check_arguments(args, kwargs)
                own.append((new_id(), tuple(args), dict(kwargs)))
        if own:
            publish.send_calls(
                Calls(common, own),
                durable=self.durable,
                using=send.using,
                retry_policy=send.policy(),
            )
        ignored = bool(common.ignore_result)
        return [results.handle(task_id, ignored) for task_id, _, _ in own]

    def _send_each(
        self, calls: Iterable[Sequence[Any] | Mapping[str, Any]], common: Message, send: Send
    ) -> list[results.AsyncResult[Any]]:
        """`enqueue_many` where the arguments of a call decide more than what it is called with."""
        sent = [self._fill(copy.copy(common), *_arguments_of(call), send) for call in calls]
        if sent and self.uniqueness is not None:
            return self._send_unique(sent, send)
        if sent:
            publish.send(sent, durable=self.durable, using=send.using, retry_policy=send.policy())
        ignored = bool(common.ignore_result)
        return [results.handle(message.id, ignored) for message in sent]

    def _send_unique(
        self, messages: Sequence[Message], send: Send, once: Hashable | None = None
    ) -> list[results.AsyncResult[R_co]]:
        """Send the messages whose key no other call holds; for each, the handle of the holder."""
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
        return [results.AsyncResult(task_id, ignored=ignored) for task_id in ids]

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
            self._send_unique((sent,), PLAINLY, once)
        except AlreadyQueued as error:
            # Saving a row must not fail because of a task that whoever saves it doesn't know of.
            log.info("a trigger of task %s sends nothing: %s", self.name, error)

    # ------------------------------------------------------------------ making messages

    def message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        **options: Unpack[SendOptions],
    ) -> Message:
        """The message of a call, checked and not sent."""
        send = self._send(options)
        return self._fill(self._empty(send), args, kwargs, send)

    def _send(self, options: Mapping[str, Any]) -> Send:
        """The options of a call, checked."""
        if not options:
            return PLAINLY
        try:
            if not options.keys() <= OPTIONS:
                options = stamped(options)
                options = celery_names.left_of(options, celery_names.CALL)
                if unknown := [name for name in options if name not in OPTIONS]:
                    near = conf.nearest(unknown[0], [*OPTIONS, *celery_names.CALL])
                    raise TypeError(f"{unknown[0]!r} is not an option of a call.{near} {_PAGE}")
            return Send(**options).checked()
        except (TypeError, ValueError) as error:
            raise type(error)(f"Task {self.name!r} can't be sent: {sentence(error)}") from None

    def _empty(self, send: Send) -> Message:
        """A message with all that the calls of one sending share: `_fill` adds id and arguments."""
        running = current.get()
        plainly = send is PLAINLY and running is None and self.expires is None
        if plainly and (kept := self._plainly) is not None:
            router, known = kept
            if router is routing.get() and known.ignore_result is self.ignore_result:
                return known.__copy__()  # type: ignore[attr-defined, no-any-return]
        if send.link or send.link_error:
            link, link_error = as_dicts(send.link), as_dicts(send.link_error)
            check_linked({"link": link, "link_error": link_error})
            send = dataclasses.replace(send, link=link, link_error=link_error)
        address, priority = self._address(send)
        empty = new_message(
            self.name,
            self,
            send,
            address.queues[0] if address else "",
            priority,
            running and running[0].id,
            running and (running[0].root_id or running[0].id),
        )
        if address and (address.exchange or address.routing_key != empty.queue):
            address.write(empty)
        if plainly:
            self._plainly = routing.get(), copy.copy(empty)
        return empty

    def _fill(
        self, sent: Message, args: Sequence[Any], kwargs: Mapping[str, Any], send: Send
    ) -> Message:
        sent.id = send.task_id or new_id()
        if type(args) is tuple and not kwargs and len(args) in self._fitting:
            sent.args, sent.kwargs = [*args], {}
        else:
            self._fill_in_arguments(sent, args, kwargs, send)
        if not sent.queue:  # the functions in JOBS["TASK_ROUTES"] decide
            given = {name: getattr(send, name) for name in OPTIONS}
            options = {name: value for name, value in given.items() if value is not None}
            routing.get().place(sent, options, self)
        return sent

    def _fill_in_arguments(
        self, sent: Message, args: Sequence[Any], kwargs: Mapping[str, Any], send: Send
    ) -> None:
        self.check_arguments(args, kwargs)
        if self.validation is not None:
            args, kwargs = self.validation.sent(args, kwargs)
        sent.args = list(args)
        sent.kwargs = dict(kwargs)
        if self.tenant_of is not None and send.fair is None:
            sent.fair = self.tenant_of(args, kwargs)
        if self.shard_by is not None and send.shard_key is None:
            sent.shard_key = self.shard_by(args, kwargs)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `TypeError` when the function can't be called with these."""
        if type(args) is not tuple or kwargs:
            if isinstance(args, str | bytes) or not isinstance(args, Sequence):
                raise TypeError(
                    f"Task {self.name!r}: args must be a tuple or a list, not {told(args)}."
                )
            if not isinstance(kwargs, Mapping):
                raise TypeError(f"Task {self.name!r}: kwargs must be a dict, not {told(kwargs)}.")
        if not kwargs and self._arity is not None and len(args) in self._arity:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"Task {self.name}{shown(self._signature)} {error}.") from None

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise what sending a call with these options would raise. A call that follows another is
        sent by a worker, so a mistake in it must be found before."""
        send = self._send(options)
        if send.queue:
            named = Route(send.queue, send.exchange or "", send.routing_key or "")
            routing.get().lead(self.name, named)
        else:
            self._address(send)
        if send.headers:
            encode(Message(task=self.name, id="", queue="", own_headers=dict(send.headers)))

    @property
    def address(self) -> Address | None:
        """Where calls go that name no destination; None when functions decide for each call.
        Raises `UnknownQueue` or `NoRoute`."""
        return self._address(PLAINLY)[0]

    def _address(self, send: Send) -> tuple[Address | None, int]:
        """Where a call goes and its priority if its options name none. The address is None when
        functions must be asked, which see the arguments."""
        router, plan = routing.get(), self._plan
        if plan is None or plan.router is not router:
            plan = router.plan(self)
            if self.name in registry.MAPS:  # its calls go where the task in their arguments goes
                plan = plan._replace(asks=True, address=None, priority=0)
            self._plan = plan
        address = plan.address
        if address is None or send.queue or send.exchange or send.routing_key:
            named = Route(send.queue or "", send.exchange or "", send.routing_key or "")
            address = None if plan.asks else router.lead(self.name, named.over(plan.route))
        return address, plan.priority

    # ------------------------------------------------------------------ composing

    @overload
    def s(self: Task[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> Signature[T]: ...
    @overload
    def s(self, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A call as a value, to be sent later or by somebody else."""
        return Signature(self.name, args, kwargs)

    @overload
    def si(self: Task[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> Signature[T]: ...
    @overload
    def si(self, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    def si(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """`s`, for a call that doesn't get the result of the call before it."""
        return Signature(self.name, args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **more: Any,
    ) -> Signature:
        """`s` with a sequence and a mapping of arguments, and with options of sending: in a
        mapping, by name, or both."""
        made = Signature(self.name, tuple(args or ()), dict(kwargs or {}), immutable=immutable)
        return made.set(**{**(options or {}), **more})

    subtask = signature  # Celery's former name

    def signature_from_request(
        self,
        request: Request | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> Signature:
        """A call like the running one, or like that of ``request``: with its arguments, headers,
        queue and priority, unless others are given. It gets an id of its own."""
        asked = request or self.request
        given: dict[str, Any] = {"queue": queue or asked.queue, "headers": asked.headers or None}
        if asked.message is not None:
            given["priority"] = asked.message.priority
        return self.signature(
            asked.args if args is None else args,
            asked.kwargs if kwargs is None else kwargs,
            {name: value for name, value in given.items() if value is not None} | options,
        )

    subtask_from_request = signature_from_request

    def map(self, items: Iterable[Any]) -> Signature:
        """One call that runs this task for each item in turn, and returns the list of results. It
        goes to this task's queue."""
        return xmap(self, items)

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature:
        """`map`, where each item is a tuple of all positional arguments."""
        return xstarmap(self, items)

    def chunks(self, items: Iterable[Sequence[Any]], size: int) -> group:
        """A group of `starmap` calls, each for so many items."""
        return chunks(self, items, size)

    def replace(self, call: Signature) -> Any:
        """End this call and let another one take its place: it ends under this call's id, and what
        was to follow this call follows it. Celery's users write ``return self.replace(…)``.

        Raises `Replaced`, which the worker understands; `WorkflowError` in an atomic task, since
        that would take its effects back; and what `Signature.apply_async` raises.
        """
        if self.atomic:
            raise WorkflowError(
                f"Task {self.name!r} is atomic: replacing it would take its effects back. Let it "
                "return, and write what follows as a chain."
            )
        return self.on_replace(call)

    def add_to_chord(self, call: Signature) -> Any:
        """Make a call a further member of the running call's chord, and return its handle.

        The body gets its result last. Raises `WorkflowError` if the running call is in no chord,
        and what `Signature.apply_async` raises.
        """
        return add_to_chord(call)


def _arguments_of(
    call: Sequence[Any] | Mapping[str, Any],
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """What a call of a bulk stands for: its positional and its keyword arguments."""
    return ((), call) if isinstance(call, Mapping) else (call, _NO_KWARGS)


class _NotHere:
    """An attribute that tasks don't have, at least not yet; to read it says what to write instead.

    `__getattr__` could say it as well. But in a class that has one, Python takes ten times as long
    to read any attribute, and a send reads a dozen of its task's.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, task: Task[..., Any] | None, kind: type[Task[..., Any]]) -> NoReturn:
        name = self._name
        if task is not None and "options" not in vars(task):
            raise AttributeError(
                f"{kind.__name__}() has no {name!r} before it is registered: "
                f"{kind.__name__.lower()} = jobs.register_task({kind.__name__}())."
            )
        whose = kind if task is None else task
        raise AttributeError(celery_names.no_attribute(whose, name, celery_names.TASK))


for _name in (*celery_names.TASK, "name", "options", "expires"):  # the last: asked first
    setattr(Task, _name, _NotHere(_name))


def claim(task: Task[..., Any], sent: Message) -> Lock | None:
    """Write the name of its lock into a unique call's message, and return the lock; None for a
    task whose calls are not unique. Raises what the function of the key raises.
    """
    if task.uniqueness is None:
        return None
    if task.uniqueness.quiet and sent.eta is None:
        sent.eta = clock.now() + dt.timedelta(seconds=task.uniqueness.quiet)
    assert task._unique_key is not None
    try:
        sent.unique = f"{task.name}:{task._unique_key(sent.args, sent.kwargs)}"
    except (TypeError, ValueError, RecursionError):
        encode(sent)  # raises by name for an argument that has no form in JSON
        raise
    return unique.lock_of(sent, task.uniqueness)


def _tenant_of_items(starred: bool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The tenant of a call of `Task.map` or, ``starred``, of `Task.starmap`: the one that all its
    items have; none if they have several."""
    call = kwargs.get("task")
    task = registry.tasks.get(str(call.get("task"))) if isinstance(call, Mapping) else None
    if call is None or task is None or task.tenant_of is None:
        return ""
    tenants: set[str] = set()
    for item in kwargs.get("it") or ():
        first = item if starred else (item,)
        tenants.add(task.tenant_of((*first, *call.get("args", ())), call.get("kwargs") or {}))
        if len(tenants) > 1:
            return ""
    return "".join(tenants)


def use_rate(task: Task[..., Any], rate: Rate | None) -> None:
    """Limit a task's calls in this worker by this rate, in place of the code's; None: no limit."""
    task.rate = rate
    task.limited = rate is not None or task.concurrency is not None


# ------------------------------------------------------------------------- the decorator


if TYPE_CHECKING:

    class BasedTask(Task[P, R_co]):
        """A task of another class than `Task`: it has the function's arguments and result, and the
        class's attributes. Python has no type that is both, so these are `Any`."""

        def __getattr__(self, name: str) -> Any: ...


@overload
def task(run: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, base: type[Task[..., Any]], batch: int, **options: Any
) -> Callable[[Callable[..., Any]], BasedTask[..., Any]]: ...
@overload
def task(
    *, base: type[Task[..., Any]], bind: Literal[True], batch: None = None, **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], BasedTask[P, R]]: ...
@overload
def task(
    *,
    base: type[Task[..., Any]],
    bind: Literal[False] = False,
    batch: None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], BasedTask[P, R]]: ...
@overload
def task(
    *, bind: Literal[True], **options: Unpack[CommonOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def task(**options: Unpack[SingleOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[..., Any]], Task[..., Any]]: ...


def task(run: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function, bare or with options: see `jobs.api.options.Options`."""
    if run is None:
        return lambda function: task_of(function, **options)
    return task_of(run, **options)


def task_of(
    run: Callable[..., R], base: type[Task[..., Any]] | None = None, **options: Any
) -> Task[..., R]:
    """Register a function as a task of the class ``base``."""
    if base is None:
        base = Task
    elif not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigurationError(
            f"@task of {functions.place_of(run)}: base must be a subclass of jobs.Task, not "
            f"{told(base)}."
        )
    made: Task[..., R] = base.__new__(base)
    made._set_up(run, options, run)
    if base.__init__ is not Task.__init__:
        base.__init__(made)  # its own, which need not call that of Task
    return _registered(made)


def _with_settings(given: dict[str, Any], name: str, source: Any) -> dict[str, Any]:
    """The options of a task, with those of ``JOBS["TASK_OPTIONS"]``."""
    if str(getattr(source, "__module__", "")).startswith("jobs."):
        return given  # this app's own
    for_all, for_it = conf.options_of_task(name)
    both = {"acks", "acks_late"}  # one says what the other would
    if both & for_it.keys():
        given = {key: value for key, value in given.items() if key not in both}
    given = {**given, **for_it}
    dropped = both if both & given.keys() else set()
    if given.get("atomic"):
        dropped = both | {"ignore_result"}  # an atomic task can't have these
    return {**{key: value for key, value in for_all.items() if key not in dropped}, **given}


def register_task(task: T_Task | type[T_Task]) -> T_Task:
    """Register a task that is written as a class: an instance of a subclass of `Task` with a method
    ``run``. Options are attributes of the class; the name is ``module.Class`` without one.

        class Charge(Task):
            max_retries = 5

            def run(self, order_id): ...

        charge = register_task(Charge())

    It may decorate the class itself. Returns the instance. Raises `ConfigurationError`.
    """
    made = task() if isinstance(task, type) else task
    if not isinstance(made, Task):
        raise ConfigurationError(
            f"register_task({told(task)}): it takes an instance of a subclass of jobs.Task. "
            "Decorate a function by @task."
        )
    kind = type(made)
    run, bind = bases.run_of(kind, Task)
    made._set_up(run, {"bind": bind, **bases.named(kind)}, kind)
    return _registered(made)


def _registered(made: T_Task) -> T_Task:
    known = registry.tasks.get(made.name)
    if known is not None:
        functions.check_same(made.name, (known.source, known._origin), (made.source, made._origin))
        if known.source is made.source and known.options != made.options:
            raise ConfigurationError(
                f"Task {made.name!r} is made twice of one function, with other options "
                f"({known._origin.line} and {made._origin.line}). Give one of them another name: "
                "@task(name=…)."
            )
    registry.tasks[made.name] = made
    return made


class CurrentTask:
    """The task that is running here; false where none is."""

    def __bool__(self) -> bool:
        return self._running() is not None

    def __repr__(self) -> str:
        return repr(self._running())

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._running()

    def __hash__(self) -> int:
        return hash(self._running())

    def __getattr__(self, name: str) -> Any:
        running = self._running()
        if running is None:
            raise AttributeError(f"No task is running here that could have {name!r}.")
        return getattr(running, name)

    def _running(self) -> Task[..., Any] | None:
        if directly := direct_calls.get():
            return registry.tasks.get(directly[-1][0])
        running = current.get()
        return running and registry.tasks.get(running[0].task)


#: As in Celery: what `self` is in a task with ``bind=True``, for code that has no ``self``.
current_task = CurrentTask()


def _elsewhere(name: str) -> Task[..., Any]:
    """A task that only another service has. Its calls can be sent, with any arguments; it isn't
    registered, so no worker of this project runs it."""

    def unknown(*args: Any, **kwargs: Any) -> NoReturn:
        registry.find(name)  # which raises
        raise AssertionError(name)

    return Task(unknown, name=name)


registry.elsewhere = _elsewhere


def send_task(
    name: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[SendOptions],
) -> results.AsyncResult[Any]:
    """Send a call of the task of this name, which only another service may know: see
    `Task.apply_async`. Without a queue it goes where JOBS["TASK_ROUTES"] says, or to
    DEFAULT_QUEUE."""
    task = registry.tasks.get(name) or _elsewhere(name)
    result: results.AsyncResult[Any] = task.apply_async(args or (), kwargs, **options)
    return result


#: Celery's name for a task of a reusable app; here every task is one.
shared_task = task


def _other(cause: BaseException | None, error: BaseException | None) -> BaseException | None:
    """What to raise an exception from: not from itself, if it is the one being handled."""
    return error.__cause__ if cause is error and error is not None else cause
