"""What an operator sees of queues and tasks; of workers in tests/e2e/test_control.py."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from django.utils import timezone

from jobs import (
    broker,
    control,
    registry,
    task,
)
from jobs.control import inspect
from jobs.exceptions import UnknownQueue
from tests.integration.commands.helpers import run
from tests.tasks import add, trace
from tests.workers import put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def test_what_waits() -> None:
    put(b"not json")
    sent = add.apply_async((1,), {"b": 2}, priority=4)
    add.delay(5, 6)
    unreadable, first, second = inspect.waiting("default")
    assert unreadable == ("default", "", "", "", "", 0, None, False, 1, "", None)
    assert first.args == "[5,6]"
    assert second == ("default", sent.id, add.name, "[1]", '{"b":2}', 4, None, False, 1, "", None)
    assert inspect.waiting("default", 1) == [unreadable]
    assert inspect.waiting("low") == []
    with pytest.raises(UnknownQueue):
        inspect.waiting("nowhere")


def test_what_is_due_and_what_is_parked() -> None:
    control.pause_task(trace.name)
    trace.delay("parked")
    work()
    add.apply_async((1, 2), countdown=600)
    later, parked = inspect.due("default")
    assert later.due is not None
    # Times are rounded up to milliseconds.
    assert dt.timedelta(seconds=500) < later.due - timezone.now() < dt.timedelta(seconds=601)
    assert (later.task, later.parked) == (add.name, False)
    assert (parked.task, parked.due, parked.parked) == (trace.name, None, True)


def test_what_is_revoked() -> None:
    control.revoke("one", remember=60)
    control.revoke("two", terminate=True, remember=600)
    assert [(found.id, found.terminate) for found in inspect.revoked()] == [
        ("two", True),
        ("one", False),
    ]


def test_sensitive_arguments_are_not_told() -> None:
    @task(name="tests.inspecting.sign_in", sensitive=["password"])
    def sign_in(name: str, password: str) -> None: ...

    try:
        sign_in.delay("ada", password="lovelace")
        (call,) = inspect.waiting("default")
    finally:
        del registry.tasks["tests.inspecting.sign_in"]
    assert "lovelace" not in "".join((call.args, call.kwargs))
    assert "ada" in call.args


def test_the_tasks_that_there_are() -> None:
    found = inspect.registered()
    assert found == sorted(found)
    assert {add.name, trace.name} <= set(found)


def test_a_worker_that_was_killed_is_not_told() -> None:
    said = {
        "host": "box",
        "pid": 7,
        "started": 1.7e9,
        "queues": ["default"],
        "processes": 1,
        "processed": 3,
        "consumers": ["w/1.a"],
        "running": [["default", "w/1.a", 1, 1.7e9], ["default", "w/1.a", 2, 1.7e9]],
    }
    sent = add.delay(1, 2)
    broker.get().claim("default", "w/1.a", 1, 1, 60)
    broker.get().report("default", "w", json.dumps(said).encode())
    (worker,) = inspect.workers()
    assert (worker.name, worker.host, worker.pid, worker.processed) == ("w", "box", 7, 3)
    (running,) = worker.current  # the other delivery has ended since
    assert (running.call.id, running.consumer) == (sent.id, "w/1.a")
    assert running.since == dt.datetime.fromtimestamp(1.7e9, dt.UTC)
    assert inspect.active() == [running]
    broker.get().renew("default", ["w/1.a"], -1)
    assert inspect.workers() == []
    assert list(broker.get().reports("default")) == ["w"], "looking changes nothing"
    (lost,) = inspect.workers(lost=True)
    assert (lost.name, lost.leased, lost.current) == ("w", False, [running])


def test_the_command_says_what_a_worker_is_up_to() -> None:
    said = {"consumers": ["w/1.a"], "queues": ["default"], "state": "quiet", "every": 5.0}
    broker.get().renew("default", ["w/1.a"], 60)
    broker.get().report("default", "w", json.dumps(said).encode())
    assert run("jobs_inspect", "workers").endswith("0 tasks run, quiet\n")
    (worker,) = inspect.workers()
    assert not worker.silent
    assert worker._replace(age=13.0).silent
    (plain,) = json.loads(run("jobs_inspect", "workers", "--json"))
    assert (plain["state"], plain["failed"], plain["revision"]) == ("quiet", 0, "")
