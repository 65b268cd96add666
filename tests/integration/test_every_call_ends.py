"""Whatever raises while an outcome is decided: the call ends, and who waits for it is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import functools
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import AsyncResult, Task, chord, signals, task
from jobs.exceptions import (
    ChordError,
    Ignore,
    MaxRetriesExceeded,
    ResultError,
    ResultNotSerializable,
    Retry,
    TaskFailed,
)
from jobs.models import TaskResult
from jobs.running.request import said
from jobs.states import State
from tests.services import wait_for
from tests.tasks import add
from tests.workers import dead_letters, on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


class Own(Exception):
    """The task's own."""


def ended(result: Any) -> TaskResult:
    """The row of a call that must have ended, with nothing left of it on the broker."""

    def over() -> bool:
        work()
        return result.ready()

    wait_for(over, what="the end of the call")
    assert dead_letters() == []
    assert on_redis() == (0, 0)
    assert not said
    return TaskResult.objects.get(id=result.id)


# ------------------------------------------------------------------------------ asked again

WRONG: dict[str, dict[str, Any]] = {
    "infinite": {"countdown": float("inf")},
    "not a number": {"countdown": float("nan")},
    "text": {"countdown": "x"},
    "yes": {"countdown": True},
    "huge": {"countdown": 10**400},
    "far": {"countdown": dt.timedelta.max},
    "list": {"countdown": [1]},
    "eta text": {"eta": "2020-01-01"},
    "eta day": {"eta": dt.date(2020, 1, 1)},
    "eta far": {"eta": dt.datetime.max},  # noqa: DTZ901
    "exc text": {"exc": "the reason", "countdown": 0},
    "exc class": {"exc": dict, "countdown": 0},
    "exc wants arguments": {"exc": UnicodeDecodeError, "countdown": 0},
    "max": {"max_retries": "3"},
    "max infinite": {"max_retries": float("inf")},
    "max below": {"max_retries": -1},
    "args text": {"args": "ab", "countdown": 0},
    "args number": {"args": 5, "countdown": 0},
    "args object": {"args": (object(),), "countdown": 0},
    "args large": {"args": ("x" * 2_000_000,), "countdown": 0},
    "args nan": {"args": (float("nan"),), "countdown": 0},
    "kwargs list": {"kwargs": [1], "countdown": 0},
    "kwargs numbers": {"kwargs": {1: 2}, "countdown": 0},
    "kwargs object": {"kwargs": {"kind": object()}, "countdown": 0},
}


@task(bind=True)
def asks(self: Task[..., Any], kind: str, how: str = "retry") -> str:
    if self.request.retries:
        return "again"
    if how == "raise":
        options = dict(WRONG[kind])
        raise Retry(**options)
    try:
        raise Own("of the task")
    except Own:
        self.retry(**WRONG[kind])
    return "never"


@pytest.mark.parametrize("kind", WRONG)
def test_what_can_not_be_asked_for_is_the_calls_failure(kind: str) -> None:
    row = ended(asks.delay(kind))
    assert (row.state, row.attempts) == (State.FAILURE, 1)
    assert "Own: of the task" in row.traceback


@pytest.mark.parametrize(
    "kind", [k for k in WRONG if not k.startswith(("args", "kwargs", "exc wants"))]
)
def test_nor_what_is_raised_without_asking(kind: str) -> None:
    row = ended(asks.delay(kind, "raise"))
    assert (row.state, row.attempts) == (State.FAILURE, 1)
    assert "of retry()" in row.error


@pytest.mark.parametrize(
    "how",
    [
        {"countdown": dt.timedelta(milliseconds=1)},
        {"countdown": -5},
        {"countdown": 0.0},
        {"eta": dt.datetime(2020, 1, 1)},  # noqa: DTZ001  in the project's time zone
        {"eta": dt.datetime.min},  # noqa: DTZ901
        {"exc": ValueError, "countdown": 0},
        {"exc": Own("reason"), "countdown": 0, "throw": False},
    ],
)
def test_what_can_be_asked_for(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRONG, "right", how)
    assert ended(asks.delay("right")).state == State.SUCCESS


@task(bind=True, autoretry_for=(Own,), default_retry_delay=0)
def gives_up(self: Task[..., Any], how: str) -> str:
    try:
        raise Own("last")
    except Own as error:
        if how == "caught":
            try:
                self.retry(max_retries=0)
            except self.MaxRetriesExceededError:
                return "given up"
        self.retry(exc=error, max_retries=0)
    return "never"


