"""One delivery to one outcome."""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs import message, serialization
from jobs.api.task import Task
from jobs.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from jobs.ledger.outcomes import Record
from jobs.message import Marks, Message
from jobs.running.request import current
from jobs.states import State
from jobs.worker.record.outcome import (
    Dead,
    Delivery,
    Done,
    Later,
    Outcome,
)
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, MainThreadTimer, ThreadTimer, Timer
from tests.services import wait_for

LIMITS = Limits(ThreadTimer())


def double(n: int) -> int:
    return 2 * n


def sent(task: str = "double", **fields: Any) -> Message:
    return Message(task=task, id=message.new_id(), queue="default", **{"args": [4], **fields})


def outcome_of(run: Any, **fields: Any) -> Outcome:
    """What becomes of a call of this function."""
    made = Task(run, name="made", **fields.pop("options", {}))
    one = sent("made", **fields)
    one = message.decode(message.encode(one), "default")
    delivery = Delivery("default", 7, message.encode(one), one, made)
    if made.is_async:
        return asyncio.run(executor.run_async(delivery, "w/1", LIMITS))
    return executor.run(delivery, "w/1", LIMITS)


def record_of(outcome: Outcome) -> Record:
    assert outcome.record is not None
    return outcome.record


# ------------------------------------------------------------------------------ the task


def test_success() -> None:
    outcome = outcome_of(double)
    item = record_of(outcome)
    assert (type(outcome), outcome.number, outcome.ended, outcome.failed) == (
        Done,
        7,
        item.id,
        False,
    )
    assert (item.state, item.result, item.args, item.kwargs) == (State.SUCCESS, "8", "[4]", "{}")
    assert (item.worker, item.attempts, item.message) == ("w/1", 1, b"")
    sent_at = message.id_time(item.id)
    assert sent_at is not None
    assert item.created_at == dt.datetime.fromtimestamp(sent_at, dt.UTC)
    assert item.published_at == item.created_at
    assert item.started_at is not None
    assert item.finished_at is not None
    assert item.created_at <= item.started_at <= item.finished_at


def test_async_success() -> None:
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return n

    assert record_of(outcome_of(later)).result == "4"


def test_failure() -> None:
    def broken(n: int) -> None:
        raise ValueError("wrong", n, object)

    outcome = outcome_of(broken, retries=2)
    item = record_of(outcome)
    assert (type(outcome), outcome.failed) == (Done, True)
    assert (item.state, item.error_type, item.attempts) == (State.FAILURE, "builtins.ValueError", 3)
    assert item.message != b""  # kept, to be retried
    assert "in broken" in item.traceback
    assert serialization.loads(item.result or "") == {
        "exc_type": "ValueError",
        "exc_message": ["wrong", 4, "<class 'object'>"],
        "exc_module": "builtins",
    }


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_the_process_is_the_tasks_failure(kind: type[BaseException]) -> None:
    def leave(n: int) -> None:
        raise kind(n)

    assert record_of(outcome_of(leave)).error_type == f"builtins.{kind.__name__}"


def test_a_cancelled_async_task() -> None:
    async def cancel(n: int) -> None:
        raise asyncio.CancelledError

    assert record_of(outcome_of(cancel)).state == State.FAILURE


def test_ignored_results() -> None:
    outcome = outcome_of(double, options={"ignore_result": True})
    assert (outcome.record, outcome.ended) == (None, "")
    assert record_of(outcome_of(double, ignore_result=False)).result == "8"
    # The call's own word counts more than the task's.
    told = outcome_of(double, options={"ignore_result": True}, ignore_result=False)
    assert record_of(told).result == "8"
    assert outcome_of(double, ignore_result=True).record is None
    # A row there is, so it must end; its result is not kept.
    in_ledger = outcome_of(double, ignore_result=True, ledger=True)
    assert (record_of(in_ledger).state, record_of(in_ledger).result) == (State.SUCCESS, None)


def test_an_ignored_result_needs_no_form_in_json() -> None:
    outcome = outcome_of(lambda n: object(), ignore_result=True, ledger=True)
    assert record_of(outcome).state == State.SUCCESS


