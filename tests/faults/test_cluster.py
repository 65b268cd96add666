"""A Cluster loses a master and moves its slots, while workers run calls of queues on all nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pytest_django import Settings

from jobs import broker, control
from jobs.exceptions import BrokerUnavailable
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.child import Options
from jobs.worker.supervisor import starting
from jobs.worker.supervisor.supervisor import Supervisor
from tests.integration.admin.conftest import staff
from tests.models import Run
from tests.project import Project
from tests.services import Valkey, ValkeyCluster, ask, slots_of, valkey_cluster, wait_for
from tests.starter import Starter
from tests.tasks import add, trace
from tests.workers import own_jobs, ready_worker, settled

#: One queue of each node, by the slots that the fixture gives them.
QUEUES = ["mail", "default", "other"]
JOBS: dict[str, Any] = {"QUEUES": {name: {} for name in (*QUEUES, "high", "low")}}


@pytest.fixture
def own_cluster(tmp_path: Path, settings: Settings) -> Iterator[ValkeyCluster]:
    """A Cluster of this test alone, which ``JOBS["BROKER_URL"]`` names."""
    with valkey_cluster(tmp_path / "cluster") as cluster:
        settings.JOBS = {**settings.JOBS, **JOBS, "BROKER_URL": cluster.url}
        yield cluster


@pytest.fixture
def project(
    transactional_db: None, own_cluster: ValkeyCluster, tmp_path: Path, starter: Starter
) -> Iterator[Project]:
    # All that it asks of its server is the address.
    with Project(cast("Valkey", own_cluster), tmp_path, starter=starter) as running:
        yield running


def send(count: int, begin: int = 0) -> list[str]:
    """Send calls to all queues; their labels."""
    labels = [str(n) for n in range(begin, begin + count)]
    for n, queue in enumerate(QUEUES):
        trace.enqueue_many([(label,) for label in labels[n::3]], queue=queue)
    return labels


def all_ran(labels: list[str]) -> None:
    for queue in QUEUES:
        settled(queue)
    rows = TaskResult.objects.filter(task="tests.tasks.trace")
    assert rows.filter(state=State.SUCCESS).count() == rows.count() == len(labels)
    assert set(Run.objects.values_list("label", flat=True)) == set(labels)


def test_a_worker_of_queues_on_all_nodes(project: Project, own_cluster: ValkeyCluster) -> None:
    worker = ready_worker(project, "--processes", "1", "--queues", ",".join(QUEUES), jobs=JOBS)
    for queue in QUEUES:
        assert add.apply_async((1, 2), queue=queue).get(timeout=60) == 3
    labels = send(90)
    own_cluster.move("{mail}", own_cluster.owner("{default}"))
    labels += send(90, 90)
    all_ran(labels)
    # Moving between queues that are on different nodes; nobody works on the first one.
    for n in range(5):
        trace.apply_async((f"moved {n}",), queue="low")
    assert control.move("low", "other") == 5
    settled("other")
    assert Run.objects.filter(label__startswith="moved").count() == 5
    status = project.run("jobs_status", **own_jobs(project, JOBS))
    for queue in QUEUES:
        assert re.search(rf"(?m)^ *{queue}\b", status), status
        page = staff(superuser=True).get(f"/admin/jobs/queues/queue/{queue}/")
        assert page.status_code == 200
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_a_master_is_killed(project: Project, own_cluster: ValkeyCluster) -> None:
    args = ("--processes", "2", "--queues", ",".join(QUEUES))
    worker = ready_worker(project, *args, jobs={**JOBS, "LEASE_SECONDS": 3.0})
    labels = send(300)
    wait_for(lambda: Run.objects.count() >= 30, what="30 runs")
    killed = own_cluster.owner("{mail}")
    killed.kill()

    def masters(node: Valkey) -> set[int]:
        return {port for _first, _last, (_host, port, *_), *_ in slots_of(node)}

    # A child that has nothing of that node at the moment may say so before the election.
    worker.wait_for_output("broker is back")
    wait_for(
        lambda: all(killed.port not in masters(node) for node in own_cluster.live),
        what="the replica to take over",
    )
    # What the replica had is there. Calls that it didn't have yet are lost by Redis: none was sent
    # in the last moment before the kill.
    labels += send(30, 300)
    for queue in QUEUES:
        settled(queue)
    wait_for(lambda: set(Run.objects.values_list("label", flat=True)) == set(labels))
    assert not TaskResult.objects.exclude(state=State.SUCCESS).exists()
    assert broker.get().stats("mail").in_flight == 0
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


@pytest.mark.one_database
def test_a_frozen_master_holds_up_its_own_queue_alone(
    project: Project, own_cluster: ValkeyCluster
) -> None:
    """And nobody takes over from it."""
    for node in own_cluster.nodes:
        ask(node, "CONFIG", "SET", "cluster-node-timeout", 120_000)
    args = ("--processes", "1", "--queues", ",".join(QUEUES))
    worker = ready_worker(project, *args, jobs={**JOBS, "LEASE_SECONDS": 120})
    assert add.apply_async((1, 2), queue="mail").get(timeout=60) == 3
    waiting = add.apply_async((2, 3), queue="mail")
    with own_cluster.owner("{mail}").frozen():
        for _ in range(3):
            for queue in QUEUES[1:]:
                assert add.apply_async((1, 2), queue=queue).get(timeout=60) == 3
        worker.wait_for_output("a part of the broker is away")
    assert waiting.get(timeout=60) == 5
    assert add.apply_async((1, 2), queue="mail").get(timeout=60) == 3
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_a_frozen_master_is_given_up_when_another_takes_over(
    project: Project, own_cluster: ValkeyCluster, settings: Settings
) -> None:
    """However long an answer may take, and although nothing tells that it is gone."""
    patient = {**JOBS, "SOCKET_TIMEOUT": 600.0, "POLL_SECONDS": 600.0, "LEASE_SECONDS": 600.0}
    settings.JOBS = {**settings.JOBS, **patient}
    worker = ready_worker(project, "--processes", "1", "--queues", "mail", jobs=patient)
    assert add.apply_async((1, 2), queue="mail").get(timeout=60) == 3
    with own_cluster.owner("{mail}").frozen():
        sent = add.apply_async((2, 3), queue="mail")  # to whoever is the master by then
        wait_for(lambda: sent.ready(), what="a call that the new master has")
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_leases_are_renewed_where_the_cluster_still_answers(
    cluster_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBS = {**settings.JOBS, **JOBS}
    supervisor = Supervisor(Options(queues=tuple(QUEUES), name="w"), starting.Starter())
    broker.get().ping()
    child = Mock(consumer="w/1", process=True, ready=False)
    monkeypatch.setattr(supervisor, "_slots", [child])
    monkeypatch.setattr(supervisor._reporter, "report", lambda queues: None)
    node = broker.by_shard()._redis._node("{mail}")  # type: ignore[attr-defined]

    def away(*_args: Any, **_options: Any) -> None:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(node, "post", away)
        supervisor._keep_order()
        assert supervisor._patience.missing == "broker"
        for queue in ("default", "other"):
            assert [one.name for one in broker.get().consumers(queue)] == ["w/1"]
    supervisor._next_renewal = 0.0
    supervisor._keep_order()
    assert supervisor._patience.missing == ""
    assert [one.name for one in broker.get().consumers("mail")] == ["w/1"]