def test_a_task_sees_that_no_attempt_is_left() -> None:
    assert ended(gives_up.delay("caught")).result == '"given up"'
    row = ended(gives_up.delay("exc"))
    # Not tried again by itself: the task has decided.
    assert (row.state, row.attempts, row.error) == (State.FAILURE, 1, "last")


@task(bind=True, max_retries=1)
def asks_without_raising(self: Task[..., Any], then: str) -> int:
    if not self.request.retries:
        asked = self.retry(countdown=0, throw=False)
        if then == "raise it":
            raise asked
        if then == "raise":
            raise Own("after it")
    return self.request.retries


@pytest.mark.parametrize("then", ["return", "raise it", "raise"])
def test_asked_without_raising(then: str) -> None:
    row = ended(asks_without_raising.delay(then))
    assert (row.state, row.result, row.attempts) == (State.SUCCESS, "1", 2)


# ------------------------------------------------------------------------------- the policy


def policy(error: BaseException, retries: int) -> Any:
    answer = ANSWERS[str(error)]
    if isinstance(answer, BaseException):
        raise answer
    return answer


ANSWERS: dict[str, Any] = {
    "raises": KeyError("in the policy"),
    "ends": SystemExit(3),
    "text": "5",
    "yes": True,
    "no": False,
    "infinite": float("inf"),
    "nan": float("nan"),
    "span": dt.timedelta(seconds=1),
    "below": -1,
    "object": object(),
}


@task(retry_when=policy)
def decided_by_a_policy(kind: str) -> None:
    raise Own(kind)


@task(retry_when=policy)
async def async_decided_by_a_policy(kind: str) -> None:
    raise Own(kind)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("asked", [decided_by_a_policy, async_decided_by_a_policy])
def test_a_policy_that_fails_is_the_calls_failure(kind: str, asked: Task[..., Any]) -> None:
    row = ended(asked.delay(kind))
    assert (row.state, row.attempts) == (State.FAILURE, 1)
    assert "Own: " + kind in row.traceback or kind == "ends"


def test_a_chord_with_such_a_member_ends() -> None:
    result = chord([decided_by_a_policy.s("raises"), add.s(1, 1)], total.s()).delay()
    work()
    work()
    with pytest.raises(ChordError, match=r"failed: KeyError.'in the policy'."):
        result.get(timeout=0)
    assert "in policy" in result.traceback  # the function, among the member's frames


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


# --------------------------------------------------------------------------- strange errors


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class NoArgs(Exception):
    @property
    def args(self) -> Any:
        raise RuntimeError("no args")


