"""The list of results, and the page of one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from jobs import (
    broker,
    message,
    registry,
)
from jobs.admin.results.admin import ResultAdmin
from jobs.broker.base import About, Note
from jobs.models import TaskResult
from tests.integration.admin.conftest import row

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/taskresult/"
SCRIPT = "<script>alert('x')</script>"


def shown(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def ids_in(page: str) -> list[str]:
    return re.findall(r'class="jobs-id" title="([^"]+)"', page)


def ids_on(client: Client, url: str) -> list[str]:
    return ids_in(shown(client, url))


def link_in(page: str, rel: str) -> str | None:
    found = re.search(rf'<a href="([^"]+)" rel="{rel}"', page)
    return LIST + found[1].replace("&amp;", "&") if found else None


def link(client: Client, url: str, rel: str) -> str | None:
    return link_in(shown(client, url), rel)


def detail(client: Client, result: TaskResult) -> str:
    response = client.get(f"{LIST}{quote(result.pk)}/change/")
    assert response.status_code == 200
    return response.content.decode()


def many(count: int, **values: Any) -> list[str]:
    """So many rows, an id a millisecond; ids, newest first."""
    start = timezone.now() - dt.timedelta(milliseconds=count)
    rows = []
    for n in range(count):
        at = start + dt.timedelta(milliseconds=n)
        defaults = {"task": "a.b", "queue": "default", "state": "SUCCESS", "created_at": at}
        rows.append(TaskResult(id=made_at(at), **{**defaults, **values}))
    TaskResult.objects.bulk_create(rows)
    return sorted((r.pk for r in rows), reverse=True)


def made_at(at: dt.datetime) -> str:
    """An id such as was made at this moment."""
    stamp = f"{int(at.timestamp() * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}{message.new_id()[13:]}"


# ------------------------------------------------------------------------------ pages


def test_the_list_costs_the_same_with_many_rows(
    root: Client, django_assert_num_queries: Any, no_counting: Callable[[Any], None]
) -> None:
    """Session, user, schedules, one page of rows and a bounded count; nothing that grows with the
    table. With filters that no index answers together, how far each index may be read."""
    many(2000)
    estimates = int(connection.vendor == "postgresql")
    with django_assert_num_queries(5 + estimates) as captured:
        root.get(LIST)
    no_counting(captured)
    assert not any("OFFSET" in query["sql"] for query in captured.captured_queries)
    with django_assert_num_queries(6 + estimates) as captured:
        root.get(LIST + "?state__exact=SUCCESS&sent=today&queue=default&task=a.b")
    no_counting(captured)


def test_the_list_reads_no_large_columns(root: Client, django_assert_num_queries: Any) -> None:
    row()
    with django_assert_num_queries(4) as captured:
        root.get(LIST)
    columns = captured.captured_queries[-1]["sql"].partition(" FROM ")[0].split(", ")
    for name in ("args", "kwargs", "result", "error", "traceback", "message"):
        assert f'"jobs_taskresult"."{name}"' not in columns


def test_one_result_costs_a_few_queries(
    root: Client, django_assert_num_queries: Any, no_counting: Callable[[Any], None]
) -> None:
    newest, other = many(2000)[:2]
    root.get(f"{LIST}{other}/change/")  # Django knows its content types from here on
    # Session, user, row; what people did, children, and the schedule that may have sent it.
    with django_assert_num_queries(6) as captured:
        root.get(f"{LIST}{newest}/change/")
    no_counting(captured)


def test_pages_go_through_all_rows_and_back(root: Client) -> None:
    expected = many(220)
    url: str | None = LIST
    down: list[list[str]] = []
    while url:
        page = shown(root, url)
        down.append(ids_in(page))
        url = link_in(page, "next")
    assert [len(page) for page in down] == [50, 50, 50, 50, 20]
    assert [pk for page in down for pk in page] == expected
    url = link_in(page, "prev")
    up: list[list[str]] = []
    while url:
        page = shown(root, url)
        up.append(ids_in(page))
        url = link_in(page, "prev")
    assert up == down[:-1][::-1]


def test_a_page_near_the_top_is_the_whole_first_page(root: Client) -> None:
    expected = many(80)
    assert ids_on(root, f"{LIST}?p=newer:{expected[40]}") == expected[:50]


def test_pages_keep_the_filters_and_a_new_filter_starts_at_the_top(root: Client) -> None:
    many(51, state="FAILURE")
    url = link(root, LIST + "?state__exact=FAILURE", "next")
    assert url is not None
    assert "state__exact=FAILURE" in url
    page = root.get(url).content.decode()
    assert "?state__exact=SUCCESS" in page
    assert "p=older" not in "".join(re.findall(r'href="\?state[^"]*SUCCESS[^"]*"', page))


def test_page_places_that_mean_nothing_show_the_first_page(root: Client) -> None:
    expected = many(3)
    for place in ("2", "older", "older:", "sideways:x", "newer:zzz"):
        assert ids_on(root, f"{LIST}?p={place}") == expected


def test_an_empty_list(root: Client) -> None:
    assert "No results." in root.get(LIST).content.decode()


def test_sorting_by_a_column_is_not_offered(root: Client) -> None:
    expected = many(3)
    assert ids_on(root, f"{LIST}?o=2") == expected
    assert "sortable" not in root.get(LIST).content.decode()


# ------------------------------------------------------------------------------ filters


def test_filters(root: Client) -> None:
    one = row(task="a.one", queue="high", state="FAILURE", error_type="builtins.ValueError")
    two = row(task="a.two", queue="low", state="SUCCESS")
    assert ids_on(root, LIST + "?state__exact=FAILURE") == [one.pk]
    assert ids_on(root, LIST + "?queue=low") == [two.pk]
    assert ids_on(root, LIST + "?task=a.one") == [one.pk]
    assert ids_on(root, LIST + "?task=a.one&state__exact=SUCCESS") == []


def test_filters_offer_known_names_without_asking_the_table(root: Client) -> None:
    known = next(iter(registry.tasks), None)
    page = root.get(LIST + "?task=long.removed").content.decode()
    assert "long.removed" in page
    assert "?queue=high" in page
    assert known is None or f"?task={known}" in page


def test_filter_by_time(root: Client) -> None:
    now = timezone.now()
    ages = [dt.timedelta(0), dt.timedelta(hours=30), dt.timedelta(days=20), dt.timedelta(days=90)]
    rows = [row(id=made_at(now - age), created_at=now - age).pk for age in ages]
    assert ids_on(root, LIST + "?sent=hour") == rows[:1]
    assert ids_on(root, LIST + "?sent=week") == rows[:2]
    assert ids_on(root, LIST + "?sent=month") == rows[:3]
    assert ids_on(root, LIST + "?sent=today")[0] == rows[0]
    page = root.get(LIST + "?sent=nonsense").content.decode()
    assert "There is no period “nonsense”." in page  # not as if there were no filter
    assert "jobs-id" not in page


def test_filter_by_time_with_ids_that_tell_none(root: Client) -> None:
    now = timezone.now()
    row(id="f47ac10b-58cc-4372-a567-0e02b2c3d479", created_at=now - dt.timedelta(days=90))
    new = row(id="e47ac10b-58cc-4372-a567-0e02b2c3d479", created_at=now)
    assert ids_on(root, LIST + "?sent=week") == [new.pk]


# ------------------------------------------------------------------------------ search


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks that the code knows."""
    for name in ("shop.tasks.send_receipt", "shop.tasks.bill"):
        monkeypatch.setitem(registry.tasks, name, None)  # type: ignore[arg-type]


