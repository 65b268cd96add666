"""This project as a client of real Celery workers: queues with ``foreign_workers``.

Celery's worker is `tests/celery_side/worker.py`, in an environment of Celery's own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, broker, chain, chord, conf, control, group, send_task, signature
from jobs.exceptions import ChordError, TaskFailed, TaskRevoked
from jobs.ledger import publish
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock
from tests.project import Project
from tests.services import missing, wait_for
from tests.starter import ROOT
from tests.tasks import add, echo
from tests.workers import Gate, ready_worker, rolled_back

pytestmark = pytest.mark.django_db(transaction=True)

#: Celery's interpreter, which `make` installs beside ours.
PYTHON = Path(os.environ.get("CELERY_PYTHON") or Path(sys.prefix) / "celery" / "bin" / "python")

QUEUES: dict[str, dict[str, bool]] = {"high": {}, "default": {}, "low": {}}
JOBS = {"QUEUES": {**QUEUES, "theirs": {"foreign_workers": True}}, "POLL_SECONDS": 0.2}


class CeleryWorker:
    def __init__(self, project: Project, *, visibility: float = 3600) -> None:
        if not PYTHON.exists():
            missing("Celery's own environment is not installed (`make` installs it)")
        self._log = project.folder / f"celery-{time.monotonic_ns()}.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [PYTHON, ROOT / "tests/celery_side/worker.py", project.redis_url, str(visibility)],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=project.folder,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )
        wait_for(lambda: "ready." in self.output(), what="Celery's worker to be ready")

    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """kill -9 for it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=20)


@pytest.fixture
def settings_here(project: Project, settings: Settings) -> Settings:
    settings.JOBS = {**settings.JOBS, **JOBS}
    return settings


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def celery(project: Project, settings_here: Settings) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(project)
    try:
        yield worker
    finally:
        worker.kill()


def theirs(name: str, *args: Any, **options: Any) -> AsyncResult[Any]:
    return send_task(f"theirs.{name}", args, queue="theirs", **options)


def s(name: str, *args: Any) -> Any:
    return signature(f"theirs.{name}", args=args, queue="theirs")


def get(result: Any) -> Any:
    result = result if hasattr(result, "get_leaf") or hasattr(result, "ready") else result.delay()
    return result.get(timeout=60)


def reserved(task_id: str) -> bool:
    """Whether Celery's worker holds this call."""
    with redis.Redis.from_url(conf.get().broker_url) as client:
        return any(task_id.encode() in raw for raw in client.hvals("unacked"))


# ------------------------------------------------------------------------------ in one go


def check_a_result() -> None:
    result = theirs("add", 1, 2)
    assert get(result) == 3
    row = TaskResult.objects.get(id=result.id)
    assert (row.state, row.queue, row.task) == (State.SUCCESS, "theirs", "theirs.add")
    assert row.finished_at is not None


def check_values_of_any_type() -> None:
    for value in (None, "é", [1, {"a": 1.5}], 10**30, dt.datetime(2026, 1, 2, tzinfo=dt.UTC)):
        assert get(theirs("same", value)) == value


def check_a_failure() -> None:
    result = theirs("fail", "broken")
    with pytest.raises(ValueError, match="broken"):
        get(result)
    row = TaskResult.objects.get(id=result.id)
    assert (row.state, row.error_type, row.error) == (
        State.FAILURE,
        "builtins.ValueError",
        "broken",
    )
    assert "in fail" in row.traceback


def check_an_exception_of_theirs() -> None:
    with pytest.raises(TaskFailed, match=r"OwnError: broken"):
        get(theirs("fail", "broken", kwargs={"own": True}))


def check_a_retry() -> None:
    assert get(theirs("flaky", 2)) == 2


def check_a_result_that_their_task_ignores() -> None:
    assert get(theirs("quiet", 5)) == 5
    assert get(chain(s("quiet", 5), add.s(1))) == 6


def check_a_task_that_replaces_itself() -> None:
    assert get(theirs("replaced", 1)) == 3


def check_a_countdown() -> None:
    began = time.monotonic()
    result = theirs("add", 1, 2, countdown=1.5)
    assert get(result) == 3
    assert time.monotonic() - began > 1.3


def check_expired() -> None:
    result = theirs("add", 1, 2, countdown=0.5, expires=0.2)
    with pytest.raises(TaskRevoked):
        get(result)


def check_an_ignored_result_has_its_end() -> None:
    result = theirs("add", 1, 2, ignore_result=True)
    wait_for(lambda: TaskResult.objects.get(id=result.id).state == State.SUCCESS)
    assert TaskResult.objects.get(id=result.id).result is None


def check_chains_over_both() -> None:
    assert get(chain(add.s(1, 2), s("add", 10), add.s(100))) == 113
    assert get(chain(s("add", 1, 2), add.s(10), s("add", 100))) == 113


def check_a_failed_chain() -> None:
    result = chain(add.s(1, 2), s("fail"), add.s(100)).delay()
    with pytest.raises(ValueError, match="3"):
        get(result)
    assert [result.state, result.parent.state] == [State.FAILURE] * 2


