"""``JOBS["ADMIN_QUERYSET"]``: no page of results tells of what a person may not see."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from jobs import broker, message
from jobs.broker.base import Outgoing
from jobs.message import Message
from jobs.models import TaskGroup, TaskResult
from tests.integration.admin.conftest import row, staff
from tests.tasks import trace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker_url")]

#: Stands in all that belongs to the other tenant.
SECRET = "other-tenants"


def own(request: Any, rows: Any) -> Any:
    return rows.filter(queue="high")


@pytest.fixture(autouse=True)
def _restricted(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": f"{__name__}.own"}


@pytest.fixture
def client() -> Client:
    return staff("jobs.view_taskresult", "jobs.retry_taskresult", "jobs.edit_taskresult")


def theirs(**values: Any) -> TaskResult:
    said = {"task": f"{SECRET}.task", "args": f'["{SECRET}"]', "error": SECRET, "worker": SECRET}
    return row(queue="low", **{**said, **values})


def shown(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, url
    page = answer.content.decode()
    assert SECRET not in page, url
    return page


def test_relations_and_graph(client: Client) -> None:
    parent = theirs()
    mine = row(
        queue="high",
        parent_id=parent.pk,
        root_id=parent.pk,
        group_id="g",
        group_index=0,
        state="FAILURE",
    )
    theirs(group_id="g", group_index=1, root_id=parent.pk)
    theirs(parent_id=mine.pk, root_id=parent.pk)
    sister = row(queue="high", group_id="g", group_index=2, root_id=parent.pk)
    for kind in ("", "live/?was=FAILURE", "change/"):
        page = client.get(f"/admin/jobs/taskresult/{mine.pk}/{kind}", follow=True).content.decode()
        assert SECRET not in page
    assert sister.pk in page


def test_the_members_that_an_error_names(client: Client) -> None:
    parent = theirs()
    text = f"a member failed: x[{parent.pk}]"
    mine = row(queue="high", state="FAILURE", error_type="jobs.exceptions.ChordError", error=text)
    page = shown(client, f"/admin/jobs/taskresult/{mine.pk}/change/")
    assert "Because of:" not in page


def test_what_was_sent_after_a_group(client: Client) -> None:
    mine = row(queue="high", group_id="g", group_index=0)
    theirs(parent_id=mine.pk, root_id=mine.pk)
    shown(client, f"/admin/jobs/taskresult/{mine.pk}/change/")
    assert not TaskGroup.objects.exists()


@pytest.mark.parametrize("page", ["change", "live", "edit", "history", "delete", "run_again"])
def test_no_page_of_theirs(client: Client, page: str) -> None:
    one = theirs(state="FAILURE", error_type="builtins.ValueError")
    for answer in (
        client.get(f"/admin/jobs/taskresult/{one.pk}/{page}/"),
        client.post(f"/admin/jobs/taskresult/{one.pk}/{page}/", {"confirmed": "yes"}),
    ):
        assert answer.status_code in (200, 302, 403, 404)
        assert SECRET not in answer.content.decode()
    one.refresh_from_db()
    assert one.state == "FAILURE"


def test_lists_export_and_errors(client: Client) -> None:
    theirs(state="FAILURE", error_type=f"{SECRET}.Error")
    mine = row(queue="high")
    for query in ("", "?q=" + mine.pk, "?error=tenants", "?queue=low", "?state__exact=FAILURE"):
        page = client.get("/admin/jobs/taskresult/" + query).content.decode()
        assert f"{SECRET}.task" not in page
    shown(client, "/admin/jobs/errors/?range=week")
    fields = {"action": "export_json", "select_across": "1", "_selected_action": "x"}
    answer = client.post("/admin/jobs/taskresult/", fields)
    text = b"".join(answer.streaming_content).decode()  # type: ignore[arg-type]
    assert mine.pk in text
    assert SECRET not in text


def test_the_last_failures_of_tasks(client: Client) -> None:
    one = theirs(task=trace.name, state="FAILURE", error_type=f"{SECRET}.Error")
    looks = staff("jobs.view_queues", "jobs.view_taskresult")
    for url in ("/admin/jobs/tasks/", f"/admin/jobs/tasks/task/{trace.name}/"):
        assert one.pk not in shown(looks, url)


def test_a_call_that_only_the_broker_has(client: Client) -> None:
    """It takes the permission to look at the queues, which shows all of them."""
    sent = Message(task=trace.name, id=message.new_id(), queue="low", args=[SECRET])
    broker.get().push([Outgoing("low", message.encode(sent))])
    for url in (
        f"/admin/jobs/taskresult/{sent.id}/change/",
        f"/admin/jobs/taskresult/?q={sent.id}",
        f"/admin/jobs/queues/call/low/{sent.id}/",
        "/admin/jobs/queues/queue/low/",
        "/admin/jobs/workers/",
        "/admin/jobs/deadletters/",
        "/admin/jobs/dashboard/",
        "/admin/jobs/dashboard/metrics.json",
    ):
        answer = client.get(url)
        assert answer.status_code in (200, 302, 403)
        assert SECRET not in answer.content.decode()
        if answer.status_code == 302:
            assert sent.id not in answer["Location"]


def test_running_again_in_bulk(client: Client) -> None:
    one = theirs(state="FAILURE", error_type="builtins.ValueError")
    fields = {"action": "run_again", "_selected_action": one.pk, "confirmed": "yes"}
    client.post("/admin/jobs/taskresult/", fields)
    group = {"task": one.task, "error_type": one.error_type, "confirmed": "yes"}
    client.post("/admin/jobs/errors/retry/", group)
    one.refresh_from_db()
    assert one.state == "FAILURE"
