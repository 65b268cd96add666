"""Running results again and revoking them, from the list and from a result's page."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from jobs import broker, message
from jobs.broker.base import Outgoing, Revocation
from jobs.message import Message
from jobs.models import TaskAttempt, TaskResult
from tests.integration.admin.conftest import SIGN_IN, row, staff
from tests.services import Valkey
from tests.tasks import trace

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/taskresult/"
AGAIN, REVOKE = "again", "revoke"
MAY = {
    AGAIN: ("jobs.view_taskresult", "jobs.retry_taskresult"),
    REVOKE: ("jobs.view_taskresult", "jobs.revoke_taskresult"),
}
ACTIONS = {AGAIN: "run_again", REVOKE: "revoke"}


def page(result: TaskResult, verb: str = "change") -> str:
    return f"{LIST}{quote(result.pk)}/{verb}/"


def said(response: Any) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]


def stored(**values: Any) -> TaskResult:
    """A row that has its message."""
    task_id = message.new_id()
    sent = Message(task="shop.tasks.send_receipt", id=task_id, queue="default", args=[17])
    return row(id=task_id, **{"message": message.encode(sent), **values})


def failed(**values: Any) -> TaskResult:
    error = {"error_type": "builtins.ValueError", "error": "no such order"}
    return stored(**{"state": "FAILURE", **error, **values})


def retried() -> TaskResult:
    """A row that waits for its next attempt, with the message that does."""
    found = failed(state="RETRY", eta=timezone.now() + dt.timedelta(hours=1))
    broker.get().push([Outgoing("default", bytes(found.message), 0, found.eta.timestamp())])
    return found


def states() -> list[str]:
    return sorted(TaskResult.objects.values_list("state", flat=True))


def counts() -> tuple[int, int]:
    """Waiting and due."""
    stats = broker.get().stats("default")
    return stats.waiting, stats.due


def chosen(verb: str, *rows: TaskResult) -> dict[str, Any]:
    return {"action": ACTIONS[verb], "_selected_action": [r.pk for r in rows]}


# ------------------------------------------------------------------------------ run again


def test_a_failed_result_is_run_again_after_a_question(
    root: Client, broker_url: str, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    result = failed()
    url = page(result, AGAIN)
    assert f'action="{url}"' in root.get(page(result)).content.decode()
    asked = root.post(url).content.decode()
    assert "1 task will be run again, with all its retries." in asked
    assert f'href="{page(result)}"' in asked
    assert (states(), counts()) == (["FAILURE"], (0, 0))
    with django_capture_on_commit_callbacks(execute=True):
        response = root.post(url, {"confirmed": "yes"})
    assert response["Location"] == page(result)
    assert said(response) == ["1 task is run again."]
    assert (states(), counts()) == (["PENDING"], (1, 0))
    assert "again" in LogEntry.objects.get().get_change_message()


def test_what_waits_for_a_retry_is_tried_without_a_question(root: Client, broker_url: str) -> None:
    result = retried()
    assert "Try again now" in root.get(page(result)).content.decode()
    response = root.post(page(result, AGAIN))
    assert said(response) == ["1 task is run again."]
    assert len(broker.get().claim("default", "w", 1, 9, 15.0).messages) == 1
    assert "It was due again at" in root.get(page(result)).content.decode()


def test_what_has_gone_on_meanwhile_is_told(root: Client, broker_url: str) -> None:
    result = failed(state="RETRY", eta=timezone.now() + dt.timedelta(hours=1))
    response = root.post(page(result, AGAIN))
    assert said(response) == ["1 has changed meanwhile, or its message is not kept: look again."]
    bare = failed(message=b"")
    response = root.post(page(bare, AGAIN), {"confirmed": "yes"})
    assert "its message is not kept" in said(response)[-1]
    assert states() == ["FAILURE", "RETRY"]


def test_dead_letters_are_put_back_from_their_own_page(root: Client, broker_url: str) -> None:
    for kind in ("UnknownTask", "WorkerLost", "Reject"):
        result = failed(error_type=f"jobs.exceptions.{kind}")
        shown = root.get(page(result)).content.decode()
        assert 'id="jobs-again"' not in shown
        assert 'class="button" href="/admin/jobs/queues/dead/default/"' in shown
        response = root.post(page(result, AGAIN), {"confirmed": "yes"})
        assert "from their own page" in said(response)[-1]
    assert states() == ["FAILURE"] * 3


def test_many_are_run_again_from_the_list(
    root: Client, broker_url: str, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    rows = [failed(), failed(state="REVOKED"), retried(), row()]
    asked = root.post(LIST, chosen(AGAIN, *rows)).content.decode()
    assert "3 tasks will be run again" in asked
    assert "1 is left as it is" in asked
    fields = re.findall(r'name="([^"]+)" value="([^"]*)"', asked)
    again: dict[str, list[str]] = {}
    for name, value in fields:
        again.setdefault(name, []).append(value)
    assert "confirmed" in again
    with django_capture_on_commit_callbacks(execute=True):
        response = root.post(LIST, again)
    assert response["Location"] == LIST
    assert said(response)[0] == "3 tasks are run again."
    assert states() == ["PENDING", "PENDING", "RETRY", "SUCCESS"]
    assert len(broker.get().claim("default", "w", 1, 9, 15.0).messages) == 3


def test_the_question_names_some_and_counts_the_others(root: Client, broker_url: str) -> None:
    rows = [failed() for _ in range(13)]
    asked = root.post(LIST, chosen(AGAIN, *rows)).content.decode()
    assert asked.count("<li>shop.tasks.send_receipt") == 10
    assert "and 3 more" in asked


# ------------------------------------------------------------------------------ revoke


def test_revoking_asks_first(root: Client, broker_url: str) -> None:
    result = row(state="PENDING", finished_at=None)
    assert f'action="{page(result, REVOKE)}"' in root.get(page(result)).content.decode()
    asked = root.post(page(result, REVOKE)).content.decode()
    assert "1 task will be revoked" in asked
    assert 'name="terminate"' in asked
    assert broker.get().revoked("default", [result.pk]) == [Revocation.NONE]
    response = root.post(page(result, REVOKE), {"confirmed": "yes"})
    assert "1 task is revoked." in said(response)[0]
    assert broker.get().revoked("default", [result.pk]) == [Revocation.REVOKED]
    shown = root.get(page(result)).content.decode()
    assert "It is revoked: a worker will end it when its turn comes." in shown


def test_revoking_with_termination(root: Client, broker_url: str) -> None:
    result = row(state="PENDING", finished_at=None)
    root.post(page(result, REVOKE), {"confirmed": "yes", "terminate": "yes"})
    assert broker.get().revoked("default", [result.pk]) == [Revocation.TERMINATE]


def test_a_revoked_retry_is_seen_to_at_once(root: Client, broker_url: str) -> None:
    result = retried()
    root.post(page(result, REVOKE), {"confirmed": "yes"})
    claim = broker.get().claim("default", "w", 1, 9, 15.0)
    assert (len(claim.messages), claim.revocations) == (1, True)


def test_what_is_due_in_a_week_stays_revoked_until_then(root: Client, own_valkey: Valkey) -> None:
    result = row(state="PENDING", finished_at=None, eta=timezone.now() + dt.timedelta(days=7))
    root.post(page(result, REVOKE), {"confirmed": "yes"})
    with own_valkey.client() as client:
        ((_id, until),) = client.zrange("{default}:revoked", 0, -1, withscores=True)
    assert dt.datetime.fromtimestamp(until / 1000, dt.UTC) > result.eta + dt.timedelta(hours=23)


def test_what_has_ended_is_not_revoked(root: Client, broker_url: str) -> None:
    rows = [row(), failed(), row(state="REVOKED"), row(state="PENDING")]
    for ended in rows[:3]:
        assert 'id="jobs-revoke"' not in root.get(page(ended)).content.decode()
    response = root.post(LIST, {**chosen(REVOKE, *rows), "confirmed": "yes"})
    assert "1 task is revoked." in said(response)[0]
    assert said(response)[1] == "3 are left as they are: they have ended."


# ------------------------------------------------------------------------------ permissions


@pytest.fixture
def one(broker_url: str) -> dict[str, TaskResult]:
    """A result for each verb."""
    return {AGAIN: failed(), REVOKE: row(state="PENDING")}


def untouched(one: dict[str, TaskResult]) -> bool:
    known = broker.get().revoked("default", [one[REVOKE].pk]) == [Revocation.NONE]
    return known and states() == ["FAILURE", "PENDING"] and counts() == (0, 0)


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_anonymous_people_are_sent_to_sign_in(one: dict[str, TaskResult], verb: str) -> None:
    for url, values in (
        (page(one[verb], verb), {"confirmed": "yes"}),
        (LIST, {**chosen(verb, one[verb]), "confirmed": "yes"}),
    ):
        response = Client().post(url, values)
        assert response.status_code == 302
        assert response["Location"].startswith(SIGN_IN)
    assert untouched(one)


@pytest.mark.parametrize(
    "permissions",
    [
        (),
        ("jobs.view_taskresult",),
        ("jobs.view_taskresult", "jobs.delete_taskresult", "jobs.change_taskresult"),
        ("jobs.manage_queues",),
        "the other verb's",
        "without looking",
    ],
)
@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_each_verb_needs_its_permission(
    one: dict[str, TaskResult], verb: str, permissions: Any
) -> None:
    if permissions == "the other verb's":
        permissions = MAY[REVOKE if verb == AGAIN else AGAIN]
    elif permissions == "without looking":
        permissions = MAY[verb][1:]
    client = staff(*permissions)
    confirmed = {"confirmed": "yes"}
    assert client.post(page(one[verb], verb), confirmed).status_code == 403
    assert client.get(page(one[verb], verb)).status_code == 403
    client.post(LIST, {**chosen(verb, one[verb]), **confirmed})
    assert untouched(one)
    if "jobs.view_taskresult" in permissions:
        assert f'id="jobs-{verb}"' not in client.get(page(one[verb])).content.decode()
        assert f'value="{ACTIONS[verb]}"' not in client.get(LIST).content.decode()


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_with_its_permission(one: dict[str, TaskResult], verb: str) -> None:
    client = staff(*MAY[verb])
    assert f'id="jobs-{verb}"' in client.get(page(one[verb])).content.decode()
    assert f'value="{ACTIONS[verb]}"' in client.get(LIST).content.decode()
    assert "Are you sure?" in client.post(page(one[verb], verb)).content.decode()
    assert "Are you sure?" in client.post(LIST, chosen(verb, one[verb])).content.decode()
    assert untouched(one)
    assert client.post(page(one[verb], verb), {"confirmed": "yes"}).status_code == 302
    assert not untouched(one)


def test_the_link_to_dead_letters_needs_its_permission(broker_url: str) -> None:
    result = failed(error_type="jobs.exceptions.UnknownTask")
    link = 'href="/admin/jobs/queues/dead/default/"'
    assert link not in staff("jobs.view_taskresult").get(page(result)).content.decode()
    client = staff("jobs.view_taskresult", "jobs.view_queues")
    assert link in client.get(page(result)).content.decode()


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_looking_does_nothing(root: Client, one: dict[str, TaskResult], verb: str) -> None:
    response = root.get(page(one[verb], verb), {"confirmed": "yes"})
    assert response["Location"] == page(one[verb])
    root.get(LIST, {"action": ACTIONS[verb], "confirmed": "yes"})
    assert untouched(one)


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_protected_from_other_sites(root: Client, one: dict[str, TaskResult], verb: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(page(one[verb], verb), {"confirmed": "yes"}).status_code == 403
    values = {**chosen(verb, one[verb]), "confirmed": "yes"}
    assert strict.post(LIST, values).status_code == 403
    assert untouched(one)


# ------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_a_result_that_is_gone(root: Client, broker_url: str, verb: str) -> None:
    response = root.post(f"{LIST}nobody/{verb}/", {"confirmed": "yes"})
    assert response["Location"] == LIST
    assert said(response) == ["This result is not there any more."]


@pytest.mark.parametrize("verb", [AGAIN, REVOKE])
def test_redis_away(root: Client, own_valkey: Valkey, verb: str) -> None:
    result = failed() if verb == AGAIN else row(state="PENDING")
    own_valkey.kill()
    assert root.get(page(result)).status_code == 200
    response = root.post(page(result, verb), {"confirmed": "yes"})
    assert response.status_code == 302
    assert "can't be used" in said(response)[0]
    assert states() == [result.state]


def test_ids_of_any_kind(root: Client, broker_url: str) -> None:
    result = row(id="a/b_c<i>", state="PENDING")
    asked = root.post(page(result, REVOKE)).content.decode()
    assert "a/b_c&lt;i&gt;" in asked
    response = root.post(page(result, REVOKE), {"confirmed": "yes"})
    assert response["Location"] == page(result)
    assert root.get(page(result)).status_code == 200


# ------------------------------------------------------------------------------ attempts


def attempt(result: TaskResult, number: int, **values: Any) -> TaskAttempt:
    now = timezone.now()
    defaults = {
        "worker": f"worker-{number}",
        "started_at": now - dt.timedelta(seconds=4),
        "finished_at": now,
        "error_type": "builtins.ValueError",
        "error": f"failure {number}",
        "traceback": f"Traceback\n  number {number}",
    }
    return TaskAttempt.objects.create(result=result, number=number, **{**defaults, **values})


def test_failed_attempts_are_shown_in_order(root: Client, broker_url: str) -> None:
    result = row(attempts=3)
    for number in (2, 1):
        attempt(result, number)
    shown = root.get(page(result)).content.decode()
    lines = re.findall(r'<tr><th scope="row">(\d+)</th>(.*?)</tr>', shown, re.DOTALL)
    assert [number for number, _rest in lines] == ["1", "2"]
    assert "4 s" in lines[0][1]
    assert "worker-1" in lines[0][1]
    assert "ValueError: failure 1" in lines[0][1]
    assert "<details><summary>Traceback</summary>" in lines[0][1]
    assert "Traceback\n  number 1" in lines[0][1]


def test_failed_attempts_are_escaped_and_bounded(root: Client, broker_url: str) -> None:
    script = "<script>alert('x')</script>"
    result = row(state="RETRY", attempts=70)
    for number in range(1, 71):
        attempt(
            result,
            number,
            started_at=None,
            worker=script,
            error_type=script,
            error=script,
            traceback=script + "x" * 30_000,
        )
    shown = root.get(page(result)).content.decode()
    assert "<script>alert" not in shown
    assert shown.count("<details>") == 50
    assert "Older ones are not shown." in shown
    assert len(shown) < 1_200_000


def test_a_first_attempt_has_none_before_it(root: Client, broker_url: str) -> None:
    assert "Failed attempts" not in root.get(page(row())).content.decode()
    assert "None are kept." in root.get(page(row(attempts=2))).content.decode()


def test_what_waits_for_a_retry_is_listed_with_its_error_and_time(
    root: Client, broker_url: str
) -> None:
    retried()
    row(state="SUCCESS")
    plain = root.get(LIST).content.decode()
    assert re.search(r"jobs-why\">attempt 2 in (59|1 h)", plain)
    assert "?state__exact=RETRY" in plain
    listed = root.get(f"{LIST}?state__exact=RETRY").content.decode()
    assert listed.count('class="jobs-id"') == 1
    assert "ValueError: no such order" in listed
    assert "column-next_attempt" in listed
    assert re.search(r"in (59 min|1 h)", listed)
    assert "column-worker" not in listed
    assert "column-state_badge" not in listed


def test_the_list_of_retries_costs_as_much_as_any(
    root: Client, broker_url: str, django_assert_num_queries: Any
) -> None:
    for _ in range(20):
        failed(state="RETRY", eta=timezone.now())
    with django_assert_num_queries(4):
        root.get(f"{LIST}?state__exact=RETRY")


# ------------------------------------------------------------------------ pausing its task


def test_from_a_result_to_the_pause_of_its_task() -> None:
    known = row(id="known", task=trace.name)
    url = f"/admin/jobs/queues/pause-task/?task={trace.name}"
    may = ("jobs.view_taskresult", "jobs.manage_queues")
    assert url in staff(*may).get(page(known)).content.decode()
    assert "pause-task" not in staff("jobs.view_taskresult").get(page(known)).content.decode()
    gone = row(id="gone", task="shop.tasks.nothing")
    assert "pause-task" not in staff(*may).get(page(gone)).content.decode()
