"""The network between worker, sender and Valkey is cut, goes dead, and loses answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from jobs import broker
from jobs.models import TaskResult
from jobs.states import State
from tests.faults.proxy import Proxy
from tests.models import Run
from tests.project import Project
from tests.services import Valkey, valkey, wait_for
from tests.tasks import add, trace, wait_at
from tests.workers import Gate, children, on_redis, ready_worker, settled, work


@pytest.fixture
def proxy(own_valkey: Valkey) -> Iterator[Proxy]:
    made = Proxy(own_valkey.port)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def test_connections_are_cut_again_and_again(project: Project, proxy: Proxy) -> None:
    worker = ready_worker(project, "--processes", "2", jobs={"BROKER_URL": proxy.url})
    labels = [str(n) for n in range(400)]
    trace.enqueue_many([(label,) for label in labels])
    cut = 0
    for share in range(40, 400, 40):
        wait_for(lambda share=share: Run.objects.count() >= share, what=f"{share} runs")
        # Between two cuts the worker may not have come back yet.
        cut += wait_for(proxy.cut, what="connections to cut")
    assert cut >= 9
    settled()
    rows = TaskResult.objects.filter(task="tests.tasks.trace")
    assert rows.count() == rows.filter(state=State.SUCCESS).count() == 400
    assert set(Run.objects.values_list("label", flat=True)) == set(labels)
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_a_worker_that_is_cut_off_for_longer_than_its_lease(
    project: Project, proxy: Proxy, gate: Gate
) -> None:
    """Another takes its task over; what the first has to say of it then is dropped."""
    short: dict[str, object] = {"LEASE_SECONDS": 3.0, "SOCKET_TIMEOUT": 0.5}
    cut_off = ready_worker(project, "--processes", "1", jobs={**short, "BROKER_URL": proxy.url})
    result = wait_at.delay(gate.path)
    gate.wait_for()
    with proxy.dead():
        other = ready_worker(project, "--processes", "1", jobs=short)
        gate.wait_for(2)
        gate.open()
        assert result.get(timeout=60) == children(other)[0]
    cut_off.wait_for_output("was taken over by another worker; its outcome here is dropped")
    settled()
    assert result.get(timeout=1) == children(other)[0]
    row = TaskResult.objects.get(id=result.id)
    assert (row.state, row.attempts) == (State.SUCCESS, 1)
    assert "Traceback" not in cut_off.output() + other.output()


@pytest.mark.django_db(transaction=True)
def test_a_send_whose_answer_is_lost(proxy: Proxy, settings: Settings) -> None:
    """It is sent again: perhaps there twice, and recorded once."""
    settings.JOBS = {**settings.JOBS, "BROKER_URL": proxy.url}
    trace.delay("first")  # from here on the server knows the script
    proxy.lose_answers(1)
    result = trace.delay("second")
    assert on_redis() == (3, 0)
    work()
    assert result.get(timeout=1) is None
    assert on_redis() == (0, 0)
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 2


@pytest.mark.parametrize("queues", ["default", "default,low"])
def test_connections_that_go_dead_for_ever(project: Project, proxy: Proxy, queues: str) -> None:
    """As when a firewall forgets them: they stay open, and nothing comes through again.

    To the server they are consumers that wait, and it goes on to serve them.
    """
    short = {"SOCKET_TIMEOUT": 0.5, "POLL_SECONDS": 1.0, "BROKER_URL": proxy.url}
    worker = ready_worker(project, "--processes", "1", "--queues", queues, jobs=short)
    assert add.delay(1, 2).get(timeout=60) == 3
    with project.valkey.client() as client:
        dead = 0
        while dead < 3:
            wait_for(
                lambda dead=dead: client.info("clients")["blocked_clients"] > dead,
                what=f"a connection to wait besides {dead} dead ones",
            )
            proxy.forget()
            # A wait that ended at that very moment isn't among them.
            dead = client.info("clients")["blocked_clients"]
    for n in range(5):
        assert add.delay(n, 4).get(timeout=60) == n + 4
    settled()
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_another_server_takes_over(
    project: Project, proxy: Proxy, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    """And the old one lives on as its replica, with every connection that it had."""
    settings.JOBS = {**settings.JOBS, "BROKER_URL": proxy.url}
    with valkey(tmp_path / "second") as second:
        worker = ready_worker(project, "--processes", "2", jobs={"BROKER_URL": proxy.url})
        running, old = wait_at.delay(gate.path), project.valkey
        gate.wait_for()
        with old.client() as first_client, second.client() as client:
            first_client.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", str(old.port))
            wait_for(
                lambda: client.info("replication")["master_link_status"] == "up",
                what="the replica",
            )
            assert first_client.wait(1, 20_000) == 1
            proxy.target = second.port
            client.replicaof("NO", "ONE")
            first_client.replicaof("127.0.0.1", str(second.port))
        gate.open()
        assert running.get(timeout=60) in children(worker)
        results = add.enqueue_many([(n, n) for n in range(50)])
        assert [result.get(timeout=60) for result in results] == [2 * n for n in range(50)]
        settled()
        assert "Traceback" not in worker.output()
        assert worker.stop() == 0


def test_the_first_send_after_a_restart(own_valkey: Valkey) -> None:
    """The connection of before is not trusted: no second try is needed."""
    for n in range(2):
        add.apply_async((n, n), retry=False)
        own_valkey.restart()
    add.apply_async((3, 4), retry=False)
    assert on_redis() == (3, 0)


def test_a_wait_that_is_to_end_before_it_begins(own_valkey: Valkey, settings: Settings) -> None:
    """The word to end it goes by another connection, and may overtake it."""
    # Long enough for a server that is only slow: to have waited for so long is the failure.
    settings.JOBS = {**settings.JOBS, "SOCKET_TIMEOUT": 20.0}
    for _ in range(1000):
        broker.get().wait(["default"], 0)
