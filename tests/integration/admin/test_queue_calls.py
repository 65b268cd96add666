"""The page of one queue: its calls, one list at a time, and what is done to them."""

from __future__ import annotations

import json
import re
import time
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.messages import get_messages
from django.db import transaction
from django.test import Client
from django.utils.html import escape
from pytest_django import Settings

from jobs import broker, control, message, registry, task
from jobs.admin.queues import admin as queues
from jobs.admin.queues import calls
from jobs.broker.base import About, Note, Outgoing, Revocation
from jobs.broker.limiting import Slot
from jobs.message import Message
from jobs.models import TaskResult
from tests.integration.admin.conftest import SIGN_IN, letter, row, staff
from tests.models import Run
from tests.services import Valkey
from tests.tasks import once, trace
from tests.workers import work

pytestmark = pytest.mark.django_db

PAGE = "/admin/jobs/queues/queue/default/"
LISTS = {tab: f"{PAGE}?tab={tab}" for tab in calls.TABS}
WAITING, RUNNING = LISTS[calls.WAITING], LISTS[calls.RUNNING]
IN_FLIGHT, DUE = LISTS[calls.IN_FLIGHT], LISTS[calls.DUE]
SCRIPT = "<script>alert('x')</script>"

#: Verb → the list on which a test tries it, and the permission that it needs.
MAY = {
    "revoke": (WAITING, "revoke_taskresult"),
    "revoke_all": (WAITING, "revoke_taskresult"),
    "terminate": (RUNNING, "revoke_taskresult"),
    "terminate_all": (RUNNING, "revoke_taskresult"),
    "move": (WAITING, "move_calls"),
    "move_all": (DUE, "move_calls"),
    "delete": (DUE, "purge_queues"),
    "delete_all": (WAITING, "purge_queues"),
    "run_now": (DUE, "hasten_calls"),
    "run_all_now": (DUE, "hasten_calls"),
}


def said(response: object) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]  # type: ignore[attr-defined]


def send(*labels: str, due: float | None = None, priority: int = 0, **values: Any) -> list[str]:
    """Put calls of `trace` on the queue; their ids."""
    sent = [
        Message(
            task=trace.name,
            id=message.new_id(),
            queue="default",
            args=[label],
            priority=priority,
            held=due is not None,
            **values,
        )
        for label in labels
    ]
    broker.get().push([Outgoing("default", message.encode(s), priority, due) for s in sent])
    return [s.id for s in sent]


def run(count: int, *, reported: int | None = None) -> list[str]:
    """Ids of calls in flight, of which a worker says that it runs so many, the last the longest."""
    ids = send(*map(str, range(count)))
    broker.get().claim("default", "w/1.a", 1, count, 600.0)
    reported = count if reported is None else reported
    now = time.time()
    said = [["default", "w/1.a", n, now - 60 * n] for n in range(1, reported + 1)]
    report = json.dumps({"consumers": ["w/1.a"], "running": said})
    broker.get().report("high", "w", report.encode())  # any queue of the worker has it
    return ids


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def keys(shown: str) -> list[str]:
    """What the checkboxes send."""
    return re.findall(r'name="key" value="([^"]+)"', shown)


def ids(shown: str) -> list[str]:
    return [key.rpartition(":")[2] for key in keys(shown)]


def walk(client: Client, url: str) -> list[str]:
    """The ids of all pages of a list."""
    found: list[str] = []
    while url:
        shown = page(client, url)
        found += ids(shown)
        following = re.search(r'href="([^"]+)" rel="next"', shown)
        url = following[1].replace("&amp;", "&") if following else ""
    return found


def act(client: Client, url: str, verb: str, chosen: list[str], **values: str) -> Any:
    """Choose calls by their ids, and confirm."""
    boxes = [key for key in keys(page(client, url)) if key.rpartition(":")[2] in chosen]
    assert len(boxes) == len(chosen)
    return client.post(url, {"action": verb, "key": boxes, "confirmed": "yes", **values})


