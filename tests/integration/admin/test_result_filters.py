"""The filters of the list of results: what each finds, what it reads, and how many it counts."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs.control import selecting
from jobs.control.selecting import Selection
from jobs.models import Schedule, ScheduleRun, TaskResult
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_results import ids_on, made_at, many

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/taskresult/"
MINUTE = dt.timedelta(minutes=1)


def find(client: Client, **values: Any) -> list[str]:
    answer = client.get(LIST, values)
    assert answer.status_code == 200
    return re.findall(r'class="jobs-id" title="([^"]+)"', answer.content.decode())


def count_on(client: Client, query: str = "") -> str:
    found = re.search(r'id="jobs-count">([^<]*)<', client.get(LIST + query).content.decode())
    assert found is not None
    return found[1]


# ------------------------------------------------------------------------------ each filter


def test_each_filter(root: Client) -> None:
    now = timezone.now()
    row()
    one = row(
        state="FAILURE",
        task="a.one",
        queue="high",
        worker="host.1/2",
        error_type="builtins.ValueError",
        error="No such Order 17",
        group_id="g-1",
        label="import 2026-11",
        started_at=now - dt.timedelta(minutes=5),
        finished_at=now,
    )
    for values in (
        {"state__exact": "FAILURE"},
        {"task": "a.one"},
        {"queue": "high"},
        {"worker": "host.1"},
        {"worker": "host.1/2"},
        {"group": "g-1"},
        {"label": "import 2026-11"},
        {"q": "import 2026-11"},
        {"error_type": "builtins.ValueError"},
        {"error_type": "ValueError"},
        {"error": "such order"},
        {"longer": "299"},
        {"q": "order 17"},
        {"q": one.pk},
        {"error_type": "ValueError", "task": "a.one", "queue": "high", "longer": "60"},
    ):
        assert find(root, **values) == [one.pk], values
    for values in (
        {"error_type": "KeyError"},
        {"error": "nothing like it"},
        {"worker": "host.2"},
        {"label": "import"},
        {"label": "import 2026-11", "q": "import 2026-12"},
        {"longer": "301"},
        {"q": "order 17", "state__exact": "SUCCESS"},
        {"task": "a.one", "q": "a.two"},
    ):
        assert find(root, **values) == [], values


def test_an_error_without_its_module(root: Client) -> None:
    found = row(state="FAILURE", error_type="shop.errors.NoStock")
    row(state="FAILURE", error_type="shop.errors.AlmostNoStock")
    assert find(root, error_type="NoStock") == [found.pk]


def test_a_schedule(root: Client) -> None:
    schedule = Schedule.objects.create(
        name="every minute", task="a.b", interval=dt.timedelta(minutes=1)
    )
    sent, _other = row(), row()
    for n, result in enumerate((sent.pk, "gone", "")):
        at = timezone.now() + dt.timedelta(minutes=n)
        ScheduleRun.objects.create(schedule=schedule, due_at=at, at=at, result=result)
    assert find(root, schedule=schedule.pk) == [sent.pk]
    assert find(root, schedule=schedule.pk + 1) == []
    page = root.get(LIST).content.decode()
    assert f'<option value="{schedule.pk}">every minute</option>' in page
    assert "every minute" not in staff("jobs.view_taskresult").get(LIST).content.decode()


def test_from_and_to(root: Client, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    at = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    rows = [
        row(id=made_at(at + dt.timedelta(hours=n)), created_at=at + dt.timedelta(hours=n)).pk
        for n in range(4)
    ]
    foreign = row(
        id="f47ac10b-58cc-4372-a567-0e02b2c3d479", created_at=at + dt.timedelta(minutes=90)
    ).pk
    assert find(root, since="2026-03-01T21:00") == [foreign, *rows[:0:-1]]
    assert find(root, until="2026-03-01T22:00:00") == [foreign, *rows[1::-1]]
    assert find(root, since="2026-03-01T13:00Z", until="2026-03-01 14:00+00:00") == [
        foreign,
        rows[1],
    ]
    assert find(root, since="2026-03-02") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state__exact", "DONE"),
        ("sent", "nonsense"),
        ("since", "yesterday"),
        ("until", "2026-02-30"),
        ("schedule", "x"),
        ("schedule", "9" * 30),
        ("longer", "-1"),
        ("longer", "nan"),
        ("longer", "1e300"),
        ("longer", "x"),
    ],
)
def test_a_filter_that_means_nothing_finds_nothing(root: Client, name: str, value: str) -> None:
    row()
    answer = root.get(LIST, {name: value})
    assert answer.status_code == 200
    assert 'class="errornote"' in answer.content.decode()
    assert find(root, **{name: value}) == []


def test_conditions_on_columns_are_refused(root: Client) -> None:
    """An act on all that match would not know of them."""
    assert root.get(LIST, {"worker__contains": "x"}).status_code == 400
    assert root.get(LIST, {"failed_attempts__error": "x"}).status_code == 400


def test_the_form_keeps_the_other_filters(root: Client) -> None:
    page = root.get(LIST + '?state__exact=FAILURE&q=x&worker="><b>&p=older:x').content.decode()
    form = page.partition('<form method="get" class="jobs-typed">')[2].partition("</form>")[0]
    assert '<input type="hidden" name="state__exact" value="FAILURE">' in form
    assert '<input type="hidden" name="q" value="x">' in form
    assert 'name="p"' not in form
    assert 'value="&quot;&gt;&lt;b&gt;"' in form


def test_times_show_their_zone(root: Client, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    row()
    page = root.get(LIST).content.decode()
    assert re.search(r'<time class="jobs-time".*?\d\d:\d\d:\d\d CST</time>', page)


# ------------------------------------------------------------------------------ counts


def test_counts(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_on(root) == "0 results"
    many(60)
    many(1, state="FAILURE")
    assert count_on(root) == "61 results"
    assert count_on(root, "?state__exact=FAILURE") == "1 result"
    monkeypatch.setattr(selecting, "COUNTED", 55)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobs_taskresult")
        assert count_on(root) == "About 61 results"
        assert re.match(r"About (5[6-9]|6\d) results", count_on(root, "?state__exact=SUCCESS"))
    else:
        assert count_on(root) == "More than 55 results"


# ------------------------------------------------------------------------------ bounds


def test_the_index_of_states_has_no_success(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "LOOKED_AT", 20)
    many(30)
    assert count_on(root, "?state__exact=SUCCESS") == "More than 20 results"
    many(30, state="FAILURE")
    assert count_on(root, "?state__exact=FAILURE") == "30 results"
    page = root.get(LIST + "?state__exact=SUCCESS").content.decode()
    assert "the newest 20 results were looked through" in page


def test_what_no_index_answers_is_bounded(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "LOOKED_AT", 20)
    ago = timezone.now() - dt.timedelta(hours=1)
    old = [row(id=made_at(ago), created_at=ago, queue="rare").pk]
    many(30, queue="usual")
    page = root.get(LIST + "?queue=rare").content.decode()
    assert "the newest 20 results were looked through" in page
    assert "No results." in page
    found = re.search(r'<a href="([^"]+)">Look through older ones', page)
    assert found is not None
    further = LIST + found[1].replace("&amp;", "&")
    assert "queue=rare" in further
    assert ids_on(root, further) == old
    # An index leads to all of them, or there are few.
    for query in ("?queue=", "?task=a.b", "?group=x&queue=rare", f"?q={old[0]}&queue=rare"):
        assert "looked through" not in root.get(LIST + query).content.decode()
    many(3, state="FAILURE", queue="rare")
    assert len(ids_on(root, LIST + "?state__exact=FAILURE&queue=rare")) == 3


def test_two_indexes_together_are_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "LOOKED_AT", 20)
    many(30, task="a.one")
    many(30, task="a.two", state="FAILURE")
    both = Selection(task="a.one", state="FAILURE")
    rows, cut = both.bounded(TaskResult.objects.all())
    assert cut
    assert not rows.exists()
    assert not both.all_of(TaskResult.objects.all()).exists()
    few = Selection(task="a.three", state="FAILURE")
    assert few.bounded(TaskResult.objects.all())[1] == ""


# ------------------------------------------------------------------------------ query plans


#: The index of ids as SQLite, PostgreSQL and MariaDB name it in their plans.
KEY = "autoindex_jobs_taskresult_1|jobs_taskresult_(pkey|id)| PRIMARY "


def plan_of(rows: Any) -> str:
    return str(rows.order_by("-pk")[:51].explain())


QUESTIONS: list[tuple[dict[str, Any], str]] = [
    ({"state": "FAILURE"}, "jobs_result_state"),
    ({"task": "a.rare"}, "jobs_result_task"),
    ({"error_type": "builtins.ValueError"}, "jobs_result_error"),
    ({"group": "g-7"}, "jobs_result_group"),
    ({"label": "import"}, "jobs_result_label"),
    ({"ids": ("x", "y")}, KEY),
    ({"q": "019a00000"}, KEY),
    ({"since": "5m"}, KEY),
    ({"error": "boom"}, "jobs_result_state"),
    ({"state": "FAILURE", "error_type": "builtins.ValueError"}, "jobs_result_(error|state)"),
    ({"queue": "high"}, KEY),
]


def test_each_question_uses_an_index() -> None:
    """One test, since to make the rows takes longer than all questions."""
    many(3000)
    many(60, state="FAILURE", error_type="builtins.ValueError", task="a.rare", error="boom")
    many(30, group_id="g-7")
    many(30, label="import")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobs_taskresult")
            # So few rows are read faster without one.
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
    wrong = []
    for values, indexes in QUESTIONS:
        rows, _cut = selecting.read(values).bounded(TaskResult.objects.all())
        plan = plan_of(rows)
        scans = "Seq Scan" in plan or re.search(r"SCAN jobs_taskresult$", plan, re.MULTILINE)
        if scans or not re.search(indexes, plan):
            wrong.append(f"{values}, not by {indexes}:\n{plan}")
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------------------ who sees what


def only_high(request: Any, rows: Any) -> Any:
    return rows if request.user.is_superuser else rows.filter(queue="high")


@pytest.fixture
def restricted(settings: Settings) -> Callable[[], None]:
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": f"{__name__}.only_high"}
    return lambda: None


@pytest.mark.usefixtures("restricted")
def test_staff_see_their_own_rows(root: Client) -> None:
    own, other = row(queue="high"), row(queue="low")
    client = staff("jobs.view_taskresult")
    assert find(client) == [own.pk]
    assert find(client, q=other.pk) == []
    assert find(root) == [other.pk, own.pk]
    assert client.get(f"{LIST}{other.pk}/change/").status_code == 302
    assert client.get(f"{LIST}{own.pk}/change/").status_code == 200


def test_a_hook_that_is_not_there_shows_nothing(root: Client, settings: Settings) -> None:
    row()
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": "tests.nowhere.at_all"}
    with pytest.raises(Exception, match="ADMIN_QUERYSET"):
        root.get(LIST)
