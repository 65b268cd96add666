"""What the ledger is told of one delivery."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import inspect
import time
import traceback
import types
from typing import Any, NamedTuple

from jobs import conf, message, serialization
from jobs.api.task import Task
from jobs.exceptions import ResultNotSerializable, shown
from jobs.ledger.outcomes import Attempt, Record
from jobs.message import Message
from jobs.states import State

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