def counts(queue: str = "default") -> tuple[int, int]:
    """Waiting and due."""
    stats = broker.get().stats(queue)
    return stats.waiting, stats.due


# ------------------------------------------------------------------------------ lists


def test_what_waits_is_listed_in_the_order_of_claims(root: Client, broker_url: str) -> None:
    low = send("a", "b", priority=9)
    high = send("c")
    shown = page(root, WAITING)
    assert ids(shown) == [*high, *low]
    assert "tests.tasks.trace" in shown
    assert escape("'c'") in shown
    assert f'href="/admin/jobs/queues/call/default/{low[0]}/?tab=waiting&amp;key=' in shown
    assert re.search(r"(\d+ ms|[\d.]+ s) ago", shown)


def test_whose_a_call_is(root: Client, broker_url: str) -> None:
    """What tenants have waiting is listed in the order of their turns."""
    first, third = send("0", "1", fair="acme <b>")
    (second,) = send("2", fair="other")
    shown = page(root, WAITING)
    assert ids(shown) == [first, second, third]
    assert shown.count("Tenant: acme &lt;b&gt;") == 2
    link = re.search(r'class="jobs-id" href="([^"]+)"', shown)
    assert link is not None
    assert "<dt>Tenant</dt><dd>acme &lt;b&gt;</dd>" in page(root, unescape(link[1]))


def test_pages_of_what_waits(root: Client, broker_url: str) -> None:
    sent = send(*map(str, range(120)))
    assert walk(root, WAITING) == sent
    second = page(root, f"{WAITING}&p=50")
    assert ids(second) == sent[50:100]
    assert f'href="{PAGE}?tab=waiting&amp;p=0" rel="prev"' in second


def test_pages_of_what_is_due(root: Client, broker_url: str) -> None:
    """Many at the same time, more than a page has."""
    at = time.time() + 600
    first, same, last = send("a", due=at), [], send("z", due=at + 5)
    for n in range(118):
        same += send(str(n), due=at + 1)
    found = walk(root, DUE)
    assert (found[:1], found[-1:]) == (first, last)
    assert sorted(found[1:-1]) == sorted(same)
    assert re.search(r"in (9|10) min", page(root, DUE))


def test_a_page_of_due_calls_stays_where_it_is(root: Client, broker_url: str) -> None:
    sent = [send(str(n), due=time.time() + 600 + n)[0] for n in range(70)]
    following = re.search(r'href="([^"]+)" rel="next"', page(root, DUE))
    assert following is not None
    for found in broker.get().peek_due("default", 20):
        broker.get().withdraw("default", [found])
    assert ids(page(root, following[1].replace("&amp;", "&"))) == sent[50:]


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_its_task(root: Client, broker_url: str) -> None:
    control.pause_task(trace.name, why="it mails twice")
    (parked,) = send("a")
    work(["default"])
    shown = page(root, DUE)
    assert ids(shown) == [parked]
    assert "when its task is resumed" in shown
    assert "Task “tests.tasks.trace” is paused by ?" in shown
    response = act(root, DUE, "run_now", [parked])
    assert said(response)[-1].startswith("1 is left as it is: it waits for its task")


def test_what_runs_with_its_progress(root: Client, broker_url: str) -> None:
    sent = run(3, reported=2)
    note = json.dumps({"done": 40, "total": 80, "message": "pages", "at": time.time()}).encode()
    broker.get().note("default", [Note(sent[0], About.PROGRESS, note)], 60)
    shown = page(root, RUNNING)
    assert ids(shown) == [sent[1], sent[0]]  # the longest first
    assert "w/1.a" in shown
    assert "2 min" in shown
    assert "40 of 80 (50 %), pages" in shown
    assert '<progress max="100" value="50"' in shown
    everything = page(root, IN_FLIGHT)
    assert ids(everything) == sent
    assert everything.count("not started") == 1


def test_what_has_ended_since_the_report_is_left_out(root: Client, broker_url: str) -> None:
    sent = run(2)
    broker.get().ack("default", "w/1.a", [1])
    assert ids(page(root, RUNNING)) == [sent[1]]


