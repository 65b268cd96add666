"""Tasks: what the decorator makes of a function, and the table of those known here."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async
from django.db.models import Model
from django.dispatch import Signal
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules

from jobs import conf, known, publish, routing, triggers, unique
from jobs.canvas import Composing, as_dicts, check_linked
from jobs.exceptions import ConfigurationError, Retry
from jobs.message import Message, encode, new_id
from jobs.options import Options, SingleOptions, TaskOptions
from jobs.parameters import ANY, Key, places_of, shown, signature_of
from jobs.rates import Rate
from jobs.request import Request, current, request_of
from jobs.results import AsyncResult
from jobs.routing import Address, Plan, Route
from jobs.running import Running
from jobs.sending import OPTIONS, Send, SendOptions, SharedOptions, end

P = ParamSpec("P")
R = TypeVar("R")

#: Name → task, of every task whose module has been imported.
tasks: dict[str, Task[..., Any]] = known.tasks

_NONE: Mapping[str, Any] = {}

#: A send without options.
_PLAINLY = Send()


def autodiscover() -> None:
    """Import the module ``tasks`` (JOBS["TASK_MODULE"]) of every installed app that has one."""
    autodiscover_modules(conf.peek().task_module)


class Task(Running, Composing, Generic[P, R]):
    """A function that can be sent to a worker. Calling it runs it here and now."""

    def __init__(self, run: Callable[..., R], **options: Unpack[TaskOptions]) -> None:
        functools.update_wrapper(self, run)
        self.run = run
        try:
            self.options = Options(**options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"@task of {_place(run)}: {error}.") from error
        self.name = self.options.name or _place(run)
        # Asked for at every call.
        self.queue = self.options.queue
        self.priority = self.options.priority or 0
        self.route = Route(
            self.queue,
            self.options.exchange,
            self.options.routing_key,
            self.options.priority,
        )
        self._plan: Plan | None = None
        self.bind = self.options.bind
        self.ignore_result = self.options.ignore_result
        self.durable = self.options.durable
        self.expires = self.options.expires
        self.atomic = self.options.atomic
        self.acks_early = self.options.acks == "early"
        self.time_limit = self.options.time_limit
        self.soft_time_limit = self.options.soft_time_limit
        self.batch = self.options.batch or 0
        self.is_async = inspect.iscoroutinefunction(run)
        if self.is_async and self.options.atomic:
            raise ConfigurationError(
                f"@task of {_place(run)}: Django's transactions are not for 'async def'; an "
                "atomic task is an ordinary function."
            )
        if self.is_async and self.batch:
            raise ConfigurationError(
                f"@task of {_place(run)}: a task with batch= is an ordinary function, not "
                "'async def'."
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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(self, *args, **kwargs) if self.bind else self.run(*args, **kwargs)

    @property
    def request(self) -> Request:
        """The call that is running; raises `RuntimeError` outside of a worker."""
        running = current.get()
        if running is None:
            raise RuntimeError(f"Task {self.name!r} is not being run by a worker.")
        return request_of(*running)

    def retry(
        self,
        *,
        exc: BaseException | None = None,
        countdown: float | None = None,
        eta: dt.datetime | None = None,
        max_retries: int | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """End this attempt and have the call tried again, after ``countdown`` seconds, at ``eta``,
        or after the task's own delay; with other arguments, if any are given.

        Raises `Retry`, which the worker understands; when there is no attempt left the call fails
        with ``exc``, or `MaxRetriesExceeded`.
        """
        if exc is None:
            exc = sys.exception()
        raise Retry(
            exc=exc,
            countdown=countdown,
            eta=eta,
            max_retries=max_retries,
            args=args,
            kwargs=kwargs,
        ) from exc

    # ------------------------------------------------------------------ sending

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send this call to a worker: `apply_async` with no options."""
        return self.apply_async(args, kwargs)

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
        sent = self._message(args, kwargs or _NONE, self._shared(send), send)
        if self.uniqueness is not None and not send.chain:
            # The first of a chain isn't: with its place taken the rest would never come.
            return self._send_unique((sent,), send)[0]
        publish.send((sent,), durable=self.durable, using=send.using, retry_policy=send.policy())
        return self._handle(sent)

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
                sent.append(self._message(call, _NONE, shared, send))
        if sent and self.uniqueness is not None:
            return self._send_unique(sent, send)
        if sent:
            publish.send(sent, durable=self.durable, using=send.using, retry_policy=send.policy())
        return [self._handle(message) for message in sent]

    def _send_unique(self, messages: Sequence[Message], send: Send) -> list[AsyncResult[R]]:
        """Those that no other call stands for; for each the handle of the one that does."""
        assert self.uniqueness is not None
        for sent in messages:
            if self.uniqueness.quiet and sent.eta is None:
                sent.eta = timezone.now() + dt.timedelta(seconds=self.uniqueness.quiet)
            sent.unique = self._lock_name(sent)
        ids = unique.send(
            messages,
            self.uniqueness,
            durable=self.durable,
            using=send.using,
            retry_policy=send.policy(),
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
        publish.send((self.message(args, {}),), durable=self.durable, once=once)

    def message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        **options: Unpack[SendOptions],
    ) -> Message:
        """The message of a call, checked and not sent."""
        send = self._send(options)
        return self._message(args, kwargs, self._shared(send), send)

    def _message(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        shared: Message,
        send: Send,
    ) -> Message:
        self.check_arguments(args, kwargs)
        # What `copy.copy` does, after a search for it that takes longer.
        sent: Message = shared.__copy__()  # type: ignore[attr-defined]
        sent.id = send.task_id or new_id()
        sent.args = list(args)
        sent.kwargs = dict(kwargs) if kwargs else {}
        if not sent.queue:
            self._ask(sent, send)
        return sent

    def _send(self, options: Mapping[str, Any]) -> Send:
        if not options:
            return _PLAINLY
        for name in options:
            if name not in OPTIONS:
                raise TypeError(
                    f"Task {self.name!r} can't be sent with {name!r}, which is no option."
                    f"{conf.nearest(name, OPTIONS)}"
                )
        try:
            return Send(**options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"Task {self.name!r} can't be sent: {error}.") from None

    def _shared(self, send: Send) -> Message:
        """What all messages of one bulk have in common; a copy is several times as quick to make
        as a new message."""
        eta = send.due()
        expires = self.expires if send.expires is None else send.expires
        ignored = self.ignore_result if send.ignore_result is None else send.ignore_result
        running = current.get()
        address, priority = self._address(send)
        shared = Message(
            task=self.name,
            id="",
            queue=address.queues[0] if address else "",
            priority=priority if send.priority is None else send.priority,
            eta=eta,
            expires=None if expires is None else end(expires, eta),
            ignore_result=ignored,
            own_headers=dict(send.headers) if send.headers else {},
            embed=_embed(send),
            group=send.group_id,
            group_index=send.group_index,
            sensitive=self.sensitive,
            parent_id=running and running[0].id,
            root_id=running and (running[0].root_id or running[0].id),
        )
        if address and address.exchange:
            _put(shared, address)
        return shared

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `TypeError` when the function can't be called with these."""
        if not kwargs and self._arity is not None and len(args) in self._arity:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"Task {self.name}{shown(self._signature)} {error}.") from None

    def _handle(self, sent: Message) -> AsyncResult[R]:
        return AsyncResult(sent.id, ignored=bool(sent.ignore_result))

    def _address(self, send: Send) -> tuple[Address | None, int]:
        """Where a call goes, None when functions are to be asked with its arguments; and its
        priority if it names none."""
        router, plan = routing.get(), self._plan
        if plan is None or plan.router is not router:
            plan = self._plan = router.plan(self)
        address = plan.address
        if address is None or send.queue or send.exchange or send.routing_key:
            named = Route(send.queue or "", send.exchange or "", send.routing_key or "")
            address = None if plan.asks else router.lead(self.name, named.over(plan.route))
        return address, plan.priority

    def _ask(self, sent: Message, send: Send) -> None:
        """Have the functions of JOBS["TASK_ROUTES"] say where a call goes."""
        given = {name: getattr(send, name) for name in OPTIONS}
        options = {name: value for name, value in given.items() if value is not None}
        address, sent.priority = routing.get().find(
            self.name, sent.args, sent.kwargs, options, self
        )
        _put(sent, address)


