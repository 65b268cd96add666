"""Results in Celery's keys: for whom, and what happens when they can't be written at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import transaction
from pytest_django import Settings

from jobs import broker, chain, control, message, task
from jobs.exceptions import BrokerUnavailable
from jobs.message import Killed, Message, workflow
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.record import celery_results
from tests.celery_client import celery_call, celery_message
from tests.models import Run
from tests.tasks import add, echo, fail, trace
from tests.workers import dead_letters, on_redis, put, rolled_back, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task
def echo_until_mended(before: int, value: int) -> int:
    if not Run.objects.filter(label="mended").exists():
        raise ValueError("not yet")
    return before + value


@task
def send_and_roll_back() -> str:
    with rolled_back():
        add.delay(1, 2)
    with transaction.atomic():
        return add.delay(3, 4).id


@pytest.fixture(autouse=True)
def _open(settings: Settings, broker_url: str) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "foreign": {"open": True}}}


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as plain:
        yield plain


def told(client: redis.Redis) -> dict[str, Any]:
    """What Celery's clients are told: id → it."""
    found = {}
    for key in client.keys("celery-task-meta-*"):  # type: ignore[union-attr]
        found[key.decode().removeprefix("celery-task-meta-")] = json.loads(client.get(key))  # type: ignore[arg-type]
    return found


def states(client: redis.Redis) -> dict[str, str]:
    return {task_id: one["status"] for task_id, one in told(client).items()}


def failing_chain() -> bytes:
    behind = [celery_call(add.name, "c3", 1), celery_call(add.name, "c2", 1)]
    return celery_message("c1", fail.name, ["no"], embed={"chain": behind})


def test_by_default_clients_of_celery_are_told_and_nobody_else(client: redis.Redis) -> None:
    put(celery_message("theirs", add.name, [1, 2]), "foreign")
    ours = [add.delay(1, 2), add.apply_async((3, 4), queue="foreign")]
    work()
    assert [one.get() for one in ours] == [3, 7]
    assert states(client) == {"theirs": "SUCCESS"}
    assert told(client)["theirs"]["result"] == 3


def test_calls_that_were_rolled_back_are_no_children(client: redis.Redis) -> None:
    put(celery_message("theirs", send_and_roll_back.name, []), "foreign")
    work()
    sent = told(client)["theirs"]
    assert sent["children"] == [[[sent["result"], None], None]]


