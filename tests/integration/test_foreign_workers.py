"""Queues with ``foreign_workers``, with Celery's worker played by this test: it takes messages off
the list, and stores results as Celery's Redis backend does. `tests/e2e/test_foreign_workers.py` has
the real one.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, broker, chain, chord, control, group, send_task, signature, task
from jobs.exceptions import BrokerUnavailable, JobsError, TaskRevoked
from jobs.ledger import publish, recovery
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from jobs.timing import clock
from jobs.worker.celery.ends import Ends
from jobs.worker.inline import known_queues
from tests.services import Valkey
from tests.tasks import add, echo
from tests.workers import rolled_back, work

pytestmark = pytest.mark.django_db(transaction=True)

LATER = dt.timedelta(minutes=5)


@task(ignore_result=True)
def forget(x: int) -> None:
    """Sent to Celery's workers, which have the same code."""


class Theirs:
    """Celery's worker, and the thread that listens to it, step by step."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.ends = Ends("here")

    def take(self, key: str = "theirs") -> dict[str, Any]:
        raw = self.client.rpop(key)
        assert raw is not None, "nothing waits"
        found: dict[str, Any] = json.loads(raw)
        return found

    def waiting(self) -> int:
        return int(self.client.llen("theirs"))

    def say(self, task_id: str, status: str, result: Any = None, **more: Any) -> None:
        """Store a state as Celery does, and have it brought into the ledger."""
        self.store(task_id, status, result, **more)
        self.ends.bring({task_id: b""})

    def store(self, task_id: str, status: str, result: Any = None, **more: Any) -> None:
        """Store a state as Celery does."""
        told = {"status": status, "result": result, "traceback": None, "children": []}
        told |= {"date_done": "2026-01-02T03:04:05+00:00", "task_id": task_id, **more}
        key, text = f"celery-task-meta-{task_id}", json.dumps(told)
        self.client.pipeline().set(key, text, ex=60).publish(key, text).execute()

    def fail(self, task_id: str, status: str = "FAILURE", text: str = "broken") -> None:
        error = {"exc_type": "ValueError", "exc_message": [text], "exc_module": "builtins"}
        self.say(task_id, status, error, traceback="Traceback (most recent call last): …")

    def run(self, result: Any = None) -> str:
        """Take one message and return this; the call's id."""
        task_id = str(self.take()["headers"]["id"])
        self.say(task_id, "SUCCESS", result)
        return task_id


