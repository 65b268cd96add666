"""`manage.py jobs_pause`, `jobs_resume`, `jobs_purge`, `jobs_move`, `jobs_hand_over`,
`jobs_priority`, `jobs_rate_limit` and `jobs_inspect`."""

from __future__ import annotations

import builtins
import datetime as dt
import getpass
import json
import re

import pytest
from django.db import transaction

from jobs import broker, control
from jobs.models import TaskResult
from jobs.timing import clock
from tests.integration.commands.helpers import fail, run
from tests.tasks import add, trace
from tests.workers import on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def answer(monkeypatch: pytest.MonkeyPatch, said: str | None) -> list[str]:
    """Answer what is asked with this, or not at all; gives the questions."""
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        if said is None:
            raise EOFError
        return said

    monkeypatch.setattr(builtins, "input", ask)
    return asked


def test_pausing_and_resuming_queues() -> None:
    printed = run("jobs_pause", "low", "high", "--why", "the shop moves", "--by", "ada")
    assert printed.splitlines() == ["Queue low is paused.", "Queue high is paused."]
    first, second = run("jobs_pause").splitlines()
    assert first.startswith("queue high: paused by ada at 2")
    assert second.endswith(": the shop moves")
    assert run("jobs_resume", "low") == "Queue low is resumed.\n"
    assert run("jobs_resume", "low") == "Queue low was not paused.\n"
    assert list(control.paused()) == ["high"]


def test_pausing_and_resuming_tasks() -> None:
    assert run("jobs_pause", "--task", trace.name) == "Task tests.tasks.trace is paused.\n"
    assert control.paused_tasks()[trace.name].by == getpass.getuser()
    assert run("jobs_pause").startswith("task tests.tasks.trace: paused by")
    assert run("jobs_resume", "--task", trace.name) == "Task tests.tasks.trace is resumed.\n"
    assert run("jobs_resume", "--task", trace.name) == "Task tests.tasks.trace was not paused.\n"


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (("jobs_pause", "nowhere"), "not declared"),
        (("jobs_pause", "--task", "nothing"), "No task 'nothing' is known"),
        (("jobs_resume",), "Name a queue"),
        (("jobs_purge", "nowhere"), "not declared"),
        (("jobs_move", "default", "nowhere"), "not declared"),
        (("jobs_move", "default", "default"), "already"),
        (("jobs_move", "default", "low", "--id", "x"), "doesn't wait on queue default"),
        (("jobs_hand_over", "nowhere"), "not declared"),
        (("jobs_priority", "default", "x", "3"), "doesn't wait on queue default"),
        (("jobs_inspect", "waiting", "nowhere"), "not declared"),
        (("jobs_rate_limit", "nothing"), "No task 'nothing' is known"),
        (("jobs_rate_limit", "nothing", "1/s"), "No task 'nothing' is known"),
        (("jobs_rate_limit", trace.name, "1/d"), "must be like '100/s'"),
        (("jobs_rate_limit", trace.name, "1/s", "--reset"), "one of them"),
        (("jobs_rate_limit", trace.name, "--burst", "3"), "Name a task and a rate"),
        (("jobs_rate_limit", "--reset"), "Name a task and a rate"),
    ],
)
def test_what_is_wrong_is_said(args: tuple[str, ...], wrong: str) -> None:
    status, _, said = fail(*args)
    assert (status, wrong in said) == (1, True), said


@pytest.mark.parametrize(
    "args",
    [
        ("jobs_move", "default", "low", "--id", ""),
        ("jobs_retry", "--since", "1h", "--task", ""),
        ("jobs_retry", "--since", "1h", "--queue="),
        ("jobs_dead_letters", "--requeue", ""),
        ("jobs_dead_letters", "--discard", "", "--yes"),
        ("jobs_rate_limit", add.name, ""),
        ("jobs_time_limit", ""),
        ("jobs_call", add.name, "--args", "[1, 2]", "--queue", ""),
        ("jobs_inspect", "waiting", ""),
        ("jobs_revoke", "a-call", ""),
    ],
    ids=" ".join,
)
def test_an_empty_value_is_not_taken_for_none(args: tuple[str, ...]) -> None:
    """A variable in a shell that has no value must not widen what is asked for."""
    waiting = add.delay(1, 2)
    assert re.search("empty|1 to 255", fail(*args)[2])
    assert (on_redis(), control.inspect.revoked()) == ((1, 0), [])
    assert control.find("default", waiting.id)


def test_purging_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        trace.delay(str(n))
    trace.apply_async(("later",), countdown=600)
    for said in ("", "n", None):
        asked = answer(monkeypatch, said)
        assert fail("jobs_purge", "default")[0] == 1
        assert asked == ["Delete 3 messages of queue default for good? [y/N] "]
    assert on_redis() == (3, 0)
    assert "4 messages of queue default would be" in run(
        "jobs_purge", "default", "--due", "--dry-run"
    )
    answer(monkeypatch, "y")
    assert run("jobs_purge", "default") == "3 messages deleted.\n"
    assert run("jobs_purge", "default", "--only-due", "--yes") == "1 message deleted.\n"
    assert run("jobs_purge", "default", "--due") == "0 messages deleted.\n"
    assert broker.get().stats("default")[:3] == (0, 0, 0)


