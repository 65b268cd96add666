"""The ledger in partitions, on PostgreSQL: made while others write, pruned by dropping, undone."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from pytest_django import Settings

from jobs import AsyncResult, checks, ledger, message
from jobs.ledger import partitions, pruning, publish, vacuuming
from jobs.ledger.partitions import REST, TABLE
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from tests.integration.commands.helpers import fail, run
from tests.integration.test_ledger import record_of
from tests.tasks import add
from tests.workers import work

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.postgres,
    pytest.mark.usefixtures("broker_url"),
]

DAY = dt.timedelta(days=1)
#: A moment at which today's ids would be a month old, so that partitions of their time are made.
NOW = dt.datetime.now(dt.UTC)
THEN = NOW - 30 * DAY


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer partitions ahead than usual, which are made sooner; and the table whole at the end."""
    monkeypatch.setattr(partitions, "EVERY", {**partitions.EVERY, "day": 5 * DAY})
    yield
    partitions.make_whole()


def make(now: dt.datetime = THEN, every: str = "day") -> list[partitions.Partition]:
    partitions.make_parted()
    return partitions.extend(now, every)


def own_id(at: dt.datetime) -> str:
    return message.id_at(int(at.timestamp() * 1000), uuid.uuid4().bytes)


def result(at: dt.datetime, state: State = State.SUCCESS, **fields: Any) -> str:
    """A result that was sent at this moment, and has ended a minute later."""
    ended = at + dt.timedelta(minutes=1) if state in ("SUCCESS", "FAILURE", "REVOKED") else None
    row = {"id": own_id(at), "task": "a", "queue": "default", "finished_at": ended, **fields}
    TaskResult.objects.create(state=state, created_at=at, **row)
    return str(row["id"])


