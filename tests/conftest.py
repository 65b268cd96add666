"""Fixtures for every test: servers, and processes of the project.

===============  ==================================================================
`valkey_server`  the run's Valkey server
`broker_url`     its URL, emptied for this test, and set as ``JOBS["BROKER_URL"]``
`sentinel_url`   the URL of Sentinels whose master is emptied for this test, set as well
`own_valkey`     a Valkey server of this test alone, which may be killed or frozen
`cluster_url`    that of the run's Cluster, emptied for this test, as `broker_url`
`own_tasks`      forgets the tasks that this test declares, such as those of a page
`project`        real `manage.py` processes on this test's database and broker
===============  ==================================================================
"""

from __future__ import annotations

import datetime as dt
import functools
import gc
import os
import shlex
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

# Its plug-in imports it after the last test. Once what is there is frozen (see
# `pytest_collection_finish`), it takes what other packages give it for garbage, and warns.
import hypothesis  # noqa: F401
import pytest
import redis.utils
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, transaction
from django.test import TransactionTestCase
from django.utils import translation
from pytest_django import Settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from jobs import registry
from jobs.ledger import partitions
from tests import services
from tests.project import FOR_PYTHON, Project
from tests.starter import Starter

# redis-py reads the metadata of its package for each new connection: half a millisecond of CPU, for
# thousands of connections.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)


