"""Acts on all results that match the list's filters: a few at once, many by a task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature, Signer
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, message
from jobs.admin.results import many
from jobs.control import selecting
from jobs.message import Message
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from jobs.tasks import act_on_results, seal_of
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_results import ids_on
from tests.models import Run
from tests.project import Project
from tests.tasks import trace
from tests.workers import ready_worker, work

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/jobs/taskresult/"
TASK = "jobs.act_on_results"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few are acted on at once that ten are many."""
    monkeypatch.setattr(many, "AT_ONCE", 5)


def failures(count: int, **values: Any) -> list[TaskResult]:
    """Failed calls whose messages are kept."""
    rows = []
    for n in range(count):
        sent = Message(task=trace.name, id=message.new_id(), queue="default", args=[str(n)])
        known = {"task": trace.name, "queue": "default", "state": "FAILURE", "attempts": 1}
        error = {"error_type": "builtins.ValueError", "error": "no such order"}
        given = {**known, **error, "message": message.encode(sent), **values}
        rows.append(TaskResult(id=sent.id, finished_at=timezone.now(), **given))
    return TaskResult.objects.bulk_create(rows)


def press(client: Client, action: str, query: str = "", **more: str) -> Any:
    """Choose all that match, of which the page shows some."""
    fields = {"action": action, "select_across": "1", "_selected_action": "x"}
    return client.post(LIST + query, {**fields, **more})


def fields_of(page: Any) -> dict[str, str]:
    """What a page asks with, and the button that says yes."""
    return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.content.decode()))


def confirm(client: Client, page: Any, query: str = "", **more: str) -> Any:
    return client.post(LIST + query, {**fields_of(page), **more})


def said(response: Any) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]


def count(**values: Any) -> int:
    return TaskResult.objects.exclude(task=TASK).filter(**values).count()


# ------------------------------------------------------------------------------ few


def test_few_are_acted_on_at_once(root: Client, broker_url: str) -> None:
    failures(3)
    row()
    kept = failures(2, error_type="builtins.KeyError")
    query = "?error_type=ValueError"
    asked = press(root, "run_again", query)
    assert "3 tasks will be run again" in asked.content.decode()
    keys = re.findall(r'name="_selected_action" value="([^"]+)"', asked.content.decode())
    root.post(LIST + query, {"action": "run_again", "_selected_action": keys, "confirmed": "yes"})
    assert count(state="PENDING") == 3
    assert count(state="FAILURE") == len(kept)
    assert LogEntry.objects.count() == 3
    assert not TaskResult.objects.filter(task=TASK).exists()


def test_few_are_deleted_but_not_what_has_not_ended(root: Client, broker_url: str) -> None:
    ended = failures(3)
    going = row(state="PENDING", finished_at=None)
    asked = press(root, "delete_selected")
    page = asked.content.decode()
    assert "Are you sure" in page
    assert going.pk not in page
    keys = re.findall(r'name="_selected_action" value="([^"]+)"', page)
    assert sorted(keys) == sorted(one.pk for one in ended)
    root.post(LIST, {"action": "delete_selected", "_selected_action": keys, "post": "yes"})
    assert ids_on(root, LIST) == [going.pk]


def test_nothing_fits(root: Client, broker_url: str) -> None:
    row()
    answer = press(root, "run_again")
    assert answer["Location"] == LIST
    assert "any of the results" in said(answer)[0]


# ------------------------------------------------------------------------------ many


@pytest.mark.usefixtures("at_once")
def test_many_are_run_again_by_a_task(root: Client, broker_url: str) -> None:
    failures(10)
    others = failures(3, error_type="builtins.KeyError")
    query = "?error_type=ValueError&state__exact=FAILURE"
    asked = press(root, "run_again", query)
    text = asked.content.decode()
    assert "The results that match now: 10." in text
    assert 'name="select_across" value="1"' in text
    later = failures(1)[0]  # not among those that the question was about
    answer = confirm(root, asked, query)
    assert answer["Location"] == LIST + query
    call = TaskResult.objects.get(task=TASK)
    assert call.state == State.PENDING
    assert f"/admin/jobs/taskresult/{call.pk}/change/" in said(answer)[0]
    entry = LogEntry.objects.get()
    assert entry.object_id == call.pk
    assert "Run again now, all that match: " in entry.change_message
    assert "error_type=ValueError" in entry.change_message
    work()
    call.refresh_from_db()
    assert call.state == State.SUCCESS
    assert json.loads(call.result) == {"done": 10, "left_as_they_are": 0}
    assert Run.objects.count() == 10
    assert count(state="FAILURE") == len(others) + 1
    assert TaskResult.objects.get(pk=later.pk).state == "FAILURE"