def table_of(task_id: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {TABLE} WHERE id = %s", [task_id])
        return str(cursor.fetchone()[0])


def names() -> list[str]:
    return [one.name for one in partitions.read().partitions]


def definition() -> list[Any]:
    """All of the table that a migration may change: columns, constraints and indexes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, atttypid::regtype::text, attnotnull FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [TABLE],
        )
        columns = cursor.fetchall()
        found = connection.introspection.get_constraints(cursor, TABLE)
        return [columns, sorted((name, str(said)) for name, said in found.items())]


class TestMaking:
    def test_rows_go_where_their_time_is(self) -> None:
        before = result(THEN)
        foreign = result(THEN, id=str(uuid.UUID(int=2**127 + 5)))
        made = make()
        assert names() == [one.name for one in made]
        assert len(made) == 4  # after two days of margin, up to the day of the last moment
        start = partitions.time_of(made[0].start)
        assert start - THEN > DAY
        inside, at_end = result(start), result(partitions.time_of(made[-1].end))
        text = result(start, id="order-5")
        assert table_of(inside) == made[0].name
        assert {table_of(one) for one in (before, foreign, at_end, text)} == {REST}
        assert ledger.ended([before, foreign, inside]) == {before, foreign, inside}

    def test_it_can_be_undone(self) -> None:
        was = definition()
        kept = {result(THEN)}
        made = make()
        kept |= {result(partitions.time_of(one.start)) for one in made[:3]}
        assert definition() == was
        partitions.make_whole()
        assert definition() == was
        assert not partitions.read().parted
        assert set(TaskResult.objects.values_list("id", flat=True)) == kept

    def test_calls_run_from_beginning_to_end(self) -> None:
        make(NOW - 2 * DAY - dt.timedelta(hours=1))
        with transaction.atomic():
            committed = add.delay(1, 2)
        assert table_of(committed.id) != REST
        sent = add.delay(3, 4)
        work()
        assert (committed.get(timeout=5), sent.get(timeout=5)) == (3, 7)
        assert table_of(sent.id) == table_of(committed.id)
        own = add.apply_async((5, 5), task_id="mine")
        work()
        assert AsyncResult(own.id).get(timeout=5) == 10
        assert table_of("mine") == REST

    def test_results_of_other_senders_in_the_way_are_moved(self) -> None:
        """Their ids sort into the time to come."""
        stray = result(THEN, id=own_id(THEN + 4 * DAY))
        made = make()
        assert table_of(stray) == next(o.name for o in made if o.start <= stray < o.end)
        partitions.make_whole()
        TaskResult.objects.filter(pk=stray).update(state=State.PENDING)
        with pytest.raises(partitions.ConfigurationError, match="1 of them have not ended"):
            make()
        assert table_of(stray) == REST
        assert names() == []

    def test_what_was_interrupted_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stray = result(THEN, id=own_id(THEN + 4 * DAY))

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(partitions, "_attach", killed)
            with pytest.raises(KeyboardInterrupt):
                make()
            assert table_of(stray) == REST  # it was put back
            patch.setattr(partitions, "_close_window", lambda *_, **__: None)  # as by SIGKILL
            with pytest.raises(KeyboardInterrupt):
                make()
        with pytest.raises(TaskResult.DoesNotExist):
            TaskResult.objects.get(pk=stray)
        pruning.prune(THEN)  # as in the next night
        assert table_of(stray) == REST
        result(THEN + 5 * DAY)  # is not refused
        assert partitions.extend(THEN, "day") != []
        assert table_of(stray) != REST

    def test_no_writer_waits_for_it(self) -> None:
        """A transaction that has sent a task holds the table until it commits: steps that need
        it for themselves give up again, and let others in."""
        make()
        held, go_on = threading.Event(), threading.Event()

        def send() -> None:
            with transaction.atomic():
                result(THEN)
                held.set()
                go_on.wait(30)
            connection.close()

        thread = threading.Thread(target=send)
        thread.start()
        held.wait(30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partitions, "_TRIES", 2)
            patch.setattr(partitions, "_PAUSE", 0.01)
            with pytest.raises(partitions.OperationalError, match="lock timeout"):
                partitions.drop(partitions.read().partitions[0], pruning._stays(NOW))
        go_on.set()
        thread.join(30)
        assert len(names()) == 4

    def test_all_is_recorded_while_it_is_made_and_undone(self) -> None:
        begun, stop = threading.Event(), threading.Event()
        recorded: list[str] = []
        failed: list[BaseException] = []

        def record() -> None:
            try:
                while not stop.is_set():
                    now = dt.datetime.now(dt.UTC)
                    times = {"created_at": now, "finished_at": now, "published_at": now}
                    batch = [record_of(message.new_id(), State.SUCCESS, **times) for _ in range(20)]
                    assert ledger.record(batch) == 20
                    recorded.extend(one.id for one in batch)
                    assert ledger.ended(recorded[-40:]) == set(recorded[-40:])
                    begun.set()
            except BaseException as error:  # noqa: BLE001  the test shows it
                failed.append(error)
            finally:
                begun.set()
                connection.close()

        thread = threading.Thread(target=record)
        thread.start()
        begun.wait(30)
        try:
            make(NOW)
            partitions.drop(partitions.read().partitions[0], pruning._stays(NOW))
            partitions.make_whole()
        finally:
            stop.set()
            thread.join(30)
        assert failed == []
        assert set(TaskResult.objects.values_list("id", flat=True)) == set(recorded)

    def test_a_partition_of_somebody_else_is_not_dropped_with_the_table(self) -> None:
        make()
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE own PARTITION OF {TABLE} FOR VALUES FROM ('order-1') TO ('order-9')"
            )
            result(THEN, id="order-5")
            with pytest.raises(partitions.ConfigurationError, match="other partitions: own"):
                partitions.make_whole()
            assert TaskResult.objects.filter(id="order-5").exists()
            cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION own; DROP TABLE own")

    def test_longer_ones_from_now_on(self) -> None:
        last = make()[-1]
        made = partitions.extend(THEN, "week")
        assert made[0].start == last.end
        assert {one.every for one in made} == {"week"}
        assert partitions.time_of(made[-1].end).weekday() == 0

    @pytest.mark.parametrize(
        ("sql", "told"),
        [
            ("CREATE VIEW some_results AS SELECT id FROM jobs_taskresult", "views of the table"),
            (
                "CREATE TABLE mine (call varchar(255) REFERENCES jobs_taskresult (id))",
                "There are foreign keys to results, of mine",
            ),
            (
                "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql "
                "AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER noting BEFORE INSERT "
                "ON jobs_taskresult FOR EACH ROW EXECUTE FUNCTION noted()",
                "The table has triggers: noting",
            ),
        ],
    )
    def test_what_would_not_come_along(self, sql: str, told: str) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(sql)
            with pytest.raises(partitions.ConfigurationError, match=told):
                partitions.make_parted()
            transaction.set_rollback(True)

    def test_migrations_run_on_it(self) -> None:
        was = definition()
        make()
        try:
            call_command("migrate", "jobs", "0009", verbosity=0)
        finally:
            call_command("migrate", verbosity=0)
        assert definition() == was
        assert len(names()) == 4

    def test_rights_come_along(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("GRANT SELECT ON jobs_taskresult TO PUBLIC")
            make()
            cursor.execute(
                "SELECT count(*) FROM information_schema.table_privileges "
                "WHERE table_name = %s AND grantee = 'PUBLIC'",
                [TABLE],
            )
            assert cursor.fetchone() == (1,)
            cursor.execute(f"REVOKE ALL ON {TABLE} FROM PUBLIC; REVOKE ALL ON {REST} FROM PUBLIC")


class TestPruning:
    def test_an_old_partition_is_dropped(self) -> None:
        made = make()
        first = partitions.time_of(made[0].start)
        old = [result(first + n * dt.timedelta(minutes=1)) for n in range(5)]
        kept = {result(first, State.FAILURE), result(first, State.PENDING), result(NOW)}
        TaskAttempt.objects.create(result_id=old[0], number=1, worker="w", finished_at=first)
        late = result(first, finished_at=first + 12 * DAY)
        at = partitions.time_of(made[0].end) + 7 * DAY
        gone: dict[str, int] = {}
        assert pruning.count(at) == {f"partition {made[0].name}": 5}
        assert pruning.prune(at, done=lambda what, n: gone.update({what: n}))
        assert gone == {f"partition {made[0].name}": 5}
        assert set(TaskResult.objects.values_list("id", flat=True)) == {*kept, late}
        assert {table_of(one) for one in (*kept, late)} == {REST}
        assert not TaskAttempt.objects.exists()
        assert made[0].name not in names()

    def test_one_of_which_much_stays_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its rows go one by one."""
        monkeypatch.setattr(pruning, "_FEW", 1)
        made = make()
        first = partitions.time_of(made[0].start)
        kept = {result(first, State.FAILURE), result(first, State.PENDING)}
        result(first)
        pruning.prune(partitions.time_of(made[0].end) + 7 * DAY)
        assert set(TaskResult.objects.values_list("id", flat=True)) == kept
        assert made[0].name in names()

    def test_rows_of_a_partition_that_will_be_dropped_stay_till_then(self) -> None:
        made = make()
        first = partitions.time_of(made[0].start)
        result(first)
        at = partitions.time_of(made[0].end) + 7 * DAY - dt.timedelta(hours=1)
        pruning.prune(at)
        assert TaskResult.objects.count() == 1

    def test_a_process_was_killed_while_it_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make()
        first = partitions.time_of(made[0].start)
        result(first)
        kept = {result(first, State.FAILURE), result(first, State.PENDING)}
        with monkeypatch.context() as patch:
            patch.setattr(partitions, "_finish_dropping", lambda *_: None)
            partitions.drop(made[0], pruning._stays(NOW))
        assert TaskResult.objects.filter(state=State.PENDING).exists()
        pruning.prune(partitions.time_of(made[0].end) + 7 * DAY)
        assert set(TaskResult.objects.values_list("id", flat=True)) == kept

    def test_new_ones_are_made_in_time(self) -> None:
        made = make()
        pruning.prune(THEN + 2 * DAY)
        assert len(names()) == len(made)
        pruning.prune(THEN + 4 * DAY)
        assert partitions.time_of(partitions.read().partitions[-1].end) > THEN + 9 * DAY

    def test_new_ones_after_a_long_pause(self) -> None:
        """What was sent meanwhile is in the rest, and stays there."""
        make()
        sent = result(THEN + 40 * DAY)
        pruning.prune(THEN + 41 * DAY)
        assert table_of(sent) == REST
        new = [one for one in partitions.read().partitions if one.start > sent]
        assert partitions.time_of(new[0].start) > THEN + 42 * DAY

    def test_nothing_is_dropped_of_what_is_kept_for_ever(self, settings: Settings) -> None:
        settings.JOBS = {**settings.JOBS, "RESULT_EXPIRES": None}
        made = make()
        kept = result(partitions.time_of(made[0].start))
        pruning.prune(NOW + 1000 * DAY)
        assert table_of(kept) == made[0].name

    def test_the_relay_finds_what_was_moved(self) -> None:
        made = make()
        first = partitions.time_of(made[0].start)
        with transaction.atomic():
            sent = add.delay(1, 2)
        rows = TaskResult.objects.filter(pk=sent.id)
        rows.update(id=own_id(first), created_at=first, published_at=None)
        partitions.drop(made[0], pruning._stays(NOW))
        assert publish.relay(NOW + DAY) == 1


class TestCommand:
    def test_a_plan_first(self) -> None:
        shown = run("jobs_partition", "--every", "week")
        assert "Results are in one table." in shown
        assert "add jobs_taskresult_w" in shown
        assert "Nothing was done" in shown
        assert not partitions.read().parted
        told = json.loads(run("jobs_partition", "--every", "week", "--json"))
        assert (told["partitioned"], told["partitions"]) == (False, [])
        assert told["to_add"][0]["name"].startswith("jobs_taskresult_w")
        assert told["to_add"][0]["every"] == "week"

    def test_there_and_back(self) -> None:
        shown = run("jobs_partition", "--every", "month", "--apply")
        assert "Done." in shown
        assert partitions.read().partitions[-1].every == "month"
        assert "There is nothing to do." in run("jobs_partition", "--every", "month", "--apply")
        assert "copy the 0 rows" in run("jobs_partition", "--undo")
        assert partitions.read().parted
        told = json.loads(run("jobs_partition", "--json"))
        assert told["partitions"][-1]["end"] > told["partitions"][0]["start"]
        assert "Done." in run("jobs_partition", "--undo", "--apply")
        assert not partitions.read().parted
        assert "There is nothing to do." in run("jobs_partition", "--undo", "--apply")

    def test_a_lock_that_is_not_to_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def locked(*_: Any) -> None:
            raise partitions.OperationalError("canceling statement due to lock timeout")

        monkeypatch.setattr(partitions, "make_parted", locked)
        _status, _out, told = fail("jobs_partition", "--every", "day", "--apply")
        assert "look into pg_stat_activity" in told


class TestVacuuming:
    def test_large_tables_that_are_left_to_the_defaults(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert vacuuming.lax_tables() == []
        monkeypatch.setattr(vacuuming, "LARGE", 100)
        TaskResult.objects.bulk_create(
            [TaskResult(id=f"{n}", task="a", queue="default") for n in range(200)]
        )
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {TABLE}")
            (found,) = vacuuming.lax_tables()
            assert (found.name, found.rows, found.vacuumed) == (TABLE, 200, True)
            assert found.lax["autovacuum_vacuum_scale_factor"] == 0.2
            (told,) = checks.check_vacuuming()
            assert "jobs_taskresult (200 rows)" in told.msg
            cursor.execute(vacuuming.statement(TABLE))
            assert vacuuming.lax_tables() == []
            cursor.execute(f"ALTER TABLE {TABLE} SET (autovacuum_enabled = off)")
            assert not vacuuming.lax_tables()[0].vacuumed
            made = make()  # new partitions get the options of the table
            cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [made[0].name])
            assert "autovacuum_vacuum_scale_factor=0.01" in cursor.fetchone()[0]
            assert [one.name for one in vacuuming.lax_tables()] == [REST]
            partitions.make_whole()
            options = ", ".join(["autovacuum_enabled", *vacuuming.RECOMMENDED])
            cursor.execute(f"ALTER TABLE {TABLE} RESET ({options})")
