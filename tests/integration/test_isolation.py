"""What one task leaves behind of its connections and its context does not reach the next."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.utils import timezone, translation

from jobs import Request, signals, task
from jobs.exceptions import TransactionLeftOpen
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.run import database, isolation
from tests.models import Run
from tests.services import wait_for
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

#: What the careless task does, by name.
DEEDS: dict[str, Callable[[], Any]] = {}


def deed(run: Callable[[], Any]) -> Callable[[], Any]:
    DEEDS[run.__name__] = run
    return run


def execute(sql: str, *params: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone() if cursor.description else None


@task
def careless(name: str) -> None:
    DEEDS[name]()


@task
def careful(label: str) -> int:
    """Leave a row; which connection it had."""
    Run.objects.create(label=label)
    return id(connection.connection)


@task
def look(name: str) -> Any:
    connection.ensure_connection()
    return LOOKS[name]()


def labels() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def row_of(result: Any) -> TaskResult:
    return TaskResult.objects.get(id=result.id)


# ------------------------------------------------------------------------------ transactions


@deed
def autocommit_off() -> None:
    transaction.set_autocommit(False)
    Run.objects.create(label="lost")


@deed
def begin_by_hand() -> None:
    execute("BEGIN")
    Run.objects.create(label="lost")


@deed
def begin_on_the_driver() -> None:
    connection.ensure_connection()
    connection.connection.execute("BEGIN")
    Run.objects.create(label="lost")


@deed
def atomic_without_an_end() -> None:
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")


@deed
def atomic_twice_without_an_end() -> None:
    transaction.atomic().__enter__()
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")


@deed
def atomic_with_a_broken_query() -> None:
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")
    with pytest.raises(Exception, match="nowhere"):
        execute("SELECT * FROM nowhere")


@deed
def atomic_that_waits_for_its_commit() -> None:
    transaction.atomic().__enter__()
    transaction.on_commit(lambda: Run.objects.create(label="lost"))
    Run.objects.create(label="lost")


@deed
def atomic_and_its_connection_closed() -> None:
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")
    connection.close()


@deed
def rollback_forced() -> None:
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")
    transaction.set_rollback(True)


OPEN = [*DEEDS]


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("name", OPEN)
def test_a_transaction_left_open(name: str, threads: int, caplog: pytest.LogCaptureFixture) -> None:
    before = careful.delay("before")
    left = careless.delay(name)
    after = [careful.delay(str(n)) for n in range(3)]
    work(threads=threads)
    assert labels() == ["before", "0", "1", "2"]
    assert {row_of(one).state for one in (before, *after)} == {State.SUCCESS}
    # What it wrote is not there, so it has not succeeded.
    assert row_of(left).state == State.FAILURE
    with pytest.raises(TransactionLeftOpen, match="left a transaction open"):
        left.get(timeout=0)
    [said] = [
        r.getMessage()
        for r in caplog.records
        if " left a transaction open" in r.getMessage() and r.name == "jobs.worker"
    ]
    assert left.id in said


@task
def careless_and_failing(name: str) -> None:
    DEEDS[name]()
    raise LookupError("its own")


@pytest.mark.parametrize("name", OPEN)
def test_a_failure_in_a_transaction_left_open_stays_that_failure(name: str) -> None:
    failed = careless_and_failing.delay(name)
    careful.delay("after")
    work()
    assert labels() == ["after"]
    with pytest.raises(LookupError, match="its own"):
        failed.get(timeout=0)


@task(atomic=True)
def careless_atomic(name: str) -> None:
    DEEDS[name]()


@pytest.mark.parametrize("name", [n for n in OPEN if n.startswith("atomic")])
def test_an_atomic_task_that_leaves_another_transaction_open(name: str) -> None:
    failed = careless_atomic.delay(name)
    careful.delay("after")
    work()
    assert labels() == ["after"]
    assert row_of(failed).state == State.FAILURE


@task(batch=2, batch_wait=0.0)
def careless_batch(requests: list[Request]) -> None:
    autocommit_off()


def test_a_batch_that_leaves_a_transaction_open() -> None:
    failed = [careless_batch.delay(n) for n in range(2)]
    careful.delay("after")
    work(batch=2)
    assert labels() == ["after"]
    assert {row_of(one).error_type for one in failed} == {"jobs.exceptions.TransactionLeftOpen"}


@task
async def careless_async(name: str) -> None:
    await sync_to_async(DEEDS[name])()


@task
async def careful_async(label: str) -> None:
    await Run.objects.acreate(label=label)


@task
async def careless_in_a_thread(name: str) -> None:
    await asyncio.to_thread(DEEDS[name])


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("which", [careless_async, careless_in_a_thread])
def test_async_tasks(name: str, which: Any) -> None:
    failed = which.delay(name)
    work()
    careful_async.delay("after")
    work()
    assert labels() == ["after"]
    with pytest.raises(TransactionLeftOpen):
        failed.get(timeout=0)


def test_async_tasks_beside_each_other() -> None:
    """They share a thread, and its connection."""
    for n in range(20):
        careful_async.delay(str(n))
        if n % 5 == 0:
            careless_async.delay("autocommit_off")
    work()
    assert sorted(labels(), key=int) == [str(n) for n in range(20)]


def test_a_receiver_that_leaves_a_transaction_open() -> None:
    def receive(**_: Any) -> None:
        transaction.atomic().__enter__()
        Run.objects.create(label="lost")

    for signal in (signals.task_succeeded, signals.task_failed):
        signal.connect(receive)
    try:
        succeeded = careful.delay("one")
        failed = fail.delay()
        careful.delay("two")
        work()
    finally:
        for signal in (signals.task_succeeded, signals.task_failed):
            signal.disconnect(receive)
    assert labels() == ["one", "two"]
    assert (row_of(succeeded).state, row_of(failed).state) == (State.SUCCESS, State.FAILURE)


@task
def fail() -> None:
    raise ValueError


# ------------------------------------------------------------------------------ the session

LOOKS: dict[str, Callable[[], Any]] = {}


@deed
def isolation_level() -> None:
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        from psycopg import IsolationLevel

        connection.connection.isolation_level = IsolationLevel.SERIALIZABLE
    else:
        connection.connection.isolation_level = "EXCLUSIVE"


LOOKS["isolation_level"] = lambda: str(connection.connection.isolation_level)


@deed
def row_factory() -> None:
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        from psycopg.rows import dict_row

        connection.connection.row_factory = dict_row
    else:
        connection.connection.row_factory = sqlite3.Row


LOOKS["row_factory"] = lambda: type(execute("SELECT 1")).__name__


@deed
def execute_wrapper() -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("not today")

    connection.execute_wrappers.append(refuse)


LOOKS["execute_wrapper"] = lambda: execute("SELECT 1")[0]


@deed
def execute_wrappers_cleared() -> None:
    execute("SELECT 1")
    connection.execute_wrappers.clear()


LOOKS["execute_wrappers_cleared"] = lambda: len(connection.execute_wrappers)


@deed
def debug_cursor() -> None:
    connection.force_debug_cursor = True


LOOKS["debug_cursor"] = lambda: connection.force_debug_cursor


@deed
def attribute_of_its_own() -> None:
    connection.tenant = "another"  # type: ignore[attr-defined]


LOOKS["attribute_of_its_own"] = lambda: getattr(connection, "tenant", None)


@deed
def temporary_table() -> None:
    execute("CREATE TEMPORARY TABLE mine (n integer)")


def _has_temporary_table() -> bool:
    return "mine" in connection.introspection.table_names() or _answers("SELECT * FROM mine")


def _answers(sql: str) -> bool:
    try:
        execute(sql)
    except DatabaseError:
        return False
    return True


LOOKS["temporary_table"] = _has_temporary_table

EVERYWHERE = [*LOOKS]

SQLITE = {
    "PRAGMA query_only = ON": "PRAGMA query_only",
    "pragma foreign_keys(0)": "PRAGMA foreign_keys",
    "/* now */ PRAGMA synchronous = FULL": "PRAGMA synchronous",
    "CREATE TABLE temp.mine (n integer)": "SELECT count(*) FROM sqlite_temp_master",
    "ATTACH ':memory:' AS other": "SELECT count(*) FROM pragma_database_list",
}
POSTGRESQL = {
    "SET search_path TO pg_catalog": "SHOW search_path",
    "set statement_timeout = 1234": "SHOW statement_timeout",
    "SET ROLE pg_read_all_data": "SELECT current_user",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SHOW default_transaction_read_only",
    "SET TIME ZONE 'Asia/Tokyo'": "SHOW timezone",
    "SELECT set_config('app.tenant', '7', false)": "SELECT current_setting('app.tenant', true)",
    "SELECT 1; SET app.tenant = '7'": "SELECT current_setting('app.tenant', true)",
    "-- mine\nSELECT pg_advisory_lock(7)": (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    ),
    "PREPARE mine AS SELECT 1": "SELECT count(*) FROM pg_prepared_statements",
    "LISTEN mine": "SELECT count(*) FROM pg_listening_channels()",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1": "SELECT count(*) FROM pg_cursors",
    "SELECT E'\\'' ; SET app.tenant = '7' --'": "SELECT current_setting('app.tenant', true)",
    "-- it's \n SELECT 1; SET app.tenant = '7' --'": ("SELECT current_setting('app.tenant', true)"),
    "SELECT \"set_config\"('app.tenant', '7', false)": (
        "SELECT current_setting('app.tenant', true)"
    ),
    "SELECT $$'$$; SET app.tenant = '7' --'": "SELECT current_setting('app.tenant', true)",
    "UPDATE pg_settings SET setting = 'x' WHERE name = 'search_path'": "SHOW search_path",
    'CREATE TABLE "pg_temp".mine (n integer)': (
        "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()"
    ),
    "DO $$ BEGIN PERFORM set_config('app.tenant', '7', false); END $$": (
        "SELECT current_setting('app.tenant', true)"
    ),
}


@task
def send(sql: str, on_driver: bool = False) -> None:
    if on_driver:
        connection.ensure_connection()
        connection.connection.execute(sql)
    else:
        execute(sql)


@task
def ask(sql: str) -> str:
    execute("SELECT 1")
    return str(execute(sql)[0] or "")


@task
async def send_async(sql: str) -> None:
    await sync_to_async(send)(sql)


@task
async def ask_async(sql: str) -> str:
    return await sync_to_async(ask)(sql)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_is_seen_of_a_connection(name: str) -> None:
    careful.delay("open")
    before = look.delay(name)
    left = careless.delay(name)
    after = look.delay(name)
    work()
    assert row_of(left).state == State.SUCCESS
    assert after.get(timeout=0) == before.get(timeout=0)


@pytest.mark.parametrize("name", ["attribute_of_its_own", "debug_cursor"])
def test_what_an_atomic_task_changed(name: str) -> None:
    before = look.delay(name)
    left = careless_atomic.delay(name)
    after = look.delay(name)
    work()
    assert row_of(left).state == State.SUCCESS
    assert after.get(timeout=0) == before.get(timeout=0)


def _session_is_restored(change: str, question: str, **options: Any) -> None:
    before = ask.delay(question)
    left = send.delay(change, **options)
    after = ask.delay(question)
    work()
    assert row_of(left).state == State.SUCCESS
    assert after.get(timeout=0) == before.get(timeout=0)


@pytest.mark.skipif("connection.vendor != 'sqlite'")
@pytest.mark.parametrize(("change", "question"), SQLITE.items())
def test_the_session_on_sqlite(change: str, question: str) -> None:
    _session_is_restored(change, question)


@pytest.mark.postgres
@pytest.mark.parametrize("on_driver", [False, True])
@pytest.mark.parametrize(("change", "question"), POSTGRESQL.items())
def test_the_session_on_postgresql(change: str, question: str, on_driver: bool) -> None:
    _session_is_restored(change, question, on_driver=on_driver)


@pytest.mark.postgres
@pytest.mark.parametrize(("change", "question"), POSTGRESQL.items())
def test_the_session_of_async_tasks(change: str, question: str) -> None:
    found = []
    for one in (ask_async.s(question), send_async.s(change), ask_async.s(question)):
        found.append(one.delay())
        work()
    assert found[1].get(timeout=0) is None
    assert found[2].get(timeout=0) == found[0].get(timeout=0)


@task
def iterate_halfway() -> None:
    halfway()


@deed
def halfway() -> None:
    global _kept
    rows = Run.objects.order_by("id").iterator(chunk_size=1)
    next(rows)
    _kept = rows


_kept: Any = None


@pytest.mark.postgres
def test_an_open_cursor_of_the_server() -> None:
    careful.delay("one")
    careful.delay("two")
    iterate_halfway.delay()
    after = ask.delay("SELECT count(*) FROM pg_cursors WHERE is_holdable")
    work()
    assert after.get(timeout=0) == ""  # none


@deed
def pipeline() -> None:
    global _kept
    connection.ensure_connection()
    _kept = connection.connection.pipeline()
    _kept.__enter__()


@deed
def half_a_stream() -> None:
    global _kept
    connection.ensure_connection()
    _kept = connection.connection.cursor().stream("SELECT generate_series(1, 9)")
    next(_kept)


@deed
def half_a_copy() -> None:
    global _kept
    connection.ensure_connection()
    _kept = connection.connection.cursor().copy("COPY (SELECT generate_series(1, 9)) TO STDOUT")
    _kept.__enter__()


@deed
def stream_of_a_setting() -> None:
    connection.ensure_connection()
    list(connection.connection.cursor().stream("SELECT set_config('app.tenant', '7', false)"))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "name", ["pipeline", "half_a_stream", "half_a_copy", "stream_of_a_setting"]
)
def test_psycopgs_own_ways_to_send(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    careful.delay("open")
    careless.delay(name)
    result = careful.delay("good")
    after = ask.delay("SELECT current_setting('app.tenant', true)")
    work()
    assert row_of(result).state == State.SUCCESS
    assert labels() == ["open", "good"]
    assert after.get(timeout=0) == ""


@deed
def named_cursor_of_the_driver() -> None:
    global _kept
    connection.ensure_connection()
    _kept = connection.connection.cursor(name="mine", withhold=True)
    _kept.execute("SELECT generate_series(1, 9)")


@pytest.mark.postgres
def test_a_named_cursor_of_the_driver() -> None:
    careless.delay("named_cursor_of_the_driver")
    after = ask.delay("SELECT count(*) FROM pg_cursors WHERE is_holdable")
    work()
    assert after.get(timeout=0) == ""  # none


@deed
def rows_half_read() -> None:
    global _kept
    cursor = connection.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    cursor.fetchone()
    _kept = cursor


@deed
def read_on() -> None:
    global _kept
    try:
        next(_kept) if isinstance(_kept, Iterator) else _kept.fetchone()
    finally:
        _kept = None


@pytest.mark.skipif("connection.vendor != 'sqlite'")
@pytest.mark.parametrize("which", [careless, careless_async, careless_in_a_thread])
@pytest.mark.parametrize("name", ["rows_half_read", "halfway"])
def test_an_unread_cursor_on_sqlite(which: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else could write."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    for label in ("one", "two"):
        Run.objects.create(label=label)
    after = (which.si(name) | careless.si("read_on")).delay()
    work()
    assert "closed cursor" in row_of(after).error


def test_what_changes_nothing_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    results = [careful.delay(str(n)) for n in range(10)]
    work()
    assert len({result.get(timeout=0) for result in results}) == 1


# ------------------------------------------------------------------------------ threads of others


def cut_all() -> None:
    """End all other connections to the database, as a restart of the server does."""
    execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@pytest.mark.postgres
@pytest.mark.parametrize("pool_of", [isolation.Executor, ThreadPoolExecutor])
def test_a_connection_that_was_cut_fails_once(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
    with isolation.watching_connections():
        pool = pool_of(1)
        pool.submit(Run.objects.create, label="before").result()
        cut_all()
        with pytest.raises(OperationalError):
            pool.submit(Run.objects.create, label="cut").result()
        pool.submit(Run.objects.create, label="after").result()
        pool.submit(connections.close_all).result()
        pool.shutdown()
    assert labels() == ["before", "after"]


def _write_alone(label: str) -> int:
    """By a connection of this thread; the number of the server's process for it."""
    Run.objects.create(label=label)
    return int(execute("SELECT pg_backend_pid()")[0])


