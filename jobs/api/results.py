"""The handles of calls and groups: reading their results, and waiting for them."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import datetime as dt
import sys
import time
import typing
import uuid
from collections.abc import (
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    Protocol,
    cast,
)

from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.db.models import QuerySet

from jobs import (
    broker,
    conf,
    control,
    ledger,
    message,
    serialization,
)
from jobs.api import waiting
from jobs.api.graph import DependencyGraph
from jobs.broker.base import ended
from jobs.broker.base import progress as progress_topic
from jobs.conf.values import nearest
from jobs.exceptions import (
    BrokerUnavailable,
    ResultError,
    ResultTimeout,
    TaskFailed,
    TaskRevoked,
    WaitInTask,
    shown,
)
from jobs.message import celery_names
from jobs.models import TaskResult
from jobs.models.results import TaskResultQuerySet
from jobs.running import progress as reports
from jobs.running import request
from jobs.running.progress import Progress
from jobs.running.request import current
from jobs.states import TERMINAL, State
from jobs.timing import clock

if TYPE_CHECKING:  # type checkers bring it along
    from typing_extensions import TypeVar

    #: With a default, so that ``AsyncResult(id)`` needs no annotation.
    R = TypeVar("R", default=Any)
else:
    R = typing.TypeVar("R")

#: Whether this code may wait for results within a task.
_may_wait: contextvars.ContextVar[bool] = contextvars.ContextVar("jobs.may_wait", default=False)
#: An element for each open `allow_join_result`: threads started within one don't see the variable.
_letting: list[None] = []

#: Seconds after its sending for which a call has probably not ended.
_NEW = 0.1


@contextlib.contextmanager
def allow_join_result() -> Iterator[None]:
    """Let `AsyncResult.get` and its like wait within a task.

    A waiting task keeps its place in the worker. Once waiting tasks hold all places, the calls that
    they wait for get none, and nothing goes on.
    """
    token = _may_wait.set(True)
    _letting.append(None)
    try:
        yield
    finally:
        _letting.pop()
        _may_wait.reset(token)


def assert_will_not_block() -> None:
    """Raise `WaitInTask` in a task that may not wait, or in a thread that such a task started."""
    running = current.get()
    if _may_wait.get():
        return
    if running is not None:
        who = f"Task {running[0].task!r}[{running[0].id}]"
    elif request.in_worker and not _letting:
        who = "The task that has started this thread"
    else:
        return
    raise WaitInTask(
        "Never call result.get() within a task! See https://docs.celeryq.dev/en/latest/"
        f"userguide/tasks.html#avoid-launching-synchronous-subtasks. {who} may have what follows "
        "sent with its result instead: link=, chain or chord, or self.replace(…). If it has to "
        "wait, write get(disable_sync_subtasks=False)."
    )


class Handle(Protocol):
    """What `AsyncResult` and `GroupResult` have in common."""

    id: str

    @property
    def parent(self) -> Handle | None: ...

    def ready(self) -> bool: ...

    def successful(self) -> bool: ...

    def failed(self) -> bool: ...

    def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> Any: ...

    def forget(self) -> None: ...

    def revoke(self, *, terminate: bool = False) -> None: ...

    def as_tuple(self) -> Any: ...

    def as_list(self) -> list[str]: ...


class AsyncResult(Generic[R]):
    """The handle of one call of a task: its state now, its result when it has ended."""

    # A bulk makes as many of these as messages.
    __slots__ = ("_ended", "_ignored", "_parent", "id")

    def __init__(
        self,
        id: str,  # noqa: A002  Celery's name
        *,
        ignored: bool = False,
        parent: Handle | None = None,
        app: object = None,
    ) -> None:
        """``ignored``: the task keeps no result, so `get` gives None at once: waiting would never
        end. ``parent``: the handle of what it follows. ``app`` is Celery's, and not read."""
        if type(id) is not str or not id:
            if isinstance(id, uuid.UUID):
                id = str(id)  # noqa: A001
            elif not isinstance(id, str) or not id:
                # Waiting for it would never end.
                raise ValueError(f"The id of a call is text, not {shown(id)}.")
        self.id = id
        self._parent = parent
        self._ignored = ignored
        self._ended: TaskResult | None = None

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def __str__(self) -> str:
        return self.id

    def __json__(self) -> Any:
        """For a task that returns it: `result_from_tuple` makes the handle again."""
        return self.as_tuple()

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.RESULT))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def task_id(self) -> str:
        """Celery's other name for ``id``."""
        return self.id

    @property
    def ignored(self) -> bool:
        """Whether this handle knows that the call keeps no result."""
        return self._ignored

    @property
    def label(self) -> str:
        """The label that it was sent with, by the ledger; empty: none, or it has no row yet."""
        row = self._row()
        return row.label if row else ""

    # ------------------------------------------------------------------ its relatives

    @property
    def parent(self) -> Handle | None:
        """The handle of what it follows, or of the call that sent it if the ledger knows one."""
        if self._parent is None:
            row = self._row()
            self._parent = AsyncResult(row.parent_id) if row and row.parent_id else None
        return self._parent

    @property
    def root_id(self) -> str:
        """The id of the first in its line of parents; its own, if the ledger knows no other."""
        row = self._row()
        return row.root_id or self.id if row else self.id

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """The calls that it sent, or that followed it, as far as the ledger knows them: from their
        end on, or from the sending if that was in a transaction."""
        rows = _rows().filter(root_id=self.root_id, parent_id=self.id).order_by("id")
        return [AsyncResult(task_id) for task_id in rows.values_list("id", flat=True)]

    def iterdeps(
        self, intermediate: bool = False
    ) -> Iterator[tuple[AsyncResult[Any] | None, AsyncResult[Any]]]:
        """This call and all that followed it, each with the one that it followed, parents first.

        Raises `ResultError` when one has not ended; ``intermediate`` gives those, too.
        """
        waiting: collections.deque[tuple[AsyncResult[Any] | None, AsyncResult[Any]]]
        waiting = collections.deque([(None, self)])
        while waiting:
            before, one = waiting.popleft()
            yield before, one
            if one.ready():
                waiting.extend((one, child) for child in one.children)
            elif not intermediate:
                raise ResultError(
                    f"Task {one.id} has not ended: wait for it, or write intermediate=True."
                )

    def collect(
        self, intermediate: bool = False, **options: Any
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """This call and all that followed it, each with what it returned, parents first.

        ``options``: of `get`. Raises what one of them raised, or `ResultError` when one has not
        ended; ``intermediate`` leaves those out.
        """
        for _, one in self.iterdeps(intermediate):
            if one.ready():
                yield one, one.get(**options)

    def build_graph(self, intermediate: bool = False) -> DependencyGraph:
        """The graph of this call and all that followed it. Raises what `iterdeps` raises."""
        graph = DependencyGraph()
        for before, one in self.iterdeps(intermediate):
            graph.add_arc(one)
            if before is not None:
                graph.add_edge(before, one)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """`build_graph` of calls that have ended."""
        return self.build_graph()

    def as_tuple(self) -> Any:
        """The ids of this call and of those before it, as JSON can store them; `result_from_tuple`
        makes the handle again."""
        return (self.id, self._parent and self._parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Its id, and those of the calls before it that this handle knows."""
        return [self.id, *(self._parent.as_list() if self._parent else ())]

    # ------------------------------------------------------------------ looking

    @property
    def state(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED; while it runs, perhaps a state of
        the task's own. An unknown id is PENDING."""
        row = self._row()
        said = reports.read(self.id, row)
        return said.state if said else _recorded(row)

    status = state

    @property
    def result(self) -> R | BaseException | None:
        """What the task returned, or the exception that ended it; until then, the ``meta`` that it
        gave to `update_state`, or None."""
        row = self._row()
        if row is None or row.state not in TERMINAL:
            said = reports.read(self.id, row)
            return cast(R, said.meta) if said else None
        return cast(R | BaseException, value_of(row))

    @property
    def progress(self) -> Progress | None:
        """The task's last report of its progress; None without one, and after the end."""
        return reports.read(self.id, self._row())

    @property
    def info(self) -> Any:
        """Celery's other name for `result`."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The text of the traceback when the task failed."""
        row = self._row()
        return row.traceback or None if row else None

    @property
    def name(self) -> str | None:
        """The name of its task; None, as the properties below, while it has no row."""
        row = self._row()
        return row.task if row else None

    task_name = name

    @property
    def args(self) -> list[Any] | None:
        """Its positional arguments, sensitive ones hidden."""
        row = self._row()
        return serialization.loads(row.args) if row else None

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """Its keyword arguments, sensitive ones hidden."""
        row = self._row()
        return serialization.loads(row.kwargs) if row else None

    @property
    def queue(self) -> str | None:
        """The queue that it was sent to."""
        row = self._row()
        return row.queue if row else None

    @property
    def worker(self) -> str | None:
        """The worker that ran it; None before."""
        row = self._row()
        return (row.worker or None) if row else None

    @property
    def retries(self) -> int | None:
        """How many attempts have been recorded after the first one."""
        row = self._row()
        return max(0, row.attempts - 1) if row else None

    @property
    def date_done(self) -> dt.datetime | None:
        """When it ended; None before."""
        row = self._row()
        return row.finished_at if row else None

    def ready(self) -> bool:
        """Whether the task has ended."""
        return _recorded(self._row()) in TERMINAL

    def successful(self) -> bool:
        return _recorded(self._row()) == State.SUCCESS

    def failed(self) -> bool:
        return _recorded(self._row()) == State.FAILURE

    def forget(self) -> None:
        """Delete the record of a call that has ended. Otherwise it stays: its row makes sure that
        it runs."""
        _rows().filter(id=self.id, state__in=TERMINAL).delete()
        self._ended = None

    def revoke(self, *, terminate: bool = False, **celerys: Any) -> None:
        """Have the call end as REVOKED: see `jobs.control.revoke`."""
        if celerys:
            refuse_others(celerys, celery_names.REVOKE, "revoke()")
        control.revoke(self.id, terminate=terminate)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any] | Sequence[str],
        *,
        terminate: bool = False,
        **celerys: Any,
    ) -> None:
        """Have all calls with these stamps end as REVOKED, whether or not this call has them: see
        `jobs.control.revoke_by_stamped_headers`."""
        if celerys:
            refuse_others(celerys, celery_names.REVOKE, "revoke_by_stamped_headers()")
        control.revoke_by_stamped_headers(headers, terminate=terminate)

    # ------------------------------------------------------------------ waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        *,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> R:
        """What the task returned, waiting up to ``timeout`` seconds (None: for ever).

        As in Celery, None at once if the call ignores its result. ``callback`` is called with the
        id and the result, ``on_message`` with a dict for each state that the task gives itself
        meanwhile and for its end, and ``on_interval`` each ``interval`` seconds while this waits.
        Further options of Celery's are accepted and do nothing: an end wakes whoever waits.

        Raises the task's own exception (returns it with ``propagate=False``), `TaskRevoked`,
        `ResultTimeout`, and `ResultError` where waiting could never end or the result can't be
        read. Within a task it raises `WaitInTask`, unless ``disable_sync_subtasks=False`` is given
        or `allow_join_result` is open.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "get()")
        if self._ignored:
            return cast(R, None)
        # A call that was sent just now has hardly ended: the look after the subscription will do.
        row = None if self._is_new() else self._row_if_ended()
        if row is None and (on_message or on_interval):
            started = time.monotonic()
            row = self._listen(timeout, interval or _LOOK, on_message, on_interval)
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - started))
        row = row or self._wait(timeout)
        if on_message:
            on_message(self._meta(row.state, value_of(row)))
        value = self._returned(row, propagate=propagate)
        if callback:
            callback(self.id, value)
        return value

    wait = get

    def maybe_throw(
        self, propagate: bool = True, callback: Callable[[str, R], object] | None = None
    ) -> R | None:
        """Raise what the task raised. Otherwise return what it returned, or None while it hasn't
        ended."""
        if not self.ready():
            return None
        return self.get(propagate=propagate, callback=callback, disable_sync_subtasks=False)

    maybe_reraise = maybe_throw
    throw = maybe_throw

    def _meta(self, state: str, result: Any, traceback: str | None = None) -> dict[str, Any]:
        """What Celery's workers tell whoever waits."""
        return {
            "task_id": self.id,
            "status": str(state),
            "result": result,
            "traceback": traceback or (self._ended.traceback or None if self._ended else None),
            "children": [child.as_tuple() for child in self.children] if self._ended else [],
        }

    def _listen(
        self,
        timeout: float | None,
        interval: float,
        on_message: Callable[[dict[str, Any]], object] | None,
        on_interval: Callable[[], object] | None,
    ) -> TaskResult | None:
        """Its end, with these functions called until then. None: the time is over, or the broker
        away."""
        self._refuse_hopeless_wait()
        ends = None if timeout is None else time.monotonic() + timeout
        last = None
        with (
            contextlib.suppress(BrokerUnavailable),
            broker.get().subscribe(ended(self.id), progress_topic(self.id)) as heard,
        ):
            while (row := self._row()) is None or row.state not in TERMINAL:
                said = reports.read(self.id, row)
                if on_message and said is not None and said != last:
                    on_message(self._meta(said.state, said.meta))
                    last = said
                if ends is not None and time.monotonic() >= ends:
                    return None
                heard(_left(ends, interval if on_interval else waiting.DEAF))
                if on_interval:
                    on_interval()
            return row
        return None

    async def aget(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """`get`, without blocking the event loop."""

        if disable_sync_subtasks:
            assert_will_not_block()
        if self._ignored:
            return cast(R, None)
        if self._ended is None:
            async with contextlib.aclosing(waiting.ends([self.id], timeout)) as ends:
                async for row in ends:
                    self._ended = row
        if self._ended is None:
            raise self._timed_out(timeout)
        return self._returned(self._ended, propagate=propagate)

    def follow(self, timeout: float | None = None) -> Iterator[Progress]:
        """The task's reports of its progress as they come, until its end or for ``timeout``
        seconds. Raises `BrokerUnavailable`."""
        ends = None if timeout is None else time.monotonic() + timeout
        last = None
        with broker.get().subscribe(ended(self.id), progress_topic(self.id)) as heard:
            while (row := self._row()) is None or row.state not in TERMINAL:
                said = reports.read(self.id, row)
                if said is not None and said != last:
                    yield (last := said)
                if ends is not None and time.monotonic() >= ends:
                    return
                heard(_left(ends, waiting.DEAF))

    def _wait(self, timeout: float | None) -> TaskResult:
        self._refuse_hopeless_wait()
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                with broker.get().listen(self.id) as heard:
                    # Look only now: from here on an end can't pass unheard.
                    if row := self._row_if_ended():
                        return row
                    heard(_left(ends, waiting.DEAF))
            except BrokerUnavailable:
                if row := self._row_if_ended():
                    return row
                time.sleep(_left(ends, waiting.WITHOUT_BROKER))
            if row := self._row_if_ended():
                return row
            if ends is not None and time.monotonic() >= ends:
                raise self._timed_out(timeout)

    def _is_new(self) -> bool:
        sent = message.id_time(self.id)
        return sent is not None and time.time() - sent < _NEW

    def _timed_out(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"Task {self.id} has not ended within {timeout:g} seconds.")

    def _returned(self, row: TaskResult, *, propagate: bool) -> R:
        """What the task returned, or raise what it raised."""
        if row.state == State.SUCCESS:
            return cast(R, value_of(row))
        error = rebuild(row)
        if propagate:
            raise error from (TaskFailed("\n" + row.traceback) if row.traceback else None)
        return cast(R, error)

    def _refuse_hopeless_wait(self) -> None:
        if connections[ledger.alias()].in_atomic_block:
            row = _rows().filter(id=self.id).first()
            if row and row.published_at is None and row.state == State.PENDING:
                raise ResultError(
                    f"Task {self.id} was sent in the transaction that is still open; it starts "
                    "after the commit. Wait for its result outside of atomic()."
                )

    def _row_if_ended(self) -> TaskResult | None:
        if self._ended is None:
            self._ended = next(iter(ledger.ends([self.id])), None)
        return self._ended

    def _row(self) -> TaskResult | None:
        if self._ended is None:
            row = _rows().filter(id=self.id).defer("message").first()
            if row is None or row.state not in TERMINAL:
                return row
            self._ended = row
        return self._ended


def handle(task_id: str, ignored: bool) -> AsyncResult[Any]:
    """`AsyncResult` of an id that is known to be one, in half the time: a bulk makes thousands."""
    made: AsyncResult[Any] = _new_handle(AsyncResult)
    made.id, made._parent, made._ignored, made._ended = task_id, None, ignored, None
    return made


_new_handle = AsyncResult.__new__


class EagerResult(AsyncResult[R]):
    """The handle of a call that was run where it was asked for, by `Task.apply`. It knows its end,
    which is recorded nowhere."""

    __slots__ = ("_applied",)

    def __init__(self, applied: Any) -> None:
        """``applied``: as `jobs.registry.Inline.apply` returns it."""
        super().__init__(applied.id)
        self._applied = applied

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"

    @property
    def state(self) -> str:
        return str(self._applied.state)

    status = state

    @property
    def result(self) -> R | BaseException | None:
        return cast(R | BaseException | None, self._applied.value)

    info = result

    @property
    def traceback(self) -> str | None:
        return self._applied.traceback or None

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return self.state == State.SUCCESS

    def failed(self) -> bool:
        return self.state == State.FAILURE

    def forget(self) -> None:
        """Nothing is recorded."""

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        *,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> R:
        """What the task returned, or raise what it raised; returns that with
        ``propagate=False``."""
        if propagate and not self.successful():
            raise self._applied.value
        value = cast(R, self._applied.value)
        if callback:
            callback(self.id, value)
        return value

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> R:
        return self.get(propagate=propagate)


#: Options of `AsyncResult.get`.
_GET = ("timeout", "propagate", "interval", "callback", "on_message", "on_interval")


def refuse_others(
    given: Mapping[str, Any], known: Mapping[str, celery_names.Known], what: str
) -> None:
    """Raise `TypeError` for options other than those that are accepted for Celery's sake."""
    for name in celery_names.left_of(given, known):
        raise TypeError(f"{what} has no option {name!r}.{nearest(name, [*known, *_GET])}")


def _recorded(row: TaskResult | None) -> str:
    return str(row.state) if row else str(State.PENDING)


def row_of(task_id: str) -> TaskResult | None:
    """The row of a call, if it has one that can be asked for here: in async code it can't."""
    with contextlib.suppress(SynchronousOnlyOperation):
        return _rows().filter(id=task_id).defer("message", "result", "traceback").first()
    return None


def _rows() -> QuerySet[TaskResult]:
    return TaskResult.objects.using(ledger.alias())


def _left(ends: float | None, at_most: float) -> float:
    return at_most if ends is None else max(0.0, min(at_most, ends - time.monotonic()))


def value_of(row: TaskResult) -> Any:
    """What an ended task returned, or the exception that ended it.

    Raises `ResultError` for a result that can't be read: another program or a later version of
    this one may have written it.
    """
    if row.state != State.SUCCESS:
        return rebuild(row)
    if row.result is None:
        return None
    try:
        return serialization.loads(row.result)
    except (ValueError, TypeError, RecursionError) as error:
        raise ResultError(
            f"Task {row.id} has succeeded, but its result can't be read: {error}."
        ) from error


def rebuild(row: TaskResult) -> BaseException:
    """The exception that ended a task. It has its own class if that is imported here and can be
    made of its arguments, else it is a `TaskFailed`."""
    if row.state == State.REVOKED:
        return TaskRevoked(f"Task {row.id} did not run: {row.error}")
    try:
        stored = serialization.loads(row.result or "{}")
        found: Any = sys.modules[stored["exc_module"]]
        for name in stored["exc_type"].split("."):
            found = getattr(found, name)
        args = stored["exc_message"]
        if isinstance(found, type) and issubclass(found, Exception):
            made = found(*args) if isinstance(args, list) else found(args)
            if isinstance(made, Exception):
                return made
    except (Exception, SystemExit):  # noqa: BLE001  whatever a foreign constructor raises
        pass  # `TaskFailed` says it
    return TaskFailed(f"{row.error_type}: {row.error}")


#: Longest time, in seconds, between two looks at the ledger for ends that were not heard of.
_LOOK = 0.5
#: Most ids in one query.
_BATCH = 500


class GroupResult:
    """The handle of a group: the results of its members, in their order."""

    __slots__ = ("id", "parent", "results")

    def __init__(
        self,
        id: str,  # noqa: A002  Celery's name
        results: Sequence[Handle] | None = None,
        *,
        parent: Handle | None = None,
    ) -> None:
        """``results``: the handles of its members; by default those that the ledger knows, which
        are all of them if it was sent in a transaction or all have ended. ``parent``: the handle of
        the call before it."""
        self.id = id
        self.parent = parent
        if results is None:
            ids = _rows_of_group(id).order_by("group_index").values_list("id", flat=True)
            results = [AsyncResult(task_id) for task_id in ids]
        self.results: list[Handle] = list(results)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id}, {len(self.results)} members>"

    def __str__(self) -> str:
        return self.id

    def __json__(self) -> Any:
        """For a task that returns it: `result_from_tuple` makes the handle again."""
        return self.as_tuple()

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.GROUP))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Handle]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Handle:
        return self.results[index]

    @property
    def children(self) -> list[Handle]:
        return self.results

    # ------------------------------------------------------------------ keeping it

    def as_tuple(self) -> Any:
        """The ids of the group, of its members and of the calls before it, as JSON can store them;
        `result_from_tuple` makes the handle again."""
        members = [result.as_tuple() for result in self.results]
        return (self.id, self.parent and self.parent.as_tuple()), members

    def as_list(self) -> list[str]:
        """The ids of its members."""
        return [result.id for result in self.results]

    def save(self) -> None:
        """Keep it in the ledger, for as long as results are kept: `restore` makes it again by its
        id. A group that was sent in a transaction, or that has ended, needs none of this."""
        text = serialization.dumps(self.as_tuple())
        now = clock.now()
        _rows().update_or_create(
            id=self.id,
            defaults={
                "task": _SAVED,
                "queue": conf.get().default_queue,
                "state": State.SUCCESS,
                "result": text,
                "attempts": 1,
                "created_at": now,
                "published_at": now,
                "finished_at": now,
            },
        )

    @classmethod
    def restore(cls, id: str, app: object = None) -> GroupResult | None:  # noqa: A002
        """The group of this id: as it was saved, else with the members that the ledger knows; None
        if there are none. ``app`` is Celery's, and not read."""
        row = _rows().filter(id=id, task=_SAVED).first()
        if row is not None:
            saved: GroupResult = result_from_tuple(serialization.loads(row.result or "null"))
            return saved
        return found if (found := cls(id)).results else None

    def delete(self) -> None:
        """Forget what `save` has kept."""
        _rows().filter(id=self.id, task=_SAVED).delete()

    # ------------------------------------------------------------------ looking

    def completed_count(self) -> int:
        """How many members have succeeded."""
        return _rows_of_group(self.id).filter(state=State.SUCCESS).count()

    def ready(self) -> bool:
        """Whether all members have ended. Those that keep no result don't count: nobody knows."""
        return self._all(*TERMINAL)

    def successful(self) -> bool:
        """Whether all members have succeeded; those that keep no result don't count."""
        return self._all(State.SUCCESS)

    def _all(self, *states: str) -> bool:
        rows = _rows_of_group(self.id).filter(state__in=states)
        ignored = self._nobodys()
        if ignored:  # sent in a transaction, they have rows
            rows = rows.exclude(id__in=ignored)
        return rows.count() >= len(self) - len(ignored)

    def failed(self) -> bool:
        """Whether a member has failed or was revoked."""
        return _rows_of_group(self.id).filter(state__in=(State.FAILURE, State.REVOKED)).exists()

    def waiting(self) -> bool:
        """Whether a member has not ended yet."""
        return not self.ready()

    def forget(self) -> None:
        """Delete the records of members that have ended."""
        _rows_of_group(self.id).filter(state__in=TERMINAL).delete()

    def revoke(self, *, terminate: bool = False, **celerys: Any) -> None:
        """Have each member end as REVOKED: see `jobs.control.revoke`."""
        if celerys:
            refuse_others(celerys, celery_names.REVOKE, "revoke()")
        for result in self.results:
            result.revoke(terminate=terminate)

    # ------------------------------------------------------------------ waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        *,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> list[Any]:
        """What the members returned, in their order, waiting up to ``timeout`` seconds (None: for
        ever). ``callback`` is called with the id and the result of each, in this order, and
        ``on_message`` with a dict for each that has ended. ``interval`` and further options of
        Celery's are accepted and do nothing.

        Raises what a member raised as soon as that is known (with ``propagate=False`` it is in the
        list), and what `AsyncResult.get` raises.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "get()")
        found = {}
        for task_id, value in self._ends(timeout, propagate=propagate):
            found[task_id] = value
            if on_message:
                on_message(_meta_of(task_id, value))
        for result in self.results if callback else ():
            callback(result.id, found[result.id])  # type: ignore[misc]
        return [found[result.id] for result in self.results]

    join = get
    join_native = get

    def iter_native(
        self, timeout: float | None = None, interval: float | None = None, **celerys: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The id of each member as soon as it has ended, and a dict that tells its end. Takes and
        raises what `iterate` takes and raises, but for the errors of members."""
        assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "iter_native()")
        for task_id, value in self._ends(timeout, propagate=False):
            yield task_id, _meta_of(task_id, value)

    def maybe_throw(self, propagate: bool = True) -> None:
        """Raise what a member that has ended has raised."""
        for row in self._rows_of_ended().exclude(state=State.SUCCESS) if propagate else ():
            raise rebuild(row)

    maybe_reraise = maybe_throw

    async def aget(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """`get`, without blocking the event loop."""

        if disable_sync_subtasks:
            assert_will_not_block()
        found = dict.fromkeys(self._nobodys())
        left = {result.id for result in self.results} - found.keys()
        async with contextlib.aclosing(waiting.ends(left, timeout)) as ends:
            async for row in ends:
                left.discard(row.id)
                found[row.id] = _value(row, propagate=propagate)
        if left:
            raise self._timed_out(len(left), timeout)
        return [found[result.id] for result in self.results]

    def iterate(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        *,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> Iterator[Any]:
        """What the members returned, each as soon as it has ended. Takes and raises what `get`
        takes and raises."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "iterate()")
        return (value for _, value in self._ends(timeout, propagate=propagate))

    def _ends(self, timeout: float | None, *, propagate: bool) -> Iterator[tuple[str, Any]]:
        left = {result.id: result for result in self.results}
        for nobodys in self._nobodys():
            del left[nobodys]
            yield nobodys, None  # as `AsyncResult.get` of one gives
        ends = None if timeout is None else time.monotonic() + timeout
        known = 0
        while True:
            count = self._rows_of_ended().count() if len(left) > _BATCH else None
            if count is None or count != known:
                for row in self._ended(left):
                    yield row.id, _value(row, propagate=propagate)
            known = count or 0
            if not left:
                return
            if ends is not None and time.monotonic() >= ends:
                raise self._timed_out(len(left), timeout)
            # By the end of the last one, most others have ended, too.
            _wait(next(reversed(left.values())), _left(ends, _LOOK))

    def _ended(self, left: dict[str, Handle]) -> Iterator[TaskResult]:
        """Those of these members that have ended; they leave ``left``."""
        rows = self._rows_of_ended()
        asked = [*left]
        if len(left) > _BATCH:  # the ids of all are less than asking for each of many
            asked = [one for one in rows.values_list("id", flat=True).iterator() if one in left]
        for part in ledger.chunks(asked, _BATCH):
            for row in ledger.ends(part):
                del left[row.id]
                yield row

    def _rows_of_ended(self) -> TaskResultQuerySet:
        return _rows_of_group(self.id).filter(state__in=TERMINAL)

    def _nobodys(self) -> list[str]:
        """The ids of members that keep no result."""
        return [one.id for one in self.results if isinstance(one, AsyncResult) and one.ignored]

    def _timed_out(self, left: int, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(
            f"{left} of the {len(self)} members of group {self.id} have not ended within "
            f"{timeout:g} seconds."
        )


#: The task of a row that `GroupResult.save` writes.
_SAVED = "jobs.group"


def _meta_of(task_id: str, value: Any) -> dict[str, Any]:
    """What Celery's workers tell whoever waits for a member of a group."""
    failed = isinstance(value, TaskRevoked) and State.REVOKED
    failed = failed or (isinstance(value, BaseException) and State.FAILURE)
    return {"task_id": task_id, "status": str(failed or State.SUCCESS), "result": value}


def result_from_tuple(found: Any, app: object = None) -> Any:
    """The handle of which `AsyncResult.as_tuple` or `GroupResult.as_tuple` made this; a handle is
    returned as it is. ``app`` is Celery's, and not read.

    Raises `ValueError` for anything else.
    """
    if isinstance(found, AsyncResult | GroupResult):
        return found
    try:
        head, members = found
        task_id, parent = head if isinstance(head, list | tuple) else (head, None)
    except (TypeError, ValueError):
        raise ValueError("This is not the tuple of a result: write result.as_tuple().") from None
    before = result_from_tuple(parent) if parent else None
    if members is None:
        return AsyncResult(task_id, parent=before)
    return GroupResult(task_id, [result_from_tuple(one) for one in members], parent=before)


def _value(row: TaskResult, *, propagate: bool) -> Any:
    value = value_of(row)
    if propagate and row.state != State.SUCCESS:
        raise value
    return value


def _wait(result: Handle, seconds: float) -> None:
    with contextlib.suppress(ResultTimeout):
        result.get(timeout=seconds, propagate=False, disable_sync_subtasks=False)


def _rows_of_group(group_id: str) -> TaskResultQuerySet:
    return TaskResult.objects.using(ledger.alias()).filter(group_id=group_id)
