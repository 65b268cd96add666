"""Outcomes into rows: in bulk, once, and the same on every database."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from django.utils.safestring import mark_safe

from jobs import ledger, serialization
from jobs.ledger import outcomes, reopening
from jobs.ledger.outcomes import Pending, Record
from jobs.models import TaskResult
from jobs.states import State
from jobs.worker.record import outcome as rows
from tests.tasks import add
from tests.workers import rolled_back

Write = Callable[[Sequence[Record]], int]

pytestmark = pytest.mark.django_db(transaction=True)

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)

#: In zones such as there were before there were railways.
ODD_MOMENTS = [
    dt.datetime(2030, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=19, seconds=32))),
    dt.datetime(2030, 1, 1, tzinfo=dt.timezone(-dt.timedelta(seconds=30))),
]


def record_of(task_id: str, state: State, **changes: object) -> Record:
    made = Record(
        id=task_id,
        task="tests.tasks.add",
        queue="default",
        state=state.value,
        args="[1,2]",
        kwargs="{}",
        result=None,
        error_type="",
        error="",
        traceback="",
        attempts=1,
        worker="worker/1",
        created_at=NOW,
        eta=None,
        started_at=NOW,
        finished_at=NOW,
        published_at=NOW,
        message=b"raw \x00\xff",
    )
    return made._replace(**changes)


@pytest.fixture(params=["the database's own", "the ORM"])
def write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`ledger.record` as it is here, and as it is on databases without a conditional upsert."""
    if request.param == "the ORM":
        monkeypatch.setattr(outcomes, "_WRITERS", {})
    return ledger.record


def state_of(task_id: str) -> str:
    return TaskResult.objects.values_list("state", flat=True).get(id=task_id)


def test_every_column_arrives(write: Write) -> None:
    item = record_of(
        "a",
        State.FAILURE,
        result='{"x":"é\\u0000"}',
        error_type="builtins.ValueError",
        error="falsch: ü",
        traceback="Traceback",
        attempts=3,
        eta=NOW + dt.timedelta(hours=1),
        started_at=NOW + dt.timedelta(seconds=1),
        finished_at=NOW + dt.timedelta(seconds=2),
        published_at=NOW - dt.timedelta(seconds=1),
    )
    write([item])
    row = TaskResult.objects.get(id="a")
    for name in Record._fields:
        value = getattr(row, name)
        assert (bytes(value) if name == "message" else value) == getattr(item, name), name


def pending(task_id: str, **changes: object) -> Pending:
    made = Pending(
        id=task_id,
        task="tests.tasks.add",
        queue="default",
        args='["é\\u0000"]',
        kwargs='{"o\'b": "%s"}',
        created_at=NOW,
        eta=None,
        message=b"raw \x00\xff",
        group_id=None,
        group_index=None,
        parent_id=None,
        root_id=None,
        label="",
    )
    return made._replace(**changes)


@pytest.mark.parametrize("eta", [None, NOW + dt.timedelta(hours=1), *ODD_MOMENTS], ids=str)
def test_one_row_is_what_the_orm_would_write(write: Write, eta: dt.datetime | None) -> None:
    of_group = {"group_id": "g", "group_index": 3, "parent_id": "p", "root_id": "r"}
    for sent in (pending("a"), pending("b", eta=eta, label="l", **of_group)):
        outcomes.insert([sent], connection)
        row, made = TaskResult.objects.get(id=sent.id), TaskResult(**sent._asdict())
        for field in TaskResult._meta.concrete_fields:
            found, wanted = getattr(row, field.name), getattr(made, field.name)
            assert (bytes(found) if field.name == "message" else found) == wanted, field.name


@pytest.mark.parametrize("rows", [1, 2])
def test_an_id_that_has_a_row_breaks_the_transaction(write: Write, rows: int) -> None:
    outcomes.insert([pending("a")], connection)
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            outcomes.insert([pending("a"), pending("b")][:rows], connection)
        with pytest.raises(TransactionManagementError):
            TaskResult.objects.count()
        transaction.set_rollback(True)
    assert TaskResult.objects.count() == 1