@pytest.fixture
def theirs(broker_url: str, valkey_server: Valkey, settings: Settings) -> Iterator[Theirs]:
    queues = {"default": {}, "other": {}, "theirs": {"foreign_workers": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    with valkey_server.client() as client:
        yield Theirs(client)


def send(*args: Any, **options: Any) -> AsyncResult[Any]:
    return send_task("other.task", args, queue="theirs", **options)


def s(*args: Any) -> Any:
    return signature("other.task", args=args, queue="theirs")


def row(result: Any) -> TaskResult:
    return TaskResult.objects.get(id=result.id)


def body_of(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


# ------------------------------------------------------------------------------ what is sent


def test_it_is_on_celery_s_list_at_once_with_its_eta(theirs: Theirs) -> None:
    moment = clock.now() + LATER
    result = send(1, countdown=LATER.total_seconds(), expires=moment + LATER)
    message = theirs.take()
    assert abs(dt.datetime.fromisoformat(message["headers"]["eta"]) - moment) < LATER
    assert message["headers"]["expires"] is not None
    assert message["headers"]["id"] == result.id
    assert body_of(message)[0] == [1]
    assert theirs.client.keys("{theirs}:due") == []


def test_a_less_urgent_one_is_on_the_list_of_its_priority(theirs: Theirs) -> None:
    send(1, priority=7)
    assert theirs.take("theirs\x06\x166")["properties"]["priority"] == 7


def test_what_follows_is_not_told_to_celery(theirs: Theirs) -> None:
    chain(s(1), add.s(2)).apply_async(link_error=echo.s())
    message = theirs.take()
    assert set(body_of(message)[2].values()) == {None}
    assert message["headers"]["ignore_result"] is False


def test_each_has_a_row_before_it_is_run(theirs: Theirs) -> None:
    assert row(send(1)).state == State.PENDING
    forget.apply_async((1,), queue="theirs")
    assert TaskResult.objects.get(task=forget.name).published_at is not None


def test_in_a_transaction(theirs: Theirs) -> None:
    with transaction.atomic():
        send(1)
        assert theirs.waiting() == 0
    with rolled_back():
        send(2)
    assert theirs.waiting() == 1


# ------------------------------------------------------------------------------ its end


def test_a_success(theirs: Theirs) -> None:
    result = send(1)
    theirs.run({"a": [1.5, None]})
    assert result.get(timeout=5) == {"a": [1.5, None]}
    found = row(result)
    assert (found.state, found.worker, found.attempts) == (State.SUCCESS, "celery", 1)
    assert found.finished_at == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def test_who_has_run_it_where_celery_says_so(theirs: Theirs) -> None:
    result = send(1)
    theirs.say(result.id, "SUCCESS", 1, worker="celery@there", retries=2)
    assert (row(result).worker, row(result).attempts) == ("celery@there", 3)


def test_a_failure(theirs: Theirs) -> None:
    result = send(1)
    theirs.fail(result.id)
    with pytest.raises(ValueError, match=r"^broken$"):
        result.get(timeout=5)
    found = row(result)
    assert (found.state, found.error_type, found.error) == (
        State.FAILURE,
        "builtins.ValueError",
        "broken",
    )
    assert found.traceback == "Traceback (most recent call last): …"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"exc_type": "OwnError", "exc_message": ["a", 2], "exc_module": "no.module"}, "('a', 2)"),
        ({"exc_type": "OwnError", "exc_message": "a", "exc_module": None}, "a"),
        ({"exc_type": "OwnError", "exc_message": []}, ""),
        ("what is no exception", "what is no exception"),
        ([1, {"a": None}], "[1, {'a': None}]"),
    ],
)
def test_errors_that_nobody_knows_here(theirs: Theirs, error: Any, text: str) -> None:
    result = send(1)
    theirs.say(result.id, "FAILURE", error)
    assert (row(result).state, row(result).error) == (State.FAILURE, text)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is
        result.get(timeout=5)


def test_what_is_no_result_ends_it_all_the_same(theirs: Theirs) -> None:
    for text in ("{", "[]", '{"result": 1}', '{"status": "SUCCESS", "result": NaN}'):
        result = send(1)
        theirs.client.set(f"celery-task-meta-{result.id}", text)
        theirs.ends.bring({result.id: b""})
        assert row(result).state == State.FAILURE
        assert "can't be used" in row(result).error


