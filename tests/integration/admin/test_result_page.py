"""The page of one result: what runs now, every attempt's times, the workflow, and who sent it."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db import transaction
from django.test import Client
from django.utils import timezone

from jobs import broker, chain, chord, control, task
from jobs.admin.results import graph, times, tracebacks
from jobs.broker.base import About, Note, Outgoing
from jobs.models import Schedule, ScheduleRun, TaskAttempt, TaskResult
from jobs.states import State
from tests.integration.admin.conftest import row, staff
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, echo, fail, fail_hourly, wait_at
from tests.workers import work

LIST = "/admin/jobs/taskresult/"


@task(sensitive=["password"])
def login(name: str, password: str) -> None:
    raise ValueError("no")


def url(pk: str, name: str = "change") -> str:
    return f"{LIST}{quote(pk)}/{name}/"


def page(client: Client, pk: str, name: str = "change") -> str:
    response = client.get(url(pk, name))
    assert response.status_code == 200
    return response.content.decode()


def field(html: str, name: str) -> str:
    """The text of one field of the page."""
    found = re.search(
        rf'form-row[^"]* field-{name}".*?<div class="readonly">(.*?)</div>', html, re.S
    )
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split()) if found else ""


def steps(html: str) -> list[str]:
    found = re.search(r'class="jobs-timeline".*?</table>', html, re.S)
    assert found is not None
    return re.findall(r'<th scope="row">([^<]+)</th>', found[0])


# ------------------------------------------------------------------------------ what runs now


@pytest.mark.django_db(transaction=True)
def test_a_running_call_says_where_since_when_and_how_often(
    project: Project, root: Client, tmp_path: Path
) -> None:
    with transaction.atomic():
        sent = wait_at.delay(str(tmp_path))
    html = page(root, sent.id)
    assert "In queue “default”" in field(html, "in_words")
    before = timezone.now()
    project.manage("runworker", "--processes", "1")
    wait_for(lambda: list(tmp_path.glob("arrived-*")), what="the call to run")
    wait_for(lambda: "started" in field(page(root, sent.id), "in_words"), what="its report")
    html = page(root, sent.id)
    worker = field(html, "worker")
    assert f"Runs on {worker} since" in field(html, "in_words")
    assert field(html, "attempts") == "1"
    assert steps(html)[-1] == "Started"
    assert "Put on the queue" in steps(html)
    listed = root.get(LIST).content.decode()
    assert "jobs-state-started" in listed
    assert worker in listed
    # Nothing of it is in the ledger: no second write for each task.
    stored = TaskResult.objects.get()
    assert (stored.state, stored.worker, stored.started_at) == (State.PENDING, "", None)
    # The part that refreshes itself.
    live = root.get(url(sent.id, "live"), {"was": State.STARTED})
    assert "HX-Refresh" not in live.headers
    assert f"Runs on {worker}" in field(live.content.decode(), "in_words")
    Path(tmp_path, "open").touch()
    assert sent.get(timeout=60)
    live = root.get(url(sent.id, "live"), {"was": State.STARTED})
    assert live.headers["HX-Refresh"] == "true"
    ended = TaskResult.objects.get()
    assert ended.worker == worker
    assert ended.started_at is not None
    assert before <= ended.started_at
    assert "jobs-live" not in page(root, sent.id)


@pytest.mark.django_db(transaction=True)
def test_a_running_call_that_the_ledger_does_not_know_has_a_page(
    project: Project, root: Client, tmp_path: Path
) -> None:
    sent = wait_at.delay(str(tmp_path))
    project.manage("runworker", "--processes", "1")
    wait_for(lambda: root.get(url(sent.id)).status_code == 200, what="its report")
    html = page(root, sent.id)
    assert not TaskResult.objects.exists()
    assert "Runs on" in field(html, "in_words")
    assert str(tmp_path) in html
    assert 'id="jobs-revoke"' in html
    # It can't be deleted, and nothing of it is saved by looking.
    asked = root.post(url(sent.id, "delete"), {"post": "yes"}, follow=True).content.decode()
    assert "Revoke it first" in asked
    assert staff().get(url(sent.id)).status_code in (302, 403)
    root.post(url(sent.id, "revoke"), {"confirmed": "yes", "terminate": "yes"})
    wait_for(lambda: TaskResult.objects.filter(state=State.REVOKED).exists(), what="its end")
    assert LogEntry.objects.get().object_id == sent.id


@pytest.mark.django_db
def test_the_live_part_is_for_those_who_may_see_it(root: Client, broker_url: str) -> None:
    result = row(state="PENDING")
    assert staff().get(url(result.pk, "live")).status_code == 403
    assert Client().get(url(result.pk, "live")).status_code == 302
    assert 'id="jobs-live"' in page(root, result.pk)
    for state in ("", "RETRY", "no state"):
        assert "HX-Refresh" in root.get(url(result.pk, "live"), {"was": state}).headers
    assert "HX-Refresh" in root.get(url("nobody", "live"), {"was": "PENDING"}).headers


@pytest.mark.django_db
def test_a_report_of_another_version_is_no_trouble(root: Client, broker_url: str) -> None:
    result = row(state="PENDING")
    for text in (b"{}", b"no json", b'{"running": 5}', b'{"running": [["default"]]}', b"[]"):
        broker.get().report("default", "strange", text)
        assert "In queue" in field(page(root, result.pk), "in_words")


@pytest.mark.django_db
def test_with_the_broker_away_the_ledger_speaks(root: Client, own_valkey: Any) -> None:
    result = row(state="PENDING")
    own_valkey.kill()
    assert "In queue" in field(page(root, result.pk), "in_words")
    assert root.get(LIST).status_code == 200


# ------------------------------------------------------------------------------ times


@pytest.mark.django_db(transaction=True)
def test_a_call_outside_a_transaction_waited_on_its_queue(root: Client, broker_url: str) -> None:
    sent = echo.delay(1)
    work()
    result = TaskResult.objects.get(pk=sent.id)
    assert result.published_at == result.created_at
    assert steps(page(root, sent.id)) == ["Sent", "Put on the queue", "Started", "Finished"]


@pytest.mark.django_db(transaction=True)
def test_the_times_of_every_attempt(root: Client, broker_url: str) -> None:
    sent = fail.delay("wrong")
    work()
    assert control.retry(sent.id, by="ada")
    work()
    html = page(root, sent.id)
    assert steps(html) == [
        "Sent",
        "Attempt 1 started",
        "Attempt 1 failed: ValueError",
        "Run again by ada",
        "Put on the queue",
        "Attempt 2 started",
        "Finished",
    ]
    assert "Run again by ada at" in field(html, "in_words")
    assert "Times are in" in html
    waited = re.search(r'jobs-took">waited ([^<]+)<', root.get(LIST).content.decode())
    result = TaskResult.objects.get()
    assert waited is not None
    assert result.published_at is not None
    assert result.started_at is not None
    assert result.published_at <= result.started_at


def test_the_steps_of_a_retried_call() -> None:
    at = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)

    def after(seconds: int) -> dt.datetime:
        return at + dt.timedelta(seconds=seconds)

    first = TaskAttempt(
        number=1,
        started_at=after(1),
        finished_at=after(2),
        error_type="builtins.ValueError",
        retry_at=after(60),
    )
    result = TaskResult(
        state=State.RETRY,
        attempts=1,
        created_at=at,
        published_at=at,
        started_at=after(1),
        eta=after(60),
    )
    expected = [
        (at, "Sent"),
        (at, "Put on the queue"),
        (after(1), "Attempt 1 started"),
        (after(2), "Attempt 1 failed: ValueError"),
        (after(60), "Attempt 2 due"),
    ]
    assert times.steps(result, [first]) == expected
    result.state, result.attempts = State.STARTED, 2
    result.started_at = after(61)
    assert times.steps(result, [first]) == [*expected, (after(61), "Attempt 2 started")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("outside", [True, False])
def test_when_it_was_due_first_is_kept_through_retries(
    root: Client, broker_url: str, outside: bool
) -> None:
    with contextlib.nullcontext() if outside else transaction.atomic():
        sent = fail_hourly.apply_async(("no",), countdown=0.01)
    wait_for(lambda: work() or TaskResult.objects.filter(state=State.RETRY).exists())
    result = TaskResult.objects.get()
    (first,) = result.failed_attempts.all()
    assert first.eta is not None
    assert first.eta <= first.started_at
    told, *before, started, failed, due = steps(page(root, sent.id))
    assert (told, started) == ("Sent", "Attempt 1 started")
    assert (failed, due) == ("Attempt 1 failed: ValueError", "Attempt 2 due")
    # In which order depends on how long the commit took.
    assert sorted(before) == ["Not before", "Put on the queue"]
    assert control.retry_now(sent.id)
    work()
    second = result.failed_attempts.get(number=2)
    assert second.eta is None


@pytest.mark.django_db(transaction=True)
def test_a_call_that_is_run_again_keeps_it_too(root: Client, broker_url: str) -> None:
    sent = fail.apply_async(("no",), countdown=0.01)
    wait_for(lambda: work() or TaskResult.objects.exists())
    assert control.retry(sent.id, by="ada")
    work()
    assert steps(page(root, sent.id)).count("Not before") == 1


@pytest.mark.django_db
def test_rows_of_former_versions_claim_no_false_time(root: Client) -> None:
    now = timezone.now()
    assert "Put on the queue" not in steps(page(root, row(published_at=now, started_at=now).pk))


# ------------------------------------------------------------------------------ tracebacks

TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.12/site-packages/jobs/worker/run/executor.py", line 116, in run
    result = task(*sent.args, **sent.kwargs)
             ^^^^^^^^
  File "/srv/shop/<b>tasks.py", line 9, in bill
    charge(order)
  File "/srv/venv/lib/python3.12/site-packages/stripe/api.py", line 1, in charge
    raise ValueError("no")
  File "/srv/venv/lib/python3.12/site-packages/stripe/api.py", line 2, in more
    raise ValueError("no")
ValueError: no
"""


