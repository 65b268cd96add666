"""Values: a delivery to a worker, its outcome (decided once), and the row of that outcome."""

from __future__ import annotations

import concurrent.futures
import contextvars
import datetime as dt
import inspect
import logging
import math
import time
import traceback
import types
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from jobs import conf, ledger, limits, message, serialization
from jobs.api.task import Task
from jobs.broker.base import Outgoing
from jobs.broker.limiting import Lock, Slot
from jobs.broker.sharding import queue_of
from jobs.control.metrics import FAILED
from jobs.exceptions import (
    MalformedMessage,
    MessageError,
    Reject,
    ResultNotSerializable,
    WorkerLost,
    shown,
)
from jobs.ledger import unique
from jobs.ledger.outcomes import Attempt, Record
from jobs.message import Message, id_time
from jobs.message.workflow import Call, Counted
from jobs.running import progress
from jobs.running.request import said
from jobs.states import State

log = logging.getLogger("jobs.worker")


# Neither deliveries nor outcomes are ever part of a cycle (gc=False): the garbage collector has
# thousands fewer objects to look at.


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One handing of a message to this worker, with its task."""

    #: The shard that it was claimed from; `Message.queue` is the queue.
    queue: str
    number: int
    raw: bytes
    message: Message
    task: Task[..., Any]
    #: When it was claimed (monotonic seconds); infinite: just now.
    claimed: float = math.inf
    #: False: it was acknowledged before it ran.
    held: bool = True
    #: The other deliveries of its batch, which run with it.
    others: tuple[Delivery, ...] = ()
    #: Slots of concurrency limits that it holds while it runs.
    slots: tuple[Slot, ...] = ()
    #: Whether it was given a permit of its rate limit.
    permit: bool = False


def each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Flatten batches into single deliveries."""
    return [one for delivery in deliveries for one in (delivery, *delivery.others)]


class Member(NamedTuple):
    """A member of a chord that has ended."""

    id: str
    group_id: str
    root_id: str
    #: The chord's body, as in the member's message, if a Celery client may have sent that.
    body: Call | None = None
    #: As of `Message`.
    celery: bool = False
    #: As of `Following`.
    context: contextvars.Context | None = None


class Following(NamedTuple):
    """What is sent, or ends, after the end of a call."""

    messages: Sequence[Message] = ()
    #: Chords whose headers are among these messages.
    chords: Sequence[Counted] = ()
    #: The ends of calls that will not be sent.
    ends: Sequence[Record] = ()
    #: Which of all these ended calls, the first one included, are members of chords.
    members: Sequence[Member] = ()
    #: The id of the call that these messages replace: their last task ends under it.
    replaces: str = ""
    #: What Celery's clients see as the call's children; see `celery_results`.
    children: Sequence[Any] = ()
    #: The context of the call, in which receivers of `task_sending` hear of these messages; None
    #: if there are no receivers.
    context: contextvars.Context | None = None


#: The usual case.
NOTHING = Following()

#: The size of an outcome with fewer bytes counts as 0: batches are bounded by their number, too.
_SMALL = 4096


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one delivery, decided once and never changed. Its class says what the broker
    is to do with the delivery."""

    #: The shard of its delivery.
    queue: str
    number: int
    #: When its delivery was claimed (monotonic seconds); infinite: just now.
    claimed: float = math.inf
    #: False: it was acknowledged before it ran.
    held: bool = True
    #: Slots of concurrency limits that its delivery held.
    slots: tuple[Slot, ...] = ()
    #: The unique lock of its call, which is freed when the call has ended.
    lock: Lock | None = None
    #: The call's row, if it gets one.
    record: Record | None = None
    #: What is sent, or ends too, when this is recorded.
    following: Following = NOTHING
    #: The id of the call, when those who wait for its result are to be woken.
    ended: str = ""
    #: What it counts as: `jobs.control.metrics.SUCCEEDED` or the like, or "" for nothing.
    counts: str = ""
    #: The call that counts, if the message can be read.
    call: Message | None = None
    #: When its attempt began and ended (Unix seconds); 0: none was made.
    began: float = 0.0
    over: float = 0.0
    #: Ids of other calls that have ended with it: those who wait for them are woken as well.
    told: Sequence[str] = ()
    #: The task raised: it may have left its database connection in any state.
    failed: bool = False
    #: The id of the call, when it has notes on the broker.
    reported: str = ""
    #: What Celery's clients see as calls that it has sent itself; see `celery_results`.
    children: Sequence[Any] = ()
    #: About how many bytes it holds, when they are many: see `weighed`.
    size: int = 0


class Done(Outcome, frozen=True):
    """Acknowledge it: it is finished."""


class Dead(Outcome, frozen=True, kw_only=True):
    """Keep it as a dead letter: it can't be run."""

    reason: str
    #: The message, to be buried if its delivery isn't held.
    raw: bytes = b""