def test_search(root: Client, tasks: None) -> None:
    receipt = row(id="019a0000-1111-7222-8333-444444444444")
    bill = row(id="order-17", task="shop.tasks.bill")
    gone = row(id="019b0000-1111-7222-8333-444444444444", task="old.gone")
    found = {
        receipt.pk: receipt.pk,
        f" {receipt.pk} ": receipt.pk,
        "019a0000": receipt.pk,
        "019A0000-11": receipt.pk,
        "order-17": bill.pk,
        "RECEIPT": receipt.pk,
        "tasks.bill": bill.pk,
        "old.gone": gone.pk,
    }
    for term, pk in found.items():
        assert ids_on(root, f"{LIST}?q={term}") == [pk], term
    for term in ("019a00001", "nobody", "%", "old"):
        assert ids_on(root, f"{LIST}?q={term}") == [], term


def test_search_does_not_count(
    root: Client, tasks: None, django_assert_num_queries: Any, no_counting: Callable[[Any], None]
) -> None:
    many(200)
    with django_assert_num_queries(5) as captured:
        root.get(LIST + "?q=receipt")
    no_counting(captured)


# ------------------------------------------------------------------------------ escaping


def test_nothing_stored_is_taken_for_html(root: Client) -> None:
    result = row(
        task=SCRIPT,
        queue=SCRIPT,
        worker=SCRIPT,
        state="FAILURE",
        args=f'["{SCRIPT}"]',
        kwargs=f'{{"{SCRIPT}":"{SCRIPT}"}}',
        result=f'"{SCRIPT}"',
        error_type=SCRIPT,
        error=SCRIPT,
        traceback=SCRIPT,
    )
    ok = row(id=SCRIPT, result=f'"{SCRIPT}"')
    for page in (
        root.get(LIST).content.decode(),
        detail(root, result),
        root.get(f"{LIST}?q={SCRIPT}&task={SCRIPT}&queue={SCRIPT}").content.decode(),
        detail(root, ok),
    ):
        assert "<script>alert" not in page
        assert escape("<script>") in page


