"""Django's tasks on this package's workers: the contract of ``django.tasks``, on each version of
Django that has one, and on 5.2 with the backport."""

from __future__ import annotations

import datetime as dt
import importlib
import pickle
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import checks
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs.contrib import django_tasks as ours
from jobs.models import TaskResult
from jobs.testing import Enqueued, in_memory, run_jobs
from tests import django_tasks as tasks

package: Any = importlib.import_module(ours.PACKAGE)
Status: Any = package.TaskResultStatus

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]


@pytest.fixture(autouse=True)
def sent() -> Any:
    with in_memory() as calls:
        yield calls


def heard(signal: Any) -> list[Any]:
    told: list[Any] = []
    signal.connect(lambda task_result, **_: told.append(task_result), weak=False)
    return told


# ------------------------------------------------------------------------------ sending


def test_a_result_from_the_sending_to_the_end() -> None:
    result = tasks.add.enqueue(1, b=2)
    assert (result.status, result.args, result.kwargs) == (Status.READY, [1], {"b": 2})
    assert result.enqueued_at is not None
    assert (result.started_at, result.attempts, result.is_finished) == (None, 0, False)
    again = tasks.add.get_result(result.id)
    assert again.status == Status.READY
    run_jobs()
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (Status.SUCCESSFUL, 3, 1)
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert (result.errors, len(result.worker_ids)) == ([], 1)
    assert len(result.id) < 64


def test_it_is_a_task_of_this_package(sent: Enqueued) -> None:
    result = tasks.urgent.enqueue()
    (call,) = sent("tests.django_tasks.urgent", queue="low")
    assert call.priority == 2
    assert TaskResult.objects.get(pk=result.id).task == "tests.django_tasks.urgent"


def test_it_is_part_of_the_transaction(sent: Enqueued) -> None:
    with transaction.atomic():
        tasks.add.enqueue(1)
        transaction.set_rollback(True)
    assert len(sent) == 0
    assert run_jobs() == []


@pytest.mark.parametrize(
    ("djangos", "own"), [(100, 0), (99, 0), (50, 2), (0, 4), (-1, 4), (-50, 6), (-100, 9)]
)
def test_priorities(djangos: int, own: int, sent: Enqueued) -> None:
    tasks.add.using(priority=djangos).enqueue(1)
    assert sent[0].priority == own


def test_every_priority_has_one_and_keeps_its_order() -> None:
    own = [ours.priority_of(djangos) for djangos in range(100, -101, -1)]
    assert own == sorted(own)
    assert set(own) == set(range(10))


def test_run_after(sent: Enqueued) -> None:
    due = timezone.now() + dt.timedelta(hours=1)
    tasks.add.using(run_after=due).enqueue(1)
    later = tasks.add.using(run_after=dt.timedelta(hours=2)).enqueue(2)
    assert sent[0].eta == due
    assert sent[1].eta is not None
    assert abs(sent[1].eta - due - dt.timedelta(hours=1)) < dt.timedelta(seconds=5)
    assert run_jobs() == []
    run_jobs(ahead=dt.timedelta(hours=3))
    later.refresh()
    assert later.return_value == 2
    assert later.task.run_after == sent[1].eta


def test_arguments_are_what_json_makes_of_them() -> None:
    result = tasks.echo.enqueue({1: (2, 3)})
    assert result.args == [{"1": [2, 3]}]
    run_jobs()
    result.refresh()
    assert result.return_value == {"1": [2, 3]}
    for wrong in (object(), {1, 2}, timezone.now()):
        with pytest.raises(TypeError):
            tasks.echo.enqueue(wrong)
    with pytest.raises(TypeError, match="'a'"):
        tasks.add.enqueue()


def test_from_async_code() -> None:
    async def use() -> int:
        result = await tasks.async_add.aenqueue(1, 2)
        assert (await tasks.async_add.aget_result(result.id)).id == result.id
        run: Any = importlib.import_module("jobs.testing").arun_jobs
        await run()
        await result.arefresh()
        return int(result.return_value)

    assert async_to_sync(use)() == 3


# ------------------------------------------------------------------------------ running


def test_the_context() -> None:
    result = tasks.attempt.enqueue(name="x")
    also = tasks.async_attempt.enqueue()
    run_jobs()
    result.refresh()
    also.refresh()
    assert result.return_value == [1, Status.RUNNING, [], True]
    assert also.return_value == 1


