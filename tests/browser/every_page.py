"""All pages of the admin, with something of everything on them."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from selenium.webdriver import Chrome

from jobs import broker, chain, chord, control, message
from jobs.broker.base import About, Note
from jobs.models import KnownError, Schedule, TaskAttempt, TaskResult
from tests.browser.pages import see
from tests.integration.admin.conftest import letter, row
from tests.services import wait_for
from tests.tasks import add, echo, fail, hourly
from tests.workers import put, put_message, work

WORKER = "mail-1"

#: Where a GET leads; the names in braces are those that `full` gives.
PAGES = [
    "/admin/jobs/",
    "/admin/jobs/dashboard/",
    "/admin/jobs/dashboard/?range=week&queue=default",
    "/admin/jobs/dashboard/?range=year",
    "/admin/jobs/queues/",
    "/admin/jobs/queues/history/",
    "/admin/jobs/queues/queue/default/",
    "/admin/jobs/queues/queue/default/?tab=running",
    "/admin/jobs/queues/queue/default/?tab=in-flight",
    "/admin/jobs/queues/queue/default/?tab=due",
    "/admin/jobs/queues/call/default/{running}/",
    "/admin/jobs/queues/call/default/{waiting}/",
    "/admin/jobs/queues/pause/default/",
    "/admin/jobs/queues/resume/high/",
    "/admin/jobs/queues/purge/default/",
    "/admin/jobs/queues/pause-task/",
    "/admin/jobs/queues/resume-task/tests.tasks.echo/",
    "/admin/jobs/taskresult/",
    "/admin/jobs/taskresult/?state__exact=RETRY",
    "/admin/jobs/taskresult/?due=next",
    "/admin/jobs/taskresult/?q=no+such+task",
    "/admin/jobs/taskresult/{failed}/change/",
    "/admin/jobs/taskresult/{failed}/edit/",
    "/admin/jobs/taskresult/{succeeded}/change/",
    "/admin/jobs/taskresult/{retried}/change/",
    "/admin/jobs/taskresult/{pending}/change/",
    "/admin/jobs/taskresult/{revoked}/change/",
    "/admin/jobs/taskresult/{running}/change/",
    "/admin/jobs/taskresult/{member}/change/",
    "/admin/jobs/taskresult/{failed}/delete/",
    "/admin/jobs/errors/",
    "/admin/jobs/errors/?range=week",
    "/admin/jobs/deadletters/",
    "/admin/jobs/deadletters/?queue=default&reason=UnknownTask&task=shop.tasks.gone",
    "/admin/jobs/deadletters/letter/default/{letter}/",
    "/admin/jobs/tasks/",
    "/admin/jobs/tasks/?q=tests.tasks.",
    "/admin/jobs/tasks/task/tests.tasks.add/",
    "/admin/jobs/tasks/run/tests.tasks.add/",
    "/admin/jobs/workers/",
    "/admin/jobs/workers/worker/mail-1/",
    "/admin/jobs/schedule/",
    "/admin/jobs/schedule/add/",
    "/admin/jobs/schedule/{schedule}/change/",
    "/admin/jobs/schedule/{schedule}/runs/",
    "/admin/jobs/schedule/{schedule}/delete/",
]

#: Questions, which a POST leads to: the address, and what is sent.
QUESTIONS: list[tuple[str, dict[str, str]]] = [
    ("/admin/jobs/taskresult/{failed}/again/", {}),
    ("/admin/jobs/taskresult/{pending}/revoke/", {}),
    (
        "/admin/jobs/errors/retry/",
        {"task": fail.name, "error_type": "builtins.ValueError", "range": "hour"},
    ),
    ("/admin/jobs/errors/mark/", {"task": fail.name, "error_type": "builtins.ValueError"}),
    ("/admin/jobs/deadletters/", {"action": "discard_all"}),
    ("/admin/jobs/deadletters/", {"action": "requeue_all"}),
    ("/admin/jobs/queues/queue/default/?tab=waiting", {"action": "move_all"}),
    ("/admin/jobs/queues/queue/default/?tab=running", {"action": "terminate_all"}),
    ("/admin/jobs/queues/queue/default/?tab=due", {"action": "run_all_now"}),
    ("/admin/jobs/workers/stop/mail-1/", {}),
    ("/admin/jobs/workers/add-queue/mail-1/", {}),
]


@pytest.fixture
def full(transactional_db: None, broker_url: str) -> dict[str, str]:
    """Something of everything; ids, by the names in the addresses."""
    body = chord([chain(add.s(1, n), add.s(1)) for n in range(2)] + [fail.s("wrong")], echo.s())
    body.delay()
    failed = fail.apply_async(("x" * 80,), label="import 2026-11").id
    succeeded = add.delay(1, 2).id
    work()
    assert control.retry(failed, by="ada")
    work()
    with transaction.atomic():
        pending = add.apply_async((1, 2), countdown=3_600).id
    now = timezone.now()
    away = {"error_type": "builtins.OSError", "error": "away " * 20}
    later = {"eta": now + dt.timedelta(hours=1), "finished_at": None}
    retried = row(state="RETRY", label="import " * 20 + "11", **later, **away)
    TaskAttempt.objects.create(result=retried, number=1, finished_at=now, worker="w", **away)
    revoked = row(state="REVOKED", error="revoked")
    KnownError.objects.create(
        task=add.name, error_type="builtins.TypeError", marked_by="ada", why="closed"
    )
    row(task=add.name, state="FAILURE", error_type="builtins.TypeError", error="no")
    schedule = Schedule.objects.create(
        name="nightly", task=add.name, args=[1, 2], crontab="0 3 * * *", labels="mail, night"
    )
    schedule.history.create(due_at=now, at=now, result=succeeded)
    control.pause("high", by="ada", why="the mail server is away")
    control.pause_task(echo.name, by="ada", why="it floods the mail server")
    control.rate_limit(hourly.name, "7/m")
    put(b"no message", "low")
    claim = broker.get().claim("low", "here/1", 1, 1, 30.0)
    broker.get().dead_letter("low", "here/1", claim.messages[0][0], "unreadable", "here")
    for n in range(3):
        key, _sent = letter(args=[n])
    running = put_message(task=add.name, args=[1, "long" * 40])
    _reports(running)
    waiting = [put_message(task=add.name, args=[n, n], label="import") for n in range(60)]
    add.apply_async((1, 2), countdown=3_600)
    return {
        "failed": failed,
        "succeeded": succeeded,
        "retried": retried.pk,
        "pending": pending,
        "revoked": revoked.pk,
        "running": running,
        "waiting": waiting[0],
        "member": TaskResult.objects.filter(task=fail.name).exclude(pk=failed).get().pk,
        "letter": key,
        "schedule": str(schedule.pk),
    }


def _reports(running: str) -> None:
    """A worker that runs the call, as it reports itself."""
    port, now = broker.get(), time.time()
    claimed = port.claim("default", f"{WORKER}/4711.a", 1, 1, 600.0).messages
    assert message.decode(claimed[0][1], "default", trusted=True).id == running
    report = {
        "host": "web-1",
        "pid": 4711,
        "started": now - 3600,
        "queues": ["default", "low"],
        "processes": 1,
        "processed": 3,
        "consumers": [f"{WORKER}/4711.a"],
        "running": [["default", f"{WORKER}/4711.a", claimed[0][0], now - 300]],
    }
    port.report("default", WORKER, json.dumps(report).encode())
    done = {"done": 30, "total": 80, "message": "pages", "at": now}
    port.note("default", [Note(running, About.PROGRESS, json.dumps(done).encode())], 60)


def send(browser: Chrome, address: str, values: dict[str, Any]) -> None:
    """Send a form as a page of the admin would; it leads to a question."""
    token = "[name=csrfmiddlewaretoken]"
    wait_for(lambda: browser.find_elements("css selector", token), what="the page's token")
    browser.execute_script(
        """
        const [address, values] = arguments;
        const form = document.createElement("form");
        form.method = "post";
        form.action = address;
        const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
        for (const [name, value] of Object.entries({...values, csrfmiddlewaretoken: token})) {
            const field = document.createElement("input");
            [field.type, field.name, field.value] = ["hidden", name, value];
            form.append(field);
        }
        document.body.append(form);
        form.submit();
        """,
        address,
        values,
    )
    see(browser, "#content", "No, take me back")


def open_each(browser: Chrome, address: str, names: dict[str, str]) -> Iterator[str]:
    """Open all pages and questions of the site at this address, one after the other."""
    for page in PAGES:
        browser.get(address + page.format(**names))
        assert "Server Error" not in browser.title
        yield page
    for page, values in QUESTIONS:
        browser.get(address + "/admin/jobs/")
        send(browser, page.format(**names), values)
        yield f"{page} {values}"