def test_moving() -> None:
    ids = [trace.delay(str(n)).id for n in range(3)]
    assert run("jobs_move", "default", "low", "--dry-run") == "3 messages would be moved.\n"
    one = ("jobs_move", "default", "low", "--id", ids[1])
    assert run(*one, "--dry-run") == "1 message would be moved.\n"
    assert on_redis() == (3, 0)
    assert run(*one) == "1 message moved.\n"
    assert run("jobs_move", "default", "low") == "2 messages moved.\n"
    assert (on_redis(), on_redis("low")) == ((0, 0), (3, 0))


def test_handing_over() -> None:
    """Urgent ones on the list of urgent ones, with the time that Celery's workers wait for."""
    sent = trace.apply_async(("now",))
    later = [trace.apply_async((str(n),), countdown=900, priority=3 * n) for n in range(2)]
    assert run("jobs_hand_over", "default", "--dry-run") == "2 messages are due later.\n"
    assert run("jobs_hand_over", "default") == "2 messages handed over.\n"
    assert broker.get().stats("default")[:3] == (3, 0, 0)
    found = [
        (json.loads(one.raw), one.priority) for one in broker.get().browse("default", due=False)
    ]
    ids = {made["headers"]["id"]: (made["headers"]["eta"], steps) for made, steps in found}
    assert ids[sent.id] == (None, 0)
    assert [ids[one.id][1] for one in later] == [0, 3]
    assert all(dt.datetime.fromisoformat(ids[one.id][0]) > clock.now() for one in later)
    # A worker of this program that comes by knows that they are not due.
    work()
    assert broker.get().stats("default")[:3] == (0, 0, 2)
    assert run("jobs_hand_over", "low") == "0 messages handed over.\n"


def test_handing_over_what_a_worker_would_take_back() -> None:
    trace.apply_async(("later",), countdown=900)
    report = {"host": "h", "pid": 1, "started": 0, "queues": ["default", "low"], "processes": 1}
    for state in ("running", "restarting"):
        broker.get().report("low", "web-1", json.dumps({**report, "state": state}).encode())
        said = fail("jobs_hand_over", "default")[2]
        assert "claim from queue 'default'" in said
        assert "web-1. Stop them first" in said
    assert run("jobs_hand_over", "high") == "0 messages handed over.\n"
    broker.get().report("low", "web-1", json.dumps({**report, "state": "draining"}).encode())
    assert run("jobs_hand_over", "default") == "1 message handed over.\n"


def test_another_priority() -> None:
    with transaction.atomic():
        task_id = trace.apply_async(("a",), priority=9).id
    assert "would get the priority 2" in run("jobs_priority", "default", task_id, "2", "--dry-run")
    assert run("jobs_priority", "default", task_id, "2") == f"{task_id} has the priority 2.\n"
    assert [m.priority for m in broker.get().browse("default", due=False)] == [0]
    assert TaskResult.objects.get(id=task_id).state == "PENDING"


def test_the_rate_of_a_task() -> None:
    name = trace.name
    assert run("jobs_rate_limit") == run("jobs_rate_limit", name) == ""
    printed = run("jobs_rate_limit", name, "10/m", "--burst", "3", "--by", "ada")
    assert printed == "Task tests.tasks.trace has the rate 10/m.\n"
    assert run("jobs_rate_limit", add.name, "unlimited").endswith(" has the rate unlimited.\n")
    first, second = run("jobs_rate_limit").splitlines()
    assert first.startswith(f"task {add.name}: rate unlimited, set by {getpass.getuser()} at 2")
    assert second.startswith("task tests.tasks.trace: rate 10/m, burst 3, set by ada at 2")
    assert run("jobs_rate_limit", name) == f"{second}\n"
    assert run("jobs_rate_limit", name, "--reset") == f"Task {name} has the rate of its code.\n"
    assert list(control.rate_limits()) == [add.name]
    assert run("jobs_rate_limit", name, "--ask-again") == "0 calls ask again.\n"


def test_looking() -> None:
    control.pause_task(trace.name)
    sent = add.delay(1, b=2)
    add.apply_async((3, 4), countdown=600)
    control.revoke("gone", terminate=True)
    assert run("jobs_inspect", "waiting") == f'default tests.tasks.add[{sent.id}] [1] {{"b":2}}\n'
    assert run("jobs_inspect", "waiting", "low") == ""
    (later,) = run("jobs_inspect", "due").splitlines()
    assert later.startswith("default 2")
    assert later.endswith("[3,4]")
    assert "gone" in run("jobs_inspect", "revoked")
    assert "terminate" in run("jobs_inspect", "revoked")
    assert add.name in run("jobs_inspect", "registered").splitlines()
    assert run("jobs_inspect", "workers") == run("jobs_inspect", "active") == ""


def test_looking_as_json() -> None:
    sent = add.delay(1, b=2)
    (told,) = json.loads(run("jobs_inspect", "waiting", "--json"))
    assert (told["id"], told["args"], told["due"]) == (sent.id, "[1]", None)
    assert json.loads(run("jobs_inspect", "workers", "--json")) == []
    assert json.loads(run("jobs_inspect", "waiting", "--json", "--count", "0")) == []
    told = json.loads(run("jobs_inspect", "registered", "--json"))
    assert {"name": add.name, "workers": [], "here": True} in told["tasks"]
