"""What a worker holds, what becomes of it, decided once, as a value, and the row of that."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import enum
import inspect
import math
import time
import traceback
import types
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from jobs import conf, limits, message, serialization
from jobs.api.task import Task
from jobs.broker.limiting import Lock, Slot
from jobs.exceptions import ResultNotSerializable, shown
from jobs.ledger import unique
from jobs.ledger.outcomes import Attempt, Record
from jobs.message import Message
from jobs.message.workflow import Call, Counted
from jobs.running import progress
from jobs.running.request import said
from jobs.states import State


class Delivery(NamedTuple):
    """One handing of a message to this worker."""

    queue: str
    number: int
    raw: bytes
    message: Message
    task: Task[..., Any]
    #: When it was claimed (monotonic seconds).
    claimed: float = 0.0
    #: Those that are run with it, as one batch.
    others: tuple[Delivery, ...] = ()
    #: What it holds of limits while it runs.
    slots: tuple[Slot, ...] = ()
    #: It was given a permit of its rate.
    permit: bool = False


def each(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """With those of batches one by one."""
    return [one for delivery in deliveries for one in (delivery, *delivery.others)]


class Member(NamedTuple):
    """A member of a chord that has ended."""

    id: str
    group_id: str
    root_id: str
    #: The chord's body as its message has it, if a Celery client may have sent that.
    body: Call | None = None


class Following(NamedTuple):
    """What comes after the end of a call."""

    messages: Sequence[Message] = ()
    #: Chords whose headers are among these messages.
    chords: Sequence[Counted] = ()
    #: The ends of calls that will not follow.
    ends: Sequence[Record] = ()
    #: Those of all these calls, the ended one included, that a chord waits for.
    members: Sequence[Member] = ()
    #: The call that these messages stand for: the last task that follows them has its id.
    replaces: str = ""


#: The usual case.
NOTHING = Following()

#: An outcome of fewer bytes is not weighed: batches are bounded by their number, too.
_SMALL = 4096


class Kind(enum.Enum):
    #: Finished: acknowledge it.
    DONE = enum.auto()
    #: It isn't finished: give it back as it is.
    BACK = enum.auto()
    #: Put it among the due ones.
    LATER = enum.auto()
    #: It can't be run: keep it for a person.
    DEAD = enum.auto()


class Outcome(msgspec.Struct):
    """What became of one delivery."""

    kind: Kind
    queue: str
    number: int
    #: For the ledger, if it is told at all.
    record: Record | None = None
    #: The attempt that another will follow.
    attempt: Attempt | None = None
    #: The task, when those who wait for its result are to be told.
    ended: str = ""
    #: When its delivery was claimed (monotonic seconds).
    claimed: float = math.inf
    #: False: it was acknowledged before it ran.
    held: bool = True
    #: The task raised: it may have left its database connection in any state.
    failed: bool = False
    #: The task, when it has told of its progress.
    reported: str = ""
    #: With DEAD: why.
    reason: str = ""
    #: With LATER: the message, its priority, and when (Unix seconds). With BACK: the first two.
    #: With DEAD: the message.
    raw: bytes = b""
    priority: int = 0
    #: What is sent, or ends too, when this is recorded.
    following: Following = NOTHING
    #: Other calls that have ended with it, for those who wait for them.
    told: Sequence[str] = ()
    due: float = 0.0
    #: What its delivery held of limits.
    slots: tuple[Slot, ...] = ()
    #: The slot that it waits for, when it is among the due ones.
    waits_for: Slot | None = None
    #: What its call gives up when it has ended.
    lock: Lock | None = None
    #: About how many bytes it holds, when they are many.
    size: int = 0

    def weigh(self) -> Outcome:
        """Itself, with its size."""
        size = len(self.raw)
        if self.record is not None:
            size += sum(map(len, filter(None, self.record[4:10]))) + len(self.record.message)
        if self.attempt is not None:
            size += len(self.attempt.error) + len(self.attempt.traceback)
        if self.following is not NOTHING:
            size += sum(len(one.body or "") for one in self.following.messages)
        self.size = size if size > _SMALL else 0
        return self

    def of(self, delivery: Delivery, *, held: bool) -> Outcome:
        """Itself, with what it takes over from the delivery that was run."""
        self.claimed, self.held, self.slots = delivery.claimed, held, delivery.slots
        self.lock = lock_of(delivery.message, delivery.task)
        if said:
            said.pop(delivery.message.id, None)
        if progress.told:
            self.reported = progress.over(delivery.message.id)
        # Its arguments are as long as the message; all else is looked at where it may be long.
        if (
            self.failed
            or self.following is not NOTHING
            or len(delivery.raw) > _SMALL
            or (self.record is not None and len(self.record.result or "") > _SMALL)
        ):
            self.weigh()
        return self


def limit_of(delivery: Delivery) -> str:
    """The name of the limits of a delivery; raises what the task's function of the key raises."""
    task, sent = delivery.task, delivery.message
    key = None if task.key is None else task.key(sent.args, sent.kwargs)
    return limits.name_of(task.name, key)


