"""What operators ask of real workers, and how those that ended are remembered."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from jobs import broker, control
from jobs.control import inspect
from jobs.control.inspecting import Worker
from jobs.control.workers import Act, Answer, How
from jobs.exceptions import UnknownWorker
from tests.project import Process, Project
from tests.services import wait_for
from tests.tasks import add, fail, wait_at
from tests.workers import Gate, children, kill_one_child, on_redis, ready_worker

#: What isn't told by the bell would be noticed only after this.
SLOW = {"POLL_SECONDS": 300.0}
#: Reports come each second, and a dead worker's lease ends soon.
SHORT = {"LEASE_SECONDS": 3.0, "POLL_SECONDS": 0.2}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def start(project: Project, name: str = "w", *args: str, jobs: dict[str, Any] = SLOW) -> Process:
    given = args if "--processes" in args else ("--processes", "1", *args)
    queues = () if "--queues" in args else ("--queues", "default")
    worker = ready_worker(project, "--name", name, *given, *queues, jobs=jobs)
    # A child may claim a moment before its supervisor reports.
    wait_for(lambda: told(name), what=f"the report of {name}")
    return worker


def ask(act: Act, worker: str = "w", by: str = "ada", about: str = "") -> Answer:
    """Command a worker, and wait for its answer. ``about``: a queue."""
    queue, command_id = control.workers.command(worker, act, by=by, queue=about)
    return wait_for(lambda: control.workers.answered(queue, command_id), what=f"the answer: {act}")


def told(name: str = "w") -> Worker | None:
    return next((one for one in inspect.workers(lost=True) if one.name == name), None)


def in_state(state: str) -> None:
    wait_for(lambda: (one := told()) and one.state == state, what=f"a worker that is {state}")


@pytest.mark.parametrize("queues", ["default", "high,default"])
def test_a_quiet_worker_finishes_what_runs_and_claims_nothing(
    project: Project, gate: Gate, queues: str
) -> None:
    worker = start(project, "w", "--queues", queues)
    running = wait_at.delay(gate.path)
    gate.wait_for()
    assert ask(Act.QUIET) == Answer(True)
    in_state("quiet")
    waiting = [add.delay(n, n) for n in range(3)]
    gate.open()
    assert running.get(timeout=60)
    # It may claim once more with a bell that has rung already, and gives that back.
    wait_for(lambda: on_redis() == (3, 0))
    assert ask(Act.STACK).done  # it lives, and has looked around since
    assert on_redis() == (3, 0)
    assert worker.poll() is None
    assert ask(Act.RESUME) == Answer(True)
    assert [result.get(timeout=60) for result in waiting] == [0, 2, 4]
    in_state("running")
    assert worker.stop() == 0


def test_one_that_is_idle_gives_back_what_it_claims_by_the_bell(project: Project) -> None:
    start(project)
    ask(Act.QUIET)
    sent = [add.delay(n, n) for n in range(5)]
    other = start(project, "other")
    assert [result.get(timeout=60) for result in sent] == [0, 2, 4, 6, 8]
    assert [one.processed for one in inspect.workers() if one.name == "w"] == [0]
    assert other.stop() == 0


def test_a_child_that_replaces_another_is_quiet_as_well(project: Project) -> None:
    worker = start(project)
    ask(Act.QUIET)
    killed = kill_one_child(worker)
    wait_for(lambda: (found := children(worker)) and killed not in found)
    wait_for(lambda: (one := told()) and [part.ready for part in one.parts] == [False, True])
    result = add.delay(1, 2)
    wait_for(lambda: on_redis() == (1, 0))
    ask(Act.RESUME)
    assert result.get(timeout=60) == 3


def test_a_drained_worker_stops_when_nothing_runs(project: Project, gate: Gate) -> None:
    worker = start(project, jobs={**SLOW, "GRACE_SECONDS": 0.1})
    running = wait_at.delay(gate.path)
    gate.wait_for()
    assert ask(Act.DRAIN).done
    in_state("draining")
    waiting = add.delay(1, 2)
    assert ask(Act.STACK).done, "it is still there, longer than what a stop would wait"
    assert worker.poll() is None
    gate.open()
    assert worker.wait(timeout=60) == 0
    assert running.state == "SUCCESS"
    assert waiting.state == "PENDING"
    (gone, *_) = control.workers.gone()
    assert (gone.name, gone.how, gone.why) == ("w", How.STOPPED, "drained, asked by ada")


def test_a_drain_can_be_called_off(project: Project, gate: Gate) -> None:
    start(project)
    running = wait_at.delay(gate.path)
    gate.wait_for()
    ask(Act.DRAIN)
    ask(Act.RESUME)
    gate.open()
    assert running.get(timeout=60)
    assert add.delay(1, 2).get(timeout=60) == 3


def test_it_takes_on_a_queue_and_gives_up_another(project: Project, gate: Gate) -> None:
    worker = start(project, jobs=SHORT)
    assert ask(Act.ADD_QUEUE, about="low") == Answer(True)
    assert "already" in ask(Act.ADD_QUEUE, about="low").text
    assert add.apply_async((1, 2), queue="low").get(timeout=60) == 3
    running = wait_at.delay(gate.path)
    gate.wait_for()
    assert ask(Act.CANCEL_QUEUE, about="default") == Answer(True)
    wait_for(lambda: (one := told()) and list(one.queues) == ["low"])
    # The child keeps its lease for what it runs.
    (held,) = broker.get().consumers("default")
    wait_for(lambda: broker.get().consumers("default")[0].lease > 0)
    gate.open()
    assert running.get(timeout=60)
    wait_for(lambda: broker.get().consumers("default") == [], what="the end of its lease")
    waiting = add.delay(1, 2)
    # The next child as well claims from what is served now.
    killed = kill_one_child(worker)
    wait_for(lambda: (found := children(worker)) and killed not in found)
    assert add.apply_async((3, 4), queue="low").get(timeout=60) == 7
    assert on_redis() == (1, 0)
    assert "the only one" in ask(Act.CANCEL_QUEUE, about="low").text
    assert ask(Act.ADD_QUEUE, about="default").done
    assert waiting.get(timeout=60) == 3
    assert held.name not in {one.name for one in broker.get().consumers("default")}
    assert worker.stop() == 0


def test_a_worker_is_stopped(project: Project) -> None:
    worker = start(project)
    assert ask(Act.STOP).done
    assert worker.wait(timeout=60) == 0
    assert told() is None
    (gone,) = control.workers.gone()
    assert (gone.name, gone.how, gone.why) == ("w", How.STOPPED, "asked by ada")
    assert (gone.host, gone.pid) == (socket.gethostname(), worker.pid)


def test_one_that_takes_too_long_to_stop_was_killed(project: Project, gate: Gate) -> None:
    worker = start(project, jobs={**SLOW, "GRACE_SECONDS": 0.1})
    wait_at.delay(gate.path)
    gate.wait_for()
    assert worker.stop() == 0
    assert control.workers.gone()[0].how is How.KILLED


def test_children_are_restarted(project: Project) -> None:
    worker = start(project, "w", "--processes", "2")
    before = set(children(worker))
    assert ask(Act.RESTART) == Answer(True)
    assert before.isdisjoint(children(worker))
    assert "all children run the new code" in worker.output()
    assert add.delay(1, 2).get(timeout=60) == 3
    assert control.workers.gone() == []


def test_new_code_that_can_t_be_imported(project: Project) -> None:
    worker = start(project)
    before = children(worker)
    (broken,) = project.folder.glob("settings_*.py")
    broken.write_text("raise RuntimeError('not today')")
    answer = ask(Act.RESTART)
    assert not answer.done
    assert "not today" in answer.text
    assert children(worker) == before


def test_what_every_thread_is_doing(project: Project, gate: Gate) -> None:
    worker = start(project, "w", "--processes", "2")
    wait_at.delay(gate.path)
    gate.wait_for()
    for _ in range(2):
        (supervisor, own), *stacks = ask(Act.STACK).stacks
        assert supervisor == "w"
        assert "supervisor.py" in own
        assert len(stacks) == 2
        assert sum("in wait_at" in text for _, text in stacks) == 1
        for name, text in stacks:
            assert name.startswith("w/")
            assert text.count("consumer.py") >= 1
            assert text.count("Current thread") == 1, "only the newest"
    # They were where the stacks are now.
    assert add.name in ask(Act.TASKS).text.splitlines()
    gate.open()
    assert worker.stop() == 0


def test_nobody_of_that_name(project: Project) -> None:
    start(project, "mail-1")
    with pytest.raises(UnknownWorker, match=r"No worker .mail-2. .* Did you mean .mail-1."):
        control.workers.command("mail-2", Act.STOP)


def test_what_a_worker_tells(project: Project, gate: Gate) -> None:
    jobs = {"POLL_SECONDS": 0.2, "LEASE_SECONDS": 3.0, "REVISION": "abc123"}
    worker = start(project, "w", "--processes", "2", "--threads", "3", jobs=jobs)
    fail.delay("x").get(timeout=60, propagate=False)
    assert add.delay(1, 2).get(timeout=60) == 3
    wait_at.delay(gate.path)
    gate.wait_for()
    wait_for(lambda: (one := told()) and (one.processed, one.failed) == (2, 1))
    one = wait_for(lambda: (one := told()) and len(one.current) == 1 and one)
    assert (one.capacity, one.state, one.revision) == (6, "running", "abc123")
    assert set(one.versions) == {"jobs", "python", "django"}
    assert [part.pid for part in one.parts] == [worker.pid, *children(worker)]
    assert all(part.memory > 1_000_000 for part in one.parts)
    assert (one.silent, one.leased) == (False, True)
    gate.open()
    assert worker.stop() == 0


def test_a_suspended_one_falls_silent(project: Project) -> None:
    worker = start(project, jobs=SHORT)
    wait_for(lambda: (one := told()) and not one.silent)
    worker.send_signal(signal.SIGSTOP)
    wait_for(lambda: (one := told()) and one.silent)
    worker.send_signal(signal.SIGCONT)
    wait_for(lambda: (one := told()) and not one.silent)
    assert worker.stop() == 0


def test_a_killed_one_is_missed_by_the_others(project: Project) -> None:
    start(project, jobs=SHORT)
    killed = start(project, "killed", jobs=SHORT)
    os.kill(killed.pid, signal.SIGKILL)
    wait_for(lambda: [one.how for one in control.workers.gone()] == [How.LOST])
    (gone,) = control.workers.gone()
    assert (gone.name, gone.pid) == ("killed", killed.pid)
    assert told("killed") is None


def test_why_children_ended(project: Project, gate: Gate) -> None:
    worker = start(project, jobs=SHORT)
    kill_one_child(worker)
    (crashed,) = wait_for(control.workers.gone)
    assert crashed.name.startswith("w/1.")
    assert (crashed.how, crashed.why) == (How.CRASHED, "killed by SIGKILL")
    running = wait_at.delay(gate.path)
    gate.wait_for()
    control.revoke(running.id, terminate=True)
    killed, _crashed = wait_for(lambda: len(found := control.workers.gone()) == 2 and found)
    assert (killed.how, killed.why) == (How.KILLED, "revoked")
