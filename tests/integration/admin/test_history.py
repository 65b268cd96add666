"""What the admin's log says of acts on queues, tasks and dead letters."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client

from jobs import broker, control
from jobs.broker.base import Outgoing
from tests.integration.admin.conftest import letter, staff
from tests.services import Valkey
from tests.tasks import trace

pytestmark = pytest.mark.django_db

QUEUES = "/admin/jobs/queues/"
HISTORY = f"{QUEUES}history/"
DEAD = "/admin/jobs/deadletters/?queue=default"


def logged() -> list[tuple[Any, ...]]:
    """Who, of what, which kind, and what was done; the oldest first."""
    return [
        (entry.user.get_username(), entry.object_repr, entry.action_flag, entry.change_message)
        for entry in LogEntry.objects.order_by("pk")
    ]


def test_acts_on_a_queue(root: Client, broker_url: str) -> None:
    for _ in range(3):
        broker.get().push([Outgoing("default", b"x")])
    root.get(f"{QUEUES}pause/default/")
    assert logged() == []
    root.post(f"{QUEUES}pause/default/", {"why": " [the shop moves] "})
    root.post(f"{QUEUES}resume/default/", {"why": "moved"})
    root.post(f"{QUEUES}purge/default/", {"name": "default"})
    of = ("user0", "queue “default”")
    assert logged() == [
        (*of, CHANGE, "Queue “default” is paused. Reason: [the shop moves]"),
        (*of, CHANGE, "Queue “default” is resumed. Reason: moved"),
        (*of, DELETION, "3 messages deleted."),
    ]
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == {"default"}


def test_acts_on_a_task(root: Client, broker_url: str) -> None:
    root.post(f"{QUEUES}pause-task/", {"task": trace.name, "why": "it mails twice"})
    root.post(f"{QUEUES}resume-task/{trace.name}/")
    root.post(f"{QUEUES}pause-task/", {"task": "no.such"})
    of = ("user0", "task “tests.tasks.trace”", CHANGE)
    assert logged() == [
        (*of, "Task “tests.tasks.trace” is paused. Reason: it mails twice"),
        (*of, "Task “tests.tasks.trace” is resumed."),
    ]


def test_acts_on_dead_letters(root: Client, broker_url: str) -> None:
    letters = [letter() for _ in range(4)]
    ids = [sent.id for _key, sent in letters]
    root.post(DEAD, {"action": "requeue", "key": f"{letters[0][0]}:default"})
    root.post(DEAD, {"action": "requeue", "key": f"{letters[0][0]}:default"})  # it is gone
    chosen = {"action": "discard", "key": f"{letters[1][0]}:default", "why": "spam"}
    assert 'name="why"' in root.post(DEAD, chosen).content.decode()
    root.post(DEAD, {**chosen, "confirmed": "yes"})
    newest = {"newest": f"{letters[3][0]}:default", "confirmed": "yes", "why": "fixed"}
    root.post(DEAD, {"action": "requeue_all", **newest})
    assert logged() == [
        ("user0", f"dead letter {task_id} of queue “default”", flag, text)
        for task_id, flag, text in zip(
            ids,
            (CHANGE, DELETION, CHANGE, CHANGE),
            (
                "1 message is back on the queue.",
                "1 message discarded. Reason: spam",
                "1 message is back on the queue. Reason: fixed",
                "1 message is back on the queue. Reason: fixed",
            ),
            strict=True,
        )
    ]
    assert list(LogEntry.objects.order_by("pk").values_list("object_id", flat=True)) == ids


def test_a_letter_that_can_not_be_read_is_logged_by_its_key(root: Client, broker_url: str) -> None:
    broker.get().bury("default", b"x", "no", "w")
    (found,) = broker.get().dead_letters("default", 1)
    root.post(DEAD, {"action": "discard", "key": f"{found.key}:default", "confirmed": "yes"})
    assert LogEntry.objects.get().object_id == found.key


def test_an_act_that_redis_interrupts_is_logged_too(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    root.get(f"{QUEUES}purge/default/")
    assert logged() == []
    root.post(f"{QUEUES}purge/default/", {"name": "default"})
    ((_user, _of, _flag, text),) = logged()
    assert text.startswith("Purge: not done, or in part only.")


def test_it_is_read_in_the_history_and_on_the_index(root: Client, broker_url: str) -> None:
    assert "Nothing was done here" in root.get(HISTORY).content.decode()
    root.post(f"{QUEUES}pause/default/", {"why": "<b>the shop moves</b>"})
    control.resume("default")
    assert "queue “default”" in root.get("/admin/").content.decode()
    assert f'href="{HISTORY}"' in root.get(QUEUES).content.decode()
    page = staff("jobs.view_queues").get(HISTORY).content.decode()
    assert "user0" in page
    assert "is paused. Reason: &lt;b&gt;the shop moves&lt;/b&gt;" in page
    assert staff("jobs.view_taskresult").get(HISTORY).status_code == 403


def test_the_history_goes_by_pages(root: Client, broker_url: str) -> None:
    for n in range(130):
        root.post(f"{QUEUES}pause/default/", {"why": f"no. {n}."})
    seen: list[str] = []
    url = HISTORY
    while url:
        page = root.get(url).content.decode()
        seen += re.findall(r"Reason: no\. (\d+)\.", page)
        older = re.search(r'href="(\?before=[^"]+)" rel="next"', page)
        url = HISTORY + older[1] if older else ""
    assert seen == [str(n) for n in reversed(range(130))]
