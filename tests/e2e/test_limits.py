"""What ends a running task from outside: limits, revocation, the end of its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import broker, control
from jobs.exceptions import SoftTimeLimitExceeded, TaskRevoked, TimeLimitExceeded, WorkerLost
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import (
    add,
    async_nap,
    async_wait_at,
    async_wait_within_limit,
    poison,
    spin,
    tidy_up,
    trace,
    wait_at,
    wait_within_limit,
)
from tests.workers import Gate, children, dead_letters, on_redis, ready_worker, settled

ONE = ("--processes", "1")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def row_of(result: object) -> TaskResult:
    return TaskResult.objects.get(id=result.id)  # type: ignore[attr-defined]


# --------------------------------------------------------------------------- soft limits


@pytest.mark.parametrize("threads", ["0", "2"])
def test_the_soft_limit(project: Project, threads: str) -> None:
    """In the main thread or in others, and on the event loop; the process goes on."""
    worker = ready_worker(project, *ONE, "--threads", threads, "--soft-time-limit", "0.4")
    (child,) = children(worker)
    late = [spin.delay(30), async_nap.delay(30), spin.delay(30)]
    tidied = tidy_up.delay(30)
    for result in late:
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=60)
        row = row_of(result)
        assert row.started_at is not None
        assert row.finished_at is not None
        assert 0.4 <= (row.finished_at - row.started_at).total_seconds() < 20
    assert tidied.get(timeout=60) == "tidied up"
    # With more time than that: a busy machine may need it for nothing.
    again = [one.apply_async((0,), soft_time_limit=600) for one in (spin, async_nap)]
    assert [one.get(timeout=60) for one in again] == ["done"] * 2
    assert children(worker) == [child]
    assert worker.stop() == 0


# --------------------------------------------------------------------------- hard limits


def test_the_hard_limit_in_the_main_thread(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, *ONE, jobs={"MAX_CRASHES": 0})
    late = wait_within_limit.delay(gate.path)
    gate.wait_for()
    labels = [str(n) for n in range(20)]
    trace.enqueue_many([(label,) for label in labels])
    with pytest.raises(TimeLimitExceeded, match="wait_within_limit"):
        late.get(timeout=60)
    settled()
    assert sorted(Run.objects.values_list("label", flat=True)) == sorted(labels)
    row = row_of(late)
    assert (row.state, row.attempts, gate.arrived()) == (State.FAILURE, 1, 1)
    assert dead_letters() == []
    assert "is killed for time limit of a task" in worker.output()
    assert f"{wait_within_limit.name}[{late.id}] was killed: time limit" in worker.output()
    assert worker.stop() == 0


def test_what_ran_beside_it_is_run_again_and_not_blamed(
    project: Project, gate: Gate, tmp_path: Path
) -> None:
    others = Gate(tmp_path / "others")
    worker = ready_worker(project, *ONE, "--threads", "3", jobs={"MAX_CRASHES": 0})
    beside = [wait_at.delay(others.path), wait_at.delay(others.path)]
    asynchronous = async_wait_at.delay(others.path)
    others.wait_for(3)
    late = wait_within_limit.delay(gate.path)
    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=60)
    others.wait_for(6)  # in the next process
    others.open()
    for result in (*beside, asynchronous):
        assert result.get(timeout=60) in children(worker)
    settled()
    assert (dead_letters(), gate.arrived()) == ([], 1)
    assert worker.stop() == 0


def test_the_hard_limit_on_the_event_loop(project: Project, gate: Gate) -> None:
    """Even of a task that blocks the loop."""
    worker = ready_worker(project, *ONE)
    late = async_wait_within_limit.delay(gate.path)
    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=60)
    assert async_nap.delay(0).get(timeout=60) == "done"
    assert worker.stop() == 0


@pytest.mark.parametrize("of", ["worker", "call"])
def test_the_hard_limit_of(of: str, project: Project, gate: Gate) -> None:
    if of == "worker":
        ready_worker(project, *ONE, "--time-limit", "0.5")
        late = wait_at.delay(gate.path)
    else:
        ready_worker(project, *ONE, "--time-limit", "3600")
        late = wait_at.apply_async((gate.path,), time_limit=0.5)
    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=60)
    # With more time than that: a busy machine may need it for nothing.
    assert add.apply_async((1, 2), time_limit=600).get(timeout=60) == 3


# ---------------------------------------------------------------------------- revocation


@pytest.mark.parametrize("task", [wait_at, async_wait_at])
def test_a_running_task_is_terminated(project: Project, tmp_path: Path, task: object) -> None:
    mine, others = Gate(tmp_path / "mine"), Gate(tmp_path / "others")
    worker = ready_worker(project, *ONE, "--threads", "2", jobs={"MAX_CRASHES": 0})
    revoked = task.delay(mine.path)  # type: ignore[attr-defined]
    beside = wait_at.delay(others.path)
    mine.wait_for()
    others.wait_for()
    control.revoke(revoked.id, terminate=True)
    with pytest.raises(TaskRevoked, match="terminated"):
        revoked.get(timeout=60)
    others.wait_for(2)  # run again, in the next process
    others.open()
    assert beside.get(timeout=60) in children(worker)
    settled()
    assert (row_of(revoked).state, mine.arrived()) == (State.REVOKED, 1)
    assert dead_letters() == []
    assert worker.stop() == 0


def test_a_running_task_goes_on_unless_it_is_terminated(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, *ONE)
    (child,) = children(worker)
    running, waiting = wait_at.delay(gate.path), trace.delay("waiting")
    gate.wait_for()
    control.revoke(running.id)
    control.revoke(waiting.id)
    # Claimed before that, it goes back by itself; claimed after, it is looked at, and has ended.
    wait_for(lambda: on_redis()[1] == 1, what="the other to be held no more")
    gate.open()
    assert running.get(timeout=60) == child
    with pytest.raises(TaskRevoked):
        waiting.get(timeout=60)
    assert Run.objects.count() == 0


# ------------------------------------------------------------------------------- crashes


def test_what_kills_its_process_is_a_dead_letter_in_the_end(
    project: Project, tmp_path: Path
) -> None:
    """As often as is allowed it is run again; what waited behind it is never blamed."""
    worker = ready_worker(project, *ONE, jobs={"MAX_CRASHES": 1})
    antidote = tmp_path / "antidote"
    pill = poison.delay(str(antidote))
    with pytest.raises(WorkerLost, match="2 processes died while running task"):
        pill.get(timeout=60)
    wait_for(dead_letters, what="the dead letter")
    (letter,) = dead_letters()
    assert letter.reason.startswith("WorkerLost: 2 processes died")
    assert Run.objects.filter(label="poison").count() == 2
    assert row_of(pill).state == State.FAILURE
    assert worker.output().count("killed by SIGKILL") == 2
    # Put back by an operator, it may crash as often again.
    antidote.touch()
    assert control.requeue("default", letter.key)
    wait_for(lambda: row_of(pill).state == State.SUCCESS, what="its success")
    assert worker.stop() == 0


def test_only_what_was_running_is_blamed(project: Project, tmp_path: Path) -> None:
    """With no crash allowed, one that was blamed wrongly would be a dead letter."""
    worker = ready_worker(project, "--processes", "2", jobs={"MAX_CRASHES": 0})
    # Short ones first, so that many are claimed at a time.
    add.enqueue_many([(n, n) for n in range(500)])
    settled()
    labels = [str(n) for n in range(300)]
    trace.enqueue_many([(label,) for label in labels[:150]])
    pill = poison.delay(str(tmp_path / "antidote"))
    trace.enqueue_many([(label,) for label in labels[150:]])
    with pytest.raises(WorkerLost):
        pill.get(timeout=60)
    settled()
    innocent = TaskResult.objects.filter(task=trace.name)
    assert innocent.filter(state=State.SUCCESS).count() == innocent.count() == 300
    assert set(Run.objects.values_list("label", flat=True)) == {*labels, "poison"}
    (letter,) = dead_letters()
    assert "WorkerLost: 1 process died" in letter.reason
    assert broker.get().stats("default")[:4] == (0, 0, 0, 1)
    assert worker.stop() == 0


def test_what_ran_beside_it_is_run_alone_and_not_given_up_with_it(
    project: Project, tmp_path: Path, gate: Gate
) -> None:
    """With one crash allowed, all that was in the process is blamed once, and no more."""
    worker = ready_worker(project, *ONE, "--threads", "4", jobs={"MAX_CRASHES": 1})
    beside = [wait_at.delay(gate.path), async_wait_at.delay(gate.path), wait_at.delay(gate.path)]
    gate.wait_for(3)
    pill = poison.delay(str(tmp_path / "antidote"))
    wait_for(lambda: Run.objects.filter(label="poison").exists(), what="the first crash")
    gate.open()
    with pytest.raises(WorkerLost, match="2 processes died"):
        pill.get(timeout=60)
    assert [result.get(timeout=60) > 0 for result in beside] == [True] * 3
    settled()
    assert len(dead_letters()) == 1
    assert worker.output().count("killed by SIGKILL") == 2
    assert worker.stop() == 0
