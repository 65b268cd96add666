"""Names that differ by case, by a space at the end, by an accent or by an emoji are two names, also
on MySQL and MariaDB, which by default take each of these pairs for one."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test import Client

from jobs import control, group, ledger
from jobs.models import KnownError, Schedule, TaskGroup, TaskResult
from jobs.states import State
from tests.tasks import add
from tests.workers import put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

ALIKE = ["Order-1", "order-1", "ordér-1", "order-1 ", "order-🍎", "order-🍏"]


def test_ids() -> None:
    for number, task_id in enumerate(ALIKE):
        put_message(id=task_id, task=add.name, args=[number, 0])
    work()
    ended = ledger.ends(ALIKE)
    assert {row.id: row.result for row in ended} == {
        task_id: str(number) for number, task_id in enumerate(ALIKE)
    }
    assert ledger.ended(["ORDER-1"]) == set()


def test_groups() -> None:
    for name in ALIKE:
        TaskGroup.objects.create(id=name, size=2, remaining=2, body="{}")
    with transaction.atomic():
        TaskGroup.objects.count_down({"order-1": 1})
    left = dict(TaskGroup.objects.values_list("id", "remaining"))
    assert left == {name: 1 if name == "order-1" else 2 for name in ALIKE}


def test_labels_tasks_and_queues() -> None:
    for number, name in enumerate(ALIKE):
        TaskResult.objects.create(
            id=str(number), task=name, queue=name, label=name, error_type=name, state=State.FAILURE
        )
        KnownError.objects.create(task=name, error_type=name, marked_by="ada")
    for name in ALIKE:
        for field in ("task", "queue", "label", "error_type"):
            assert TaskResult.objects.filter(**{field: name}).count() == 1, (field, name)
    tasks = TaskResult.objects.order_by("task").values_list("task", flat=True).distinct()
    assert sorted(tasks) == sorted(ALIKE)


def test_schedules(admin_client: Client) -> None:
    for name in ALIKE:
        Schedule.objects.create(name=name, task=add.name, crontab="0 3 * * *")
    assert Schedule.objects.get(name="order-1").name == "order-1"
    page = admin_client.get("/admin/jobs/schedule/?q=order-1").content.decode()
    assert "order-1" in page


def test_a_call_that_is_run_again_has_its_own_attempts() -> None:
    for task_id in ALIKE[:2]:
        put_message(id=task_id, task="tests.tasks.fail", args=["no"])
    work()
    assert control.retry("order-1", by="ada")
    work()
    rows = TaskResult.objects.filter(id__in=ALIKE[:2])
    assert {row.id: row.failed_attempts.count() for row in rows} == {"Order-1": 0, "order-1": 1}


def test_long_and_odd_values_come_back() -> None:
    sent = group([add.s("🍎" * 20_000, ""), add.s("\\'\"%s\n\t", "Ω")]).delay()
    work()
    assert sent.get(timeout=60) == ["🍎" * 20_000, "\\'\"%s\n\tΩ"]
    row = TaskResult.objects.exclude(started_at=None)[0]
    assert row.started_at is not None
    stamps = TaskResult.objects.values_list("started_at", "finished_at", "created_at")
    moments = [moment for stamp in stamps for moment in stamp if moment is not None]
    assert any(moment.microsecond % 1000 for moment in moments)


def test_what_is_read_all_the_time_has_an_index() -> None:
    """Also where there are no indexes of a part of the rows."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, TaskResult._meta.db_table)
    assert {index.name for index in TaskResult._meta.indexes} <= found.keys()
