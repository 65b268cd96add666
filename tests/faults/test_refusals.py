"""The broker is there and refuses: as a replica, full, loading, with too many clients.

Nothing is lost, and all goes on by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from django.db import transaction

from jobs import broker
from jobs.exceptions import BrokerUnavailable
from tests.faults.outages import calm
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, wait_at
from tests.workers import Gate, ready_worker, settled

#: How soon, in seconds, work must go on when the broker is back. Two are promised of a worker that
#: has the machine to itself; here it may share two cores with a dozen others.
SOON = 30.0

Change = Callable[[redis.Redis], object]


def allow_clients(client: redis.Redis, count: int) -> None:
    client.config_set("maxclients", count)
    client.client_kill_filter(_type="normal", skipme=True)


#: How it begins, how it ends, and what the error says meanwhile.
REFUSALS: dict[str, tuple[Change, Change, str]] = {
    "replica": (
        lambda client: client.replicaof("127.0.0.1", "1"),
        lambda client: client.replicaof("NO", "ONE"),
        r"read.?only",
    ),
    "too many clients": (
        lambda client: allow_clients(client, 1),
        lambda client: client.config_set("maxclients", 1000),
        "max number of clients",
    ),
}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.mark.parametrize("kind", REFUSALS)
def test_it_refuses_for_a_while(project: Project, gate: Gate, kind: str) -> None:
    begin, end, said = REFUSALS[kind]
    worker = ready_worker(project, "--processes", "1", jobs={"RELAY_AFTER_SECONDS": 1.0})
    running, waiting = wait_at.delay(gate.path), add.delay(5, 6)
    gate.wait_for()
    with project.valkey.client() as client:
        began = time.monotonic()
        begin(client)
        broker.get().close()  # what was cut while it was in use would say only that
        with pytest.raises(BrokerUnavailable, match=said):
            add.apply_async((1, 2), retry=False)
        with transaction.atomic():
            committed = add.delay(3, 4)
        gate.open()
        worker.wait_for_output("the broker is away; trying again")
        end(client)
    seconds = time.monotonic() - began
    assert add.delay(7, 8).get(timeout=SOON) == 15
    assert running.get(timeout=SOON)
    assert waiting.get(timeout=SOON) == 11
    assert committed.get(timeout=2 * SOON) == 7
    settled()
    calm(worker, seconds)
    assert worker.stop() == 0


def test_it_is_full_and_is_worked_off(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "1", jobs={"RELAY_AFTER_SECONDS": 1.0})
    running, waiting = wait_at.delay(gate.path), add.delay(5, 6)
    gate.wait_for()
    with project.valkey.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable, match="memory"):
            add.apply_async((1, 2), retry=False)
        with transaction.atomic():
            committed = add.delay(3, 4)
        gate.open()
        assert running.get(timeout=SOON)
        assert waiting.get(timeout=SOON) == 11
        client.config_set("maxmemory", 0)
    assert committed.get(timeout=2 * SOON) == 7
    settled()
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def test_it_takes_long_to_load(project: Project, gate: Gate) -> None:
    worker = ready_worker(project, "--processes", "1")
    with project.valkey.client() as client:
        # Nothing that can be compressed: while it loads, it answers once a kilobyte of its file.
        client.mset({f"key {n}": os.urandom(4096) for n in range(100)})
        client.bgrewriteaof()
        wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="the AOF")
    running, waiting = wait_at.delay(gate.path), add.delay(1, 2)
    gate.wait_for()
    project.valkey.stop()
    began = time.monotonic()
    # 0.2 s for each key, until it is told to hurry.
    slowly = {"key-load-delay": "200000", "loading-process-events-interval-bytes": "1024"}
    project.valkey.start(wait=False, **slowly)
    wait_for(lambda: "loading the dataset" in refusal(), what="LOADING")
    gate.open()
    worker.wait_for_output("is away")
    with project.valkey.client() as client:
        client.config_set("key-load-delay", 0)
    wait_for(lambda: not refusal(), what="the end of loading")
    seconds = time.monotonic() - began
    assert waiting.get(timeout=SOON) == 3
    assert running.get(timeout=SOON)
    assert add.delay(3, 4).get(timeout=SOON) == 7
    settled()
    calm(worker, seconds)
    assert worker.stop() == 0


def refusal() -> str:
    """What the broker's error says; "" when it answers."""
    try:
        broker.get().ping()
    except BrokerUnavailable as error:
        return str(error)
    return ""