def test_wrong_arguments() -> None:
    outcome = outcome_of(double, args=[1, 2])
    assert isinstance(outcome, Dead)
    assert outcome.reason.startswith("WrongArguments: Task made(")
    assert record_of(outcome).error_type == "jobs.exceptions.WrongArguments"


def test_a_type_error_of_the_tasks_own() -> None:
    outcome = outcome_of(lambda n: n + "x")
    assert (type(outcome), record_of(outcome).error_type) == (Done, "builtins.TypeError")


def test_the_request_is_known_only_while_the_task_runs() -> None:
    made = Task(lambda self, n: self.request, name="made", bind=True, ignore_result=True)
    assert made.request.called_directly
    assert (made.request.id, made.request.retries) == (None, 0)
    seen: list[str] = []

    def look(self: Task[..., Any], n: int) -> None:
        seen.append(self.request.worker)

    outcome_of(look, options={"bind": True})
    assert seen == ["w/1"]
    assert current.get() is None


# --------------------------------------------------------------------- another attempt


def again_of(outcome: Outcome) -> Message:
    assert isinstance(outcome, Later)
    return message.decode(outcome.raw, "default")


def test_the_next_attempt() -> None:
    def ask(self: Task[..., Any], n: int) -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            self.retry(countdown=30)

    began = time.time()
    options = {"bind": True}
    outcome = outcome_of(
        ask, options=options, retries=1, priority=6, own_headers={"tenant": "blue"}
    )
    again = again_of(outcome)
    assert again.eta is not None
    assert began + 30 <= outcome.due <= time.time() + 30
    assert again.eta.timestamp() == pytest.approx(outcome.due, abs=0.001)
    assert (again.retries, again.priority, again.args) == (2, 6, [4])
    assert (again.headers, again.parent_id, again.held) == ({"tenant": "blue"}, again.id, True)
    assert (outcome.priority, outcome.ended, outcome.failed) == (6, "", True)
    item, over = record_of(outcome), outcome.attempt
    assert over is not None
    assert (item.state, item.eta, item.finished_at) == (State.RETRY, again.eta, None)
    assert (item.attempts, item.error_type, item.message) == (2, "builtins.KeyError", outcome.raw)
    assert (over.number, over.result_id, over.worker) == (2, again.id, "w/1")
    assert (over.error_type, over.error) == ("builtins.KeyError", "'inner'")
    assert "in ask" in over.traceback


def test_other_arguments() -> None:
    def ask(self: Task[..., Any], n: int, extra: int = 0) -> None:
        self.retry(args=[5], kwargs={"extra": 1})

    again = again_of(outcome_of(ask, options={"bind": True}))
    assert (again.args, again.kwargs) == ([5], {"extra": 1})


def test_arguments_that_cannot_be_sent() -> None:
    def ask(self: Task[..., Any], n: Any) -> None:
        self.retry(args=[object()])

    outcome = outcome_of(ask, options={"bind": True})
    assert isinstance(outcome, Done)
    assert record_of(outcome).error_type == "jobs.exceptions.NotSerializable"


def test_a_moment() -> None:
    eta = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

    def ask(self: Task[..., Any], n: int) -> None:
        self.retry(eta=eta)

    outcome = outcome_of(ask, options={"bind": True})
    assert (outcome.due, again_of(outcome).eta) == (eta.timestamp(), eta)


@pytest.mark.parametrize("retries", [0, 2])
def test_the_tasks_own_delay(retries: int) -> None:
    def ask(self: Task[..., Any], n: int) -> None:
        self.retry()

    options = {"bind": True, "retry_backoff": 10, "retry_jitter": False}
    began = time.time()
    due = outcome_of(ask, options=options, retries=retries).due
    assert 10 * 2**retries <= due - began < 10 * 2**retries + 5


