"""Waiting for results, and reading them."""

from __future__ import annotations

import datetime as dt
import decimal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, transaction

from jobs import AsyncResult, broker
from jobs.api import results
from jobs.exceptions import ResultError, ResultTimeout, TaskFailed, TaskRevoked
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Author
from tests.services import Valkey
from tests.tasks import add, echo, fail, fail_with, greet_author, leave, quiet_trace, trace
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def soon(job: Any) -> Iterator[None]:
    """Do this in another thread once somebody listens for a result."""
    listening = threading.Event()
    real = broker.get().listen

    @contextmanager
    def listen(task_id: str) -> Iterator[Any]:
        with real(task_id) as heard:
            yield lambda timeout: (listening.set(), heard(timeout))[1]

    def run() -> None:
        try:
            assert listening.wait(60)
            job()
        finally:
            connections.close_all()
            broker.get().close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker.get(), "listen", listen)
        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()


def end_elsewhere(task_id: str, **changes: Any) -> None:
    """What a worker's recorder does."""
    TaskResult.objects.create(
        id=task_id, task="x", queue="default", **{"state": State.SUCCESS, "result": "3", **changes}
    )
    broker.get().ack("default", "nobody", [], [task_id])


def test_states_before_and_after(broker_url: str) -> None:
    result = add.delay(1, 2)
    assert (result.state, result.ready(), result.result) == (State.PENDING, False, None)
    work()
    assert (result.state, result.status, result.result) == (State.SUCCESS, State.SUCCESS, 3)
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.get() == 3
    assert result.traceback is None
    assert AsyncResult(result.id) == result
    assert AsyncResult[int](result.id).get(timeout=0) == 3
    assert {result, AsyncResult(result.id)} == {result}