def test_reports_that_can_not_be_read(root: Client, broker_url: str) -> None:
    sent = run(1)
    odd = (b"{", b"[]", b'{"running": [1]}', b'{"running": [["a"]]}', b"{}", b"[" * 9_999)
    huge = b'{"running": [["default", "w", 1, 1%s]]}' % (b"0" * 400)
    for n, text in enumerate((*odd, huge)):
        broker.get().report("default", f"odd{n}", text)
    assert ids(page(root, RUNNING)) == sent


def test_empty_lists_and_places_that_mean_nothing(root: Client, broker_url: str) -> None:
    for url, words in (
        (WAITING, "No call waits for a worker."),
        (RUNNING, "No call runs"),
        (IN_FLIGHT, "No worker holds a call."),
        (DUE, "No call is due later."),
    ):
        assert words in page(root, url)
        assert "There are no more calls." in page(root, f"{url}&p=9999")
    for place in ("x", "-1", "9" * 16, "9" * 17, "1.2.3", f"1.{'9' * 9}"):
        for url in LISTS.values():
            assert root.get(f"{url}&p={place}").status_code == 200
    assert "No call waits" in page(root, f"{PAGE}?tab=nonsense")
    assert root.get("/admin/jobs/queues/queue/nowhere/").status_code == 404


def test_messages_that_can_not_be_read(root: Client, broker_url: str) -> None:
    broker.get().push([Outgoing("default", b"\xff{"), Outgoing("default", b"[" * 5000)])
    shown = page(root, WAITING)
    assert shown.count("can’t be read") == 2
    response = root.post(WAITING, {"action": "delete", "key": keys(shown)[:1], "confirmed": "yes"})
    assert said(response) == ["1 message deleted."]
    revoked = {"action": "revoke", "key": keys(shown)[1:], "confirmed": "yes"}
    assert "can’t be revoked" in said(root.post(WAITING, revoked))[-1]
    assert counts() == (1, 0)


def test_calls_are_escaped(root: Client, broker_url: str) -> None:
    sent = Message(
        task=SCRIPT, id=f"{SCRIPT}/?#", queue="default", args=[SCRIPT], kwargs={SCRIPT: SCRIPT}
    )
    broker.get().push([Outgoing("default", message.encode(sent))])
    shown = page(root, WAITING)
    link = re.search(r'href="(/admin/jobs/queues/call/[^"]+)"', shown)
    assert link is not None
    for text in (shown, page(root, unescape(link[1]))):
        assert "<script>alert" not in text
        assert escape("<script>alert") in text


@pytest.mark.django_db(transaction=True)
def test_sensitive_arguments_are_hidden(root: Client, broker_url: str) -> None:
    @task(name="tests.admin.sign_in", sensitive=["password"])
    def sign_in(name: str, password: str) -> None: ...

    try:
        task_id = sign_in.delay("ada", password="lovelace").id
        shown = page(root, WAITING)
        one = page(root, f"/admin/jobs/queues/call/default/{task_id}/")
    finally:
        del registry.tasks["tests.admin.sign_in"]
    for text in (shown, one):
        assert "ada" in text
        assert "lovelace" not in text


def test_who_takes_calls_from_it(root: Client, broker_url: str) -> None:
    assert "manage.py runworker --queues default" in page(root, PAGE)
    broker.get().renew("default", ["w/1.a"], 600.0)
    shown = page(root, PAGE)
    assert '<th scope="row">w/1.a</th>' in shown
    assert "runworker --queues" not in shown


def test_the_limits_of_its_tasks(root: Client, broker_url: str) -> None:
    name = "tests.tasks.both_limits"
    broker.get().take_slots([Slot(name, 1, "a")])
    control.rate_limit(trace.name, "7/m")
    shown = page(root, PAGE).partition('id="jobs-limits"')[2]
    of = re.findall(r'<th scope="row">([^<]+)</th>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>', shown)
    assert (name, "1/h", "") in of
    assert (trace.name, "", "7/m") in of
    assert "1 of 1" in shown
    assert "1 for each key" in shown


