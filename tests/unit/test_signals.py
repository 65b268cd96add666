from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from jobs import signals
from jobs.exceptions import SoftTimeLimitExceeded
from jobs.message import Message
from jobs.signals import announce

MESSAGE = Message(task="shop.tasks.pay", id="id-1", queue="mail")


class Task:
    name = "shop.tasks.pay"


@pytest.fixture
def heard() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    found: list[tuple[Any, dict[str, Any]]] = []

    def receive(sender: Any, **named: Any) -> None:
        found.append((sender, named))

    signals.task_started.connect(receive)
    yield found
    signals.task_started.disconnect(receive)


def test_receivers_hear(heard: list[tuple[Any, dict[str, Any]]]) -> None:
    announce(signals.task_started, Task, message=MESSAGE, worker="w1")
    [(sender, named)] = heard
    assert sender is Task
    assert (named["message"], named["worker"]) == (MESSAGE, "w1")


def test_a_receiver_that_raises_disturbs_nobody(
    heard: list[tuple[Any, dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise LookupError("in the receiver")

    signals.task_started.connect(fail)
    try:
        announce(signals.task_started, Task, message=MESSAGE, worker="w1")
    finally:
        signals.task_started.disconnect(fail)
    assert len(heard) == 1
    ours = [record for record in caplog.records if record.name == "jobs"]
    assert "fail" in ours[0].getMessage()
    assert ours[0].exc_info is not None


def test_nobody_listens() -> None:
    announce(Signal(), Task, message=MESSAGE)


def test_a_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("boom")
    announce(signals.task_failed, Task, message=MESSAGE, exception=error, runtime=0.1, worker="w1")
    [record] = caplog.records
    assert record.getMessage() == "task shop.tasks.pay[id-1] failed: ValueError('boom')"
    assert (record.name, record.levelno) == ("jobs", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_failure_of_an_unknown_task_is_logged_by_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(
        signals.task_failed, "gone.task", message=MESSAGE, exception=ValueError(), runtime=0,
        worker="w1",
    )  # fmt: skip
    assert caplog.messages == ["task gone.task[id-1] failed: ValueError()"]


def test_a_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    announce(
        signals.task_retried, Task, message=MESSAGE, exception=OSError("x"), countdown=1.25,
        worker="w1",
    )  # fmt: skip
    assert caplog.messages == [
        "task shop.tasks.pay[id-1] will be tried again in 1.2 s: OSError('x')"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_worker_s_coming_and_going_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jobs")
    announce(signals.worker_ready, "w1", queues=["high", "low"])
    announce(signals.worker_stopping, "w1", queues=["high", "low"])
    assert caplog.messages == ["w1 ready, queues: high, low", "w1 stopping"]


def test_success_makes_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    announce(signals.task_succeeded, Task, message=MESSAGE, result=1, runtime=0.1, worker="w1")
    assert caplog.records == []


def test_every_signal_says_what_it_means() -> None:
    source = inspect.getsource(signals).splitlines()
    for number, line in enumerate(source):
        if line.endswith("= Signal()"):
            assert source[number - 1].startswith("#:"), line


# ------------------------------------------------------------------------------ awkward receivers


@contextlib.contextmanager
def received(*receivers: Any) -> Iterator[None]:
    for receive in receivers:
        signals.task_enqueued.connect(receive)
        signals.task_succeeded.connect(receive)
    yield
    for receive in receivers:
        signals.task_enqueued.disconnect(receive)
        signals.task_succeeded.disconnect(receive)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError, ValueError])
@pytest.mark.parametrize("signal", [signals.task_enqueued, signals.task_succeeded])
def test_what_a_receiver_raises_is_logged(
    kind: type[BaseException], signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(**_: Any) -> None:
        raise kind

    with received(leave):
        announce(signal, Task, message=MESSAGE, worker="w1")
    assert any(record.name == "jobs" and record.exc_info for record in caplog.records)


def test_ctrl_c_while_one_sends_is_not_swallowed() -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    with received(interrupt):
        with pytest.raises(KeyboardInterrupt):
            announce(signals.task_enqueued, Task, message=MESSAGE)
        announce(signals.task_succeeded, Task, message=MESSAGE)


def test_the_soft_limit_of_a_task_that_sends_reaches_it() -> None:
    def overrun(**_: Any) -> None:
        raise SoftTimeLimitExceeded

    with received(overrun), pytest.raises(SoftTimeLimitExceeded):
        announce(signals.task_enqueued, Task, message=MESSAGE)


def test_on_an_event_loop_sync_and_async_receivers_are_heard_at_once() -> None:
    """`delay()` in a coroutine can't await them."""
    heard: list[str] = []

    def receive(**_: Any) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # where Django would refuse the ORM
        heard.append("sync")

    async def areceive(**_: Any) -> None:
        await asyncio.sleep(0)
        heard.append("async")

    async def send() -> None:
        announce(signals.task_enqueued, Task, message=MESSAGE)

    with received(receive, areceive):
        asyncio.run(send())
    assert heard == ["sync", "async"]