# A shell without job control has what it starts in the background ignore these, which all processes
# of tests would inherit.
for signum, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(signum) == signal.SIG_IGN:
        signal.signal(signum, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Give each test to the next process that is free, but those that share something dear to one:
    a Chromium, a Cluster and Sentinels (which talk to each other until their process ends), or a
    built package. (xdist's mark for that has no effect on pytest 9.2.)"""
    made = LoadScopeScheduling(config, log)
    together = (
        # The pages one by one take as long as all other tests in a browser: they get a second one.
        "tests/browser/test_every_page.py",
        "tests/browser/",
        "tests/e2e/test_package.py",
        "tests/integration/broker/",
    )
    made._split_scope = lambda test: next(filter(test.startswith, together), test)
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and skip those for PostgreSQL on another database."""
    engine = django_settings.DATABASES["default"]["ENGINE"]
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in ("e2e", "faults", "browser"):
            item.add_marker(folder)
        if item.get_closest_marker("postgres") and not engine.endswith("postgresql"):
            item.add_marker(pytest.mark.skip(reason="this run is not on PostgreSQL"))


def pytest_collection_finish() -> None:
    """Thousands of tests stay as long as the process, and need not be looked at by each of Python's
    collections of garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the processes of its project have printed, and what the database
    and the broker hold."""
    report = yield
    running = getattr(item, "funcargs", {}).get("project")
    if report.failed and isinstance(running, Project):
        for process in running.processes:
            title = f"{shlex.join(process.args)} ({process.poll()})"  # type: ignore[arg-type]
            report.sections.append((title, process.output()))
        if report.when == "call":
            try:
                report.sections.append(("database and broker", running.state()))
            except Exception as error:  # noqa: BLE001  the test may have taken either away
                report.sections.append(("database and broker", repr(error)))
    return report


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """After a test that commits, delete its rows instead of calling Django's `flush`, which looks
    for the tables, truncates all of them on PostgreSQL (a new file for each table and index), and
    makes content types and permissions anew: that takes longer than most of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", _delete_rows)
        yield


@pytest.fixture(scope="session", autouse=True)
def _partitioned(request: pytest.FixtureRequest) -> None:
    """With PARTITIONED=1 in the environment, all tests run on a ledger in partitions: of the days
    around today, and the rest."""
    if os.environ.get("PARTITIONED"):
        request.getfixturevalue("django_db_setup")
        with request.getfixturevalue("django_db_blocker").unblock():
            partitions.make_parted()
            partitions.extend(dt.datetime.now(dt.UTC) - dt.timedelta(days=7), "day")


def _delete_rows(case: TransactionTestCase) -> None:
    for alias in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        connection = connections[alias]
        tables = [connection.ops.quote_name(name) for name in _emptied_tables()]
        statements = [f"DELETE FROM {table}" for table in tables]
        if connection.vendor == "postgresql":
            # As TRUNCATE does, wait for the transaction of a process that was killed just now: its
            # rows would come after the DELETE otherwise. All in one round trip.
            lock = f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"
            statements = ["; ".join([lock, *statements])]
        if connection.vendor == "mysql":
            off, on = (f"SET FOREIGN_KEY_CHECKS = {value}" for value in (0, 1))
            statements = [off, *statements, on]
        # Elsewhere foreign keys are checked at the commit, so that the order doesn't matter.
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@functools.cache
def _emptied_tables() -> list[str]:
    """All but those of content types and permissions, which Django made with the database."""
    kept = {ContentType._meta.db_table, Permission._meta.db_table}
    every = connections["default"].introspection.django_table_names(include_views=False)
    return sorted(set(every) - kept)


@pytest.fixture(autouse=True)
def _own_language() -> Iterator[None]:
    """A page that was asked for in another language leaves that behind in its thread."""
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Valkey]:
    """The run's Valkey server, shared by tests; ask for `broker_url` to have it empty."""
    with services.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def broker_url(valkey_server: services.Valkey, settings: Settings) -> str:
    """URL of an empty Valkey server, which ``JOBS["BROKER_URL"]`` names during this test."""
    with valkey_server.client() as client:
        client.flushall()
        client.config_resetstat()
    settings.JOBS = {**settings.JOBS, "BROKER_URL": valkey_server.url}
    return valkey_server.url


@pytest.fixture(scope="session")
def sentinel_trio(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[services.SentinelTrio]:
    """The run's master, replica and Sentinels, which take some seconds to start."""
    with services.sentinels(tmp_path_factory.mktemp("sentinels")) as trio:
        yield trio


@pytest.fixture
def sentinel_url(sentinel_trio: services.SentinelTrio, settings: Settings) -> str:
    """URL of Sentinels whose master is empty, which ``JOBS["BROKER_URL"]`` names during this
    test."""
    with sentinel_trio.client() as client:
        client.flushall()
    settings.JOBS = {**settings.JOBS, "BROKER_URL": sentinel_trio.url}
    return sentinel_trio.url


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.ValkeyCluster]:
    """The run's Cluster, shared by tests that leave its nodes and slots as they are; ask for
    `cluster_url` to have it empty."""
    with services.valkey_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster_url(valkey_cluster: services.ValkeyCluster, settings: Settings) -> str:
    """URL of an empty Cluster, which ``JOBS["BROKER_URL"]`` names during this test."""
    valkey_cluster.flush()
    settings.JOBS = {**settings.JOBS, "BROKER_URL": valkey_cluster.url}
    return valkey_cluster.url


@pytest.fixture
def own_valkey(tmp_path: Path, settings: Settings) -> Iterator[services.Valkey]:
    """A Valkey server of this test alone, named by ``JOBS["BROKER_URL"]``.

    ``own_valkey.kill()``, ``.start()``, ``.restart()`` and ``with own_valkey.frozen():`` do to it
    what happens to servers. It costs about 0.1 s; use `broker_url` where none of that is needed.
    """
    with services.valkey(tmp_path / "valkey") as server:
        settings.JOBS = {**settings.JOBS, "BROKER_URL": server.url}
        yield server


@pytest.fixture
def own_tasks() -> Iterator[None]:
    before = {**registry.tasks}
    yield
    registry.tasks.clear()
    registry.tasks.update(before)


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Forks the processes of `project`, those with the usual environment of an interpreter."""
    with Starter({**os.environ, **FOR_PYTHON}) as running:
        yield running


@pytest.fixture
def project(
    transactional_db: None, own_valkey: services.Valkey, tmp_path: Path, starter: Starter
) -> Iterator[Project]:
    """Real processes of this project, on the test's database and a Valkey of its own.

    The test and the processes share both, so the test sends tasks and reads rows as usual::

        def test_a_task_runs(project):
            project.manage("runworker", "--processes", "1")
            result = add.delay(1, 2)
            assert result.get(timeout=10) == 3
            project.wait_for(lambda: TaskResult.objects.filter(state="SUCCESS").exists())

    ``project.manage(*args, **env)`` starts ``manage.py`` and returns its `Process`: a `Popen` with
    ``.output()`` (what it has printed so far), ``.wait_for_output(text)``, ``.stop()`` (SIGTERM,
    gives the exit status) and ``.kill_group()``; `starter` forks most of them.
    ``project.run(*args)`` waits for the end and returns what was printed. ``project.env``,
    ``project.database_url`` and ``project.redis_url`` are what the processes get,
    ``project.valkey`` is the server. What is still running at the end of the test is killed, with
    all its children.
    """
    with Project(own_valkey, tmp_path, starter=starter) as running:
        yield running