def slots_of(delivery: Delivery) -> tuple[Slot, ...]:
    """What the call of a delivery that is not run may hold, since its former process died."""
    if delivery.slots or delivery.task.concurrency is None:
        return delivery.slots
    try:
        name = limit_of(delivery)
    except Exception:  # noqa: BLE001  the task's own function, which has failed before
        return ()
    return (Slot(name, delivery.task.concurrency, delivery.message.id, delivery.queue),)


def lock_of(sent: Message, task: Task[..., Any] | None) -> Lock | None:
    """The unique lock that a call gives up at its end; that of a window stays."""
    if not sent.unique:
        return None  # the usual case, at every task
    asked = task.uniqueness if task else None
    if asked and asked.window:
        return None
    return unique.lock_of(sent, asked) if asked else Lock(sent.unique, sent.id)


# ------------------------------------------------------------------------------- the row

#: Most characters that are stored of an error's text, and of its traceback.
ERROR_MOST = 32_000

_UTC = dt.UTC
_from_timestamp = dt.datetime.fromtimestamp


class Run(NamedTuple):
    """One attempt: by whom, and when it began (Unix seconds)."""

    worker: str
    started: float


def ignores_result(sent: Message, task: Task[..., Any]) -> bool:
    return task.ignore_result if sent.ignore_result is None else sent.ignore_result


def is_kept(sent: Message, task: Task[..., Any] | None) -> bool:
    """Whether there is a row. A call that ignores its result and was sent outside a transaction
    never has one."""
    if sent.ledger or (task is not None and task.atomic):
        return True
    ignores = sent.ignore_result if task is None else ignores_result(sent, task)
    return not ignores or bool(sent.embed.get("chord"))  # which waits for its end


def of_success(sent: Message, task: Task[..., Any], run: Run, result: Any) -> Record | None:
    """Raises `ResultNotSerializable`."""
    if not is_kept(sent, task):
        return None
    text = None if ignores_result(sent, task) else result_text(result, task)
    return _record(sent, State.SUCCESS, run, message=b"", result=text)


def of_failure(
    sent: Message,
    task: Task[..., Any] | None,
    raw: bytes,
    run: Run,
    error: BaseException,
    state: State = State.FAILURE,
) -> Record | None:
    """With ``state`` REVOKED: why it will not run."""
    return failure(sent, raw, run, error, state) if is_kept(sent, task) else None


def failure(
    sent: Message, raw: bytes, run: Run, error: BaseException, state: State = State.FAILURE
) -> Record:
    """`of_failure`, kept or not."""
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
    """The row that waits, and the attempt that is over. ``again``: the message of the next, which
    is due at ``due`` (Unix seconds)."""
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
        number=sent.retries + 1,
        worker=run.worker,
        started_at=waiting.started_at,
        finished_at=_from_timestamp(time.time(), _UTC),
        error_type=told.kind,
        error=told.text,
        traceback=told.traceback,
    )
    return waiting, over


#: What needs no look by `check_result`: nearly every result.
PLAIN = frozenset({type(None), bool, int, float, str, dict})

#: What stands for work that is still to be done.
_UNDONE = (
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    concurrent.futures.Future,
    map,
    filter,
)