def test_get_is_woken(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.api.waiting.DEAF", 3600.0)
    result = add.delay(1, 2)
    with soon(lambda: end_elsewhere(result.id)):
        began = time.monotonic()
        assert result.get(timeout=100) == 3
        assert time.monotonic() - began < 50


def test_get_times_out(broker_url: str) -> None:
    result = add.delay(1, 2)
    began = time.monotonic()
    with pytest.raises(ResultTimeout, match=rf"{result.id} has not ended within 0\.1 seconds"):
        result.get(timeout=0.1)
    assert time.monotonic() - began >= 0.1
    with pytest.raises(TimeoutError):
        result.get(timeout=0)


def test_an_end_that_nobody_was_told_of(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded between the first look and the subscription."""
    monkeypatch.setattr("jobs.api.waiting.DEAF", 3600.0)
    result = add.delay(1, 2)
    real = broker.get().listen

    def listen(task_id: str) -> Any:
        end_elsewhere(task_id)
        return real(task_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker.get(), "listen", listen)
        began = time.monotonic()
        assert result.get(timeout=100) == 3
        assert time.monotonic() - began < 50


def test_get_from_async_code(broker_url: str) -> None:
    async def wait(result: AsyncResult[Any], **options: Any) -> Any:
        return await result.aget(timeout=0.05, **options)

    result, failed = add.delay(2, 2), fail.delay("async")
    with pytest.raises(ResultTimeout):
        async_to_sync(wait)(result)
    work()
    assert async_to_sync(wait)(result) == 4
    with pytest.raises(ValueError, match="async"):
        async_to_sync(wait)(failed)
    assert isinstance(async_to_sync(wait)(failed, propagate=False), ValueError)


def test_values_come_back_as_they_went(broker_url: str) -> None:
    value = {
        "moment": dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC),
        "day": dt.date(2030, 1, 1),
        "price": decimal.Decimal("19.99"),
        "key": uuid.UUID(int=7),
        "raw": b"\x00\xff",
        "none": None,
        "deep": [[1.5, {"x": [True]}]],
        "text": "é \u2028 \U0001f600",
        "big": 2**70,
    }
    result, nothing = echo.delay(value), echo.delay(None)
    work()
    assert result.get(timeout=0) == value
    assert nothing.get(timeout=0) is None
    assert nothing.successful()


def test_the_tasks_own_exception(broker_url: str) -> None:
    result = fail.delay("no such order")
    work()
    with pytest.raises(ValueError, match=r"^no such order$") as caught:
        result.get()
    cause = caught.value.__cause__
    assert isinstance(cause, TaskFailed)
    assert "raise ValueError(text)" in str(cause)
    assert isinstance(result.get(propagate=False), ValueError)
    assert (result.state, result.failed()) == (State.FAILURE, True)
    assert isinstance(result.result, ValueError)
    assert "raise ValueError(text)" in (result.traceback or "")


def test_exceptions_of_all_kinds(broker_url: str) -> None:
    kinds = ["unprintable", "two arguments", "local", "cause"]
    sent = {kind: fail_with.delay(kind) for kind in kinds}
    work()
    with pytest.raises(TaskFailed, match=r"tests\.tasks\.TwoArguments: 7: seven"):
        sent["two arguments"].get(timeout=0)
    with pytest.raises(TaskFailed, match=r"LocalError: made in a function"):
        sent["local"].get(timeout=0)
    with pytest.raises(RuntimeError, match="outer"):
        sent["cause"].get(timeout=0)
    assert "KeyError: 'inner'" in (sent["cause"].traceback or "")
    assert sent["unprintable"].state == State.FAILURE


def test_leaving_is_a_failure_of_the_task(broker_url: str) -> None:
    result, after = leave.delay(), add.delay(1, 1)
    work()
    with pytest.raises(TaskFailed, match=r"SystemExit: 3"):
        result.get(timeout=0)
    assert after.get(timeout=0) == 2


def test_a_class_that_is_not_known_here(broker_url: str) -> None:
    stored = '{"exc_type": "Odd", "exc_message": ["x"], "exc_module": "somewhere.else"}'
    end_elsewhere(
        "a", state=State.FAILURE, result=stored, error_type="somewhere.else.Odd", error="x"
    )
    with pytest.raises(TaskFailed, match=r"^somewhere\.else\.Odd: x$"):
        AsyncResult[None]("a").get()


def test_only_exceptions_are_made_of_what_is_stored() -> None:
    stored = '{"exc_type": "system", "exc_message": ["true"], "exc_module": "os"}'
    row = TaskResult(id="a", state=State.FAILURE, result=stored, error_type="os.system", error="?")
    assert isinstance(results.rebuild(row), TaskFailed)
    row.result = '{"exc_type": "SystemExit", "exc_message": [1], "exc_module": "builtins"}'
    assert isinstance(results.rebuild(row), TaskFailed)


def test_djangos_exceptions(broker_url: str) -> None:
    Author.objects.create(name="Ann")
    result = greet_author.delay("not a number")  # type: ignore[arg-type]
    work()
    assert result.successful()
    row = TaskResult(
        id="a",
        state=State.FAILURE,
        result='{"exc_type": "Author.DoesNotExist", "exc_message": ["gone"], '
        '"exc_module": "tests.models"}',
    )
    found = results.rebuild(row)
    assert isinstance(found, ObjectDoesNotExist)
    assert type(found) is Author.DoesNotExist


def test_revoked(broker_url: str) -> None:
    result = add.apply_async((1, 2), expires=-1)
    work()
    assert result.state == State.REVOKED
    with pytest.raises(TaskRevoked, match=rf"{result.id} did not run: expired"):
        result.get()


def test_forget(broker_url: str) -> None:
    ended = add.delay(1, 2)
    work()
    assert ended.get() == 3
    ended.forget()
    assert (ended.state, TaskResult.objects.count()) == (State.PENDING, 0)
    with transaction.atomic():
        waiting = add.delay(1, 2)
    waiting.forget()
    assert TaskResult.objects.count() == 1


def test_waiting_that_could_never_end_is_refused(broker_url: str) -> None:
    with transaction.atomic():
        result = add.delay(1, 2)
        with pytest.raises(ResultError, match=r"transaction that is still open"):
            result.get(timeout=5)
    work()
    assert result.get(timeout=5) == 3


def test_of_a_call_that_ignores_its_result_none_at_once(broker_url: str) -> None:
    for result in (quiet_trace.delay("x"), trace.apply_async(("x",), ignore_result=True)):
        assert result.ignored
        assert result.get(timeout=5) is None


def test_a_wait_in_a_transaction_for_a_task_sent_before_it(broker_url: str) -> None:
    result = add.delay(1, 2)
    work()
    with transaction.atomic():
        assert result.get(timeout=5) == 3


def test_the_broker_is_away(own_valkey: Valkey) -> None:
    ended, waiting = add.delay(1, 2), add.delay(3, 4)
    TaskResult.objects.create(id=ended.id, task="x", queue="q", state="SUCCESS", result="3")
    own_valkey.kill()
    assert ended.get(timeout=5) == 3
    with pytest.raises(ResultTimeout):
        waiting.get(timeout=0.1)
    TaskResult.objects.create(id=waiting.id, task="x", queue="q", state="SUCCESS", result="7")
    assert waiting.get(timeout=5) == 7


def test_the_broker_goes_while_waiting(own_valkey: Valkey) -> None:
    result = add.delay(1, 2)

    def crash_and_end() -> None:
        own_valkey.kill()
        TaskResult.objects.create(id=result.id, task="x", queue="q", state="SUCCESS", result="3")

    with soon(crash_and_end):
        assert result.get(timeout=20) == 3