def test_no_attempt_left() -> None:
    def ask(self: Task[..., Any], n: int) -> None:
        self.retry()

    def ask_for(self: Task[..., Any], n: int) -> None:
        self.retry(exc=LookupError("gone"))

    def ask_more(self: Task[..., Any], n: int) -> None:
        self.retry(max_retries=9)

    options = {"bind": True, "max_retries": 1}
    assert isinstance(outcome_of(ask, options=options, retries=0), Later)
    spent = record_of(outcome_of(ask, options=options, retries=1))
    assert (spent.state, spent.error_type) == (State.FAILURE, "jobs.exceptions.MaxRetriesExceeded")
    assert "has had 2 attempts" in spent.error
    spent = record_of(outcome_of(ask_for, options=options, retries=1))
    assert (spent.error_type, spent.error) == ("builtins.LookupError", "gone")
    assert isinstance(outcome_of(ask_more, options=options, retries=8), Later)
    assert isinstance(outcome_of(ask_more, options=options, retries=9), Done)


def test_by_itself() -> None:
    def broken(n: int) -> None:
        raise ConnectionResetError(n)

    options: dict[str, Any] = {"autoretry_for": (OSError,), "default_retry_delay": 7}
    outcome = outcome_of(broken, options=options)
    assert record_of(outcome).error_type == "builtins.ConnectionResetError"
    assert 0 < outcome.due - time.time() <= 7
    assert isinstance(outcome_of(broken, options=options, retries=3), Done)
    options["dont_autoretry_for"] = (ConnectionError,)
    assert isinstance(outcome_of(broken, options=options), Done)


def test_an_async_task_by_itself() -> None:
    async def broken(n: int) -> None:
        raise OSError(n)

    assert isinstance(outcome_of(broken, options={"autoretry_for": (OSError,)}), Later)


def test_a_call_that_keeps_no_row_is_tried_again_without_one() -> None:
    def broken(n: int) -> None:
        raise OSError(n)

    outcome = outcome_of(broken, options={"autoretry_for": (OSError,), "ignore_result": True})
    assert (type(outcome), outcome.record, outcome.attempt) == (Later, None, None)


def test_wrong_arguments_are_not_tried_again() -> None:
    outcome = outcome_of(double, args=[1, 2], options={"autoretry_for": (Exception,)})
    assert isinstance(outcome, Dead)


# ------------------------------------------------------------------- the task's own word


def test_reject() -> None:
    def refuse(n: int) -> None:
        raise Reject("not mine")

    outcome = outcome_of(refuse)
    assert (type(outcome), outcome.reason) == (Dead, "Reject: not mine")
    assert record_of(outcome).state == State.FAILURE


def test_reject_and_requeue() -> None:
    def refuse(n: int) -> None:
        raise Reject(requeue=True)

    outcome = outcome_of(refuse, retries=1)
    again = again_of(outcome)
    assert (again.retries, again.marks) == (1, Marks(redelivered=True))
    assert outcome.due <= time.time()
    assert outcome.record is None


def test_ignore() -> None:
    def forget(n: int) -> None:
        raise Ignore

    outcome = outcome_of(forget, ledger=True)
    assert isinstance(outcome, Done)
    assert outcome.record is not None
    assert (outcome.record.state, outcome.record.error) == (
        State.REVOKED,
        "The task raised Ignore, so nothing else was recorded",
    )
    assert outcome_of(forget, ledger=False, ignore_result=True).record is None


# ------------------------------------------------------------------------------- limits


def work_on(n: int) -> None:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        pass


async def sleep(n: int) -> None:
    await asyncio.sleep(20)


@pytest.mark.parametrize("run", [work_on, sleep])
def test_the_soft_limit(run: Any) -> None:
    item = record_of(outcome_of(run, options={"soft_time_limit": 0.05}))
    assert item.error_type == "jobs.exceptions.SoftTimeLimitExceeded"
    # The call's own counts more than the task's.
    item = record_of(outcome_of(run, options={"soft_time_limit": 99}, timelimit=(None, 0.05)))
    assert item.error_type == "jobs.exceptions.SoftTimeLimitExceeded"