def test_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for url in LISTS.values():
        assert "Redis can’t be asked" in page(root, url)
    response = root.post(WAITING, {"action": "revoke", "key": "0:a:b", "confirmed": "yes"})
    assert "can't be used" in said(response)[0]
    assert root.get("/admin/jobs/queues/call/default/some/").status_code == 302
    assert root.get("/admin/jobs/taskresult/", {"q": message.new_id()}).status_code == 200


@pytest.mark.parametrize("tab", [calls.WAITING, calls.DUE])
def test_a_page_costs_the_same_however_many_there_are(
    root: Client, own_valkey: Valkey, tab: str
) -> None:
    due = time.time() + 600 if tab == calls.DUE else None
    raw = message.encode(Message(task=trace.name, id=message.new_id(), queue="default"))

    def cost(url: str) -> int:
        """How many commands the page gave to the server, those of its scripts included."""
        before = client.info("stats")["total_commands_processed"]
        page(root, url)
        return int(client.info("stats")["total_commands_processed"]) - int(before)

    with own_valkey.client() as client:
        broker.get().push([Outgoing("default", raw + b" " * n, 0, due) for n in range(60)])
        page(root, LISTS[tab])  # loads the scripts
        few = cost(LISTS[tab])
        broker.get().push([Outgoing("default", raw + b" " * n, 0, due) for n in range(60, 3000)])
        assert cost(LISTS[tab]) == few
        if tab == calls.WAITING:
            assert cost(f"{LISTS[tab]}&p=2900") == few


# ------------------------------------------------------------------------------ acts


def test_revoking_asks_first(root: Client, broker_url: str) -> None:
    first, second = send("a", "b")
    box = keys(page(root, WAITING))[0]
    asked = root.post(WAITING, {"action": "revoke", "key": box}).content.decode()
    assert "1 call will be revoked" in asked
    assert first in asked
    assert broker.get().revoked("default", [first]) == [Revocation.NONE]
    response = act(root, WAITING, "revoke", [first], why="wrong shop")
    assert response["Location"] == WAITING
    assert said(response) == ["1 call is revoked."]
    assert broker.get().revoked("default", [first, second]) == [
        Revocation.REVOKED,
        Revocation.NONE,
    ]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.action_flag) == (first, DELETION)
    assert entry.object_repr == f"call {first} of queue “default”"
    assert entry.change_message == "Revoked. Reason: wrong shop"


@pytest.mark.django_db(transaction=True)
def test_a_revoked_call_never_runs(root: Client, broker_url: str) -> None:
    revoked, kept = (trace.apply_async((label,)).id for label in ("a", "b"))
    act(root, WAITING, "revoke", [revoked])
    work(["default"])
    assert list(Run.objects.values_list("label", flat=True)) == ["b"]
    assert TaskResult.objects.get(pk=revoked).state == "REVOKED"
    assert TaskResult.objects.get(pk=kept).state == "SUCCESS"


@pytest.mark.django_db(transaction=True)
def test_a_call_that_is_due_later_ends_at_once_when_it_is_revoked(
    root: Client, broker_url: str
) -> None:
    task_id = trace.apply_async(("a",), countdown=900_000).id
    assert said(act(root, DUE, "revoke", [task_id])) == ["1 call is revoked."]
    work(["default"])
    assert counts() == (0, 0)
    assert TaskResult.objects.get(pk=task_id).state == "REVOKED"
    assert not Run.objects.exists()


def test_terminating_what_runs(root: Client, broker_url: str) -> None:
    first, second = run(2)
    box = keys(page(root, RUNNING))[:1]
    asked = root.post(RUNNING, {"action": "terminate", "key": box}).content.decode()
    assert "its worker process is killed" in asked
    assert said(act(root, RUNNING, "terminate", [second])) == ["1 call is terminated."]
    assert broker.get().revoked("default", [first, second]) == [
        Revocation.NONE,
        Revocation.TERMINATE,
    ]
    assert said(act(root, RUNNING, "revoke", [first])) == ["1 call is revoked."]
    assert broker.get().revoked("default", [first]) == [Revocation.REVOKED]


