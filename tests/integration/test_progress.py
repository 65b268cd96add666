"""What a running task says of itself: sent, read, followed, and gone after the end."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import close_old_connections, connections, transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import AsyncResult, Task, broker, control, task
from jobs.broker.base import About, Note
from jobs.exceptions import MessageTooLarge, NotSerializable
from jobs.models import TaskResult
from jobs.running import progress, request
from jobs.running.notes import Sender
from jobs.running.request import current
from jobs.states import State
from tests.services import Valkey, wait_for
from tests.tasks import add, async_tell, fail, tell, tell_state
from tests.workers import Gate, work

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def while_it_runs(gate: Gate, look: Any) -> Any:
    """What ``look`` finds in another thread while the task waits at the gate."""

    def watch() -> Any:
        try:
            gate.wait_for()
            return look()
        finally:
            gate.open()
            close_old_connections()
            connections.close_all()
            broker.get().close()

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(watch)
        work()
        return found.result()


def saying(result: AsyncResult[Any], *words: Any) -> progress.Progress:
    """Its progress, once it has said so much."""
    wait_for(lambda: (said := result.progress) and said.done in words, what="the progress")
    said = result.progress
    assert said is not None
    return said


def test_the_last_of_a_thousand_reports_is_read_while_it_runs(broker_url: str, gate: Gate) -> None:
    result = tell.delay(gate.path, 1000)

    def look() -> tuple[progress.Progress, str, Any]:
        return saying(result, 1000), result.state, result.info

    said, state, info = while_it_runs(gate, look)
    assert (said.done, said.total, said.message, said.percent) == (1000, 1000, "step 1000", 100)
    assert (said.state, said.meta, said.attempt) == ("STARTED", None, 1)
    assert timezone.now() - said.at < dt.timedelta(minutes=1)
    assert (state, info) == ("STARTED", None)
    assert result.progress is None
    assert (result.state, result.info) == ("SUCCESS", "told")
    with redis.Redis.from_url(broker_url) as server:
        assert server.keys("*:progress:*") == []
        sent = server.info("commandstats")["cmdstat_set"]["calls"]
    assert 1 <= sent <= 20, "a thousand reports are a few writes"


def test_a_state_of_its_own_until_the_end(broker_url: str, gate: Gate) -> None:
    result = tell_state.delay(gate.path)

    def look() -> tuple[str, Any, bool]:
        wait_for(lambda: result.state == "PACKING", what="the state")
        return result.status, result.info, result.ready()

    assert while_it_runs(gate, look) == ("PACKING", {"box": 3}, False)
    assert result.state == State.SUCCESS


def test_from_an_async_task_by_any_handle(broker_url: str, gate: Gate) -> None:
    sent = async_tell.delay(gate.path)
    # No row says in which queue it is: it was sent outside a transaction.
    result = AsyncResult[Any](sent.id)
    assert while_it_runs(gate, lambda: saying(result, 1)).percent == 25
    assert result.progress is None


def test_followed_until_the_end(broker_url: str, gate: Gate) -> None:
    result = tell.delay(gate.path, 3)

    def follow() -> list[progress.Progress]:
        heard = []
        for said in result.follow(timeout=20):
            heard.append(said)
            if said.done == 3:
                gate.open()
        return heard

    heard = while_it_runs(gate, follow)
    assert [said.done for said in heard][-1] == 3
    assert list(result.follow()) == []


def test_following_ends_with_the_time(broker_url: str) -> None:
    assert list(tell.delay("nowhere").follow(timeout=0.01)) == []


def test_nothing_happens_outside_of_a_worker(broker_url: str) -> None:
    tell.progress(1, 2)
    tell.update_state(state="HERE")
    assert progress.told == {}


def test_what_a_former_attempt_said_is_not_shown(broker_url: str) -> None:
    broker.get().note("default", [Note("id-1", About.PROGRESS, b'{"done":1,"attempt":2}')], 60)
    for state, attempts, shown in (
        (State.PENDING, 0, True),
        (State.RETRY, 1, True),
        (State.RETRY, 2, False),
        (State.FAILURE, 1, False),
    ):
        row = TaskResult(id="id-1", queue="default", state=state, attempts=attempts)
        assert (progress.read("id-1", row) is not None) is shown, (state, attempts)


@pytest.mark.parametrize("found", [b"", b"[1]", b'{"done":"x"}', b'{"at":1e300}', b"\xff"])
def test_what_is_no_progress_is_none(broker_url: str, found: bytes) -> None:
    broker.get().note("default", [Note("id-1", About.PROGRESS, found)], 60)
    assert progress.read("id-1") is None


def test_the_broker_away_is_no_affair_of_the_reader(own_valkey: Valkey) -> None:
    own_valkey.kill()
    assert AsyncResult[Any]("unknown").state == State.PENDING
    assert AsyncResult[Any]("unknown").progress is None


def test_what_is_noted_while_the_broker_is_away_is_sent_later(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    def note(value: bytes) -> None:
        sender.put(("default", "id-1", About.PROGRESS), lambda: value)

    sender = Sender()
    own_valkey.kill()
    with caplog.at_level(logging.WARNING, "jobs.notes"):
        note(b"1")
        wait_for(lambda: "the tasks go on" in caplog.text, what="the first try")
        note(b"2")
        assert not sender.flush()
        own_valkey.start()
        wait_for(lambda: sender.flush(), what="the broker to have it")
    assert broker.get().noted("default", "id-1", About.PROGRESS) == b"2"
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "notes of running tasks can't be sent",
        "notes of running tasks are sent again",
    ]
    sender.stop()


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"state": "RETRY"}, ValueError),
        ({"state": "SUCCESS", "meta": object()}, NotSerializable),
        ({"state": ""}, ValueError),
        ({"state": 3}, ValueError),
        ({"meta": object()}, NotSerializable),
        ({"meta": "x" * 2_000_000}, MessageTooLarge),
    ],
)
def test_a_state_that_cannot_be_is_an_error_at_the_call(
    kwargs: dict[str, Any], error: type[Exception]
) -> None:
    token = current.set((fail.message(("x",), {}), "w/1"))
    try:
        with pytest.raises(error):
            fail.update_state(**kwargs)
    finally:
        current.reset(token)


@pytest.mark.parametrize("done", ["1", float("nan"), float("inf"), 10**30])
def test_progress_is_told_in_numbers(done: Any) -> None:
    with pytest.raises(TypeError, match="numbers"):
        fail.progress(1, done)


# ------------------------------------------------------------------------------ of another call


@task(name="progress.of_another", bind=True)
def of_another(self: Task[..., Any], task_id: str, state: str) -> None:
    self.update_state(task_id=task_id, state=state, meta={"by": self.request.id})


def test_a_state_of_another_call(broker_url: str) -> None:
    with transaction.atomic():
        in_transaction = add.apply_async((1, 2), queue="low")  # has a row
    outside = add.apply_async((3, 4), queue="high")  # has none
    for queue in ("low", "high"):
        control.pause(queue)
    teller = of_another.delay(in_transaction.id, "PACKING")
    of_another.update_state(outside.id, "WRAPPING", {"box": 3})
    work()
    assert (in_transaction.state, in_transaction.info) == ("PACKING", {"by": teller.id})
    assert (outside.state, outside.info) == ("WRAPPING", {"box": 3})
    for queue in ("low", "high"):
        control.resume(queue)
    work()
    assert [(one.state, one.result) for one in (in_transaction, outside)] == [
        ("SUCCESS", 3),
        ("SUCCESS", 7),
    ]
    # The end is not changed.
    add.update_state(task_id=outside.id, state="LATE", meta="late")
    assert (AsyncResult(outside.id).state, AsyncResult(outside.id).info) == ("SUCCESS", 7)


@task(name="progress.fail_once", max_retries=1, autoretry_for=[ValueError], default_retry_delay=600)
def fail_once() -> None:
    raise ValueError


def test_of_an_attempt_that_is_over(broker_url: str) -> None:
    result = fail_once.apply_async((), queue="low")
    add.update_state(task_id=result.id, state="FIRST")
    work()
    assert result.state == State.RETRY
    add.update_state(task_id=result.id, state="SECOND")
    assert result.state == "SECOND"


def test_its_own_id(broker_url: str) -> None:
    token = current.set((fail.message(("x",), {}, task_id="own"), "w/1"))
    try:
        fail.update_state("own", "SUCCESS", 5)
        assert request.said.pop("own").state == State.SUCCESS
    finally:
        current.reset(token)


@pytest.mark.parametrize(
    ("state", "match"),
    [("SUCCESS", "jobs.control.revoke"), ("REVOKED", "is an end"), ("RETRY", "none of PENDING")],
)
def test_an_end_of_another_call(broker_url: str, state: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        add.update_state(task_id="another", state=state)
    with pytest.raises(NotSerializable, match="the call another"):
        add.update_state(task_id="another", state="X", meta=object())
    with pytest.raises(TypeError):
        add.update_state(task_id=5, state="X")  # type: ignore[arg-type]
    for wrong in ("", "X" * 256, 7, ["X"]):
        with pytest.raises(ValueError, match="A task's own state can't be"):
            add.update_state(task_id="another", state=wrong)  # type: ignore[arg-type]
    assert AsyncResult("another").state == State.PENDING


def test_from_async_code(broker_url: str) -> None:
    async def tell() -> None:
        add.update_state(task_id="another", state="HERE")

    asyncio.run(tell())
    assert AsyncResult("another").state == "HERE"


def test_celerys_clients_are_told(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CELERY_RESULTS": "all"}
    add.update_state(task_id="another", state="HERE", meta=[1])
    with redis.Redis.from_url(broker_url) as client:
        told = json.loads(client.get("celery-task-meta-another") or b"{}")
    assert (told["status"], told["result"]) == ("HERE", [1])
