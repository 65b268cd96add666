"""Labels: from the call to the ledger, through attempts, and what follows."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import Settings

from jobs import Task, chain, chord, group, ledger, message, task
from jobs.beat.sending import send_now
from jobs.message.wire import sign
from jobs.models import Schedule, TaskResult
from jobs.states import State
from tests.tasks import add, echo, fail, trace
from tests.workers import put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True, max_retries=3)
def tells(self: Task[..., Any]) -> str:
    """Its label, at the second attempt."""
    if not self.request.retries:
        self.retry(countdown=0)
    return self.request.label


@task(label="nightly", bind=True)
def labelled(self: Task[..., Any]) -> str:
    return self.request.label


def labels() -> dict[str, str]:
    """Task → label, of all results."""
    return dict(TaskResult.objects.values_list("task", "label"))


def test_the_task_knows_it_after_a_retry_too() -> None:
    with transaction.atomic():
        sent = tells.apply_async(label="import 2026-11")
    assert sent.label == "import 2026-11"  # from the outbox on
    outside = tells.apply_async(label="by hand")
    assert outside.label == ""  # it has no row yet
    work()
    assert [one.get(timeout=1) for one in (sent, outside)] == ["import 2026-11", "by hand"]
    assert [one.label for one in (sent, outside)] == ["import 2026-11", "by hand"]


def test_the_label_of_the_task() -> None:
    assert labelled.delay().id
    work()
    assert TaskResult.objects.get().result == '"nightly"'
    assert labels() == {labelled.name: "nightly"}


def test_calls_that_follow_have_their_own_alone() -> None:
    chain(add.s(1, 2).set(label="first"), trace.s(), labelled.si()).delay()
    work()
    assert labels() == {add.name: "first", trace.name: "", labelled.name: "nightly"}


def test_the_ends_of_calls_that_never_follow_have_their_own() -> None:
    chain(fail.s("no").set(label="first"), echo.s().set(label="second"), labelled.si()).delay()
    work()
    assert labels() == {fail.name: "first", echo.name: "second", labelled.name: "nightly"}


def test_each_member_of_a_group_has_that_of_the_group() -> None:
    group(add.s(1, 2), add.s(3, 4)).apply_async(label="all")
    chord([trace.s("x")], echo.s()).apply_async(label="both")
    work()
    rows = TaskResult.objects.order_by("task").values_list("task", "label")
    assert sorted(rows) == sorted(
        [(add.name, "all"), (add.name, "all"), (trace.name, "both"), (echo.name, "both")]
    )


def test_a_schedule_sends_calls_of_its_tasks_label() -> None:
    send_now(
        Schedule.objects.create(name="s", task=labelled.name, interval=dt.timedelta(minutes=1))
    )
    assert labels() == {labelled.name: "nightly"}


def test_a_worker_without_labels_goes_on_recording() -> None:
    """During a deploy, workers of the version before insert and update rows without the column."""
    rows = [
        one.name for one in TaskResult._meta.concrete_fields if one.name not in ("label", "message")
    ]
    with transaction.atomic():
        sent = trace.apply_async(("x",), label="import")
    columns = ", ".join(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO jobs_taskresult ({columns}, message) "
            f"SELECT {columns.replace('id,', chr(39) + 'other' + chr(39) + ',', 1)}, message "
            "FROM jobs_taskresult"
        )
    assert TaskResult.objects.get(pk="other").label == ""
    assert sent.label == "import"


def test_a_worker_without_labels_sends_them_on() -> None:
    """It takes the header for one of the caller's own, and writes those into the next attempt."""
    raw = message.encode(message.Message(task=trace.name, id=message.new_id(), queue="default"))
    sent = message.decode(raw, "default")
    headers = {**json.loads(sent.wire_headers), "jobs_label": "import"}
    written = json.dumps(headers, separators=(",", ":")).encode()
    envelope = json.loads(raw)
    envelope["headers"] = headers
    envelope["properties"]["jobs_sig"] = sign(written, envelope["body"])
    read = message.decode(json.dumps(envelope, separators=(",", ":")).encode(), "default")
    assert read.label == "import"


def test_what_was_recorded_without_a_label_keeps_it_from_the_outbox() -> None:
    with transaction.atomic():
        sent = trace.apply_async(("x",), label="import")
    row = TaskResult.objects.get()
    one = ledger.Record(
        **{name: getattr(row, name) for name in ledger.Record._fields if name != "label"}
    )
    ledger.record([one._replace(state=State.SUCCESS, published_at=row.created_at)])
    assert (sent.state, sent.label) == (State.SUCCESS, "import")


def test_a_client_of_celery_sends_one_among_its_headers(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {**settings.JOBS["QUEUES"], "open": {"open": True}}}
    raw = message.encode(message.Message(task=trace.name, id="c-1", queue="open", args=["x"]))
    envelope = json.loads(raw)
    envelope["headers"]["jobs_label"] = "from celery"
    put(json.dumps(envelope).encode(), "open")
    work(["open"])
    assert TaskResult.objects.get(pk="c-1").label == "from celery"