def test_what_has_moved_on_is_revoked_all_the_same(root: Client, broker_url: str) -> None:
    (task_id,) = send("a")
    box = keys(page(root, WAITING))
    broker.get().claim("default", "w", 1, 1, 60.0)
    values = {"action": "revoke", "key": box, "confirmed": "yes"}
    assert said(root.post(WAITING, values)) == ["1 call is revoked."]
    assert broker.get().revoked("default", [task_id]) == [Revocation.REVOKED]


@pytest.mark.django_db(transaction=True)
def test_running_a_due_call_now(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        recorded = trace.apply_async(("a",), countdown=900).id
    trace.apply_async(("b",), countdown=900)
    assert said(act(root, DUE, "run_now", [recorded])) == ["1 call is run now."]
    assert LogEntry.objects.get().change_message == "Run now."
    work(["default"])
    assert list(Run.objects.values_list("label", flat=True)) == ["a"]
    assert TaskResult.objects.get(pk=recorded).state == "SUCCESS"
    assert counts() == (0, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("due", [False, True])
def test_moving_to_another_queue(root: Client, broker_url: str, due: bool) -> None:
    options = {"countdown": 900} if due else {}
    with transaction.atomic():
        moved, _kept = (trace.apply_async((n,), **options).id for n in ("a", "b"))
    url = DUE if due else WAITING
    asked = root.post(url, {"action": "move", "key": keys(page(root, url))[:1]}).content.decode()
    assert re.findall(r'<option value="([^"]+)">', asked) == ["high", "low"]
    response = act(root, url, "move", [moved], to="high")
    assert said(response) == ["1 call is moved."]
    assert (counts(), counts("high")) == (((0, 1), (0, 1)) if due else ((1, 0), (1, 0)))
    assert TaskResult.objects.get(pk=moved).queue == "high"
    assert LogEntry.objects.get().change_message == "Moved to queue “high”."


@pytest.mark.parametrize("to", ["", "nowhere", "default", "foreign"])
def test_queues_that_calls_are_not_moved_to(
    root: Client, broker_url: str, settings: Settings, to: str
) -> None:
    declared = {**settings.JOBS["QUEUES"], "foreign": {"open": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": declared}
    sent = send("a")
    response = act(root, WAITING, "move", sent, to=to)
    assert said(response) == ["Choose the queue to move them to."]
    assert counts() == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_deleting(root: Client, broker_url: str) -> None:
    with transaction.atomic():
        first, second = (trace.delay(n).id for n in ("a", "b"))
        later = trace.apply_async(("c",), countdown=900).id
    assert said(act(root, WAITING, "delete", [first])) == ["1 message deleted."]
    assert said(act(root, DUE, "delete", [later])) == ["1 message deleted."]
    assert counts() == (1, 0)
    rows = dict(TaskResult.objects.values_list("id", "state"))
    assert rows == {first: "REVOKED", second: "PENDING", later: "REVOKED"}
    assert list(LogEntry.objects.values_list("action_flag", flat=True)) == [DELETION] * 2


@pytest.mark.django_db(transaction=True)
def test_deleting_what_others_depend_on(root: Client, broker_url: str) -> None:
    """A worker ends it, with what follows."""
    task_id = once.delay("a").id
    act(root, WAITING, "delete", [task_id])
    assert counts() == (1, 0)
    work(["default"])
    assert TaskResult.objects.get(pk=task_id).state == "REVOKED"
    assert once.delay("a").id != task_id


def test_what_is_gone_is_told(root: Client, broker_url: str) -> None:
    send("a")
    box = keys(page(root, WAITING))
    broker.get().claim("default", "w", 1, 1, 60.0)
    for verb in ("move", "delete"):
        values = {"action": verb, "key": box, "confirmed": "yes", "to": "high"}
        assert "was not there any more" in said(root.post(WAITING, values))[-1]
    assert not LogEntry.objects.exists()
    assert said(root.post(WAITING, {"action": "delete"}))[-1] == "Choose calls first."
    root.post(WAITING, {"action": "nonsense", "key": box, "confirmed": "yes"})
    assert broker.get().stats("default").in_flight == 1


def test_what_has_come_forward_is_found(root: Client, broker_url: str) -> None:
    sent = send(*map(str, range(700)))
    shown = page(root, f"{WAITING}&p=600")
    broker.get().claim("default", "w", 1, 500, 60.0)
    values = {"action": "delete", "key": keys(shown), "confirmed": "yes"}
    assert said(root.post(WAITING, values)) == ["50 messages deleted."]
    assert counts() == (150, 0)
    assert ids(page(root, f"{WAITING}&p=100")) == sent[650:]


@pytest.mark.parametrize(
    ("verb", "url", "after"),
    [
        ("revoke_all", WAITING, (3, 3)),
        ("move_all", WAITING, (0, 3)),
        ("delete_all", WAITING, (0, 3)),
        ("run_all_now", DUE, (6, 0)),
        ("revoke_all", DUE, (6, 0)),
        ("move_all", DUE, (3, 0)),
        ("delete_all", DUE, (3, 0)),
    ],
)
def test_all_of_a_list(
    root: Client, broker_url: str, verb: str, url: str, after: tuple[int, int]
) -> None:
    now = send("a", "b", "c")
    later = send("d", "e", "f", due=time.time() + 900)
    of = now if url == WAITING else later
    asked = root.post(url, {"action": verb}).content.decode()
    assert "3 calls" in asked or "3 messages" in asked
    assert counts() == (3, 3)
    response = root.post(url, {"action": verb, "confirmed": "yes", "to": "high"})
    assert said(response)[0].startswith("3 ")
    broker.get().claim("default", "w", 1, 0, 60.0)  # puts what is due on the queue
    assert counts() == after
    if verb == "revoke_all":
        assert broker.get().revoked("default", of) == [Revocation.REVOKED] * 3
    if verb == "move_all":
        assert sum(counts("high")) == 3
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == set(of)


def test_all_that_run(root: Client, broker_url: str) -> None:
    sent = run(3, reported=2)
    assert (
        "2 calls will be ended" in root.post(RUNNING, {"action": "terminate_all"}).content.decode()
    )
    root.post(RUNNING, {"action": "terminate_all", "confirmed": "yes"})
    assert broker.get().revoked("default", sent) == [
        Revocation.TERMINATE,
        Revocation.TERMINATE,
        Revocation.NONE,
    ]


def test_all_is_bounded(root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ALL", 4)
    send(*map(str, range(10)))
    asked = root.post(WAITING, {"action": "delete_all"}).content.decode()
    assert "4 messages of queue “default” will be deleted" in asked
    assert "the first 4 are done at once" in asked
    told = said(root.post(WAITING, {"action": "delete_all", "confirmed": "yes"}))
    assert told[0] == "4 messages deleted."
    assert told[1].endswith("Do it again for the others. 6 are on the list now.")
    assert counts() == (6, 0)


def test_all_of_none(root: Client, broker_url: str) -> None:
    for verb, (url, _permission) in MAY.items():
        if verb.endswith("_all") or verb == "run_all_now":
            response = root.post(url, {"action": verb, "confirmed": "yes", "to": "high"})
            assert (response.status_code, said(response)) == (302, [])


def test_purging_needs_the_name_of_the_queue(root: Client, broker_url: str) -> None:
    send("a")
    purge = "/admin/jobs/queues/purge/default/"
    assert f'href="{purge}"' in page(root, PAGE)
    assert 'name="name"' in page(root, purge)
    for typed in ({}, {"name": ""}, {"name": "Default"}, {"name": "high"}):
        response = root.post(purge, typed)
        assert response["Location"] == purge
        assert said(response)[-1].startswith("Nothing was deleted: type the queue’s name")
    assert (counts(), LogEntry.objects.count()) == ((1, 0), 0)
    assert said(root.post(purge, {"name": " default "}))[-1] == "1 message deleted."
    assert LogEntry.objects.get().action_flag == DELETION


def test_a_pause_is_shown(root: Client, broker_url: str) -> None:
    assert "/pause/default/" in page(root, PAGE)
    control.pause("default", by="ada", why="<b>the shop moves</b>")
    shown = page(root, PAGE)
    assert "is paused by ada since 2" in shown
    assert "&lt;b&gt;the shop moves" in shown
    assert "/resume/default/" in shown


# ------------------------------------------------------------------------------ permissions


@pytest.fixture
def everything(broker_url: str) -> dict[str, list[str]]:
    """By list: the ids of calls."""
    runs = run(1)
    waits = send("a", "b")
    later = send("c", "d", due=time.time() + 900)
    return {RUNNING: runs, WAITING: waits, DUE: later}


@pytest.mark.parametrize("verb", MAY)
def test_each_verb_needs_its_permission(
    root: Client, everything: dict[str, list[str]], verb: str
) -> None:
    url, permission = MAY[verb]
    box = keys(page(root, url))[:1]
    values = {"action": verb, "key": box, "confirmed": "yes", "to": "high"}
    others = {p for _url, p in MAY.values()} - {permission}
    viewer = staff("jobs.view_queues", *(f"jobs.{code}" for code in others))
    assert f'value="{verb}"' not in page(viewer, url)
    assert viewer.post(url, values).status_code == 403
    assert Client().post(url, values)["Location"].startswith(SIGN_IN)
    assert staff(f"jobs.{permission}", "jobs.view_taskresult").get("/admin/").status_code == 200
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(url, values).status_code == 403
    assert (counts(), LogEntry.objects.count()) == ((2, 2), 0)
    assert broker.get().revoked("default", everything[url]) == [Revocation.NONE] * len(
        everything[url]
    )
    may = staff("jobs.view_queues", f"jobs.{permission}")
    assert f'value="{verb}"' in page(may, url)
    assert may.post(url, values).status_code == 302
    assert LogEntry.objects.exists()


def test_looking_needs_a_permission(everything: dict[str, list[str]]) -> None:
    call = f"/admin/jobs/queues/call/default/{everything[WAITING][0]}/"
    for url in (*LISTS.values(), call):
        assert staff("jobs.view_taskresult", "jobs.revoke_taskresult").get(url).status_code == 403
        assert Client().get(url)["Location"].startswith(SIGN_IN)
        assert staff("jobs.view_queues").get(url).status_code == 200


def test_manage_queues_is_not_for_revoking(everything: dict[str, list[str]]) -> None:
    manager = staff("jobs.manage_queues")
    box = keys(page(manager, WAITING))
    assert manager.post(WAITING, {"action": "revoke", "key": box}).status_code == 403
    values = {"action": "delete", "key": box, "confirmed": "yes"}
    assert manager.post(WAITING, values).status_code == 302
    assert counts() == (0, 2)


# ------------------------------------------------------------------------------ one call


def call(task_id: str, queue: str = "default") -> str:
    return f"/admin/jobs/queues/call/{queue}/{task_id}/"


@pytest.mark.django_db(transaction=True)
def test_a_call_has_a_page_from_the_moment_it_was_sent(root: Client, broker_url: str) -> None:
    task_id = trace.delay("a").id
    shown = page(root, call(task_id))
    for text in ("Waiting", trace.name, task_id, escape("['a']"), "Revoke…", "Move…", "Delete…"):
        assert text in shown
    box = keys(shown)
    response = root.post(WAITING, {"action": "revoke", "key": box, "confirmed": "yes"})
    assert said(response) == ["1 call is revoked."]
    assert broker.get().revoked("default", [task_id]) == [Revocation.REVOKED]


def test_a_call_that_runs_or_is_due(root: Client, broker_url: str) -> None:
    (runs,) = run(1)
    shown = page(root, call(runs))
    assert "Running" in shown
    assert "w/1.a" in shown
    assert "Terminate…" in shown
    (later,) = send("b", due=time.time() + 900)
    shown = page(root, call(later))
    assert re.search(r"in 1[45] min", shown)
    assert "Run now" in shown


def test_a_call_with_a_row_leads_to_its_result(root: Client, broker_url: str) -> None:
    (task_id,) = send("a")
    row(id=task_id, state="PENDING")
    assert root.get(call(task_id))["Location"] == f"/admin/jobs/taskresult/{task_id}/change/"
    # Who may not see results sees what is on the queue.
    assert staff("jobs.view_queues").get(call(task_id)).status_code == 200


def test_a_call_that_is_a_dead_letter(root: Client, broker_url: str) -> None:
    key, sent = letter()
    assert root.get(call(sent.id))["Location"] == (f"/admin/jobs/deadletters/letter/default/{key}/")


def test_a_call_that_is_not_found(
    root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SEARCHED", 3)
    sent = send("a", "b", "c", "d")
    assert root.get(call(sent[2])).status_code == 200
    for task_id in (sent[3], "other", ".", "a%00b"):
        response = root.get(call(task_id))
        assert response.status_code == 404
    shown = root.get(call(sent[3])).content.decode()
    assert "not among the first 3 of any list of queue “default”" in shown
    assert root.get(call(sent[0], "nowhere")).status_code == 404
    # The list knows where it is.
    url = unescape(re.findall(r'href="(/admin/jobs/queues/call/[^"]+)"', page(root, WAITING))[3])
    assert root.get(url).status_code == 200
    assert root.get(url.replace(sent[3], sent[2], 1)).status_code == 200
    assert root.get(url.replace(sent[3], "other", 1)).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_address_of_a_result_that_is_no_row_yet(root: Client, broker_url: str) -> None:
    later = trace.apply_async(("x",), countdown=3600)
    own = trace.apply_async(("y",), task_id="import/7")
    for task_id in (later.id, own.id):
        for ending in ("", "change/"):
            answer = root.get(f"/admin/jobs/taskresult/{quote(task_id)}/{ending}", follow=True)
            assert answer.status_code == 200
            assert "Where it is" in answer.content.decode(), task_id
            assert "/admin/jobs/queues/call/default/" in answer.redirect_chain[-1][0]
    answer = root.get("/admin/jobs/taskresult/unknown/change/", follow=True)
    assert answer.redirect_chain[-1][0] == "/admin/"
    # Whoever may not look at queues is told what Django tells.
    other = staff("jobs.view_taskresult").get(f"/admin/jobs/taskresult/{later.id}/change/")
    assert other["Location"] == "/admin/"
    assert staff().get(f"/admin/jobs/taskresult/{later.id}/change/").status_code == 403


def test_the_search_for_an_id_without_a_row(root: Client, broker_url: str) -> None:
    results = "/admin/jobs/taskresult/"
    (task_id,) = send("a")
    assert root.get(results, {"q": f" {task_id} "})["Location"] == call(task_id)
    assert root.get(results, {"q": task_id[:13]}).status_code == 200
    assert root.get(results, {"q": message.new_id()}).status_code == 200
    assert staff("jobs.view_taskresult").get(results, {"q": task_id}).status_code == 200
    _key, dead = letter(queue="high")
    assert root.get(results, {"q": dead.id})["Location"] == call(dead.id, "high")
    row(id=task_id)
    assert root.get(results, {"q": task_id}).status_code == 200


def test_the_log_tells_the_kinds_apart(root: Client, broker_url: str) -> None:
    (first,) = send("a", due=time.time() + 900)
    act(root, DUE, "run_now", [first])
    assert LogEntry.objects.get().action_flag == CHANGE
    assert first in page(root, "/admin/jobs/queues/history/")


@pytest.mark.django_db(transaction=True)
def test_a_call_of_a_paused_task_ends_when_it_is_revoked(root: Client, broker_url: str) -> None:
    control.pause_task(trace.name)
    task_id = trace.apply_async(("a",)).id
    work(["default"])
    assert counts() == (0, 1)
    act(root, DUE, "revoke", [task_id])
    work(["default"])
    assert counts() == (0, 0)
    assert TaskResult.objects.get(pk=task_id).state == "REVOKED"
