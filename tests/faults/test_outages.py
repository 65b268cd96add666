"""The broker goes away, crashes and comes back: nothing is lost, all goes on by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import broker, message
from jobs.exceptions import BrokerUnavailable
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.board import Board
from jobs.worker.claim import admission
from jobs.worker.claim.consumer import Consumer, Order
from jobs.worker.record.outcome import Delivery
from jobs.worker.record.recorder import Recorder
from jobs.worker.run.executor import Limits, ThreadTimer
from jobs.worker.run.runners import AsyncRunner, Runners, SyncRunners
from tests.models import Run
from tests.project import Project
from tests.services import Valkey, wait_for
from tests.tasks import add, trace, wait_at
from tests.workers import Gate, on_redis, ready_worker, settled


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def test_a_crashed_server_comes_back(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "2")
    held = wait_at.delay(gate.path)
    gate.wait_for()
    labels = [str(n) for n in range(400)]
    trace.enqueue_many([(label,) for label in labels])
    wait_for(lambda: Run.objects.count() >= 50, what="50 runs")
    project.valkey.kill()
    gate.open()
    worker.wait_for_output("the broker is away")
    project.valkey.start()
    assert held.get(timeout=60)
    settled()
    rows = TaskResult.objects.filter(task="tests.tasks.trace")
    assert rows.filter(state=State.SUCCESS).count() == rows.count() == 400
    assert set(Run.objects.values_list("label", flat=True)) == set(labels)
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_a_frozen_server_goes_on(project: Project) -> None:
    """As behind a dead network: connected, and silent."""
    worker = ready_worker(project, "--processes", "1", jobs={"SOCKET_TIMEOUT": 0.3})
    assert add.delay(1, 2).get(timeout=60) == 3
    with project.valkey.frozen():
        worker.wait_for_output("is away")
    assert add.delay(3, 4).get(timeout=60) == 7
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


# ------------------------------------------------------------- step by step, in this process


@pytest.fixture
def consumer(own_valkey: Valkey) -> Iterator[Consumer]:
    """One that has claimed five messages and whose only runner is in a long task."""
    recorder = Recorder("c/1")
    board, limits = Board.make(11), Limits(ThreadTimer())
    sync = SyncRunners("c/1", board, limits, recorder)
    runners = Runners(sync, AsyncRunner("c/1", 10, board, limits, recorder))
    order = Order(["default"], ())
    made = Consumer("c/1", order, runners, recorder, board, burst=False, stop=lambda: None)
    trace.enqueue_many([(str(n),) for n in range(5)])
    claim = broker.get().claim("default", "c/1", 1, 5, 60)
    made._cursors["default"].number = 6
    sync.unstarted = deque(
        prepared
        for number, raw in claim.messages
        if isinstance(
            prepared := admission.prepare("default", number, raw, worker="c/1", now=0), Delivery
        )
    )
    sync._started[threading.get_ident()] = -1000.0
    assert on_redis() == (0, 5)
    yield made
    board.close()


def test_what_could_not_be_given_back_is_given_back_later(
    consumer: Consumer, own_valkey: Valkey
) -> None:
    own_valkey.kill()
    with pytest.raises(BrokerUnavailable):
        consumer.step()
    own_valkey.start()
    consumer.step()
    assert on_redis() == (5, 0)
    claim = broker.get().claim("default", "reader", 1, 5, 60)
    args = [message.decode(raw, "default").args for _, raw in claim.messages]
    assert args == [[str(n)] for n in range(5)]


def test_stopping_while_the_broker_is_away_lets_the_running_task_finish(
    consumer: Consumer, own_valkey: Valkey
) -> None:
    own_valkey.kill()
    consumer.stop()
    consumer.run()  # and does not raise, which would end the process under the task