def check_result(result: Any, sent: Message, task: Task[..., Any]) -> None:
    """Raise `ResultNotSerializable` for what stands for work that nobody has done: a coroutine, a
    generator, a future."""
    if type(result) in PLAIN:
        return
    found = [result]
    if type(result) in (list, tuple):
        # Of a result that is kept, the encoder will say it.
        found = list(result) if ignores_result(sent, task) else []
    undone = [one for one in found if _is_undone(type(one))]
    for one in undone:
        if inspect.iscoroutine(one):
            one.close()  # or Python warns that nobody awaited it
    if undone:
        raise ResultNotSerializable(
            f"Task {task.name!r} returned a {type(undone[0]).__name__}, whose work nobody has "
            "done. Declare it with 'async def' and await what it calls, or return list(…) of a "
            "generator."
        )


def _is_undone(kind: type) -> bool:
    return issubclass(kind, _UNDONE) or hasattr(kind, "__await__") or hasattr(kind, "__anext__")


def result_text(result: Any, task: Task[..., Any]) -> str:
    """The JSON of what a task returned; raises `ResultNotSerializable`."""
    if result is None:
        return "null"
    try:
        text = serialization.dumps(result)
    except Exception as error:  # what it holds may raise anything when it is looked at
        raise ResultNotSerializable(
            f"Task {task.name!r} returned a {type(result).__name__} that can't be stored: "
            f"{text_of(error)}. "
            "Return what JSON holds, or set ignore_result=True."
        ) from error
    limit = conf.get().result_max_bytes
    if len(text) > limit:
        raise ResultNotSerializable(
            f"Task {task.name!r} returned {len(text):,} bytes of JSON; JOBS['RESULT_MAX_BYTES'] "
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
        attempts=sent.retries + 1,
        worker=run.worker,
        created_at=_sent_at(sent) or began,
        eta=sent.eta,
        started_at=began,
        finished_at=_from_timestamp(time.time(), _UTC),
        published_at=began,
        message=message,
        group_id=sent.group,
        group_index=sent.group_index,
        parent_id=sent.parent_id if sent.parent_id != sent.id else None,  # that of a retry is
        root_id=sent.root_id if sent.root_id != sent.id else None,
    )


def _sent_at(sent: Message) -> dt.datetime | None:
    seconds = message.id_time(sent.id)
    return None if seconds is None else _from_timestamp(seconds, _UTC)


class Described(NamedTuple):
    """An exception as it is stored."""

    kind: str
    text: str
    traceback: str
    #: Celery's JSON form of it, from which `jobs.api.results` rebuilds it.
    stored: str


def describe(error: BaseException) -> Described:
    """Whatever the exception is: one that can't be told of is still a failure, also where looking
    at it raises what would end a process."""
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
    return Described(
        kind_of(kind),
        _clean(text_of(error)),
        _clean(_traceback(error)),
        stored,
    )


def kind_of(kind: type[BaseException]) -> str:
    """As `error_type` has it."""
    return _clean(f"{kind.__module__}.{kind.__qualname__}"[:255])


def reason(error: BaseException) -> str:
    """Why a message is a dead letter, in one line."""
    return f"{type(error).__name__}: {shortened(text_of(error))}"


def _traceback(error: BaseException) -> str:
    try:
        # Not of a text of any length: that stands at the end of it, again and again.
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  it looks at what the class has made of itself
        frames = traceback.format_tb(error.__traceback__)
        text = f"{''.join(frames)}{type(error).__qualname__}: {text_of(error)}\n"
    return shortened(text)


def shortened(text: str, most: int = ERROR_MOST) -> str:
    """Without its middle, when it is longer."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"


def text_of(value: object) -> str:
    """`str`, cut where it is very long, also of what fails at that."""
    try:
        return shortened(str(value))
    except BaseException as error:  # noqa: BLE001  any class may have got its __str__ wrong
        return f"<{type(value).__name__} without a text: its __str__ raises {type(error).__name__}>"


def _is_plain(value: Any) -> bool:
    try:
        serialization.dumps(value)
    except BaseException:  # noqa: BLE001  what it holds may raise anything
        return False
    return True


def _arguments(given: Any) -> str:
    """The JSON of a call's arguments. The task may have put anything into them."""
    try:
        return serialization.dumps(given)
    except BaseException:  # noqa: BLE001  what it has put there may raise anything
        if isinstance(given, dict):
            return serialization.dumps(
                {str(k): v if _is_plain(v) else shown(v) for k, v in given.items()}
            )
        return serialization.dumps([v if _is_plain(v) else shown(v) for v in given])


def _clean(text: str) -> str:
    """Without what PostgreSQL can't store in a text."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