@pytest.mark.parametrize(("first", "second"), [("SUCCESS", "FAILURE"), ("FAILURE", "SUCCESS")])
@pytest.mark.parametrize("together", [False, True])
def test_the_first_end_stays(write: Write, first: str, second: str, together: bool) -> None:
    one = record_of("a", State(first), error="first", attempts=1)
    two = record_of("a", State(second), error="second", attempts=2)
    if together:
        write([one, two])
    else:
        write([one])
        write([two])
    row = TaskResult.objects.get(id="a")
    assert (row.state, row.error, row.attempts) == (first, "first", 1)


@pytest.mark.parametrize("together", [False, True])
def test_after_a_retry_comes_the_end(write: Write, together: bool) -> None:
    steps = [
        record_of("a", State.RETRY, attempts=1, finished_at=None),
        record_of("a", State.RETRY, attempts=2, finished_at=None),
        record_of("a", State.SUCCESS, attempts=3, message=b""),
    ]
    for batch in [steps] if together else [[step] for step in steps]:
        write(batch)
    row = TaskResult.objects.get(id="a")
    assert (row.state, row.attempts, bytes(row.message)) == (State.SUCCESS, 3, b"")
    write([record_of("a", State.RETRY)])
    assert state_of("a") == State.SUCCESS


def test_a_pending_row_ends_and_keeps_what_was_sent(write: Write) -> None:
    with transaction.atomic():
        result = add.delay(40, 2)
        connection.run_on_commit.clear()
    sent = TaskResult.objects.get()
    end = record_of(result.id, State.SUCCESS, result="42", args="[0,0]", task="x", queue="y")
    write([end, record_of("other", State.SUCCESS)])
    row = TaskResult.objects.get(id=result.id)
    assert (row.state, row.result, row.finished_at) == (State.SUCCESS, "42", NOW)
    for name in ("task", "queue", "args", "kwargs", "created_at", "published_at"):
        assert getattr(row, name) == getattr(sent, name), name
    assert state_of("other") == State.SUCCESS


@pytest.mark.skipif(
    connection.vendor not in outcomes._WRITERS, reason="written with the ORM, in several statements"
)
def test_a_thousand_in_one_statement(django_assert_num_queries: object) -> None:
    made = record_of("", State.SUCCESS, message=b"")
    items = [made._replace(id=f"id-{n:04}", result=str(n)) for n in range(1000)]
    with django_assert_num_queries(1):  # type: ignore[operator]
        ledger.record(items)
    assert TaskResult.objects.count() == 1000
    assert TaskResult.objects.get(id="id-0999").result == "999"


def test_nothing_asks_nothing(django_assert_num_queries: object) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        ledger.record([])


def test_it_is_part_of_the_callers_transaction(write: Write) -> None:
    with rolled_back():
        write([record_of("a", State.SUCCESS)])
    assert TaskResult.objects.count() == 0


def test_texts_that_databases_refuse(write: Write) -> None:
    """What a task can raise, in the form in which the executor hands it on."""
    error = ValueError("nul \0 and a lone surrogate \ud800", "\udfff")
    name, text, trace, stored = rows.describe(error)
    write(
        [record_of("a", State.FAILURE, error_type=name, error=text, traceback=trace, result=stored)]
    )
    row = TaskResult.objects.get(id="a")
    assert "nul \\x00 and a lone surrogate \\ud800" in row.error
    assert serialization.loads(row.result or "")["exc_message"] == list(error.args)