def test_the_frames_of_libraries_are_folded() -> None:
    html = tracebacks.shown(TRACEBACK)
    assert re.findall(r"<summary>([^<]+)", html) == [
        "1 frame of a library",
        "2 frames of libraries",
    ]
    (own,) = re.findall(r'<pre class="jobs-own">(.*?)</pre>', html, re.S)
    assert own == (
        "  File &quot;/srv/shop/&lt;b&gt;tasks.py&quot;, line 9, in bill\n    charge(order)\n"
    )
    assert re.findall(r'<pre class="jobs-said">(.*?)</pre>', html, re.S)[-1] == "ValueError: no\n"
    # All lines are there, in their order.
    text = re.sub(r"<summary>.*?</summary>|<[^>]+>", "", html)
    assert text.replace("&quot;", '"').replace("&lt;b&gt;", "<b>") == TRACEBACK


@pytest.mark.parametrize("text", ["", "boom", TRACEBACK.replace("/srv/shop", "/site-packages/x")])
def test_without_own_frames_nothing_is_folded(text: str) -> None:
    assert "<details>" not in tracebacks.shown(text)


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/srv/shop/tasks.py", True),
        ("C:\\shop\\tasks.py", True),
        ("C:\\venv\\Lib\\site-packages\\x.py", False),
        ("/usr/lib/python3/dist-packages/x.py", False),
        ("/usr/lib/python3.12/json/decoder.py", False),
        ("<frozen importlib._bootstrap>", False),
        (graph.__file__, False),
        (__file__, True),
    ],
)
def test_whose_file_it_is(path: str, own: bool) -> None:
    assert tracebacks.is_own(path) is own