@pytest.mark.usefixtures("at_once")
def test_many_are_deleted_with_their_attempts_but_not_what_has_not_ended(
    root: Client, broker_url: str
) -> None:
    ended = failures(10)
    now = timezone.now()
    TaskAttempt.objects.create(
        result=ended[0],
        number=1,
        worker="w",
        finished_at=now,
        error_type="",
        error="",
        traceback="",
    )
    going = [row(state=state, finished_at=None) for state in ("PENDING", "STARTED", "RETRY")]
    confirm(root, press(root, "delete_selected"))
    work()
    assert count() == len(going)
    assert not TaskAttempt.objects.exists()


@pytest.mark.usefixtures("at_once")
def test_many_are_revoked(root: Client, broker_url: str) -> None:
    calls = [trace.delay(str(n)) for n in range(10)]
    waiting = [
        TaskResult(id=call.id, task=trace.name, queue="default", published_at=timezone.now())
        for call in calls
    ]
    TaskResult.objects.bulk_create(waiting)
    row()
    query = f"?task={trace.name}"
    asked = press(root, "revoke", query)
    assert 'name="terminate"' in asked.content.decode()
    fields = {k: v for k, v in fields_of(asked).items() if k != "terminate"}
    root.post(LIST + query, fields)
    (sent,) = TaskResult.objects.filter(task=TASK)
    assert "terminate" not in sent.kwargs
    # The act is behind the calls on the queue: it is run here, before them.
    found = act_on_results("revoke", json.loads(sent.args)[1], json.loads(sent.args)[2])
    assert found["done"] == 10
    work()
    assert not Run.objects.exists()
    assert count(state="REVOKED") == 10