#: What quoting, JSON or a text column may get wrong.
HOSTILE = {
    "quotes": """it's "quoted", E'\\x41', $$ and ''""",
    "backslashes": "\\ \\\\ \\n \\' \\\" C:\\new\\",
    "lines": "one\ntwo\r\nthree\ttabbed\n",
    "escapes written out": r"\u0000 \ud800 \x00 &quot;",
    "places of parameters": "%s %(name)s %% ? :name {} {0}",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\u2029\ufeff",
    "other planes": "𝄞 é ü 漢字 \U0010ffff",
    "JSON": '{"a": [null, true, "b"]}',
    "a megabyte": "'\"\\\né" * 200_000,
    "nothing": "",
    "a text of Django's": mark_safe("<b>"),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
@pytest.mark.parametrize("ends", [False, True])
def test_any_text_comes_back_as_it_was(write: Write, ends: bool, text: str) -> None:
    bad = record_of("a", State.FAILURE, result=text, args=text, error=text, traceback=text)
    bad = bad._replace(message=text.encode(), task=text[:50], queue=text[:50])
    # A large row and small ones, in one batch, in two orders: they go different ways.
    for others in ([], [record_of(f"{n}", State.SUCCESS) for n in range(3)]):
        TaskResult.objects.all().delete()
        (ledger.record_ends if ends else write)([bad, *others])
        row = TaskResult.objects.get(id="a")
        assert (row.result, row.args, row.error, row.traceback) == (text,) * 4
        assert (row.task, row.queue, bytes(row.message)) == (text[:50], text[:50], text.encode())
        assert TaskResult.objects.count() == 1 + len(others)


@pytest.mark.parametrize("ends", [False, True])
def test_rows_of_every_kind_in_one_batch(write: Write, ends: bool) -> None:
    """Values that all rows share, others, and texts and bytes that go a way of their own."""
    items = [
        record_of("a", State.SUCCESS, message=b"", result='"\\u0000"', group_index=0),
        record_of("b", State.SUCCESS, message=b"", args="[true]", attempts=2, group_id="g"),
        record_of("c", State.FAILURE, eta=NOW, finished_at=None),
        record_of("d", State.FAILURE, message=b"", started_at=None, worker="123"),
    ]
    if connection.vendor == "sqlite":
        items.append(record_of("e", State.SUCCESS, message=b"", error="before \0 after"))
    (ledger.record_ends if ends else write)(items)
    for item in items:
        row = TaskResult.objects.get(id=item.id)
        for name in Record._fields:
            value = getattr(row, name)
            assert (bytes(value) if name == "message" else value) == getattr(item, name), name


@pytest.mark.parametrize("message", [b"", bytes(range(256)), b"\0\xff\\'" * 250_000])
def test_any_bytes_come_back_as_they_were(write: Write, message: bytes) -> None:
    write([record_of("a", State.FAILURE, message=message)])
    assert bytes(TaskResult.objects.get(id="a").message) == message


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
        dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
        dt.datetime(
            2030, 1, 1, 12, 0, 0, 5, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=30))
        ),
        *ODD_MOMENTS,
    ],
    ids=str,
)
def test_any_moment_comes_back_as_it_was(write: Write, moment: dt.datetime) -> None:
    write([record_of("a", State.RETRY, eta=moment, started_at=None, finished_at=None)])
    row = TaskResult.objects.get(id="a")
    assert (row.eta, row.started_at, row.finished_at) == (moment, None, None)
    assert row.created_at == NOW