def test_a_task_may_catch_its_limit() -> None:
    def tidy(n: int) -> str:
        try:
            work_on(n)
        except SoftTimeLimitExceeded:
            return "tidied"
        return "never"

    item = record_of(outcome_of(tidy, options={"soft_time_limit": 0.05}))
    assert (item.state, item.result) == (State.SUCCESS, '"tidied"')


def test_a_timeout_of_the_tasks_own() -> None:
    async def impatient(n: int) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(20)

    item = record_of(outcome_of(impatient, options={"soft_time_limit": 10}))
    assert item.error_type == "builtins.TimeoutError"


# ---------------------------------------------- soft limits: raised in the task that has had its
# time, and in nothing that follows it


@pytest.fixture(params=[MainThreadTimer, ThreadTimer])
def timer(request: pytest.FixtureRequest) -> Timer:
    made: Timer = request.param()
    return made


def spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


def test_it_is_raised_in_the_task(timer: Timer) -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), timer.limit(0.05):
        spin(20)
    assert 0.05 <= time.monotonic() - began < 5


def test_one_in_time_is_left_alone(timer: Timer) -> None:
    # Longer than a busy machine keeps a process waiting.
    for _ in range(50):
        with timer.limit(0.5):
            pass
    spin(0.6)


def test_none_is_no_limit(timer: Timer) -> None:
    with timer.limit(0.5):
        pass
    with timer.limit(None):
        spin(0.6)


def test_one_that_ends_just_then(timer: Timer) -> None:
    """Whether it counts as too late or not: what comes after it is not disturbed."""
    late = 0
    for n in range(200):
        try:
            with timer.limit(0.001 + n / 1e6):
                spin(0.001 + n / 1e6)
        except SoftTimeLimitExceeded:
            late += 1
        spin(0.0005)
    assert late <= 200


def test_it_can_be_caught_and_comes_once(timer: Timer) -> None:
    caught = 0
    with timer.limit(0.02):
        for _ in range(3):
            try:
                spin(0.05)
            except SoftTimeLimitExceeded:
                caught += 1
    assert caught == 1


def test_each_thread_has_its_own() -> None:
    timer = ThreadTimer()

    def task(limit: float, takes: float) -> str:
        try:
            with timer.limit(limit):
                spin(takes)
        except SoftTimeLimitExceeded:
            return "late"
        return "in time"

    limits, takes = [0.05, 20, 0.1, 20], [20, 0.3, 20, 0.3]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(task, limits, takes)) == ["late", "in time", "late", "in time"]


def test_an_exception_on_its_way_takes_no_lock_along() -> None:
    """The task ends while the watcher is about to raise: others have their limits after that."""
    timer = ThreadTimer()
    entered, leave = threading.Event(), threading.Event()
    seen: list[str] = []

    def task() -> None:
        try:
            with timer.limit(60):
                entered.set()
                leave.wait(20)
        except SoftTimeLimitExceeded:
            seen.append("late")

    thread = threading.Thread(target=task)
    thread.start()
    entered.wait(20)
    assert thread.ident is not None
    with timer._changed:
        leave.set()
        thread.join(20)  # to its end, if it needs no lock for that
        timer._ends.pop(thread.ident, None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SoftTimeLimitExceeded)
        )
    thread.join(20)
    assert not thread.is_alive()
    wait_for(lambda: timer._changed.acquire(blocking=False), 5, what="the lock")
    timer._changed.release()
    assert timer._ends == {}


def test_whose_limit_counts() -> None:
    limits = Limits(ThreadTimer(), soft=1, hard=2)
    sent = Message(task="t", id="1", queue="default")
    plain, own = Task(spin, name="t"), Task(spin, name="t", soft_time_limit=3, time_limit=4)
    assert (limits.soft(sent, plain), limits.hard(sent, plain)) == (1, 2)
    assert (limits.soft(sent, own), limits.hard(sent, own)) == (3, 4)
    sent.timelimit = (6, 5)
    assert (limits.soft(sent, own), limits.hard(sent, own)) == (5, 6)
    none = Limits(ThreadTimer())
    assert none.soft(Message(task="t", id="1", queue="default"), plain) is None
