"""Real `runworker` processes: where tasks run, in what order, and how a worker stops."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.utils import timezone

from jobs import broker, message
from jobs.control import inspect
from jobs.exceptions import TaskRevoked
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Author, Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import (
    add,
    async_add,
    async_count_authors,
    async_wait_at,
    async_where,
    connections_of_database,
    leave,
    trace,
    wait_at,
    where,
    who,
)
from tests.workers import (
    Gate,
    children,
    on_redis,
    own_jobs,
    put_message,
    ready_worker,
    settled,
    start_worker,
)

ONE = ("--processes", "1")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def runs() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def wait_for_runs(count: int, timeout: float = 60) -> list[str]:
    wait_for(lambda: Run.objects.count() >= count, timeout, what=f"{count} runs")
    return runs()


# ------------------------------------------------------------------------- where tasks run


def test_main_thread_and_event_loop_at_once(project: Project, gate: Gate) -> None:
    Author.objects.create(name="Ann")
    worker = ready_worker(project, *ONE)
    (child,) = children(worker)
    # All wait at one gate: none would arrive behind another.
    blocked = [wait_at.delay(gate.path), *(async_wait_at.delay(gate.path) for _ in range(5))]
    gate.wait_for(6)
    assert async_add.delay(1, 2).get(timeout=60) == 3
    assert async_where.delay().get(timeout=60) == [child, "jobs-async"]
    assert async_count_authors.delay().get(timeout=60) == 1
    gate.open()
    assert [result.get(timeout=60) for result in blocked] == [child] * 6
    failed = leave.delay()
    assert where.delay().get(timeout=60) == [child, "main"]
    assert failed.state == State.FAILURE
    assert worker.stop() == 0


def test_threads(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, *ONE, "--threads", "4")
    blocked = [wait_at.delay(gate.path) for _ in range(4)]
    gate.wait_for(4)
    # Before there are others behind those: once such have gone back, nothing is claimed until a
    # thread is free.
    assert async_add.delay(2, 2).get(timeout=60) == 4
    behind = [where.delay() for _ in range(3)]
    gate.open()
    names = {result.get(timeout=60)[1] for result in behind}
    assert all(name.startswith("jobs-task-") for name in names)
    for result in blocked:
        result.get(timeout=60)
    assert worker.stop() == 0


@pytest.mark.one_database
def test_concurrency_is_a_limit(project: Project, gate: Gate) -> None:
    ready_worker(project, *ONE, "--concurrency", "3")
    blocked = [async_wait_at.delay(gate.path) for _ in range(5)]
    gate.wait_for(3)
    wait_for(lambda: on_redis() == (2, 3), what="two to stay on the queue")
    gate.open()
    for result in blocked:
        result.get(timeout=60)


@pytest.mark.one_database
def test_the_request(project: Project) -> None:
    ready_worker(project, *ONE, "--name", "w1")
    with transaction.atomic():
        result = who.apply_async((1,), {"x": 2}, queue="high", headers={"tenant": "blue"})
    seen = result.get(timeout=60)
    worker = seen.pop("worker")
    assert worker.startswith("w1/1.")
    assert seen == {
        "id": result.id,
        "retries": 0,
        "queue": "high",
        "headers": {"tenant": "blue"},
        "args": [1],
        "kwargs": {"x": 2},
        "root_id": result.id,
        "parent_id": None,
        "redelivered": False,
    }
    row = TaskResult.objects.get(id=result.id)
    assert (row.worker, row.attempts) == (worker, 1)
    assert row.created_at <= row.started_at <= row.finished_at  # type: ignore[operator]


# -------------------------------------------------------------------------- when tasks run


@pytest.mark.one_database
def test_countdown_eta_and_expiry(project: Project) -> None:
    # When something is due has to be waited for, not to be met by chance.
    ready_worker(project, *ONE, jobs={"POLL_SECONDS": 300.0})
    sent = timezone.now()
    # Sent in the order in which they are due, and the last with the lowest priority: they run in
    # that order also when so much time passes here or there that several are due at once.
    past = trace.apply_async(("past",), eta=sent - timedelta(hours=1))
    in_time = trace.apply_async(("in time",), countdown=0.1, expires=30)
    moment = trace.apply_async(("eta",), eta=timezone.now() + timedelta(seconds=0.3))
    later = trace.apply_async(("countdown",), countdown=0.6)
    with transaction.atomic():
        inside = trace.apply_async(("inside",), countdown=0.9, priority=9)
    expired = trace.apply_async(("expired",), expires=sent)
    assert wait_for_runs(5) == ["past", "in time", "eta", "countdown", "inside"]
    for result, seconds in ((past, 0), (in_time, 0.1), (moment, 0.3), (later, 0.6), (inside, 0.9)):
        result.get(timeout=60)
        row = TaskResult.objects.get(id=result.id)
        assert row.started_at is not None
        assert seconds <= (row.started_at - sent).total_seconds()
    with pytest.raises(TaskRevoked, match="expired"):
        expired.get(timeout=60)


@pytest.mark.one_database
def test_priorities_and_queues_in_order(project: Project) -> None:
    for queue in ("low", "default", "high"):
        for priority in (9, 0, 3, 6):
            trace.apply_async((f"{queue} {priority}",), queue=queue, priority=priority)
    trace.delay("default 0 too")
    worker = start_worker(project, *ONE, "--queues", "high,default", "--burst")
    assert worker.wait(60) == 0, worker.output()
    assert runs() == [
        *(f"high {n}" for n in (0, 3, 6, 9)),
        *("default 0", "default 0 too"),
        *(f"default {n}" for n in (3, 6, 9)),
    ]
    assert on_redis("low") == (4, 0)


@pytest.mark.one_database
def test_queues_by_weight(project: Project) -> None:
    for queue in ("low", "high"):
        trace.enqueue_many([(queue,)] * 60, queue=queue)
    worker = project.manage("runworker", *ONE, "--queues", "low:1,high:3", "--burst")
    assert worker.wait(60) == 0, worker.output()
    assert sorted(runs()) == ["high"] * 60 + ["low"] * 60
    assert runs().index("high") < 60  # in strict order, all of the first would be first


@pytest.mark.one_database
def test_an_undeclared_queue_is_named(project: Project) -> None:
    printed = project.run("runworker", "--queues", "hihg", status=1)
    assert "Queue 'hihg' is not declared" in printed
    assert "Did you mean 'high'?" in printed
    assert "Traceback" not in printed


# ----------------------------------------------------------------------------- stopping


def test_sigterm_drains(project: Project, gate: Gate) -> None:
    before = [wait_at.delay(gate.path), async_wait_at.delay(gate.path)]
    worker = ready_worker(project, *ONE)
    gate.wait_for(2)
    rest = [trace.delay(f"rest {n}").id for n in range(20)]
    # Some were claimed within the first moments of the long task: they go back by themselves.
    wait_for(lambda: on_redis() == (20, 2), what="the rest to wait on the queue")
    worker.send_signal(signal.SIGTERM)
    # Until its child is told, what ends makes room for more.
    worker.wait_for_output("is stopping")
    gate.open()
    assert worker.wait(60) == 0
    assert [result.state for result in before] == [State.SUCCESS] * 2
    assert on_redis() == (20, 0)
    assert runs() == []
    claimed = broker.get().claim("default", "reader", 1, 100, 60).messages
    sent = [message.decode(raw, "default") for _, raw in claimed]
    assert [one.id for one in sent] == rest
    assert not any(one.marks.redelivered for one in sent)
    assert "Traceback" not in worker.output()
    assert broker.get().consumers("default")[0].name == "reader"  # the worker's have left


@pytest.mark.one_database
def test_sigterm_twice_ends_now(project: Project, gate: Gate) -> None:
    running = wait_at.delay(gate.path)
    worker = ready_worker(project, *ONE)
    gate.wait_for()

    def again() -> bool:
        # Two that arrive together are one: the kernel keeps no count.
        worker.send_signal(signal.SIGTERM)
        return worker.poll() is not None

    wait_for(again, what="the worker to end")
    assert on_redis() == (1, 0)
    ((_, raw),) = broker.get().claim("default", "reader", 1, 100, 60).messages
    again = message.decode(raw, "default")
    assert (again.id, again.marks.redelivered) == (running.id, True)


@pytest.mark.one_database
def test_the_grace_period_ends(project: Project, gate: Gate) -> None:
    wait_at.delay(gate.path)
    worker = ready_worker(project, *ONE, jobs={"GRACE_SECONDS": 0.3})
    gate.wait_for()
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert on_redis() == (1, 0)


@pytest.mark.one_database
def test_ctrl_c_is_as_sigterm(project: Project, gate: Gate) -> None:
    running = wait_at.delay(gate.path)
    worker = ready_worker(project, *ONE)
    gate.wait_for()
    os.killpg(worker.pid, signal.SIGINT)  # what a terminal does
    for child in children(worker):
        os.kill(child, signal.SIGINT)
    gate.open()
    assert worker.wait(60) == 0
    assert running.get(timeout=0)
    assert "Traceback" not in worker.output()


def test_burst_ends_when_the_queues_are_empty(project: Project) -> None:
    results = add.enqueue_many([(n, n) for n in range(500)])
    worker = start_worker(project, "--processes", "2", "--burst")
    assert worker.wait(60) == 0, worker.output()
    assert [result.result for result in results] == [n + n for n in range(500)]
    assert on_redis() == (0, 0)


# --------------------------------------------------------------------------- children


@pytest.mark.one_database
def test_reload_restarts_the_children(project: Project, tmp_path: Path) -> None:
    app = tmp_path / "fresh_app"
    app.mkdir()
    (app / "__init__.py").touch()
    code = "from jobs import task\n\n@task(name='fresh')\ndef fresh():\n    return {!r}\n"
    (app / "tasks.py").write_text(code.format("old"))
    (tmp_path / "reload_settings.py").write_text(
        "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'fresh_app']\n"
    )
    worker = project.manage(
        "runworker",
        *ONE,
        "--reload",
        DJANGO_SETTINGS_MODULE="reload_settings",
        PYTHONPATH=os.pathsep.join([str(tmp_path), project.env["PYTHONPATH"]]),
        PYTHONDONTWRITEBYTECODE="1",
    )
    worker.wait_for_output(" ready, queues")
    assert result_of(put_message(task="fresh")) == '"old"'
    assert known_to_workers("fresh")
    assert not known_to_workers("fresher")
    # At one blow: an empty file is code as well.
    (app / "new").write_text((code + code.replace("fresh", "fresher")).format("new", "new"))
    (app / "new").replace(app / "tasks.py")
    wait_for(lambda: worker.output().count(" ready, queues") == 2, what="the new child")
    assert result_of(put_message(task="fresh")) == '"new"'
    # As the children say: the supervisor still has the old code.
    assert known_to_workers("fresher")
    assert "fresher: not known here" in project.run("jobs_inspect", "registered")
    assert worker.stop() == 0


def known_to_workers(name: str) -> bool:
    """Whether the only worker says that it knows a task of this name."""
    (found,) = wait_for(lambda: inspect.registered_by_worker(60).values(), what="its report")
    assert found is not None
    return name in found


def result_of(task_id: str) -> str:
    wait_for(lambda: TaskResult.objects.filter(id=task_id).exists(), what=task_id)
    return str(TaskResult.objects.get(id=task_id).result)


@pytest.mark.one_database
def test_children_are_replaced_after_so_many_tasks(project: Project) -> None:
    worker = ready_worker(project, *ONE, jobs={"MAX_TASKS_PER_CHILD": 10})
    pids = []
    for _ in range(3):
        results = where.enqueue_many([()] * 12)
        pids += [result.get(timeout=60)[0] for result in results]
    assert len(set(pids)) >= 3
    settled()
    assert "ended" not in worker.output()
    assert worker.stop() == 0


@pytest.mark.one_database
def test_children_are_replaced_that_take_too_much_memory(project: Project) -> None:
    # More than a child claims before it sees that the first has ended. With --burst, since what is
    # left is for the next child.
    for args, jobs in ((("--max-memory-per-child", "1"), {}), ((), {"MAX_MEMORY_PER_CHILD": 1})):
        results = where.enqueue_many([()] * 60)
        printed = project.run("runworker", "--burst", *ONE, *args, **own_jobs(project, jobs))
        pids = [result.get(timeout=60)[0] for result in results]
        assert len(set(pids)) >= 2
        assert "ended" not in printed


@pytest.mark.one_database
def test_a_long_task_holds_up_nothing_behind_it(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "2")
    # Short ones first, so that both children claim many at a time.
    add.enqueue_many([(n, n) for n in range(1000)])
    settled()
    with transaction.atomic():  # one push, so that one claim can take all of it
        long = wait_at.delay(gate.path)
        behind = where.enqueue_many([()] * 50)
    gate.wait_for()
    pids = {result.get(timeout=60)[0] for result in behind}
    assert not long.ready()
    assert pids <= set(children(worker))
    gate.open()
    assert long.get(timeout=60) in children(worker)


# ------------------------------------------------------------------------------ outages


@pytest.mark.one_database
def test_redis_is_away_at_the_start(project: Project) -> None:
    project.valkey.kill()
    worker = start_worker(project, *ONE)
    worker.wait_for_output("the supervisor can't reach the broker")
    worker.wait_for_output("the broker is away; trying again")
    project.valkey.start()
    assert add.delay(1, 2).get(timeout=60) == 3
    assert worker.output().count("can't reach the broker") == 1
    assert worker.output().count("the broker is away; trying again") == 1
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


@pytest.mark.one_database
def test_redis_restarts_in_the_middle(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, *ONE)
    assert add.delay(1, 2).get(timeout=60) == 3
    running, waiting = wait_at.delay(gate.path), add.delay(3, 4)
    gate.wait_for()
    project.valkey.stop()
    gate.open()
    worker.wait_for_output("the broker is away")
    project.valkey.start()
    assert running.get(timeout=60)
    assert waiting.get(timeout=60) == 7
    settled()
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


# ------------------------------------------------------------------------- its manners


RECEIVERS = """
from tests.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "listening"]
"""
LISTENING = """
import json, os, warnings
from django.apps import AppConfig

