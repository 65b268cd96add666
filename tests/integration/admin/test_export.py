"""Results as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from pytest_django import Settings

from jobs.admin.results import export
from jobs.message import HIDDEN
from jobs.models import TaskResult
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_results import many
from tests.workers import work

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/taskresult/"
ALL = {"action": "export_csv", "select_across": "1", "_selected_action": "x"}


def exported(client: Client, kind: str, query: str = "", **values: Any) -> list[dict[str, Any]]:
    fields = {"action": f"export_{kind}", "_selected_action": "x", **values}
    answer = client.post(LIST + query, fields)
    assert answer.status_code == 200
    assert answer.streaming
    assert answer["Content-Disposition"].startswith('attachment; filename="results-')
    text = b"".join(answer.streaming_content).decode()  # type: ignore[arg-type]
    if kind == "json":
        found: list[dict[str, Any]] = json.loads(text)
        return found
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_chosen_and_all_that_match(root: Client, kind: str) -> None:
    ids = many(1203)
    other = row(state="FAILURE", error_type="builtins.ValueError", error="no such order")
    chosen = exported(root, kind, _selected_action=[ids[5], other.pk])
    assert [one["id"] for one in chosen] == [other.pk, ids[5]]
    assert chosen[0]["error"] == "no such order"
    assert list(chosen[0]) == list(export.COLUMNS)
    every = exported(root, kind, "?state__exact=SUCCESS", select_across="1")
    assert [one["id"] for one in every] == ids
    assert exported(root, kind, "?queue=none", select_across="1") == []
    assert "state=SUCCESS" in LogEntry.objects.order_by("pk")[1].change_message


def test_all_is_read_in_batches(root: Client, django_assert_max_num_queries: Any) -> None:
    many(1203)
    answer = root.post(LIST, ALL)
    with django_assert_max_num_queries(3):
        assert len(b"".join(answer.streaming_content).splitlines()) == 1204  # type: ignore[arg-type]


def test_no_cell_is_a_formula(root: Client) -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\t=1", "\r=1"):
        row(queue=text, error=text)
    cells = exported(root, "csv", select_across="1")
    assert sorted(one["error"] for one in cells) == sorted(
        f"'{text}" for text in ("=1+1", "+1", "-1", "@x", "\t=1", "\r=1")
    )
    assert {one["error"] for one in exported(root, "json", select_across="1")} >= {"=1+1", "@x"}


def test_anything_that_is_stored_can_be_sent(root: Client) -> None:
    row(args='["\\ud800"]', error='a "b",\nc', result="nonsense")
    (one,) = exported(root, "csv", select_across="1")
    assert one["error"] == 'a "b",\nc'
    assert exported(root, "json", select_across="1")[0]["result"] == "nonsense"


@pytest.mark.django_db(transaction=True)
def test_sensitive_arguments_are_hidden(root: Client, broker_url: str) -> None:
    from jobs import task

    @task(name="tests.export.sensitive", sensitive=["card"])
    def pay(card: str) -> None: ...

    pay.delay(card="4111-1111")
    work()
    (one,) = exported(root, "json", select_across="1")
    assert json.loads(one["kwargs"]) == {"card": HIDDEN}
    assert "4111" not in json.dumps(one)


def test_whoever_may_not_look_exports_nothing(root: Client) -> None:
    one = row()
    wanted = {"action": "export_csv", "_selected_action": [one.pk], "select_across": "1"}
    assert staff().post(LIST, wanted).status_code == 403
    assert staff("jobs.view_queues").post(LIST, wanted).status_code == 403
    assert Client().post(LIST, wanted).status_code == 302
    assert exported(staff("jobs.view_taskresult"), "csv", select_across="1")


def only_high(request: Any, rows: Any) -> Any:
    return rows.filter(queue="high")


def test_only_what_the_person_sees(root: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": f"{__name__}.only_high"}
    own, other = row(queue="high"), row(queue="low")
    assert [one["id"] for one in exported(root, "csv", select_across="1")] == [own.pk]
    found = exported(root, "csv", _selected_action=[own.pk, other.pk])
    assert [one["id"] for one in found] == [own.pk]


@pytest.mark.django_db(transaction=True)
def test_it_streams_over_asgi_as_well() -> None:
    many(700)
    user = User.objects.create_superuser("root")

    async def pieces() -> list[bytes]:
        client = AsyncClient()
        await client.aforce_login(user)
        answer = await client.post(LIST, {**ALL, "action": "export_json"})
        return [piece async for piece in answer.streaming_content]  # type: ignore[union-attr]

    found = async_to_sync(pieces)()
    assert len(found) > 1
    assert len(json.loads(b"".join(found))) == TaskResult.objects.count()


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_filter_that_means_nothing_exports_nothing(root: Client, kind: str) -> None:
    row()
    for query in ("?longer=x", "?since=yesterday", "?state__exact=DONE", "?schedule=x"):
        fields = {"action": f"export_{kind}", "select_across": "1", "_selected_action": "x"}
        answer = root.post(LIST + query, fields)
        assert not answer.streaming
        assert answer.status_code in (200, 302)


def test_a_semicolon_begins_no_cell(root: Client) -> None:
    """Some spreadsheets part cells by it."""
    row(state="FAILURE", error="x;=1+1", error_type="a.B")
    answer = root.post(
        LIST, {"action": "export_csv", "select_across": "1", "_selected_action": "x"}
    )
    text = b"".join(answer.streaming_content).decode()  # type: ignore[arg-type]
    assert '"x;=1+1"' in text