@pytest.mark.django_db
def test_errors_like_this(root: Client) -> None:
    result = row(state="FAILURE", error_type="a.B<Error", error="no")
    assert 'taskresult/?error_type=a.B%3CError"' in page(root, result.pk)


# ------------------------------------------------------------------------------ the workflow


def boxes(html: str) -> list[tuple[str, str]]:
    """Name and state of each call in the drawing."""
    return re.findall(r'class="jobs-node-name">([^<]*)</text><text[^>]*>([^<]*)<', html)


def edges(row: TaskResult) -> set[tuple[str, str]]:
    nodes = {node.id: node for node in graph.of(row).nodes}
    return {(nodes[one].name, node.name) for node in nodes.values() for one in node.after}


@pytest.mark.django_db(transaction=True)
def test_a_chord_is_drawn_from_its_beginning_to_its_end(root: Client, broker_url: str) -> None:
    result = chain(add.s(1, 2), chord([add.s(1), add.s(2)], echo.s()), echo.s()).delay()
    work()
    result.get(timeout=30)
    (start,) = TaskResult.objects.filter(root_id=None)
    html = page(root, start.pk)
    assert boxes(html) == [
        ("add", "succeeded"),
        ("add 1", "succeeded"),
        ("add 2", "succeeded"),
        ("echo", "succeeded"),
        ("echo", "succeeded"),
    ]
    assert edges(start) >= {
        ("add", "add 1"),
        ("add", "add 2"),
        ("add 1", "echo"),
        ("add 2", "echo"),
    }