def test_the_result_is_there_before_what_follows_is_sent(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback may ask a Celery backend for the result of the call that it follows."""
    seen = []
    push = type(broker.get()).push

    def watched(self: Any, messages: Any) -> Any:
        messages = list(messages)
        seen.extend((message.decode(one.raw, "x").id, states(client)) for one in messages)
        return push(self, messages)

    put(
        celery_message("ok", add.name, [1, 2], embed={"chain": [celery_call(echo.name, "after")]}),
        "foreign",
    )
    put(
        celery_message(
            "bad", fail.name, ["no"], embed={"errbacks": [celery_call(echo.name, "why")]}
        ),
        "foreign",
    )
    monkeypatch.setattr(type(broker.get()), "push", watched)
    work()
    before = dict(seen)
    assert before["after"]["ok"] == "SUCCESS"
    assert before["why"]["bad"] == "FAILURE"
    assert client.get("celery-task-meta-ok") is not None


def test_none_are_told_or_all(client: redis.Redis, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CELERY_RESULTS": "none"}
    put(celery_message("theirs", add.name, [1, 2]), "foreign")
    work()
    assert states(client) == {}

    settings.JOBS = {
        **settings.JOBS,
        "CELERY_RESULTS": "all",
        "CELERY_RESULT_EXPIRES": None,
        "TRACK_STARTED": True,
    }
    sent = chain(add.s(1, 2), fail.s(), add.s(1)).delay()
    first = sent.parent.parent
    work()
    found = told(client)
    assert {task_id: one["status"] for task_id, one in found.items()} == {
        first.id: "SUCCESS",
        sent.parent.id: "FAILURE",
        sent.id: "FAILURE",
    }
    assert found[first.id]["children"] == [[[sent.parent.id, None], None]]
    assert client.ttl(f"celery-task-meta-{first.id}") == -1


def test_ends_without_a_run_have_celerys_names(client: redis.Redis, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "UNKNOWN_TASK_SECONDS": 0}
    put(celery_message("unknown", "tests.nobody", []), "foreign")
    put(celery_message("arguments", add.name, [1]), "foreign")
    put(celery_message("unreadable", add.name, [1, 2], compression="brotli"), "foreign")
    late = message.mark(celery_message("late", add.name, [1, 2]), jobs_killed=Killed.TIME_LIMIT)
    put(late, "foreign")
    killer = message.mark(celery_message("killer", add.name, [1, 2]), jobs_crashes=9)
    put(killer, "foreign")
    put(celery_message("revoked", add.name, [1, 2]), "foreign")
    control.revoke("revoked")
    work()
    found = told(client)
    assert {
        task_id: (one["status"], one["result"]["exc_type"]) for task_id, one in found.items()
    } == {
        "unknown": ("FAILURE", "NotRegistered"),
        "arguments": ("FAILURE", "TypeError"),
        "unreadable": ("FAILURE", "InvalidTaskError"),
        "late": ("FAILURE", "TimeLimitExceeded"),
        "killer": ("FAILURE", "WorkerLostError"),
        "revoked": ("REVOKED", "TaskRevokedError"),
    }
    assert found["revoked"]["result"]["exc_message"] == ["revoked"]
    assert len(dead_letters("foreign")) == 4


def test_what_a_killed_process_has_not_told_is_told_by_the_next(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(celery_results, "told", lambda _calls: [])
        put(failing_chain(), "foreign")
        work()
    assert states(client) == {}
    assert {row.state for row in TaskResult.objects.all()} == {State.FAILURE}
    put(message.mark_redelivered(failing_chain(), crashed=True)[0], "foreign")
    work()
    assert states(client) == {"c1": "FAILURE", "c2": "FAILURE", "c3": "FAILURE"}


def test_a_key_of_another_type_holds_up_nothing(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.rpush("celery-task-meta-theirs", "a")
    put(celery_message("theirs", add.name, [1, 2]), "foreign")
    work()
    assert TaskResult.objects.get(id="theirs").state == State.SUCCESS
    assert on_redis("foreign") == (0, 0)
    assert "Celery's clients can't be told" in caplog.text


def test_whether_the_broker_answers_when_a_call_starts_matters_not(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBS = {**settings.JOBS, "TRACK_STARTED": True}
    real = broker.get().store_celery_results
    calls = []

    def once_away(results: Any, seconds: Any) -> None:
        calls.append(results)
        if len(calls) == 1:
            raise BrokerUnavailable("away")
        real(results, seconds)

    monkeypatch.setattr(broker.get(), "store_celery_results", once_away)
    put(celery_message("theirs", add.name, [1, 2]), "foreign")
    work()
    assert [one.text[:21] for (one,) in calls] == [
        '{"status": "STARTED",',
        '{"status": "SUCCESS",',
    ]
    assert states(client) == {"theirs": "SUCCESS"}


def in_workflow(first: str) -> bytes:
    """A call and a note that follows it, always under the same id."""
    return celery_message(
        first, add.name, [1, 2], embed={"chain": [celery_call(echo.name, "next")]}
    )


def test_a_follow_up_that_has_ended_in_another_workflow_runs_anew(client: redis.Redis) -> None:
    for first in ("w1", "w1", "w2"):
        put(in_workflow(first), "foreign")
        work()
        row = TaskResult.objects.get(id="next")
        assert (row.state, row.root_id) == (State.SUCCESS, first)
    # Another delivery of the first workflow's message, which its worker has not acknowledged, is
    # not run while the second's is to run.
    sent = Message(id="next", task=fail.name, queue="default", args=["no"], root_id="w1")
    sent.celery = True
    put(message.mark_redelivered(message.encode(sent), crashed=True)[0])
    TaskResult.objects.filter(id="next").update(state=State.PENDING, finished_at=None)
    work()
    assert TaskResult.objects.get(id="next").state == State.PENDING


def test_a_follow_up_of_this_project_runs_once_whatever_sends_it() -> None:
    for _ in range(2):
        add.apply_async((1, 2), link=trace.si("told").set(task_id="told"))
        work()
    assert Run.objects.count() == 1


def test_a_failed_chord_that_is_sent_anew_is_counted_anew(client: redis.Redis) -> None:
    header = [celery_call(echo_until_mended.name, f"m{n}", n) for n in range(2)]
    for n, one in enumerate(header):
        one["options"]["group_index"] = n
    kwargs = {"header": workflow.group(header, {"task_id": "g"})}
    kwargs |= {"body": celery_call(echo.name, "body"), "kwargs": {}}
    chord = {"task": "celery.chord", "args": [], "kwargs": kwargs, "subtask_type": "chord"}
    chord |= {"options": {"task_id": "g"}, "immutable": False}
    for first, state in (("w1", State.FAILURE), ("w2", State.SUCCESS)):
        put(celery_message(first, add.name, [1, 2], embed={"chain": [chord]}), "foreign")
        work()
        assert TaskResult.objects.get(id="body").state == state
        assert states(client)["body"] == state
        Run.objects.create(label="mended")
