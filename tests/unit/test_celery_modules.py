"""What Celery's modules ``states``, ``exceptions`` and ``signals`` have, under the same names."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from jobs import current_task, exceptions, get_task_logger, registry, signals, states, task
from jobs.exceptions import UnknownTask, WrongArguments
from jobs.message import Message


def test_states() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES
    assert {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"} == states.UNREADY_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES
    assert {*states.State.values, "RECEIVED"} == states.ALL_STATES
    assert (states.SUCCESS, states.precedence("SUCCESS")) == ("SUCCESS", 0)
    ordered = ["PENDING", "RETRY", "STARTED", "REVOKED", "PROGRESS", "FAILURE", "SUCCESS"]
    assert sorted(sorted(ordered), key=states.state) == ordered
    assert states.state("PROGRESS") > states.state(states.STARTED)
    assert states.state("FAILURE") <= states.state("FAILURE") >= "FAILURE"


def test_exceptions() -> None:
    """A handler for one of Celery's catches ours."""
    for celerys, ours in {
        "MaxRetriesExceededError": "MaxRetriesExceeded",
        "NotRegistered": "UnknownTask",
        "OperationalError": "BrokerUnavailable",
        "TaskRevokedError": "TaskRevoked",
        "TimeoutError": "ResultTimeout",
        "WorkerLostError": "WorkerLost",
        "SoftTimeLimitExceeded": "SoftTimeLimitExceeded",
        "TimeLimitExceeded": "TimeLimitExceeded",
        "Ignore": "Ignore",
        "Reject": "Reject",
        "Retry": "Retry",
    }.items():
        assert getattr(exceptions, celerys) is getattr(exceptions, ours)
    assert issubclass(exceptions.TimeoutError, TimeoutError)
    assert issubclass(WrongArguments, TypeError)
    assert not issubclass(UnknownTask, TypeError)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("worker_init", r"AppConfig\.ready"),
        ("setup_logging", "LOGGING"),
        ("task_received", "task_started"),
        ("worker_shutdown", "worker_stopping"),
    ],
)
def test_signals_that_are_not_sent(name: str, told: str) -> None:
    with pytest.raises(ImportError, match=told):
        exec(f"from jobs.signals import {name}")


def test_no_such_signal() -> None:
    with pytest.raises(AttributeError, match="task_prerum"):
        _ = signals.task_prerum


def test_connect_is_a_decorator() -> None:
    """As in Celery: Django's `connect` returns None, and forgets the function."""
    heard: list[Any] = []

    @signals.before_task_publish.connect
    def before(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
        heard.append((sender, body[0], headers["id"]))
        headers |= {"id": "mine", "tenant": "one"}

    @signals.task_postrun.connect(sender="tests.celerys")
    def after(sender: Any, task_id: str, retval: Any, state: str, **_: Any) -> None:
        heard.append((task_id, retval, state))

    gc.collect()
    sent = Message(task="tests.celerys", id="id-1", queue="q", args=[1], own_headers={})
    try:
        signals.announce(signals.task_sending, "tests.celerys", message=sent)
        for name in ("tests.celerys", "another"):
            signals.announce(signals.task_succeeded, name, message=sent, result=3, runtime=0.1)
            signals.announce(signals.task_finished, name, message=sent, state="SUCCESS")
    finally:
        signals.before_task_publish.disconnect(before)
        signals.task_postrun.disconnect(after)
    assert heard == [("tests.celerys", (1,), "id-1"), ("id-1", 3, "SUCCESS")]
    assert (sent.id, sent.headers) == ("id-1", {"tenant": "one"})
    assert not signals._ends


def test_the_current_task() -> None:
    @task(bind=True, name="tests.current")
    def asks(self: Any, n: int) -> Any:
        return current_task == self, current_task.name, current_task.request.args

    try:
        assert asks(3) == (True, "tests.current", (3,))
        assert not current_task
        with pytest.raises(AttributeError, match="No task is running here"):
            _ = current_task.request
    finally:
        del registry.tasks["tests.current"]
    assert get_task_logger("shop.tasks").name == "shop.tasks"