class Later(Outcome, frozen=True, kw_only=True):
    """Put a message among the due ones in its place."""

    raw: bytes
    priority: int
    #: When (Unix seconds).
    due: float
    #: The attempt that has failed, if this is another one.
    attempt: Attempt | None = None
    #: The slot that it waits for.
    waits_for: Slot | None = None
    #: The queue that it goes to, if that is another one.
    to: Outgoing | None = None


class Back(Outcome, frozen=True, kw_only=True):
    """Give it back as it is: it isn't finished."""

    raw: bytes
    priority: int


def buried(outcome: Outcome, why: str) -> Dead:
    """A dead letter in place of an outcome that can't be recorded."""
    raw = outcome.raw if isinstance(outcome, Dead | Later | Back) else b""
    return Dead(
        outcome.queue,
        outcome.number,
        outcome.claimed,
        outcome.held,
        outcome.slots,
        outcome.lock,
        ended=outcome.ended,
        failed=True,
        reported=outcome.reported,
        counts=FAILED,
        call=outcome.call,
        began=outcome.began,
        over=outcome.over,
        reason=why,
        raw=raw,
    )


def weighed(outcome: Outcome) -> Outcome:
    """The outcome with its size, if that is large."""
    size = len(outcome.raw) if isinstance(outcome, Dead | Later | Back) else 0
    if (record := outcome.record) is not None:
        size += sum(map(len, filter(None, record[4:10]))) + len(record.message)
    if isinstance(outcome, Later) and outcome.attempt is not None:
        size += len(outcome.attempt.error) + len(outcome.attempt.traceback)
    if outcome.following is not NOTHING:
        size += sum(len(one.body or "") for one in outcome.following.messages)
    return replace(outcome, size=size) if size > _SMALL else outcome


def after_run(outcome: Outcome, delivery: Delivery) -> Outcome:
    """The outcome of a delivery that has run: with its size, and with what it has reported."""
    if said:
        said.pop(delivery.message.id, None)
    if progress.told and (reported := progress.over(delivery.message.id)):
        outcome = replace(outcome, reported=reported)
    # Only what may be long is weighed. Arguments are no longer than the message.
    if (
        outcome.failed
        or outcome.following is not NOTHING
        or len(delivery.raw) > _SMALL
        or (outcome.record is not None and len(outcome.record.result or "") > _SMALL)
    ):
        return weighed(outcome)
    return outcome


def origin(
    delivery: Delivery,
) -> tuple[str, int, float, bool, tuple[Slot, ...], Lock | None]:
    """The first values of any outcome: those that come from its delivery."""
    sent = delivery.message
    return (
        delivery.queue,
        delivery.number,
        delivery.claimed,
        delivery.held,
        slots_of(delivery) if delivery.task.concurrency is not None else delivery.slots,
        lock_of(sent, delivery.task) if sent.unique else None,
    )


def limit_of(delivery: Delivery) -> str:
    """The name of a delivery's limits. Raises what the task's own ``key`` function raises."""
    task, sent = delivery.task, delivery.message
    key = None if task.key is None else task.key(sent.args, sent.kwargs)
    return limits.name_of(task.name, key)


def slots_of(delivery: Delivery) -> tuple[Slot, ...]:
    """The slots that the call of a delivery may still hold because its former process died."""
    if delivery.slots or delivery.task.concurrency is None:
        return delivery.slots
    try:
        name = limit_of(delivery)
    except Exception:  # noqa: BLE001  the task's own function, which has failed before
        return ()
    return (Slot(name, delivery.task.concurrency, delivery.message.id, delivery.queue),)