def test_a_failure() -> None:
    result = tasks.fail.enqueue("broken")
    run_jobs()
    result.refresh()
    assert (result.status, result.attempts) == (Status.FAILED, 1)
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "ValueError: broken" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_attempts() -> None:
    result = tasks.third_time.enqueue()
    run_jobs()
    result.refresh()
    assert (result.status, result.return_value) == (Status.SUCCESSFUL, 3)
    assert (result.attempts, len(result.errors)) == (3, 2)
    assert result.started_at < result.last_attempted_at
    gone = tasks.never.enqueue()
    run_jobs()
    gone.refresh()
    assert (gone.status, gone.attempts) == (Status.FAILED, 2)
    assert [error.exception_class for error in gone.errors] == [KeyError, KeyError]


def test_a_time_limit() -> None:
    result = tasks.slow.enqueue()
    run_jobs()
    result.refresh()
    assert result.status == Status.FAILED
    assert result.errors[0].exception_class.__name__ == "SoftTimeLimitExceeded"


def test_the_signals(caplog: pytest.LogCaptureFixture) -> None:
    enqueued = heard(ours.signals.task_enqueued)
    started = heard(ours.signals.task_started)
    finished = heard(ours.signals.task_finished)
    done, failed = tasks.add.enqueue(1, 2), tasks.fail.enqueue("broken")
    run_jobs()
    assert [one.id for one in enqueued] == [done.id, failed.id]
    assert [(one.id, one.status) for one in started] == [
        (done.id, Status.RUNNING),
        (failed.id, Status.RUNNING),
    ]
    assert [(one.id, one.status) for one in finished] == [
        (done.id, Status.SUCCESSFUL),
        (failed.id, Status.FAILED),
    ]
    assert finished[0].return_value == 3
    own = [one for one in caplog.records if one.name == ours.PACKAGE and one.levelname == "ERROR"]
    assert [one.exc_info[0] for one in own if one.exc_info] == [ValueError]


def test_a_retry_is_no_end() -> None:
    finished = heard(ours.signals.task_finished)
    tasks.third_time.enqueue()
    run_jobs()
    assert [one.attempts for one in finished] == [3]


# ------------------------------------------------------------------------------ asking


def test_results_of_others() -> None:
    result = tasks.add.enqueue(1)
    with pytest.raises(ours.exceptions.TaskResultMismatch):
        tasks.fail.get_result(result.id)
    with pytest.raises(ours.exceptions.TaskResultDoesNotExist):
        tasks.add.get_result("nobody's")
    plain = importlib.import_module("tests.tasks").add
    with transaction.atomic():
        other = plain.delay(1, 2)
    with pytest.raises(ours.exceptions.TaskResultDoesNotExist):
        package.default_task_backend.get_result(other.id)


def test_a_function_that_is_gone() -> None:
    result = tasks.add.enqueue(1)
    TaskResult.objects.update(task="tests.django_tasks.removed")
    found = package.default_task_backend.get_result(result.id)
    assert found.task.module_path == "tests.django_tasks.removed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"backoff": -1},
        {"backoff": "soon"},
        {"timeout": 0},
        {"priority": 101},
        {"queue_name": "nowhere"},
    ],
)
def test_wrong_options_of_a_task(wrong: dict[str, Any]) -> None:
    with pytest.raises(ours.InvalidTask):
        ours.task(**wrong)(tasks.add.func)


@pytest.mark.skipif(
    not hasattr(ours.base.Task, "_reconstruct"), reason="Django's tasks can be pickled from 6.1 on"
)
def test_pickle() -> None:
    for made in (tasks.add, tasks.never, tasks.add.using(priority=3)):
        assert pickle.loads(pickle.dumps(made)) == made


# ------------------------------------------------------------------------------ settings


def told(settings: Settings, **backend: Any) -> list[str]:
    path = "jobs.contrib.django_tasks.JobsBackend"
    made = ours.JobsBackend("default", {"BACKEND": path, **backend})
    return [one.msg for one in made.check()]


def test_checks(settings: Settings) -> None:
    assert told(settings) == []
    (text,) = told(settings, QUEUES=["default", "lwo"])
    assert "'lwo', which JOBS['QUEUES'] does not declare" in text
    assert "'low'" in text
    (text,) = told(settings, OPTIONS={"broker": "redis"})
    assert "'broker', and JobsBackend takes none" in text
    assert not [one for one in checks.run_checks() if one.id and one.id.startswith("jobs.E02")]