def test_a_search_that_was_cut_is_never_done_at_once(
    root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows a part of what matches; the task finds all of it."""
    failures(2)
    failures(30, queue="low")
    monkeypatch.setattr(selecting, "LOOKED_AT", 20)
    query = "?queue=default&state__exact=FAILURE"
    assert ids_on(root, LIST + query) == []
    asked = press(root, "run_again", query)
    assert "more than 0" in asked.content.decode()
    confirm(root, asked, query)
    work(["default"])
    assert Run.objects.count() == 2


# ------------------------------------------------------------------------------ who may


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("action", ["run_again", "revoke", "delete_selected"])
def test_each_act_needs_its_permission(broker_url: str, action: str) -> None:
    failures(10)
    client = staff("jobs.view_taskresult")
    question = {"confirmed": "yes", "in_background": "yes", "until": timezone.now().isoformat()}
    assert press(client, action).status_code == 403
    assert press(client, action, **question).status_code == 403
    assert press(Client(), action, **question).status_code == 302
    assert not TaskResult.objects.filter(task=TASK).exists()
    assert Client(enforce_csrf_checks=True).post(LIST, question).status_code == 403


def test_the_permission_is_checked_again_when_the_task_runs(broker_url: str) -> None:
    failures(10)
    staff("jobs.view_taskresult", "jobs.retry_taskresult")
    user = User.objects.get()
    user.user_permissions.clear()
    with pytest.raises(PermissionDenied):
        act_on_results("retry", {}, str(user.pk))
    User.objects.update(is_superuser=True, is_active=False)
    with pytest.raises(PermissionDenied):
        act_on_results("retry", {}, str(user.pk))
    assert count(state="FAILURE") == 10


@pytest.mark.usefixtures("at_once")
def test_nobody_acts_as_somebody_else(root: Client, broker_url: str) -> None:
    """Not even who may run tasks with arguments of their choice, or knows another call's."""
    failures(10)
    confirm(root, press(root, "delete_selected"))
    sent = TaskResult.objects.get(task=TASK)
    args = json.loads(sent.args)
    assert len(args) == 4
    TaskResult.objects.filter(pk=sent.pk).delete()
    admin = str(User.objects.get(is_superuser=True).pk)
    forged = [
        act_on_results.delay("forget", {}, admin),
        act_on_results.delay("forget", {}, admin, "x"),
        act_on_results.delay(*args),  # under another id
        act_on_results.apply_async(("retry", *args[1:]), task_id=sent.pk + "x"),
    ]
    work()
    for one in forged:
        found = TaskResult.objects.get(pk=one.id)
        assert found.error_type == "django.core.exceptions.PermissionDenied"
    # The one that was really sent.
    assert TaskResult.objects.get(pk=sent.pk).state == "SUCCESS"


def test_a_filter_is_checked_again_when_the_task_runs(broker_url: str) -> None:
    user = User.objects.create_superuser("root")
    with pytest.raises(ValueError, match="no state"):
        act_on_results("retry", {"state": "DONE"}, str(user.pk))


def only_high(request: Any, rows: Any) -> Any:
    return rows if request.user.is_superuser else rows.filter(queue="high")


@pytest.mark.usefixtures("at_once")
def test_the_task_touches_only_what_the_person_sees(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "ADMIN_QUERYSET": f"{__name__}.only_high"}
    failures(10)
    own = failures(10, queue="high")
    client = staff("jobs.view_taskresult", "jobs.delete_taskresult")
    confirm(client, press(client, "delete_selected"))
    work()
    assert count(queue="high") == 0, own
    assert count(queue="default") == 10


def test_a_filter_that_means_nothing_acts_on_nothing(root: Client, broker_url: str) -> None:
    failures(3)
    answer = press(root, "delete_selected", "?sent=nonsense")
    assert "There is no period" in said(answer)[0]
    assert count() == 3


# ------------------------------------------------------------------------------ real workers


def test_more_than_a_thousand_with_a_bar_and_a_stop(
    project: Project, client: Client, tmp_path: Path
) -> None:
    client.force_login(User.objects.create_superuser("root"))
    # On a queue that the worker doesn't claim from, so that they wait once they are run again.
    failures(4000, queue="low")
    ready_worker(project, "--processes", "1", "--queues", "default")
    answer = confirm(client, press(client, "run_again"))
    (call,) = TaskResult.objects.filter(task=TASK)
    page = f"{LIST}{call.pk}/change/"
    assert page in said(answer)[0]
    project.wait_for(lambda: "<progress" in client.get(page).content.decode())
    stats = broker.get().stats
    project.wait_for(lambda: stats("low").waiting > 100)
    shown = re.search(r"of 4,000 \((\d+) %\)", client.get(page).content.decode())
    assert shown is not None
    # Without an end of its process.
    client.post(f"{LIST}{call.pk}/revoke/", {"confirmed": "yes"})
    project.wait_for(lambda: TaskResult.objects.get(pk=call.pk).state == State.REVOKED)
    call.refresh_from_db()
    done = count(state="PENDING")
    assert 100 <= done < 4000
    assert call.error == f"stopped after {done} of them"
    assert count(state="FAILURE") == 4000 - done


def test_another_worker_goes_on_where_one_stopped(project: Project, client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))
    failures(1500, queue="low")
    first = ready_worker(project, "--processes", "1", "--queues", "default")
    confirm(client, press(client, "run_again"))
    stats = broker.get().stats
    project.wait_for(lambda: stats("low").waiting > 100)
    assert first.stop() == 0
    assert 100 < stats("low").waiting < 1500
    ready_worker(project, "--processes", "1", "--queues", "default")
    project.wait_for(lambda: TaskResult.objects.get(task=TASK).state == State.SUCCESS)
    call = TaskResult.objects.get(task=TASK)
    assert json.loads(call.result) == {"done": 1500, "left_as_they_are": 0}
    assert stats("low").waiting == count(state="PENDING") == 1500


def test_a_worker_that_knows_no_labels_refuses_to_act_on_one() -> None:
    """It would pass over the filter, and act on more: the seal has another form."""
    asked: dict[str, Any] = {"label": "import", "state": "FAILURE"}
    before = json.dumps(["id-1", "retry", asked, "1", {}], sort_keys=True)
    seal = seal_of("id-1", "retry", asked, "1", {})
    with pytest.raises(BadSignature):
        Signer(salt="jobs.act_on_results").unsign(f"{before}:{seal}")
    # Of filters that it knows, it has the form that they always had.
    del asked["label"]
    before = json.dumps(["id-1", "retry", asked, "1", {}], sort_keys=True)
    seal = seal_of("id-1", "retry", asked, "1", {})
    assert Signer(salt="jobs.act_on_results").unsign(f"{before}:{seal}") == before


def test_many_of_one_label(root: Client, broker_url: str, at_once: None) -> None:
    failures(6, label="import")
    kept = failures(2)
    query = "?label=import"
    confirm(root, press(root, "run_again", query), query)
    work()
    assert count(label="import", state="SUCCESS") == 6
    assert count(state="FAILURE") == len(kept)