def lock_of(sent: Message, task: Task[..., Any] | None) -> Lock | None:
    """The unique lock that a call gives up at its end. The lock of a window stays."""
    if not sent.unique:
        return None  # the usual case, at every task
    asked = task.uniqueness if task else None
    if asked and asked.window:
        return None
    return unique.lock_of(sent, asked) if asked else Lock(sent.unique, sent.id)


def most_crashes(task: Task[..., Any]) -> int:
    """How many processes may die while running a call of this task."""
    own = task.options.max_crashes
    return conf.get().max_crashes if own is None else own


# ------------------------------------------------------------------------------- the row

#: Most characters that are stored of an error's text, and as many of its traceback.
ERROR_MOST = 32_000

_UTC = dt.UTC
_from_timestamp = dt.datetime.fromtimestamp


class Run(msgspec.Struct, frozen=True, gc=False):
    """One attempt: by whom, and when it began (Unix seconds)."""

    worker: str
    started: float


def ignores_result(sent: Message, task: Task[..., Any] | None) -> bool:
    if sent.ignore_result is not None or task is None:
        return bool(sent.ignore_result)
    return task.ignore_result


def is_kept(sent: Message, task: Task[..., Any] | None) -> bool:
    """Whether the call has a row. A call that ignores its result and was sent outside a transaction
    has none."""
    if sent.ledger or (task is not None and task.atomic):
        return True
    ignores = sent.ignore_result
    if ignores is None and task is not None:
        ignores = task.ignore_result
    if not ignores:
        return True
    return bool(sent.embed and sent.embed.get("chord"))  # a chord counts its members' ends


def of_success(sent: Message, task: Task[..., Any] | None, run: Run, result: Any) -> Record:
    """The row of a call that is kept (`is_kept`). Raises `ResultNotSerializable`."""
    text = None if ignores_result(sent, task) else result_text(result, sent.task)
    return _record(sent, State.SUCCESS, run, message=b"", result=text)


def of_start(sent: Message, task: Task[..., Any], raw: bytes, run: Run) -> Record | None:
    """The row of a call that runs."""
    if not is_kept(sent, task):
        return None
    return ledger.bounded(_record(sent, State.STARTED, run, message=raw)._replace(finished_at=None))


def of_failure(
    sent: Message,
    task: Task[..., Any] | None,
    raw: bytes,
    run: Run,
    error: BaseException,
    state: State = State.FAILURE,
) -> Record | None:
    """The row of a failure or, with ``state`` REVOKED, of a call that will not run."""
    if is_kept(sent, task) or (task is not None and task.store_errors_even_if_ignored):
        return failure(sent, raw, run, error, state)
    return None


def failure(
    sent: Message, raw: bytes, run: Run, error: BaseException, state: State = State.FAILURE
) -> Record:
    """`of_failure`, whether or not the call asks for a row."""
    told = describe(error)
    return _record(
        sent,
        state,
        run,
        message=raw,
        result=told.stored,
        error_type=told.kind,
        error=told.text,
        traceback=told.traceback,
    )


def of_retry(
    sent: Message, task: Task[..., Any], again: bytes, due: float, run: Run, error: BaseException
) -> tuple[Record | None, Attempt | None]:
    """The row that waits for the next attempt, and the attempt that is over. ``again``: the next
    attempt's message. ``due``: its time (Unix seconds)."""
    if not is_kept(sent, task):
        return None, None
    told = describe(error)
    waiting = _record(
        sent,
        State.RETRY,
        run,
        message=again,
        error_type=told.kind,
        error=told.text,
        traceback=told.traceback,
    )._replace(eta=_from_timestamp(due, _UTC), finished_at=None)
    over = Attempt(
        result_id=sent.id,
        number=sent.attempt,
        worker=run.worker,
        started_at=waiting.started_at,
        finished_at=_from_timestamp(time.time(), _UTC),
        error_type=told.kind,
        error=told.text,
        traceback=told.traceback,
        retry_at=waiting.eta,
        # Of a later one, the attempt before it says so. An operator may have had it run earlier.
        eta=sent.eta and min(sent.eta, waiting.started_at or sent.eta)
        if not sent.retries
        else None,
    )
    return waiting, over