class NoClass(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class NoReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def with_traceback(self, tb: Any) -> Any:
        raise RuntimeError("no traceback")


NUMBER: Any = 5


class NoCause(Exception):
    """Whatever prints its traceback fails, the log included."""

    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")


class WildCause(Exception):
    @property
    def __cause__(self) -> Any:
        raise SystemExit(5)


class NotText(Exception):
    def __str__(self) -> Any:
        return NUMBER


class Wild(Exception):
    """Its text ends the process that asks for it."""

    def __str__(self) -> str:
        raise SystemExit(5)


def circle() -> BaseException:
    one, two = Own("one"), Own("two")
    one.__cause__, two.__cause__ = two, one
    return one


ERRORS: dict[str, Any] = {
    "no text": NoText,
    "no args": NoArgs,
    "no class": NoClass,
    "no reduce": NoReduce,
    "no cause": NoCause,
    "wild cause": WildCause,
    "not a text": NotText,
    "wild": Wild,
    "circle": circle,
    "group": lambda: BaseExceptionGroup("many", [Own("a"), KeyboardInterrupt()]),
    "large": lambda: Own("x" * 5_000_000),
    "surrogate": lambda: Own("\ud800\0" * 200_000),
    "many": lambda: Own(*range(100_000)),
    "object": lambda: Own(object(), {1, 2}, float("nan"), {"__type__": "decimal", "__value__": 1}),
    "exit": lambda: SystemExit(1),
    "interrupt": KeyboardInterrupt,
    "generator": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "stop": StopIteration,
    "stop async": StopAsyncIteration,
    "memory": MemoryError,
    "recursion": RecursionError,
}


@task
def raises(kind: str) -> None:
    raise ERRORS[kind]()


@task
async def async_raises(kind: str) -> None:
    raise ERRORS[kind]()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("how", [raises, async_raises])
def test_a_strange_error_is_a_failure(
    kind: str, how: Task[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log's own affair: it says by itself that a line of it could not be made.
    monkeypatch.setattr("logging.raiseExceptions", False)
    with monkeypatch.context() as quiet:
        quiet.setattr(signals.log, "disabled", True)
        result = how.delay(kind)
        row = ended(result)
    assert row.state == State.FAILURE
    size = len(row.error) + len(row.traceback) + len(row.result or "")
    assert size < 2_000_000
    with pytest.raises(Exception):  # noqa: B017, PT011  whichever can be made of it
        result.get(timeout=0)


# ----------------------------------------------------------------------------------- results


class Raises(dict[str, Any]):
    def items(self) -> Any:
        raise KeyError("no items")


class Deep(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise SystemError("no elements")


async def later() -> int:
    return 1


def lazy() -> Iterator[int]:
    yield 1


async def lazily() -> Any:
    yield 1


def circular() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


RESULTS: dict[str, Any] = {
    "items": lambda: Raises(a=1),
    "class": NoClass,
    "elements": lambda: Deep([1]),
    "keys": lambda: {(1, 2): 3},
    "collision": lambda: {1: "a", "1": "b"},
    "nan": lambda: float("nan"),
    "inside": lambda: {"a": [float("inf")]},
    "set": lambda: {1},
    "circle": circular,
    "large": lambda: "x" * 3_000_000,
}

UNDONE: dict[str, Any] = {
    "coroutine": later,
    "generator": lazy,
    "async generator": lazily,
    "future": concurrent.futures.Future,
    "map": lambda: map(str, [1]),
    "several": lambda: [later(), later()],
    "partial": functools.partial(later),
}


@task
def returns(kind: str) -> Any:
    return {**RESULTS, **UNDONE}[kind]()


@task(ignore_result=True)
def returns_ignored(kind: str) -> Any:
    return UNDONE[kind]()


@task
async def async_returns(kind: str) -> Any:
    return {**RESULTS, **UNDONE}[kind]()


@pytest.mark.parametrize("kind", [*RESULTS, *(k for k in UNDONE if k != "several")])
@pytest.mark.parametrize("how", [returns, async_returns])
def test_what_can_not_be_kept_is_a_failure(how: Task[..., Any], kind: str) -> None:
    result = how.delay(kind)
    row = ended(result)
    assert row.state == State.FAILURE
    with pytest.raises(ResultNotSerializable, match=how.name):
        result.get(timeout=0)


@pytest.mark.parametrize("kind", UNDONE)
def test_what_nobody_awaits_is_a_failure_although_nobody_asks(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    returns_ignored.delay(kind)
    work()
    assert "whose work nobody has done" in caplog.text


# ------------------------------------------------------------------- what becomes of arguments


@task
def spoils(things: list[Any], named: dict[str, Any] | None = None) -> int:
    """Put into its arguments what can't be stored."""
    things.append(object())
    (named or {})["x"] = {1, 2}
    return 7


def test_a_task_may_change_its_arguments() -> None:
    result = spoils.apply_async(([1],), {"named": {"a": 1}})
    row = ended(result)
    assert (row.state, result.get(timeout=0)) == (State.SUCCESS, 7)
    assert "object" in row.args


@task(bind=True)
def says_its_end(self: Task[..., Any], state: str, meta: Any, then: str) -> str:
    self.update_state(state=state, meta=meta)
    if then == "ignore":
        raise Ignore
    if then == "raise":
        raise Own("after all")
    return "returned"


def test_an_end_that_the_task_gives_itself_is_kept() -> None:
    said_so = says_its_end.delay("SUCCESS", {"n": 1}, "ignore")
    assert ended(said_so).state == State.SUCCESS
    assert said_so.get(timeout=0) == {"n": 1}
    failed = says_its_end.delay("FAILURE", "reason", "ignore")
    assert ended(failed).state == State.FAILURE
    with pytest.raises(TaskFailed, match="reason"):
        failed.get(timeout=0)
    revoked = says_its_end.delay("REVOKED", "no more", "ignore")
    assert ended(revoked).state == State.REVOKED


def test_an_end_that_the_task_gives_itself_is_nothing_without_ignore() -> None:
    assert ended(says_its_end.delay("FAILURE", 1, "return")).result == '"returned"'
    assert ended(says_its_end.delay("SUCCESS", 1, "raise")).error == "after all"


def test_no_attempt_left_by_a_raised_retry() -> None:
    result = raises_retry.delay()
    assert ended(result).state == State.FAILURE
    with pytest.raises(MaxRetriesExceeded):
        result.get(timeout=0)


@task(max_retries=0)
def raises_retry() -> None:
    raise Retry


# ---------------------------------------------------------------------------- read back


@pytest.mark.parametrize(
    "stored",
    [
        '{"exc_type": "Gone", "exc_message": ["x"], "exc_module": "no.such"}',
        '{"exc_type": "UnicodeDecodeError", "exc_message": ["x"], "exc_module": "builtins"}',
        '{"exc_type": "SystemExit", "exc_message": [3], "exc_module": "builtins"}',
        '{"exc_type": "dict", "exc_message": [], "exc_module": "builtins"}',
        '{"exc_type": "getcwd", "exc_message": [], "exc_module": "os"}',
        f'{{"exc_type": "Ends", "exc_message": [], "exc_module": "{__name__}"}}',
        f'{{"exc_type": "Other", "exc_message": [], "exc_module": "{__name__}"}}',
        '{"exc_type": 5, "exc_message": 7, "exc_module": []}',
        "[1, 2]",
        "5",
        "not JSON",
        '{"__type__": "x", "__value__": 1}',
        "",
        None,
    ],
)
def test_an_error_that_can_not_be_made_again(stored: str | None) -> None:
    result = raises.delay("no args")
    ended(result)
    TaskResult.objects.filter(id=result.id).update(result=stored)
    result = AsyncResult(result.id)
    with pytest.raises(TaskFailed, match="NoArgs"):
        result.get(timeout=0)
    assert isinstance(result.result, TaskFailed)


class Ends(Exception):
    def __init__(self) -> None:
        raise SystemExit(3)


class Other(Exception):
    def __new__(cls) -> Any:
        return "no exception"


@pytest.mark.parametrize(
    "stored", ['{"__type__": "nothing", "__value__": 1}', "not JSON", "[" * 100_000, "NaN"]
)
def test_a_result_that_can_not_be_read(stored: str) -> None:
    result = add.delay(1, 2)
    work()
    TaskResult.objects.filter(id=result.id).update(result=stored)
    with pytest.raises(ResultError, match=f"{result.id}.*can't be read"):
        result.get(timeout=0)
    assert result.state == State.SUCCESS
    assert result.successful()


# ------------------------------------------------------------------------------- in batches


class Lies(list[Any]):
    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        raise KeyError("no elements")


BATCHES: dict[str, Any] = {
    "generator": lambda ids: (n for n in ids),
    "coroutines": lambda ids: [later() for _ in ids],
    "set": set,
    "one": lambda ids: [1],
    "text": lambda ids: "ab",
    "lies": lambda ids: Lies(),
    "strange ids": lambda ids: {"other": 1},
    "errors": lambda ids: [NoText() for _ in ids],
    "retries": lambda ids: [Retry(countdown="x") for _ in ids],  # type: ignore[arg-type]
    "classes": lambda ids: [NoClass() for _ in ids],
    "exit": lambda ids: sys.exit(3),
}


@task(batch=2, batch_wait=0)
def in_batches(requests: list[Any]) -> Any:
    return BATCHES[requests[0].args[0]]([request.id for request in requests])


@pytest.mark.parametrize("kind", BATCHES)
def test_of_a_batch_each_call_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logging.raiseExceptions", False)
    monkeypatch.setattr(signals.log, "disabled", True)
    results = in_batches.enqueue_many([(kind,), (kind,)])
    for result in results:
        assert ended(result).state == State.FAILURE


# ---------------------------------------------------------------------------- cancelled


@task
async def cancels_itself(waits: bool) -> str:
    current_task = asyncio.current_task()
    assert current_task is not None
    current_task.cancel()
    if waits:
        await asyncio.sleep(0)
    return "returned"


def test_a_task_that_cancels_itself_ends_and_the_worker_goes_on() -> None:
    first, second = cancels_itself.delay(True), cancels_itself.delay(False)
    assert ended(first).state == State.FAILURE
    assert ended(second).result == '"returned"'


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError(record.getMessage())


@pytest.mark.parametrize("kind", ["no cause", "wild cause", "memory"])
@pytest.mark.parametrize("how", [raises, async_raises])
def test_a_log_that_raises_keeps_no_call_from_its_end(kind: str, how: Task[..., Any]) -> None:
    handler = Raising()
    loggers = [logging.getLogger(name) for name in ("jobs", "jobs.worker")]
    for one in loggers:
        one.addHandler(handler)
    try:
        assert ended(how.delay(kind)).state == State.FAILURE
    finally:
        for one in loggers:
            one.removeHandler(handler)
