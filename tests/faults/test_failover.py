"""The master of Sentinels is killed while workers run: all committed calls run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import broker
from jobs.exceptions import BrokerUnavailable
from jobs.models import TaskResult
from jobs.states import State
from tests.e2e.test_celery_control import ALL, CommandLine
from tests.models import Run
from tests.project import Project
from tests.services import SentinelTrio, sentinels, wait_for
from tests.starter import Starter
from tests.tasks import add, trace
from tests.workers import ready_worker, settled


@pytest.fixture
def trio(tmp_path: Path, settings: Settings) -> Iterator[SentinelTrio]:
    with sentinels(tmp_path / "sentinels") as running:
        settings.JOBS = {**settings.JOBS, "BROKER_URL": running.url}
        yield running


@pytest.fixture
def project(
    transactional_db: None, trio: SentinelTrio, tmp_path: Path, starter: Starter
) -> Iterator[Project]:
    """On the servers of the Sentinels."""
    with Project(trio, tmp_path, starter=starter) as running:
        yield running


def test_the_master_is_killed_under_load(project: Project, trio: SentinelTrio) -> None:
    workers = [
        ready_worker(project, "--processes", "1", jobs={"LEASE_SECONDS": 2}) for _ in range(2)
    ]
    labels = {str(n) for n in range(1000)}

    def send(part: set[str]) -> None:
        with transaction.atomic():
            trace.enqueue_many([(label,) for label in part])

    first = {label for label in labels if int(label) < 600}
    send(first)
    wait_for(lambda: Run.objects.count() >= 50, what="50 runs")
    trio.kill_master()
    elected = time.monotonic()
    send(labels - first)  # left to the relay, if the new master isn't known yet
    while True:
        with contextlib.suppress(BrokerUnavailable):
            # Ahead of all that wait: how long those take isn't what is promised.
            last = add.apply_async((1, 2), queue="high")
            break
    assert last.get(timeout=60) == 3
    assert time.monotonic() - elected < 30  # a busy machine; 2 s is what is promised
    wait_for(lambda: ended() == 1000, what="all to have run")
    assert set(Run.objects.values_list("label", flat=True)) == labels
    settled()
    wait_for(lambda: not broker.get().doubtful(["default"]), what="the end of the comparison")
    for worker in workers:
        assert "Traceback" not in worker.output()
        assert worker.stop() == 0


def test_a_frozen_master_is_given_up_when_another_takes_over(
    project: Project, trio: SentinelTrio, settings: Settings
) -> None:
    """However long an answer may take, and although nothing tells that it is gone."""
    patient = {"SOCKET_TIMEOUT": 600.0, "POLL_SECONDS": 600.0, "LEASE_SECONDS": 600.0}
    settings.JOBS = {**settings.JOBS, **patient}
    args = ("--processes", "1", "--queues", "default")
    worker = ready_worker(project, *args, jobs=patient)
    assert add.delay(1, 2).get(timeout=60) == 3
    with trio.master.frozen():
        sent = add.delay(2, 3)  # to whoever is the master by then
        wait_for(lambda: sent.ready(), what="a call that the new master has")
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_celery_s_clients_reach_workers_by_sentinels(project: Project, trio: SentinelTrio) -> None:
    args = ("--processes", "1", "--queues", "default", "--name", "w")
    worker = ready_worker(project, *args, jobs=ALL)
    hosts = ";".join(f"sentinel://127.0.0.1:{port}" for port in trio.ports)
    celery = CommandLine(project, hosts, trio.service)
    try:
        assert celery.ask("inspect", "ping") == {"ok": "pong"}
        trio.kill_master()
        worker.wait_for_output("Celery's clients are answered again")
        wait_for(lambda: celery.answers("inspect", "ping"), what="an answer by the new master")
        assert celery.ask("inspect", "active") == []
    finally:
        celery.close()
    assert worker.stop() == 0


def ended() -> int:
    return TaskResult.objects.filter(task="tests.tasks.trace", state=State.SUCCESS).count()
