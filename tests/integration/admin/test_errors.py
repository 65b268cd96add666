"""The page of errors: groups, charts, marks, and running a group again."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape
from pytest_django import Settings

from jobs.admin.errors import groups
from jobs.admin.results import many
from jobs.control import selecting
from jobs.models import KnownError, TaskResult
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_all_that_match import TASK, failures, fields_of
from tests.integration.admin.test_results import SCRIPT, ids_on, made_at
from tests.models import Run
from tests.tasks import trace
from tests.workers import work

pytestmark = pytest.mark.django_db

PAGE = "/admin/jobs/errors/"
VALUE = {"task": "a.one", "error_type": "builtins.ValueError"}


def failed(age: dt.timedelta = dt.timedelta(minutes=1), **values: Any) -> TaskResult:
    at = timezone.now() - age
    known = {"state": "FAILURE", "error": "no such order", **VALUE}
    made = {"id": made_at(at), "created_at": at, "finished_at": at}
    return row(**{**made, **known, **values})


def rows_of(client: Client, query: str = "") -> list[tuple[str, str, int]]:
    """Error, task and number of each group, in the order of the page."""
    page = client.get(PAGE + query).content.decode()
    return [
        (name, task, int(number))
        for name, task, number in re.findall(
            r'<th scope="row"><a [^>]*>([^<]*)</a>\s*<span class="jobs-why">([^<]*)</span>.*?'
            r'<td class="jobs-number"[^>]*>(\d+)</td>',
            page,
            re.DOTALL,
        )
    ]


def said(response: Any) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]


# ------------------------------------------------------------------------------ groups


def test_groups(root: Client) -> None:
    for age in (1, 2, 3):
        failed(dt.timedelta(minutes=age))
    failed(dt.timedelta(hours=2), error_type="shop.errors.NoStock")
    failed(dt.timedelta(days=3), task="a.two")
    failed(dt.timedelta(days=9), task="a.three")
    row(error_type="builtins.ValueError", state="RETRY")
    first = [("ValueError", "a.one", 3)]
    assert rows_of(root) == rows_of(root, "?range=hour") == first
    assert rows_of(root, "?range=day") == [*first, ("NoStock", "a.one", 1)]
    assert rows_of(root, "?range=week") == [
        *first,
        ("NoStock", "a.one", 1),
        ("ValueError", "a.two", 1),
    ]
    assert rows_of(root, "?range=nonsense") == rows_of(root)


def test_a_group_leads_to_its_results(root: Client) -> None:
    one = failed()
    failed(task="a.two")
    failed(dt.timedelta(days=2))
    page = root.get(PAGE).content.decode()
    (link,) = re.findall(r'href="([^"]*task=a\.one[^"]*)"', page)
    assert "error_type=builtins.ValueError" in link
    assert ids_on(root, link.replace("&amp;", "&")) == [one.pk]


def test_the_sample_and_the_times_are_of_the_group(root: Client) -> None:
    old = failed(dt.timedelta(minutes=9), error="an older one")
    new = failed(error="the newest")
    page = root.get(PAGE).content.decode()
    assert "the newest" in page
    assert "an older one" not in page
    for one in (old, new):
        assert timezone.localtime(one.finished_at).strftime("%Y-%m-%d %H:%M:%S") in page


def test_the_chart_has_a_bar_for_each_time(root: Client) -> None:
    for age in (1, 1, 30):
        failed(dt.timedelta(minutes=age))
    (group,) = groups.find(TaskResult.objects.all(), groups.RANGES["hour"]).groups
    heights = [height for _x, _y, height in group.bars]
    assert len(heights) in (2, 3)
    assert max(heights) == 24
    assert sum(group.counts.values()) == 3
    page = root.get(PAGE + "?range=hour").content.decode()
    assert page.count("<rect ") == len(heights)
    assert "style=" not in page.partition('id="content-main"')[2]


def test_ids_that_tell_no_time_are_counted(root: Client) -> None:
    failed(id="order-17", created_at=timezone.now())
    failed(id="f47ac10b-58cc-4372-a567-0e02b2c3d479", created_at=timezone.now())
    assert rows_of(root) == [("ValueError", "a.one", 2)]


def test_an_error_without_a_class(root: Client) -> None:
    failed(error_type="")
    ((name, _task, count),) = rows_of(root)
    assert (name, count) == ("an error", 1)


def test_nothing_failed(root: Client) -> None:
    row()
    assert "has failed" in root.get(PAGE).content.decode()


def test_nothing_stored_is_taken_for_html(root: Client) -> None:
    failed(task=SCRIPT, error_type=SCRIPT, error=SCRIPT)
    KnownError.objects.create(task="x", error_type="y", marked_by=SCRIPT, why=SCRIPT)
    failed(task="x", error_type="y")
    page = root.get(PAGE).content.decode()
    assert "<script>alert" not in page
    assert escape(SCRIPT) in page


def test_only_so_many_failures_are_read(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "LOOKED_AT", 5)
    for age in range(1, 9):
        failed(dt.timedelta(minutes=age))
    assert rows_of(root) == [("ValueError", "a.one", 5)]
    assert "There are more than 5 failures" in root.get(PAGE).content.decode()


def test_the_page_costs_the_same_with_many_groups(root: Client) -> None:
    costs = []
    for _round in range(2):
        for n in range(20):
            failed(task=f"a.{n}", error_type=f"shop.Error{n}")
        with CaptureQueriesContext(
            connection,
        ) as captured:
            root.get(PAGE)
        costs.append(len(captured))
    assert costs[0] == costs[1]


# ------------------------------------------------------------------------------ marks


def test_known_errors_are_folded_away(root: Client) -> None:
    failed()
    failed(task="a.two")
    question = root.post(PAGE + "mark/", VALUE)
    assert "folded away" in question.content.decode()
    assert not KnownError.objects.exists()
    answer = root.post(
        PAGE + "mark/", {**VALUE, "confirmed": "yes", "why": "the shop is closed", "range": "week"}
    )
    assert answer["Location"] == PAGE + "?range=week"
    mark = KnownError.objects.get()
    assert (mark.task, mark.error_type, mark.why) == (*VALUE.values(), "the shop is closed")
    assert mark.marked_by
    entry = LogEntry.objects.get()
    assert "Marked as known. Reason: the shop is closed" in entry.change_message
    page = root.get(PAGE).content.decode()
    shown, _details, folded = page.partition('<details class="jobs-known">')
    assert "a.one" not in shown.partition('id="content-main"')[2]
    assert "the shop is closed" in folded
    root.post(PAGE + "mark/", {**VALUE, "confirmed": "yes", "why": "another reason"})
    assert KnownError.objects.get().why == "another reason"
    root.post(PAGE + "unmark/", VALUE)
    assert not KnownError.objects.exists()
    assert LogEntry.objects.count() == 3
    assert "was not marked" in said(root.post(PAGE + "unmark/", VALUE))[-1]


@pytest.mark.parametrize("name", ["mark", "unmark", "retry"])
def test_names_that_can_not_be(root: Client, broker_url: str, name: str) -> None:
    for wrong in ({"task": ""}, {"task": "a\0b"}, {"error_type": "x" * 256}):
        answer = root.post(f"{PAGE}{name}/", {**VALUE, **wrong, "confirmed": "yes"})
        assert answer.status_code == 400
    assert root.get(f"{PAGE}{name}/").status_code == 405


# ------------------------------------------------------------------------------ running again


@pytest.mark.django_db(transaction=True)
def test_a_group_is_run_again(root: Client, broker_url: str) -> None:
    failures(3)
    failures(2, error_type="builtins.KeyError")
    group = {"task": trace.name, "error_type": "builtins.ValueError", "since": "1h"}
    asked = root.post(PAGE + "retry/", group)
    assert "3 tasks will be run again" in asked.content.decode()
    assert not Run.objects.exists()
    answer = root.post(PAGE + "retry/", fields_of(asked))
    assert "3 tasks are run again." in said(answer)
    work()
    assert Run.objects.count() == 3
    assert LogEntry.objects.count() == 3
    assert "None of these" in said(root.post(PAGE + "retry/", group))[-1]


@pytest.mark.django_db(transaction=True)
def test_a_large_group_is_run_again_by_a_task(
    root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "AT_ONCE", 5)
    failures(10)
    failures(2, error_type="builtins.KeyError")
    group = {"task": trace.name, "error_type": "builtins.ValueError", "since": "1h"}
    asked = root.post(PAGE + "retry/", group)
    assert "The results that match now: 10." in asked.content.decode()
    later = failures(1)[0]
    answer = root.post(PAGE + "retry/", fields_of(asked))
    call = TaskResult.objects.get(task=TASK)
    assert call.pk in said(answer)[0]
    work()
    assert Run.objects.count() == 10
    assert TaskResult.objects.get(pk=later.pk).state == "FAILURE"


# ------------------------------------------------------------------------------ who may


@pytest.mark.parametrize(
    ("name", "permission"),
    [
        ("retry", "jobs.retry_taskresult"),
        ("mark", "jobs.mark_errors"),
        ("unmark", "jobs.mark_errors"),
    ],
)
def test_each_act_needs_its_permission(broker_url: str, name: str, permission: str) -> None:
    failed()
    url, looking = f"{PAGE}{name}/", staff("jobs.view_taskresult")
    assert looking.post(url, {**VALUE, "confirmed": "yes"}).status_code == 403
    assert f'action="{url}"' not in looking.get(PAGE).content.decode()
    assert staff(permission).post(url, {**VALUE, "confirmed": "yes"}).status_code == 403
    assert Client().post(url, VALUE).status_code == 302
    may = staff("jobs.view_taskresult", permission)
    assert may.post(url, VALUE).status_code in (200, 302)
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(url, VALUE).status_code == 403
    assert not KnownError.objects.exists()


def test_who_may_look() -> None:
    assert staff("jobs.view_taskresult").get(PAGE).status_code == 200
    assert staff("jobs.view_queues", "jobs.manage_queues").get(PAGE).status_code == 403
    assert Client().get(PAGE).status_code == 302


def only_high(request: Any, rows: Any) -> Any:
    return rows.filter(queue="high")


def test_only_what_the_person_sees(root: Client, broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": f"{__name__}.only_high"}
    failed(queue="high")
    failed(queue="low")
    failed(queue="low", task="a.two", error="a secret")
    assert rows_of(root) == [("ValueError", "a.one", 1)]
    assert "a secret" not in root.get(PAGE).content.decode()
    answer = root.post(PAGE + "retry/", {**VALUE, "task": "a.two"})
    assert "None of these" in said(answer)[-1]