#: Types that `check_result` need not look at: those of nearly every result.
PLAIN = frozenset({type(None), bool, int, float, str, dict})

#: Types that stand for work that is still to be done.
_UNDONE = (
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    concurrent.futures.Future,
    map,
    filter,
)


def check_result(result: Any, sent: Message, task: Task[..., Any]) -> None:
    """Raise `ResultNotSerializable` for a result that stands for work nobody has done: a coroutine,
    a generator, a future."""
    if type(result) in PLAIN:
        return
    found = [result]
    if type(result) in (list, tuple):
        # Where the result is kept, the encoder refuses such members.
        found = list(result) if ignores_result(sent, task) else []
    undone = [
        one
        for one in found
        if issubclass(kind := type(one), _UNDONE)
        or hasattr(kind, "__await__")
        or hasattr(kind, "__anext__")
    ]
    for one in undone:
        if inspect.iscoroutine(one):
            one.close()  # or Python warns that nobody awaited it
    if undone:
        raise ResultNotSerializable(
            f"Task {task.name!r} returned a {type(undone[0]).__name__}, whose work nobody has "
            "done. Declare it with 'async def' and await what it calls, or return list(…) of a "
            "generator."
        )


def result_text(result: Any, task: str) -> str:
    """The JSON of what a task returned; raises `ResultNotSerializable`."""
    if result is None:
        return "null"
    try:
        text = serialization.dumps(result)
    except Exception as error:  # values in it may raise anything
        raise ResultNotSerializable(
            f"Task {task!r} returned a {type(result).__name__} that can't be stored: "
            f"{text_of(error)}. "
            "Return what JSON holds, or set ignore_result=True."
        ) from error
    limit = conf.get().result_max_bytes
    if len(text) > limit:
        raise ResultNotSerializable(
            f"Task {task!r} returned {len(text):,} bytes of JSON; JOBS['RESULT_MAX_BYTES'] "
            f"allows {limit:,}. Store the data and return its key."
        )
    return text


def _record(
    sent: Message,
    state: State,
    run: Run,
    *,
    message: bytes,
    result: str | None = None,
    error_type: str = "",
    error: str = "",
    traceback: str = "",
) -> Record:
    began = _from_timestamp(run.started, _UTC)
    sent_at = id_time(sent.id)
    created = began if sent_at is None else _from_timestamp(sent_at, _UTC)
    return Record(
        id=sent.id,
        task=sent.task,
        queue=sent.queue,
        state=state.value,
        args=_arguments(sent.shown_args) if sent.args else "[]",
        kwargs=_arguments(sent.shown_kwargs) if sent.kwargs else "{}",
        result=result,
        error_type=error_type,
        error=error,
        traceback=traceback,
        attempts=sent.attempt,
        worker=run.worker,
        created_at=created,
        eta=sent.eta,
        started_at=began,
        finished_at=_from_timestamp(time.time(), _UTC),
        # A call that has no row yet was put on its queue at once.
        published_at=created,
        message=message,
        group_id=sent.group,
        group_index=sent.group_index,
        parent_id=sent.parent_id if sent.parent_id != sent.id else None,  # as in a retry
        root_id=sent.root_id if sent.root_id != sent.id else None,
        label=sent.label,
    )


class Described(NamedTuple):
    """An exception as it is stored."""

    kind: str
    text: str
    traceback: str
    #: Celery's JSON form of it, from which `jobs.api.results` rebuilds it.
    stored: str


def describe(error: BaseException) -> Described:
    """Describe any exception, even one whose own methods raise: it is still a failure."""
    kind = type(error)
    try:
        given = tuple(error.args)
    except BaseException:  # noqa: BLE001  any class may have got its properties wrong
        given = ()
    args = [shortened(value) if isinstance(value, str) else value for value in given[:100]]
    args = [value if _is_plain(value) else text_of(value) for value in args]
    module, name = str(kind.__module__), str(kind.__qualname__)
    stored = serialization.dumps({"exc_type": name, "exc_message": args, "exc_module": module})
    if len(stored) > 2 * ERROR_MOST:  # a list, or characters that JSON writes as six
        args = [shortened(text_of(error), 1000)]
        stored = serialization.dumps({"exc_type": name, "exc_message": args, "exc_module": module})
    text = text_of(error)
    try:
        lines = traceback.format_exception(error)
    except BaseException:  # noqa: BLE001  it calls methods of the class
        lines = [*traceback.format_tb(error.__traceback__), f"{kind.__qualname__}: {text}\n"]
    # Its last lines repeat the error's own text, however long that is.
    return Described(kind_of(kind), _clean(text), _clean(shortened("".join(lines))), stored)


