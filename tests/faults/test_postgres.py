"""A PostgreSQL server of the worker's own is restarted, unreachable, and full.

Finished tasks wait for it in the worker; nothing is lost, and all goes on by itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from jobs import broker, message
from jobs.message import Message
from tests.faults.outages import calm
from tests.faults.proxy import Proxy
from tests.project import Process, Project
from tests.services import START_SECONDS, Postgres, own_postgres, wait_for
from tests.tasks import add
from tests.workers import on_redis, put, settled

if TYPE_CHECKING:
    import psycopg

# One run is enough of what doesn't use that run's database.
pytestmark = pytest.mark.postgres

#: How soon, in seconds, work must go on when the server is back. Two are promised of a worker that
#: has the machine to itself; here it has not.
SOON = 10.0
AWAY = "the database is away; finished tasks wait to be recorded"


@pytest.fixture(scope="module")
def migrated() -> Iterator[Postgres]:
    with own_postgres(max_connections=20, superuser_reserved_connections=0) as server:
        yield server


@pytest.fixture
def server(migrated: Postgres, project: Project) -> Postgres:
    """Running, with empty tables."""
    if not migrated.running:
        migrated.start()  # a test before has failed
    with migrated.connect() as plain:
        tables = plain.execute("SELECT 1 FROM pg_tables WHERE tablename = 'jobs_taskresult'")
        if tables.fetchone() is None:
            project.run("migrate", DATABASE_URL=migrated.url)
        plain.execute("TRUNCATE jobs_taskresult CASCADE")
    return migrated


def worker_on(project: Project, url: str, processes: int = 1) -> Process:
    """A worker on this database, and not on the run's."""
    worker = project.manage("runworker", "--processes", str(processes), DATABASE_URL=url)
    wait_for(
        lambda: worker.output().count(" ready, queues") == processes,
        START_SECONDS,
        what="the children to be ready",
    )
    return worker


def recorded(server: Postgres) -> int:
    """How many ends are recorded; each task's once, since its id is the key."""
    with server.connect() as plain:
        found = plain.execute("SELECT count(*) FROM jobs_taskresult WHERE state = 'SUCCESS'")
        (count,) = found.fetchone() or (0,)
    return int(count)


def send(count: int) -> None:
    add.enqueue_many([(n, n) for n in range(count)])


def goes_on(server: Postgres, expected: int) -> None:
    """Ends are recorded again soon, all of them in the end."""
    before = recorded(server)
    send(1)
    wait_for(lambda: recorded(server) > before, SOON, what="the next end to be recorded")
    settled()
    assert recorded(server) == expected + 1


def test_it_is_restarted_under_load(project: Project, server: Postgres) -> None:
    worker = worker_on(project, server.url, processes=2)
    send(1000)
    wait_for(lambda: recorded(server) >= 100, what="some ends")
    began = time.monotonic()
    server.kill()
    sent = 1000

    def both_notice() -> bool:
        """One child may take whatever is sent at once, and the other be idle meanwhile."""
        nonlocal sent
        noticed = worker.output().count(AWAY) == 2
        if not noticed:
            send(50)
            sent += 50
        return noticed

    wait_for(both_notice, what="both children to notice")
    server.start()
    seconds = time.monotonic() - began
    goes_on(server, sent)
    calm(worker, seconds)
    assert worker.stop() == 0


def test_what_must_be_looked_up_waits_in_its_queue(project: Project, server: Postgres) -> None:
    """It may have ended before, and only the database knows."""
    worker = worker_on(project, server.url)
    send(1)
    settled()
    began = time.monotonic()
    server.kill()
    for n in range(20):
        raw = message.encode(
            Message(id=message.new_id(), queue="default", task=add.name, args=[n, n])
        )
        put(message.mark_redelivered(raw, crashed=False)[0])
    worker.wait_for_output(": the database is away; trying again")
    send(20)
    wait_for(lambda: on_redis() == (40, 0), what="everything to be back in the queue")
    server.start()
    seconds = time.monotonic() - began
    goes_on(server, 41)
    calm(worker, seconds)
    assert worker.stop() == 0


def test_the_network_to_it_goes_silent(project: Project, server: Postgres) -> None:
    proxy = Proxy(server.socket)
    worker = worker_on(project, f"postgres://postgres@127.0.0.1:{proxy.port}/postgres")
    send(10)
    settled()
    with proxy.dead():
        send(300)
        wait_for(lambda: on_redis()[0] == 0, what="the worker to have them all")
    goes_on(server, 310)
    # The connections of before don't come back: those who wait on them learn it by a reset.
    began = time.monotonic()
    with proxy.dead():
        send(300)
        wait_for(lambda: on_redis()[0] == 0, what="the worker to have them all")
        wait_for(lambda: proxy.cut() and AWAY in worker.output(), what="the worker to notice")
    goes_on(server, 611)
    calm(worker, time.monotonic() - began)
    proxy.close()
    assert worker.stop() == 0


@contextlib.contextmanager
def full(server: Postgres) -> Iterator[None]:
    """Others have all of its connections, and the worker none."""
    import psycopg

    mine: list[psycopg.Connection[Any]] = [server.connect()]

    def take_free() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                mine.append(server.connect())

    def all_mine() -> bool:
        # First those that are free, or who is cut off would have them and be back.
        take_free()
        mine[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND NOT pid = ANY(%s)",
            [[connection.info.backend_pid for connection in mine]],
        )
        take_free()
        return len(mine) == 20

    try:
        wait_for(all_mine, what="all connections")
        yield
    finally:
        for connection in mine:
            connection.close()


def test_it_has_no_connection_left(project: Project, server: Postgres) -> None:
    worker = worker_on(project, server.url)
    send(10)
    settled()
    began = time.monotonic()
    with full(server):
        send(300)
        worker.wait_for_output(AWAY)
        # What it notices first may be that it was cut off.
        worker.wait_for_output("too many clients")
        wait_for(lambda: on_redis()[0] == 0, what="the worker to have them all")
        assert broker.get().stats("default").dead == 0
    goes_on(server, 310)
    calm(worker, time.monotonic() - began)
    assert worker.stop() == 0