@pytest.mark.parametrize("many", [True, False], ids=["one parameter", "the ORM"])
def test_ended_asks_once_and_finds_any_id(
    many: bool, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    if not many:
        monkeypatch.setattr(outcomes, "_ENDED", {})
    ids = ["it's", 'a"b', "a\\b", "a,b", "{a}", "%s", "漢", "x" * 255]
    ledger.record([record_of(one, State.SUCCESS) for one in ids])
    ledger.record([record_of("open", State.STARTED)])
    with django_assert_num_queries(1):
        assert ledger.ended([*ids, "open", "missing", ids[0]]) == set(ids)
    assert ledger.ended([]) == set()


@pytest.mark.postgres
def test_ended_reads_no_table_of_which_there_are_no_statistics() -> None:
    with connection.cursor() as cursor:  # a table that has only been emptied keeps its statistics
        cursor.execute(f"TRUNCATE {TaskResult._meta.db_table} CASCADE")
    for start in range(0, 5000, 500):
        ledger.record([record_of(f"{start + n}", State.SUCCESS) for n in range(500)])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {outcomes._ENDED['postgresql']}", ['["1", "2", "missing"]'])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    # Of a ledger in partitions, all of these ids are in the rest.
    assert not re.search(r"Seq Scan on jobs_taskresult(_rest)?\b(?!_)", plan)
    assert "jobs_taskresult" in plan


def test_ends_have_what_an_end_consists_of(write: Write) -> None:
    many = [record_of(f"many-{n}", State.SUCCESS, result=str(n)) for n in range(1100)]
    failed = record_of(
        "o'b%s",
        State.FAILURE,
        result="{}",
        error_type="X",
        error="falsch: ü",
        traceback="T",
        parent_id="p",
        root_id="r",
    )
    others = [record_of("runs", State.STARTED), record_of("again", State.RETRY)]
    write([*many, failed, *others, record_of("no", State.REVOKED)])
    found = {row.id: row for row in ledger.ends([one.id for one in [*many, *others]])}
    assert {task_id: row.result for task_id, row in found.items()} == {
        one.id: one.result for one in many
    }
    assert ledger.ends([]) == ledger.ends(["unknown", "runs"]) == []
    (row,) = ledger.ends([failed.id])
    for name in outcomes._END:
        assert getattr(row, name) == getattr(failed, name)
    assert row == TaskResult.objects.get(id=failed.id)
    assert row._state.db == ledger.alias()
    assert {"message", "args", "created_at"} <= row.get_deferred_fields()
    assert [row.state for row in ledger.ends(["no"])] == [State.REVOKED]


def test_ended_and_reopened(write: Write) -> None:
    write([record_of("a", State.FAILURE, error="wrong"), record_of("b", State.RETRY)])
    assert ledger.ended(["a", "b", "c"]) == {"a"}
    reopening.reopen("a")
    row = TaskResult.objects.get(id="a")
    assert (row.state, row.error, row.finished_at) == (State.PENDING, "", None)
    write([record_of("a", State.SUCCESS, finished_at=timezone.now())])
    assert state_of("a") == State.SUCCESS


@pytest.fixture(params=["the database's own", "an old SQLite", "the ORM"])
def write_ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "the ORM":
        monkeypatch.setattr(outcomes, "_WRITERS", {})
    elif request.param == "an old SQLite":
        monkeypatch.setattr(outcomes.sqlite3, "sqlite_version_info", (3, 34, 0))
    return ledger.record_ends


def test_which_calls_have_newly_ended(write_ends: Any) -> None:
    ledger.record([record_of("ended", State.SUCCESS), record_of("waits", State.RETRY)])
    found = write_ends(
        [
            record_of("ended", State.FAILURE, worker="worker/2"),
            record_of("waits", State.SUCCESS, worker="worker/2"),
            record_of("new", State.FAILURE),
            record_of("new", State.SUCCESS),
            record_of("again", State.RETRY),
        ]
    )
    assert found == {"waits", "new"}
    assert [state_of(one) for one in ("ended", "waits", "new", "again")] == [
        State.SUCCESS,
        State.SUCCESS,
        State.FAILURE,
        State.RETRY,
    ]
    # A batch whose commit was not answered is written again.
    assert write_ends([record_of("new", State.FAILURE)]) == set()


@pytest.mark.postgres
def test_of_two_that_record_an_end_one_has_ended_it(write_ends: Any) -> None:
    begun, found = threading.Barrier(2), []

    def record_end(worker: str) -> None:
        try:
            begun.wait()
            with transaction.atomic():
                ends = [record_of(f"{n:03}", State.SUCCESS, worker=worker) for n in range(300)]
                found.append(write_ends(ends))
        finally:
            connection.close()

    threads = [threading.Thread(target=record_end, args=(f"worker/{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = found
    assert len(one | other) == len(one) + len(other) == 300