def test_a_result_that_is_too_large(theirs: Theirs, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RESULT_MAX_BYTES": 100}
    result = send(1)
    theirs.say(result.id, "SUCCESS", "x" * 200)
    assert "RESULT_MAX_BYTES" in row(result).error


def test_on_its_way(theirs: Theirs) -> None:
    result = send(1)
    theirs.say(result.id, "STARTED", {"pid": 5, "hostname": "celery@there"})
    assert (row(result).state, row(result).worker) == (State.STARTED, "celery@there")
    began = row(result).started_at
    theirs.fail(result.id, "RETRY", "not yet")
    assert (row(result).state, row(result).error) == (State.RETRY, "not yet")
    theirs.say(result.id, "PROGRESS", {"done": 1})
    assert row(result).state == State.STARTED
    theirs.say(result.id, "SUCCESS", 1)
    found = row(result)
    assert (found.state, found.started_at, found.error) == (State.SUCCESS, began, "")


def test_revoked(theirs: Theirs) -> None:
    result = chain(s(1), add.s(2)).delay()
    error = {"exc_type": "TaskRevokedError", "exc_message": ["expired"]}
    theirs.say(result.parent.id, "REVOKED", error)
    with pytest.raises(TaskRevoked, match="expired"):
        result.parent.get(timeout=5)
    assert row(result).state == State.REVOKED


def test_the_first_end_stays(theirs: Theirs) -> None:
    result = send(1)
    theirs.run(1)
    theirs.fail(result.id)
    assert (row(result).state, result.get(timeout=5)) == (State.SUCCESS, 1)


def test_what_is_not_theirs_is_left_alone(theirs: Theirs) -> None:
    with transaction.atomic():
        ours = add.delay(1, 2)
    theirs.say(ours.id, "SUCCESS", "forged")
    theirs.say("unknown", "SUCCESS", "forged")
    for _ in State:
        theirs.ends.sweep()
    assert [one.state for one in TaskResult.objects.all()] == [State.PENDING]
    work(["default"])
    assert ours.get(timeout=5) == 3


def test_a_result_that_is_ignored(theirs: Theirs) -> None:
    result = forget.apply_async((1,), queue="theirs")
    theirs.run("secret")
    assert (row(result).state, row(result).result) == (State.SUCCESS, None)


# ------------------------------------------------------------------------------ what follows


def test_a_chain_goes_on_with_our_workers_and_back(theirs: Theirs) -> None:
    result = chain(s(1), add.s(10), s(100)).delay()
    theirs.run(5)
    work(["default"])
    assert body_of(theirs.take())[0] == [15, 100]
    theirs.say(result.id, "SUCCESS", "end")
    assert result.get(timeout=5) == "end"


def test_a_chain_goes_on_once(theirs: Theirs) -> None:
    chain(s(1), s(2)).delay()
    task_id = theirs.run(5)
    theirs.say(task_id, "SUCCESS", 5)
    assert theirs.waiting() == 1


def test_a_failure_ends_the_chain_and_sends_the_errbacks(theirs: Theirs) -> None:
    result = chain(s(1).on_error(echo.s()), add.s(10)).delay()
    theirs.fail(result.parent.id)
    assert row(result).state == State.FAILURE
    work(["default"])
    assert TaskResult.objects.get(task=echo.name).result == json.dumps(result.parent.id)


def test_a_chord_of_both_kinds(theirs: Theirs) -> None:
    body = chord([s(1), add.s(1, 1), s(2)])(echo.s())
    work(["default"])
    theirs.run(1)
    assert TaskGroup.objects.get().remaining == 1
    theirs.run(3)
    work(["default"])
    assert body.get(timeout=5) == [1, 2, 3]


def test_a_body_of_theirs(theirs: Theirs) -> None:
    body = chord([add.s(1, 1), add.s(2, 2)])(s())
    work(["default"])
    assert body_of(theirs.take())[0] == [[2, 4]]
    theirs.say(body.id, "SUCCESS", 6)
    assert body.get(timeout=5) == 6


def test_a_failed_member_fails_the_body(theirs: Theirs) -> None:
    body = chord([s(1), add.s(1, 1)])(s())
    work(["default"])
    theirs.fail(theirs.take()["headers"]["id"])
    assert "broken" in row(body).error
    assert theirs.waiting() == 0


def test_a_group(theirs: Theirs) -> None:
    result = group(s(1), add.s(1, 1)).delay()
    theirs.run(1)
    work(["default"])
    assert result.get(timeout=5) == [1, 2]


# ------------------------------------------------------------------------------ the listener


def test_a_look_through_all_finds_what_nobody_heard(theirs: Theirs) -> None:
    results = [send(n) for n in range(3)]
    for result in results[:2]:
        told = {"status": "SUCCESS", "result": 1}
        theirs.client.set(f"celery-task-meta-{result.id}", json.dumps(told))
    for _ in State:
        theirs.ends.sweep()
    assert [row(result).state for result in results] == ["SUCCESS", "SUCCESS", "PENDING"]


def test_looks_page_by_page(theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.worker.celery.ends._PAGE", 2)
    monkeypatch.setattr("jobs.worker.celery.ends._READ", 1)
    results = [send(n) for n in range(5)]
    for result in results:
        theirs.client.set(f"celery-task-meta-{result.id}", '{"status": "SUCCESS", "result": 1}')
    theirs.ends.sweep()
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 2
    for _ in range(5):
        theirs.ends.sweep()
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 5


def test_hears_results(theirs: Theirs) -> None:
    with broker.celery_ends().listen() as hear:
        assert hear(0) is None
        theirs.client.publish("celery-task-meta-a-b", "{}")
        theirs.client.publish("celery-taskset-meta-c", "{}")
        assert hear(5) == ("a-b", b"{}")
        assert hear(0) is None


def test_an_end_stays_whatever_is_stored_after_it(theirs: Theirs) -> None:
    """Celery's worker sends the next attempt, and stores then that this one is retried."""
    results = [send(n) for n in range(2)]
    error = {"exc_type": "KeyError", "exc_message": [0], "exc_module": "builtins"}
    with broker.celery_ends().listen() as hear:
        theirs.store(results[0].id, "SUCCESS", 7)
        theirs.store(results[1].id, "FAILURE", error)
        for result in results:
            theirs.store(result.id, "RETRY", error)
        theirs.ends.bring(theirs.ends._heard(hear))
    assert [row(result).state for result in results] == ["SUCCESS", "FAILURE"]


def test_all_that_comes_is_heard(theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.worker.celery.ends._PAGE", 2)
    results = [send(n) for n in range(5)]
    with broker.celery_ends().listen() as hear:
        for result in results:
            theirs.store(result.id, "STARTED")
            theirs.store(result.id, "SUCCESS", 7)
        while said := theirs.ends._heard(hear):
            theirs.ends.bring(said)
    assert [row(result).state for result in results] == ["SUCCESS"] * 5


def test_what_is_published_and_is_no_end_is_read(theirs: Theirs) -> None:
    result = send(1)
    theirs.say(result.id, "STARTED")
    with broker.celery_ends().listen() as hear:
        for text in ("", "{", "[]", '{"status": []}', '{"status": "SUCCESS", "result": NaN}'):
            theirs.client.publish(f"celery-task-meta-{result.id}", text)
            theirs.ends.bring(theirs.ends._heard(hear))
    assert row(result).state == State.STARTED


def test_one_listens_at_a_time(theirs: Theirs) -> None:
    other = Ends("there")
    assert theirs.ends._leads()
    assert not other._leads()
    theirs.ends.stop()
    theirs.ends._loop()  # ends at once, and gives it up
    assert other._leads()


def test_results_on_another_server(theirs: Theirs, own_valkey: Valkey, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CELERY_RESULT_BACKEND": own_valkey.url}
    result = send(1)
    with own_valkey.client() as client:
        client.set(f"celery-task-meta-{result.id}", '{"status": "SUCCESS", "result": 7}')
    Ends("here").bring({result.id: b""})
    assert result.get(timeout=5) == 7


def test_while_their_server_is_away(theirs: Theirs, own_valkey: Valkey, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CELERY_RESULT_BACKEND": own_valkey.url}
    ends = broker.celery_ends()
    with ends.listen() as hear:
        own_valkey.kill()
        with pytest.raises(BrokerUnavailable):
            hear(5)
    with pytest.raises(BrokerUnavailable):
        ends.read(["a"])
    with pytest.raises(BrokerUnavailable), ends.listen():
        pass


def test_a_silent_server_is_asked_and_given_up(
    theirs: Theirs, own_valkey: Valkey, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.broker.watched._SILENCE", 0)
    settings.JOBS = {**settings.JOBS, "CELERY_RESULT_BACKEND": own_valkey.url}
    with broker.celery_ends().listen() as hear:
        for _ in range(2):
            assert hear(0) is None  # asks
            assert hear(60) is None  # its answer
        with own_valkey.frozen():
            assert hear(0) is None
            with pytest.raises(BrokerUnavailable, match="doesn't answer any more"):
                hear(0)


# ------------------------------------------------------------------------------ never twice


def test_recovery_leaves_them_alone(theirs: Theirs) -> None:
    send(1)
    theirs.take()
    soon = clock.now() + LATER
    assert list(recovery.lost(soon)) == []
    assert recovery.some_lost(soon, 0) == 0
    said = StringIO()
    call_command("jobs_recover", "--apply", "--older-than", "0", stdout=said)
    assert "1 calls wait for Celery's workers of the queue 'theirs'" in said.getvalue()
    assert theirs.waiting() == 0


def test_the_relay_sends_what_was_never_sent(theirs: Theirs) -> None:
    result = chain(s(1), add.s(2)).delay()
    theirs.client.flushall()
    TaskResult.objects.update(published_at=None)
    assert publish.relay(clock.now() + LATER) == 1
    message = theirs.take()
    assert message["headers"]["id"] == result.parent.id
    assert set(body_of(message)[2].values()) == {None}


def test_the_relay_sends_nothing_twice(theirs: Theirs) -> None:
    send(1)
    theirs.take()
    TaskResult.objects.update(published_at=None)  # as if the process had died before it noted that
    publish.relay(clock.now() + LATER)
    assert theirs.waiting() == 0
    assert TaskResult.objects.get().published_at is not None


# ------------------------------------------------------------------------------ operators


def test_run_again(theirs: Theirs) -> None:
    result = send(1)
    theirs.fail(theirs.take()["headers"]["id"])
    assert control.retry(result.id)
    theirs.ends.bring({result.id: b""})  # its old result is gone
    assert row(result).state == State.PENDING
    assert theirs.run(5) == result.id
    assert (row(result).state, row(result).attempts) == (State.SUCCESS, 2)


def test_revoking_tells_celery(theirs: Theirs) -> None:
    result = send(1, countdown=60)
    with theirs.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("/0.celery.pidbox")
        heard.get_message(timeout=5)
        result.revoke(terminate=True)
        told = json.loads(heard.get_message(timeout=5)["data"])
    said = json.loads(base64.b64decode(told["body"]))
    assert said["method"] == "revoke"
    assert said["arguments"] == {"task_id": [result.id], "terminate": True, "signal": "SIGTERM"}


def test_what_celery_has_dropped_ends_by_revoking_it(
    theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.worker.celery.ends._GIVE_UP", -1)
    dropped, running, waiting = chain(s(1), add.s(1)).delay(), send(2), send(3)
    theirs.say(running.id, "STARTED")
    for result in (dropped.parent, running):
        result.revoke()
    for _ in State:
        theirs.ends.sweep()
    states = [row(one).state for one in (dropped.parent, dropped, running, waiting)]
    assert states == ["REVOKED", "REVOKED", "STARTED", "PENDING"]
    running.revoke(terminate=True)
    theirs.ends._sweep_at = 0
    for _ in State:
        theirs.ends.sweep()
    assert row(running).state == State.REVOKED


@pytest.mark.parametrize(
    "act",
    [
        lambda: control.pause("theirs"),
        lambda: control.purge("theirs"),
        lambda: control.change_priority("theirs", "x", 3),
        lambda: control.move("default", "theirs"),
    ],
)
def test_what_they_do_not_do_is_refused(theirs: Theirs, act: Callable[[], object]) -> None:
    with pytest.raises(JobsError, match="Celery's workers take the calls of queue 'theirs'"):
        act()


@pytest.mark.parametrize(
    "act",
    [
        ("jobs_pause", "--task", add.name),
        ("jobs_rate_limit", add.name, "1/s"),
        ("jobs_time_limit", add.name, "--hard", "5"),
    ],
)
@pytest.mark.usefixtures("theirs")
def test_a_command_says_what_they_do_not_know(settings: Settings, act: tuple[str, ...]) -> None:
    errors = StringIO()
    call_command(*act, stdout=StringIO(), stderr=errors)
    assert errors.getvalue() == ""  # its calls go to this program's workers
    settings.JOBS = {**settings.JOBS, "TASK_ROUTES": {add.name: "theirs"}}
    call_command(*act, stdout=StringIO(), stderr=errors)
    assert "go to theirs, where Celery's workers take them" in errors.getvalue()


def test_moved_to_our_workers_it_runs_with_all_that_follows(theirs: Theirs) -> None:
    result = chain(signature(add.name, (1, 2), queue="theirs"), add.s(10)).delay()
    late = signature(add.name, (1, 2), queue="theirs").apply_async(countdown=600)
    assert control.move("theirs", "other") == 2
    work(["other", "default"])
    assert result.get(timeout=5) == 13
    assert row(late).state == State.PENDING
    assert row(late).queue == "other"


def test_our_workers_don_t_take_it(theirs: Theirs) -> None:
    with pytest.raises(CommandError, match="Celery's workers take its calls"):
        call_command("runworker", "--queues", "theirs", "--burst")
    assert known_queues() == ["default", "other"]


def test_its_messages_are_no_trouble(theirs: Theirs) -> None:
    send(1)
    said = StringIO()
    call_command("jobs_status", stdout=said)
    (line,) = [line for line in said.getvalue().splitlines() if line.startswith("theirs")]
    assert line.split() == ["theirs", "1", "0", "0", "0", "0"]