def kind_of(kind: type[BaseException]) -> str:
    """The name of a class of errors, as `error_type` has it."""
    return _clean(f"{kind.__module__}.{kind.__qualname__}"[:255])


def reason(error: BaseException) -> str:
    """Why a message is a dead letter, in one line."""
    return f"{type(error).__name__}: {shortened(text_of(error))}"


def shortened(text: str, most: int = ERROR_MOST) -> str:
    """Cut the middle out of a text that is longer."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"


def text_of(value: object) -> str:
    """`str`, cut where it is very long, and a substitute where ``__str__`` fails."""
    try:
        return shortened(str(value))
    except BaseException as error:  # noqa: BLE001  any class may have got its __str__ wrong
        return f"<{type(value).__name__} without a text: its __str__ raises {type(error).__name__}>"


def _is_plain(value: Any) -> bool:
    try:
        serialization.dumps(value)
    except BaseException:  # noqa: BLE001  values in it may raise anything
        return False
    return True


#: The types of most arguments, which are keys of rows: msgspec writes them alike, in a quarter of
#: the time.
_KEYS = frozenset({int, bool, type(None)})
_encode_keys = msgspec.json.Encoder().encode


def _arguments(given: Any) -> str:
    """The JSON of a call's arguments, into which the task may have put anything."""
    try:
        if type(given) is list and _KEYS.issuperset(map(type, given)):
            return _encode_keys(given).decode()
        return serialization.dumps(given)
    except BaseException:  # noqa: BLE001  values in it may raise anything
        if isinstance(given, dict):
            return serialization.dumps(
                {str(k): v if _is_plain(v) else shown(v) for k, v in given.items()}
            )
        return serialization.dumps([v if _is_plain(v) else shown(v) for v in given])


def _clean(text: str) -> str:
    """Escape what PostgreSQL can't store in a text."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


# ----------------------------------------------------------------- of messages that do not run

#: The ends of calls whose messages are kept as dead letters.
BURIED = (WorkerLost, MessageError, Reject)


def buried_types() -> set[str]:
    """The `error_type` of ends whose messages are dead letters."""
    found: list[type[BaseException]] = list(BURIED)
    for one in found:  # it grows meanwhile
        found += one.__subclasses__()
    return {kind_of(one) for one in found}


def already_ended(delivery: Delivery, unburied: str | None = None) -> Outcome:
    """The outcome of a call whose end an earlier delivery has recorded. ``unburied``: why the
    message is to be a dead letter, if that delivery did not get so far as to make it one."""
    sent = delivery.message
    if unburied is None:
        return Done(*origin(delivery), ended=sent.id, call=sent)
    return Dead(*origin(delivery), ended=sent.id, call=sent, reason=unburied, raw=delivery.raw)


def undecided(
    queue: str, number: int, raw: bytes, trusted: bool, run: Run, error: Exception
) -> Outcome:
    """A dead letter, since deciding what becomes of the message failed. The ledger records a
    failure if it can be told whose call it is.

    Were the process to end instead, the next one would claim the message and end, too.
    """
    text = "message %s of queue %s becomes a dead letter: its outcome can't be decided"
    log.error(text, number, queue, exc_info=error)
    row = None
    try:
        try:
            sent = message.decode(raw, queue_of(queue), trusted=trusted)
        except MalformedMessage as malformed:
            if not isinstance(malformed.call, Message):
                raise
            sent = malformed.call
        row = ledger.bounded(failure(sent, raw, run, error))
    except Exception:
        text = "message %s of queue %s: the end of its call can't be recorded"
        log.exception(text, number, queue)
    return Dead(
        queue,
        number,
        record=row,
        ended=sent.id if row else "",
        failed=True,
        counts=FAILED,
        call=sent if row else None,
        reason=f"Its outcome can't be decided: {reason(error)}",
        raw=raw,
    )