def use_rate(task: Task[..., Any], rate: Rate | None) -> None:
    """Limit a task's calls in this worker by this rate, whatever its code says; None: by none."""
    task.rate = rate
    task.limited = rate is not None or task.concurrency is not None


def _put(sent: Message, address: Address) -> None:
    for name, value in address.fields().items():
        setattr(sent, name, value)


def _embed(send: Send) -> dict[str, Any]:
    """What follows the call, in the form of its message."""
    if not (send.link or send.link_error or send.chain or send.chord):
        return {}
    link = as_dicts(send.link) if send.link else None
    link_error = as_dicts(send.link_error) if send.link_error else None
    check_linked({"link": link, "link_error": link_error})
    return {
        "callbacks": link,
        "errbacks": link_error,
        "chain": list(send.chain) if send.chain else None,
        "chord": send.chord,
    }


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
    if known is not None and _place(known.run) != _place(run):
        raise ConfigurationError(
            f"Two functions are called {made.name!r}: {_place(known.run)} and {_place(run)}. "
            "Give one of them another name: @task(name=…)."
        )
    tasks[made.name] = made
    return made


#: Celery's name for a task of a reusable app; here every task is one.
shared_task = task


def _place(run: Callable[..., Any]) -> str:
    return f"{run.__module__}.{run.__qualname__}"