def test_what_is_stored_can_be_anything(root: Client) -> None:
    for text in ("", "nonsense", "{", '{"__type__":"decimal","__value__":"x"}', "5", "null"):
        result = row(args=text, kwargs=text, result=text)
        detail(root, result)
    deep = row(args="[" * 3000 + "]" * 3000)
    long = row(args="[" + "1," * 500_000 + "1]", result="1" * 30_000)
    assert "more characters" in detail(root, long)
    detail(root, deep)
    assert len(root.get(LIST).content) < 100_000


# ------------------------------------------------------------------------------ one result


def test_values_are_laid_out_as_python(root: Client) -> None:
    stored = '[{"__type__":"decimal","__value__":"1.50"},"two",null,true]'
    page = detail(root, row(args=stored, result=stored))
    assert page.count(escape("[Decimal('1.50'), 'two', None, True]")) == 2
    assert escape("{'copy': True}") in page


def test_the_call_in_one_line(root: Client) -> None:
    row(args='[1,"two"]', kwargs='{"to":null}')
    assert escape("1, 'two', to=None") in root.get(LIST).content.decode()


def said(client: Client, result: TaskResult) -> str:
    found = re.search(r'jobs-sentence">([^<]*)<', detail(client, result))
    assert found is not None
    return found[1]


def test_states_in_words(root: Client) -> None:
    now = timezone.now()
    soon, ago = now + dt.timedelta(minutes=5), now - dt.timedelta(minutes=5)
    assert "Succeeded in 2 s, at the first attempt." in said(root, row())
    assert "at attempt 3" in said(root, row(attempts=3))
    assert "Committed, but not yet handed" in said(root, row(state="PENDING", published_at=None))
    assert "In queue “default” since" in said(root, row(state="PENDING"))
    assert "Waits for its time" in said(root, row(state="PENDING", eta=soon))
    assert "Runs on worker-1" in said(root, row(state="STARTED"))
    failed = {"error_type": "builtins.ValueError", "error": "no such order"}
    retry = said(root, row(state="RETRY", attempts=2, eta=soon, **failed))
    assert "Attempt 2 failed with ValueError: no such order." in retry
    assert "It will be tried again at" in retry
    assert "(in " in retry
    assert "was due again" in said(root, row(state="RETRY", attempts=2, eta=ago, **failed))
    failure = said(root, row(state="FAILURE", attempts=4, **failed))
    assert failure.startswith("Failed at attempt 4 with ValueError: no such order. ")
    assert failure.endswith("It will not be tried again.")
    dead = said(root, row(state="FAILURE", error_type="jobs.exceptions.UnknownTask", error="No x."))
    assert dead.startswith("Not run: UnknownTask: No x. ")
    assert "dead letters of queue “default”" in dead
    lost = {"error_type": "jobs.exceptions.WorkerLost", "error": "4 processes died."}
    given_up = said(root, row(state="FAILURE", **lost))
    assert given_up.startswith("Given up: 4 processes died. The message went to the dead letters")
    rejected = {"error_type": "jobs.exceptions.Reject", "error": "not ours"}
    own = said(root, row(state="FAILURE", **rejected))
    assert own.startswith("Rejected by the task itself: not ours. The message went to")
    limit = {"error_type": "jobs.exceptions.TimeLimitExceeded", "error": "Task x ran longer."}
    assert "longer than its time limit" in said(root, row(state="FAILURE", **limit))
    assert "Expired before" in said(root, row(state="REVOKED", error="expired"))
    assert "Revoked: by hand." in said(root, row(state="REVOKED", error="by hand"))
    assert said(root, row(state="REVOKED")) == "Revoked. It will not run."
    assert "before it was started" in said(root, row(state="REVOKED", error="revoked"))
    assert "its process was killed" in said(root, row(state="REVOKED", error="terminated"))


