"""The database is locked, or cuts off its clients, while ends are to be recorded."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from jobs.models import TaskResult
from jobs.states import State
from tests.faults.outages import calm
from tests.project import ROOT, Process, Project
from tests.services import START_SECONDS, wait_for
from tests.tasks import add, async_count_authors
from tests.workers import ready_worker, settled

#: What the worker's connections give up after, so that the test needn't wait for long.
_IMPATIENT = """from tests.settings import *

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"]["timeout"] = 0.1
elif DATABASES["default"]["ENGINE"].endswith("mysql"):
    DATABASES["default"]["OPTIONS"]["init_command"] = "SET lock_wait_timeout = 1"
else:
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = "-c lock_timeout=100"
"""

AWAY, BACK = "the database is away", "the database is back"


def impatient_worker(project: Project) -> Process:
    (project.folder / "impatient.py").write_text(_IMPATIENT)
    path = os.pathsep.join([str(project.folder), str(ROOT)])
    env = {"DJANGO_SETTINGS_MODULE": "impatient", "PYTHONPATH": path}
    worker = project.manage("runworker", "--processes", "1", **env)
    worker.wait_for_output(" ready, queues", START_SECONDS)
    return worker


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Nobody can write the ledger meanwhile; reading goes on."""
    if connection.vendor == "sqlite":
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()
        return
    # Another connection than that by which the test sends, which must be outside a transaction.
    second = connection.copy()
    lock = "LOCK TABLE jobs_taskresult IN EXCLUSIVE MODE"
    if connection.vendor == "mysql":
        lock = "LOCK TABLES jobs_taskresult READ"
    try:
        second.set_autocommit(False)
        with second.cursor() as cursor:
            cursor.execute(lock)
        yield
        second.rollback()
    finally:
        second.close()


def cut_off() -> None:
    """End every other connection to this database, as a restart of the server does, and wait for
    their end."""
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            others = (
                "SELECT id FROM information_schema.processlist "
                "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            cursor.execute(others)
            ended = cursor.fetchall()
            for (number,) in ended:
                with contextlib.suppress(OperationalError):  # it has ended by itself
                    cursor.execute(f"KILL {number}")
            wait_for(
                lambda: cursor.execute(others) is None or not set(ended) & set(cursor.fetchall()),
                what="the connections to end",
            )
            return
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


on_a_server = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite is no server")


def test_ends_wait_for_a_locked_database(project: Project) -> None:
    worker = impatient_worker(project)
    began = time.monotonic()
    with locked():
        results = add.enqueue_many([(n, n) for n in range(50)])
        # A server answers, and refuses only these rows: others would be recorded meanwhile.
        sqlite = connection.vendor == "sqlite"
        worker.wait_for_output(
            f"{AWAY}; finished tasks wait" if sqlite else "can't be recorded yet"
        )
    seconds = time.monotonic() - began
    assert [result.get(timeout=60) for result in results] == [2 * n for n in range(50)]
    settled()
    assert TaskResult.objects.filter(attempts=1).count() == 50
    if sqlite:
        calm(worker, seconds)
    else:
        worker.wait_for_output("all finished tasks are recorded again")
        assert worker.output().count("can't be recorded yet") == 1
    assert worker.stop() == 0


@on_a_server
def test_connections_to_the_database_are_cut_while_ends_are_recorded(project: Project) -> None:
    worker = ready_worker(project, "--processes", "2")
    add.enqueue_many([(n, n) for n in range(2000)])
    rows = TaskResult.objects.filter(task="tests.tasks.add", state=State.SUCCESS)
    for share in range(200, 2000, 300):
        wait_for(lambda share=share: rows.count() >= share, what=f"{share} ends")
        cut_off()
    settled()
    assert rows.count() == TaskResult.objects.count() == 2000
    # One child may have done the rest while the other was still waiting for its next try.
    wait_for(
        lambda: (said := worker.output()).count(AWAY) == said.count(BACK),
        what=f"all loops to say that it is back:\n{worker.output()}",
    )
    assert worker.stop() == 0


@on_a_server
def test_async_tasks_get_a_new_connection_after_one_was_cut(project: Project) -> None:
    ready_worker(project, "--processes", "1")
    assert async_count_authors.delay().get(timeout=60) == 0
    cut_off()
    # The first may find the cut connection; it is not left to the second.
    async_count_authors.delay().get(timeout=20, propagate=False)
    assert async_count_authors.delay().get(timeout=60) == 0
