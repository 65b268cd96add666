"""The list of results by the time due: what is tried or starts next."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.utils import timezone

from jobs.control import selecting
from jobs.control.selecting import Selection
from jobs.models import TaskResult
from tests.integration.admin.conftest import row
from tests.integration.admin.test_results import ids_on, many

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/taskresult/"
NEXT = f"{LIST}?due=next"


def due(minutes: float, **values: Any) -> str:
    """The id of a call that is due in so many minutes."""
    given = {"state": "RETRY", "finished_at": None, **values}
    return row(eta=timezone.now() + dt.timedelta(minutes=minutes), **given).pk


def link(client: Client, url: str, text: str) -> str:
    found = re.search(rf'<a href="([^"]+)"[^>]*>[‹«]? ?{text}', client.get(url).content.decode())
    assert found is not None, text
    return LIST + found[1].replace("&amp;", "&")


def test_what_is_due_first_comes_first(root: Client) -> None:
    late = due(90)
    soon = due(5, state="PENDING", started_at=None)
    later = due(60, error_type="builtins.ValueError", error="no such order")
    due(-5)  # it waits for a worker, or runs
    due(30, state="SUCCESS", finished_at=timezone.now())
    due(30, state="STARTED")
    row(state="PENDING", finished_at=None)
    assert ids_on(root, NEXT) == [soon, later, late]
    page = root.get(NEXT).content.decode()
    assert "ValueError: no such order" in page
    assert "in 5 min" in page or "in 4 min" in page
    assert '<td class="field-why"></td>' in page  # the one that has not run yet
    assert '<span class="jobs-narrow">attempts:</span> 1' in page
    assert "Calls that were sent outside a transaction" in page
    assert ids_on(root, f"{NEXT}&state__exact=RETRY") == [later, late]
    assert ids_on(root, f"{NEXT}&error_type=ValueError") == [later]


def test_pages_go_by_the_time(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    at = timezone.now() + dt.timedelta(hours=1)
    # Many are due at one moment.
    ids = [*sorted(many(120, state="RETRY", finished_at=None, eta=at)), due(90)]
    assert ids_on(root, NEXT) == ids[:50]
    second = link(root, NEXT, "Next")
    assert ids_on(root, second) == ids[50:100]
    third = link(root, second, "Next")
    assert ids_on(root, third) == ids[100:]
    assert ids_on(root, link(root, third, "Previous")) == ids[50:100]
    assert ids_on(root, link(root, third, "First")) == ids[:50]
    for junk in ("older:", "newer:x", "older:2026-01-01", "older:,", "older:tomorrow,1"):
        assert root.get(NEXT, {"due": "next", "p": junk}).status_code == 200


def test_another_value_finds_nothing(root: Client) -> None:
    due(5)
    page = root.get(f"{LIST}?due=last").content.decode()
    assert "can only be “next”" in page
    assert "No results." in page


def test_what_no_index_answers_is_bounded(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "LOOKED_AT", 20)
    for minutes in range(30):
        due(minutes + 1, queue="usual")
    last = due(60, queue="rare")
    page = root.get(f"{NEXT}&queue=rare").content.decode()
    assert "the first 20 calls that are due were looked through" in page
    assert last not in page
    assert len(ids_on(root, NEXT)) == 31
    assert len(ids_on(root, f"{NEXT}&queue=usual")) == 20


def test_the_index_has_them_in_order() -> None:
    many(3000)
    many(60, state="RETRY", finished_at=None, eta=timezone.now() + dt.timedelta(hours=1))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobs_taskresult")
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
    rows, cut = Selection(due="next").bounded(TaskResult.objects.all())
    plan = str(rows.order_by("eta", "pk")[:51].explain())
    assert not cut
    assert "jobs_result_due" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


def test_an_act_on_all_that_match_takes_no_other(root: Client) -> None:
    wanted = due(5)
    row(state="RETRY", finished_at=None, eta=timezone.now() - dt.timedelta(hours=1))
    fields = {"action": "export_json", "select_across": "1", "_selected_action": "x"}
    answer = root.post(NEXT, fields)
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    assert re.findall(r'"id": "([^"]+)"', text) == [wanted]
    assert "due=next" in LogEntry.objects.get().change_message