class Listening(AppConfig):
    name = "listening"

    def ready(self):
        from jobs import signals
        for name in ("task_started", "task_succeeded", "task_failed",
                     "worker_ready", "worker_stopping"):
            getattr(signals, name).connect(self.receiver(name), weak=False)

    def receiver(self, name):
        def receive(sender, signal, **named):
            keys = sorted(named)
            sender = getattr(sender, "name", sender)
            if name == "worker_ready":
                warnings.filterwarnings("ignore", message="set up by a receiver")
            with open(os.environ["HEARD"], "a") as out:
                out.write(json.dumps([name, sender, keys]) + "\\n")
            raise RuntimeError("a broken receiver")
        return receive
"""


def test_signals_are_sent_and_may_break(project: Project, tmp_path: Path) -> None:
    (tmp_path / "listening").mkdir()
    (tmp_path / "listening" / "__init__.py").touch()
    (tmp_path / "listening" / "apps.py").write_text(LISTENING)
    (tmp_path / "listening_settings.py").write_text(RECEIVERS)
    add.delay(1, 2)
    async_add.delay("a", 2)  # type: ignore[arg-type]
    said = project.run(
        "runworker",
        *ONE,
        "--burst",
        "--name",
        "w",
        DJANGO_SETTINGS_MODULE="listening_settings",
        PYTHONPATH=os.pathsep.join([str(tmp_path), project.env["PYTHONPATH"]]),
        HEARD=str(tmp_path / "heard"),
    )
    heard = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    assert "as it was" not in said  # what that receiver set up stays
    assert heard[0][0] == "worker_ready"
    assert heard[0][1].startswith("w/1.")
    assert [entry[0] for entry in heard if entry[0].startswith("worker")] == [
        "worker_ready",
        "worker_stopping",
    ]
    about = {(name, sender): keys for name, sender, keys in heard}
    assert about["task_started", "tests.tasks.add"] == ["message", "worker"]
    assert about["task_succeeded", "tests.tasks.add"] == ["message", "result", "runtime", "worker"]
    assert about["task_failed", "tests.tasks.async_add"] == [
        "exception",
        "message",
        "runtime",
        "worker",
    ]
    assert {row.state for row in TaskResult.objects.all()} == {State.SUCCESS, State.FAILURE}


@pytest.mark.postgres
def test_database_connections_do_not_pile_up(project: Project) -> None:
    ready_worker(project, *ONE, "--threads", "3")
    counts = []
    for _ in range(4):
        results = connections_of_database.enqueue_many([()] * 50)
        others = async_count_authors.enqueue_many([()] * 20)
        counts.append([result.get(timeout=60) for result in results])
        for other in others:
            other.get(timeout=60)
    # This test's own, the supervisor's, and one for each thread of the child. The server counts one
    # that was closed for a moment longer, when its successor is there already.
    assert max(counts[-1]) <= 16
    # By the second round each thread has had its own.
    assert min(counts[-1]) <= max(counts[1]) + 2
    assert connection.vendor == "postgresql"