@pytest.mark.django_db(transaction=True)
def test_what_will_follow_is_drawn_as_well(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        chain(echo.s([1, 2]), echo.s(), echo.s()).delay()
    (start,) = TaskResult.objects.all()
    assert [state for _name, state in boxes(page(root, start.pk))] == [
        start.get_state_display(),
        "not sent yet",
        "not sent yet",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_waiting_chord_shows_its_body(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        chord([add.s(1, 2), add.s(3, 4)], echo.s()).delay()
    member = TaskResult.objects.filter(group_index=0).get()
    assert ("echo", "not sent yet") in boxes(page(root, member.pk))


@pytest.mark.django_db
def test_of_very_many_calls_some_are_drawn(
    root: Client, django_assert_max_num_queries: Any
) -> None:
    first = row()
    TaskResult.objects.bulk_create(
        TaskResult(
            id=f"{first.pk}-{n}",
            task="a.b",
            queue="default",
            state="SUCCESS",
            root_id=first.pk,
            parent_id=first.pk,
            group_id="g",
            group_index=n,
        )
        for n in range(graph.MOST + 50)
    )
    with django_assert_max_num_queries(12):
        html = page(root, first.pk)
    assert graph.MOST <= len(boxes(html)) <= graph.MOST + 2
    assert "More calls are not shown." in html


@pytest.mark.django_db
def test_forged_rows_in_a_ring_end(root: Client) -> None:
    one = row(id="one", root_id="one", parent_id="two")
    row(id="two", root_id="one", parent_id="one")
    assert len(boxes(page(root, one.pk))) == 2


@pytest.mark.django_db
def test_a_call_alone_has_no_drawing(root: Client, broker_url: str) -> None:
    for state in ("SUCCESS", "PENDING"):
        assert "<svg" not in page(root, row(state=state).pk).partition("jobs-graph")[2]


@pytest.mark.django_db(transaction=True)
def test_the_failing_member_is_linked_from_the_body(root: Client, broker_url: str) -> None:
    body = chord([add.s(1, 2), fail.s("wrong")], echo.s()).delay()
    work()
    failing = TaskResult.objects.get(task=fail.name)
    html = page(root, body.id)
    found = re.search(r"Because of:.*?</ul>", html, re.S)
    assert found is not None
    assert f'href="{url(failing.pk)}"' in found[0]


# ------------------------------------------------------------------------------ who sent it


@pytest.mark.django_db
def test_a_schedule_sent_it(root: Client) -> None:
    nightly = Schedule.objects.create(
        name="nightly", task=echo.name, interval=dt.timedelta(hours=1)
    )
    result = row()
    ScheduleRun.objects.create(
        schedule=nightly, due_at=result.created_at, at=result.created_at, result=result.pk
    )
    html = page(root, result.pk)
    assert field(html, "sender_text").startswith("Schedule nightly , due")
    assert f"/admin/jobs/schedule/{nightly.pk}/change/" in html


@pytest.mark.django_db(transaction=True)
def test_a_process_sent_it(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        sent = echo.delay(1)
    assert field(page(root, sent.id), "sender_text").startswith("Process gen")


# ------------------------------------------------------------------------------ other arguments


@pytest.mark.django_db(transaction=True)
def test_run_with_other_arguments(root: Client, broker_url: str) -> None:
    old = add.delay(1, "two")
    work()
    assert TaskResult.objects.get().state == State.FAILURE
    assert f'href="{url(old.id, "edit")}"' in page(root, old.id)
    assert "[1,&quot;two&quot;]" in page(root, old.id, "edit")
    sent = {"args": "[1, 2]", "kwargs": "{}", "why": "a typo"}
    answer = root.post(url(old.id, "edit"), sent)
    new = TaskResult.objects.exclude(pk=old.id).get()
    assert answer["Location"] == url(new.pk)
    assert new.state == State.PENDING
    work()
    new = TaskResult.objects.exclude(pk=old.id).get()
    assert (new.state, new.result, new.parent_id, new.root_id) == (
        State.SUCCESS,
        "3",
        old.id,
        old.id,
    )
    assert TaskResult.objects.get(pk=old.id).args == '[1,"two"]'
    html = page(root, new.pk)
    assert "Sent with other arguments, in place of" in field(html, "sender_text")
    assert old.id in field(html, "sender_text")
    assert "Reason: a typo" in page(root, old.id)
    assert LogEntry.objects.count() == 2
    assert not any("two" in entry.get_change_message() for entry in LogEntry.objects.all())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ("", "{}", "This field is required."),
        ("[1", "{}", "This is not JSON"),
        ("{}", "{}", "Write a JSON list"),
        ("[1]", "[]", "Write a JSON object"),
        ("[1]", "{}", "missing a required argument"),
        ("[1, 2, 3]", "{}", "too many positional arguments"),
        ("[1]", '{"c": 2}', "c"),
        ("[" * 100_000, "{}", "This is not JSON"),
        ("[" + "9" * 5000 + ", 2]", "{}", ""),
        ('["\\ud800", 2]', "{}", ""),
        ("[1, 2]\0", "{}", "Null characters are not allowed."),
    ],
)
def test_what_the_task_does_not_take_is_not_sent(
    root: Client, broker_url: str, args: str, kwargs: str, said: str
) -> None:
    old = row(task=add.name, args="[1,2]", kwargs="{}")
    response = root.post(url(old.pk, "edit"), {"args": args, "kwargs": kwargs})
    assert response.status_code in (200, 302)
    if said:
        assert said in response.content.decode()
        assert broker.get().stats("default").waiting == 0


@pytest.mark.django_db(transaction=True)
def test_a_hidden_argument_stays_what_it_was(root: Client, broker_url: str) -> None:
    old = login.delay("ada", password="lovelace")
    work()
    html = page(root, old.id, "edit")
    assert "lovelace" not in html
    kwargs = TaskResult.objects.get().kwargs
    root.post(url(old.id, "edit"), {"args": '["bob"]', "kwargs": kwargs})
    (_number, raw) = broker.get().claim("default", "somebody", 1, 1, 60).messages[0]
    assert b"lovelace" not in raw
    broker.get().push([Outgoing("default", raw)])
    work()
    assert "lovelace" not in str(list(TaskResult.objects.values("args", "kwargs")))
    # The message of a success isn't kept, and neither is what it hid.
    gone = row(task=login.name, args='["ada"]', kwargs=kwargs)
    response = root.post(url(gone.pk, "edit"), {"args": '["ada"]', "kwargs": kwargs})
    assert "write it anew" in response.content.decode()


@pytest.mark.django_db
def test_other_arguments_have_a_permission_of_their_own(broker_url: str) -> None:
    old = row(task=add.name, args="[1,2]", kwargs="{}", state="FAILURE")
    sent = {"args": "[1,2]", "kwargs": "{}"}
    for permissions in (
        (),
        ("jobs.view_taskresult",),
        ("jobs.view_taskresult", "jobs.retry_taskresult"),
        ("jobs.edit_taskresult",),
    ):
        client = staff(*permissions)
        assert client.get(url(old.pk, "edit")).status_code == 403
        assert client.post(url(old.pk, "edit"), sent).status_code == 403
    assert broker.get().stats("default").waiting == 0
    allowed = staff("jobs.view_taskresult", "jobs.edit_taskresult")
    assert allowed.get(url(old.pk, "edit")).status_code == 200
    forging = Client(enforce_csrf_checks=True)
    forging.cookies = allowed.cookies
    assert forging.post(url(old.pk, "edit"), sent).status_code == 403


@pytest.mark.django_db
def test_what_goes_on_or_is_unknown_has_no_other_arguments(root: Client, broker_url: str) -> None:
    for result in (row(task=add.name, state="PENDING"), row(task="removed.long_ago")):
        assert "edit/" not in page(root, result.pk)
        response = root.get(url(result.pk, "edit"), follow=True)
        assert "Only what has ended" in response.content.decode()


# ------------------------------------------------------------------------------ revoking


@pytest.mark.django_db(transaction=True)
def test_a_call_with_a_countdown_ends_soon_when_it_is_revoked(
    root: Client, broker_url: str
) -> None:
    with transaction.atomic():
        sent = echo.apply_async((1,), countdown=3600)
    root.post(url(sent.id, "revoke"), {"confirmed": "yes"})
    work()
    assert TaskResult.objects.get().state == State.REVOKED
    assert "It will not run" in field(page(root, sent.id), "in_words")


@pytest.mark.django_db(transaction=True)
def test_a_running_call_is_ended_from_its_page(
    project: Project, root: Client, tmp_path: Path
) -> None:
    with transaction.atomic():
        sent = wait_at.delay(str(tmp_path))
    project.manage("runworker", "--processes", "1")
    wait_for(lambda: "Runs on" in field(page(root, sent.id), "in_words"), what="its report")
    root.post(url(sent.id, "revoke"), {"confirmed": "yes", "terminate": "yes"})
    wait_for(lambda: TaskResult.objects.get().state == State.REVOKED, what="its end")
    assert "its process was killed" in field(page(root, sent.id), "in_words")


# ------------------------------------------------------------------------------ progress


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "attempts", "told", "shown"),
    [
        ("PENDING", 2, 3, True),  # run again after two attempts
        ("PENDING", 2, 2, False),
        ("STARTED", 3, 3, True),  # the start is recorded
        ("STARTED", 3, 2, False),
        ("RETRY", 2, 2, False),
    ],
)
def test_the_progress_is_that_of_the_present_attempt(
    root: Client, broker_url: str, state: str, attempts: int, told: int, shown: bool
) -> None:
    result = row(state=state, attempts=attempts, eta=None)
    said = b'{"done":1,"total":4,"at":0,"attempt":%d}' % told
    broker.get().note(result.queue, [Note(result.pk, About.PROGRESS, said)], 60)
    assert ("<progress" in page(root, result.pk)) is shown


@pytest.mark.django_db(transaction=True)
def test_whose_call_it_is(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        sent, nobodys = fail.apply_async(("no",), fair="acme"), fail.delay("no")
    assert field(page(root, sent.id), "tenant_text") == "acme"
    work()
    assert field(page(root, sent.id), "tenant_text") == "acme"
    assert "tenant_text" not in page(root, nobodys.id)