def check_links() -> None:
    done = echo.si("linked").set(task_id=uuid.uuid4().hex)
    failed = echo.s().set(task_id=uuid.uuid4().hex)
    s("add", 1, 2).apply_async(link=done)
    broken = s("fail", "broken").apply_async(link_error=failed)
    assert get(AsyncResult(done.options["task_id"])) == "linked"
    assert get(AsyncResult(failed.options["task_id"])) == broken.id


def check_groups() -> None:
    members = [s("add", n, 1) if n % 2 else add.s(n, 1) for n in range(6)]
    assert group(members).delay().get(timeout=60) == [1, 2, 3, 4, 5, 6]


def check_chords() -> None:
    both = [s("add", 1, 1), add.s(2, 2), s("add", 3, 3)]
    for header in (both, [s("add", n, n) for n in range(3)], [add.s(n, n) for n in range(3)]):
        expected = get(group(header).delay())
        assert get(chord(header)(s("total"))) == sum(expected)
        assert get(chord(header)(echo.s())) == expected


def check_a_failed_chord() -> None:
    body = chord([s("add", 1, 2), s("fail", "broken"), add.s(1, 2)])(echo.s())
    with pytest.raises(ChordError, match="broken"):
        get(body)


def check_transactions() -> None:
    with transaction.atomic():
        sent = theirs("add", 1, 2)
        assert sent.state == State.PENDING
    with rolled_back():
        dropped = theirs("add", 3, 4)
    assert get(sent) == 3
    assert not TaskResult.objects.filter(id=dropped.id).exists()


def check_a_failed_call_is_run_again() -> None:
    result = theirs("fail", "broken")
    with pytest.raises(ValueError, match="broken"):
        get(result)
    first = TaskResult.objects.get(id=result.id).finished_at
    assert control.retry(result.id)
    row = wait_for(
        lambda: TaskResult.objects.filter(id=result.id, state=State.FAILURE, finished_at__gt=first)
    )
    assert row[0].attempts == 2


def check_nothing_is_sent_again() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        with transaction.atomic():
            late = theirs("note", str(notes), "late", countdown=2)
            sent = theirs("note", str(notes), "once")
        get(sent)
        TaskResult.objects.filter(id=late.id).update(published_at=None)
        publish.relay(clock.now() + dt.timedelta(seconds=60))
        call_command("jobs_recover", "--apply", "--older-than", "0", stdout=StringIO())
        get(late)
        assert notes.read_text("utf-8").split() == ["once", "late"]


def check_revoked() -> None:
    result = theirs("add", 1, 2, countdown=60)
    wait_for(lambda: reserved(result.id), what="Celery's worker to have it")
    control.revoke(result.id)
    with pytest.raises(TaskRevoked):
        get(result)


def check_terminated() -> None:
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(Path(folder) / "gate")
        result = theirs("wait", gate.path)
        gate.wait_for()
        wait_for(lambda: TaskResult.objects.get(id=result.id).state == State.STARTED)
        result.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            get(result)


def test_calls_run_by_celery(project: Project, celery: CeleryWorker) -> None:
    ready_worker(project, "--processes", "1", jobs=JOBS)
    for check in [value for name, value in globals().items() if name.startswith("check_")]:
        try:
            check()
        except BaseException as error:
            error.add_note(f"{check.__name__}\n{celery.output()}")
            raise


def test_a_killed_celery_worker(project: Project, settings_here: Settings, gate: Gate) -> None:
    """Its message comes back after Celery's visibility timeout, to another worker."""
    ready_worker(project, "--processes", "1", jobs=JOBS)
    first = CeleryWorker(project, visibility=1)
    try:
        result = theirs("wait", gate.path)
        gate.wait_for()
    finally:
        first.kill()
    call_command("jobs_recover", "--apply", "--older-than", "0", stdout=StringIO())
    gate.open()
    # It looks for what others have left when it starts, and then every hundred seconds.
    with redis.Redis.from_url(conf.get().broker_url) as client:
        ((_, taken),) = client.zrange("unacked_index", 0, 0, withscores=True)
    wait_for(lambda: time.time() - taken > 1.5, what="the visibility timeout to be over")
    second = CeleryWorker(project, visibility=1)
    try:
        assert get(result) == "through"
    finally:
        second.kill()


def test_results_that_came_while_nobody_listened(project: Project, celery: CeleryWorker) -> None:
    worker = ready_worker(project, "--processes", "1", jobs=JOBS)
    assert get(theirs("add", 1, 2)) == 3
    worker.kill_group()
    results = [theirs("add", n, 1) for n in range(20)]
    last = chain(s("add", 1, 1), add.s(1)).delay()
    ends = broker.celery_ends()
    ids = [*(result.id for result in results), last.parent.id]
    wait_for(lambda: len(ends.read(ids)) == len(ids), what="Celery's worker to run them")
    assert not any(result.ready() for result in results)
    ready_worker(project, "--processes", "1", jobs=JOBS)
    assert [get(result) for result in results] == [n + 1 for n in range(20)]
    assert get(last) == 3