def test_times_in_order_with_what_lies_between(root: Client) -> None:
    at = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    steps = {
        "created_at": at,
        "published_at": at + dt.timedelta(milliseconds=3),
        "started_at": at + dt.timedelta(seconds=2),
        "finished_at": at + dt.timedelta(minutes=3),
    }
    page = detail(root, row(**steps))
    lines = re.findall(r'<th scope="row">([^<]+)</th><td>([^<]+)</td><td>([^<]+)</td>', page)
    assert [line[0] for line in lines] == ["Sent", "Put on the queue", "Started", "Finished"]
    assert lines[0][1] == "2026-03-01 12:00:00.000"
    assert [line[2] for line in lines[1:]] == ["+3 ms", "+2 s", "+2 min 58 s"]


def test_a_failure_shows_its_error_and_traceback_and_no_result(root: Client) -> None:
    page = detail(
        root,
        row(
            state="FAILURE",
            error_type="builtins.ValueError",
            error="no such order",
            traceback="Traceback (most recent call last):\n  boom",
            result='{"exc_type":"ValueError"}',
        ),
    )
    assert "builtins.ValueError: no such order" in page
    assert "Traceback (most recent call last):\n  boom</pre>" in page
    assert "exc_type" not in page


def test_a_result_that_was_not_kept(root: Client) -> None:
    assert "Not kept" in detail(root, row(result=None))
    assert ">None</pre>" in detail(root, row(result="null"))


# ------------------------------------------------------------------------------ deleting


def test_chosen_results_are_deleted_after_a_question(root: Client) -> None:
    rows = [row() for _ in range(3)]
    chosen = {"action": "delete_selected", "_selected_action": [rows[0].pk, rows[1].pk]}
    assert "Are you sure" in root.post(LIST, chosen).content.decode()
    assert TaskResult.objects.count() == 3
    root.post(LIST, {**chosen, "post": "yes"})
    assert [r.pk for r in TaskResult.objects.all()] == [rows[2].pk]


@pytest.mark.parametrize("state", ["PENDING", "STARTED", "RETRY"])
def test_what_has_not_ended_is_not_deleted(root: Client, broker_url: str, state: str) -> None:
    ended, going = row(), row(state=state, finished_at=None)
    url = f"{LIST}{quote(going.pk)}/delete/"
    for response in (
        root.get(url, follow=True),
        root.post(url, {"post": "yes"}, follow=True),
        root.post(
            LIST,
            {
                "action": "delete_selected",
                "_selected_action": [ended.pk, going.pk],
                "post": "yes",
            },
            follow=True,
        ),
    ):
        assert "Revoke it first, and delete it when it has ended." in response.content.decode()
    assert TaskResult.objects.count() == 2


def test_what_runs_again_meanwhile_is_not_deleted(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = row()
    found = ResultAdmin.log_deletions

    def run_again(*args: Any) -> Any:
        TaskResult.objects.update(state="PENDING")
        return found(*args)

    monkeypatch.setattr(ResultAdmin, "log_deletions", run_again)
    root.post(f"{LIST}{quote(result.pk)}/delete/", {"post": "yes"})
    assert TaskResult.objects.count() == 1


# --------------------------------------------------------------------------- progress


@pytest.mark.usefixtures("broker_url")
def test_how_far_a_running_call_is(root: Client) -> None:
    result = row(state="PENDING", attempts=0)
    assert "<progress" not in detail(root, result)
    said = b'{"done":1200,"total":5000,"message":"<b>rows</b>","meta":{"box":3},"at":0}'
    broker.get().note(result.queue, [Note(result.pk, About.PROGRESS, said)], 60)
    page = detail(root, result)
    assert '<progress max="100" value="24"' in page
    assert "1,200 of 5,000 (24 %), &lt;b&gt;rows&lt;/b&gt;, {&#x27;box&#x27;: 3}" in page
    TaskResult.objects.update(state="SUCCESS")
    assert "<progress" not in detail(root, result)