def _is_open(backend: int) -> bool:
    return bool(execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", backend)[0])


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["ours", "a pool of the project", "a thread that ends"])
def test_connections_that_nobody_uses_are_closed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_IDLE", 1.0)
    with isolation.watching_connections():
        if kind == "a thread that ends":
            found: list[int] = []
            thread = threading.Thread(target=lambda: found.append(_write_alone("one")))
            thread.start()
            thread.join()
            wait_for(lambda: not _is_open(found[0]), what="the connection to be closed")
            return
        pool = isolation.Executor(1) if kind == "ours" else ThreadPoolExecutor(1)
        one = pool.submit(_write_alone, "one").result()
        assert _is_open(one)
        wait_for(lambda: not _is_open(one), what="the connection to be closed")
        two = pool.submit(_write_alone, "two").result()
        wait_for(lambda: not _is_open(two), what="the next one to be closed")
        pool.shutdown()
    assert labels() == ["one", "two"]


@pytest.mark.postgres
def test_a_connection_in_use_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a transaction, nor while its rows are read."""
    monkeypatch.setattr(database, "_IDLE", 0.0)
    monkeypatch.setattr(database, "EVERY", 0.01)
    looked = threading.Semaphore(0)
    take_idle = database.Watched.take_idle

    def look(self: Any, now: float) -> Any:
        looked.release()
        return take_idle(self, now)

    monkeypatch.setattr(database.Watched, "take_idle", look)

    def work_slowly() -> list[int]:
        with transaction.atomic():
            Run.objects.create(label="one")
            looked.acquire(timeout=20)
            looked.acquire(timeout=20)
        with connection.cursor() as cursor:
            cursor.execute("SELECT generate_series(1, 3)")
            looked.acquire(timeout=20)
            looked.acquire(timeout=20)
            return [row[0] for row in cursor.fetchall()]

    with isolation.watching_connections(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(work_slowly).result() == [1, 2, 3]
        pool.submit(connections.close_all).result()
    assert labels() == ["one"]


# ------------------------------------------------------------------------------ receivers


def _write(**_: Any) -> None:
    Run.objects.create(label="heard")


async def _write_async(**_: Any) -> None:
    await Run.objects.acreate(label="heard")


def _leave(**_: Any) -> None:
    raise SystemExit


async def _leave_async(**_: Any) -> None:
    raise asyncio.CancelledError


def _leave_open(**_: Any) -> None:
    transaction.atomic().__enter__()
    Run.objects.create(label="lost")


async def _leave_open_async(**_: Any) -> None:
    await sync_to_async(_leave_open)()


RECEIVERS = [_write, _write_async, _leave, _leave_async, _leave_open, _leave_open_async]
TASKS = [signals.task_started, signals.task_succeeded, signals.task_failed, signals.task_retried]


@task
async def fail_async() -> None:
    raise ValueError


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=3600)
async def retry_async() -> None:
    raise ValueError


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=3600)
def retry() -> None:
    raise ValueError


@pytest.mark.parametrize("receive", RECEIVERS)
def test_receivers_change_no_end(receive: Any) -> None:
    # Where a call is sent, what a receiver leaves is left in the sender's own connection.
    heard = TASKS if "open" in receive.__name__ else [*TASKS, signals.task_enqueued]
    for signal in heard:
        signal.connect(receive)
    try:
        succeeded = [careful.delay("own"), careful_async.delay("own")]
        failed = [fail.delay(), fail_async.delay()]
        again = [retry.delay(), retry_async.delay()]
        work()
    finally:
        for signal in heard:
            signal.disconnect(receive)
    assert [row_of(one).state for one in succeeded] == [State.SUCCESS] * 2
    assert [row_of(one).error_type for one in failed] == ["builtins.ValueError"] * 2
    assert [row_of(one).state for one in again] == [State.RETRY] * 2
    assert labels().count("own") == 2
    assert "lost" not in labels()
    # Each is heard at its start and at its end, and when it was sent.
    assert labels().count("heard") == (18 if "write" in receive.__name__ else 0)


# ------------------------------------------------------------------------------ context

TENANT = contextvars.ContextVar("tenant", default="nobody")
LOCAL = Local()


def _see() -> list[Any]:
    return [
        TENANT.get(),
        translation.get_language(),
        timezone.get_current_timezone_name(),
        getattr(LOCAL, "tenant", None),
    ]


def _change() -> None:
    TENANT.set("customer 7")
    translation.activate("zh-hans")
    timezone.activate("Asia/Tokyo")
    LOCAL.tenant = 7


@task
def see() -> list[Any]:
    return _see()


@task
def change() -> list[Any]:
    _change()
    return _see()


@task
async def see_async() -> list[Any]:
    return _see()


@task
async def change_async() -> list[Any]:
    await sync_to_async(_change)()
    return _see()


@task(batch=1, batch_wait=0.0)
def change_in_a_batch(requests: list[Request]) -> None:
    _change()


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("which", [change, change_async, change_in_a_batch])
def test_context(which: Any, threads: int) -> None:
    before = see.delay(), see_async.delay()
    work(threads=threads)
    changed = which.delay()
    after = see.delay()
    work(threads=threads)
    after_async = see_async.delay()
    work(threads=threads)
    assert row_of(changed).state == State.SUCCESS
    if which is not change_in_a_batch:
        assert changed.get(timeout=0) == ["customer 7", "zh-hans", "Asia/Tokyo", 7]
    assert after.get(timeout=0) == before[0].get(timeout=0)
    assert after_async.get(timeout=0) == before[1].get(timeout=0)


def test_a_key_that_changes_the_context_of_the_consumer() -> None:
    result = keyed.delay(1)
    work()
    seen = keyed.delay(2)
    work()
    assert result.get(timeout=0)[0] == seen.get(timeout=0)[0] == "nobody"


def _key(number: int) -> int:
    _change()
    return number


@task(concurrency=1, key=_key)
async def keyed(number: int) -> list[Any]:
    return _see()
