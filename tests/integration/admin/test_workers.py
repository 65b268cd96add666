"""The page of the workers, one worker's page, and what can be asked there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from pytest_django import Settings

from jobs import broker, control
from jobs.admin.workers.verbs import VERBS
from jobs.broker.base import Revocation
from jobs.broker.connection import Connections
from jobs.control.workers import Act, Answer, Command, Gone, How
from jobs.timing import clock
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_hostile import VALUES, asked
from tests.tasks import add

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

LIST = "/admin/jobs/workers/"
MAY = ("jobs.view_queues", "jobs.control_workers")


def report(name: str = "w", *, leased: bool = True, **values: Any) -> dict[str, Any]:
    """Report as a worker does, with one child that has a lease."""
    consumer = f"{name}/1.a"
    said = {
        "host": "box",
        "pid": 4242,
        "started": 1.7e9,
        "queues": ["default", "low"],
        "processes": 2,
        "capacity": 6,
        "processed": 31,
        "failed": 4,
        "consumers": [consumer],
        "running": [],
        "state": "running",
        "versions": {"jobs": "0.1.0", "python": "3.11.7", "django": "5.2"},
        "revision": "abc123",
        "parts": [[name, 4242, 50_000_000, False], [consumer, 4243, 70_000_000, True]],
        "every": 5.0,
        **values,
    }
    broker.get().renew("default", [consumer], 60 if leased else -1)
    broker.get().report("default", name, json.dumps(said).encode())
    return said


def told(client: Client, url: str = LIST) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def said(response: Any) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]


def commands(name: str = "w") -> list[Command | None]:
    return [Command.loads(text) for text in broker.get().take_commands("default", name)]


# ------------------------------------------------------------------------------ the list


def test_there_is_none(root: Client) -> None:
    assert "No worker is running." in told(root)


def test_what_the_list_shows(root: Client) -> None:
    result = add.delay(1, 2)
    broker.get().claim("default", "w/1.a", 1, 1, 60)
    report(running=[["default", "w/1.a", 1, 1.7e9]])
    page = told(root)
    for text in ("process 4242 on box", "default, low", "1 of 6", ">31<", ">4<", "114.4 MB"):
        assert text in page
    assert "abc123 · 0.1.0" in page
    assert add.name in page
    assert "silent" not in page
    # Its result has a page once the ledger has a row of it.
    link = f"/admin/jobs/taskresult/{result.id}/change/"
    assert link not in page
    row(id=result.id, state="STARTED")
    assert link in told(root, f"{LIST}live/")
    assert link in told(root, f"{LIST}worker/w/")


@pytest.mark.parametrize("url", [LIST, f"{LIST}live/", f"{LIST}worker/w/", f"{LIST}live-worker/w/"])
def test_a_call_is_cancelled_by_those_who_may_revoke_results(root: Client, url: str) -> None:
    result = add.delay(1, 2)
    broker.get().claim("default", "w/1.a", 1, 1, 60)
    report(running=[["default", "w/1.a", 1, 1.7e9]])
    address = f"/admin/jobs/taskresult/{result.id}/revoke/"
    assert f'action="{address}"' in told(root, url)
    for lacking in (MAY, (*MAY, "jobs.view_taskresult"), (*MAY, "jobs.revoke_taskresult")):
        client = staff(*lacking)
        assert "/revoke/" not in told(client, url)
        assert client.post(address, {"confirmed": "yes"}).status_code == 403
    # The ledger has no row of it; its question is about ending it though it runs.
    page = " ".join(root.post(address, {"terminate": "yes"}).content.decode().split())
    assert 'name="terminate" value="yes" checked' in page
    root.post(address, {"terminate": "yes", "confirmed": "yes"})
    assert broker.get().revoked("default", [result.id]) == [Revocation.TERMINATE]
    assert LogEntry.objects.get().object_id == result.id


def test_one_that_lost_its_lease_is_silent(root: Client) -> None:
    report(leased=False)
    page = told(root)
    assert "silent since" in page
    assert "jobs-gone" in page


def test_different_code_is_pointed_out(root: Client) -> None:
    report("one")
    report("two")
    assert "run different code" not in told(root)
    report("two", revision="def456")
    assert "The workers run different code: abc123 · 0.1.0, def456 · 0.1.0." in told(root)


@pytest.mark.parametrize(
    "text",
    [
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"consumers": "x", "running": [1, ["default"], ["default", "c", "x", 1]], "pid": "7"}',
        b'{"consumers": [["x"]], "parts": [[1]], "versions": {"jobs": []}, "started": 1e99}',
        b'{"started": null, "queues": [1], "new": {"field": true}, "every": "often"}',
    ],
)
def test_a_report_of_another_version_is_shown_as_far_as_it_can(root: Client, text: bytes) -> None:
    broker.get().report("default", "other", text)
    assert "other" in told(root)
    assert "other" in told(root, f"{LIST}worker/other/")


def test_how_workers_ended(root: Client) -> None:
    for how in How:
        gone = Gone(f"{how}-one", how, f"why {how}", clock.now(), "box", 7)
        broker.get().note_gone("default", gone.dumps())
    broker.get().note_gone("default", b'{"of": "another version"}')
    page = told(root)
    for how in How:
        assert f"{how}-one" in page
        assert f"why {how}" in page
    assert "lost-one" in told(root, f"{LIST}worker/lost-one/")
    assert "stopped-one" not in told(root, f"{LIST}worker/lost-one/")


def test_looking_changes_nothing(root: Client) -> None:
    report(leased=False)
    told(root)
    told(root, f"{LIST}worker/w/")
    assert list(broker.get().reports("default")) == ["w"]


def test_names_are_escaped(root: Client) -> None:
    evil = "<script>alert(1)</script>"
    report(evil, revision=evil, host=evil, state=evil)
    for url in (LIST, f"{LIST}worker/%3Cscript%3Ealert(1)%3C/script%3E/"):
        page = told(root, url)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page


# ------------------------------------------------------------------------------ acts


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_an_act(root: Client, verb: Any) -> None:
    report()
    url = f"{LIST}{verb.name}/w/"
    assert f'action="{url}"' in told(root, f"{LIST}worker/w/")
    sent = {"why": "it leaks"}
    queue = {"add-queue": "high", "cancel-queue": "low"}.get(verb.name, "")
    if verb.question:
        asked = root.post(url).content.decode()
        assert "Worker “w” will" in asked
        assert (f'<option value="{queue}">' in asked) is bool(queue)
        assert commands() == []
        sent |= {"confirmed": "yes", "queue": queue}
    response = root.post(url, sent)
    (command,) = commands()
    assert command is not None
    assert (command.act, command.by, command.queue) == (Act(verb.name), "user0", queue)
    assert response["Location"] == f"{LIST}worker/w/?queue=default&command={command.id}"
    assert said(response) == [str(verb.done) % {"worker": "w", "queue": queue}]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.object_repr) == ("w", "worker “w”")
    assert entry.change_message == f"{said(response)[0]} Reason: it leaks"
    assert (entry.action_flag == DELETION) is (verb.name == "stop")
    # The worker answers.
    page = told(root, response["Location"])
    assert "It hasn’t answered yet." in page
    assert entry.change_message in page
    broker.get().answer("default", command.id, Answer(False, "It is <stopping>.").dumps(), 60)
    page = told(root, response["Location"])
    assert "It doesn’t do what was asked." in page
    assert "It is &lt;stopping&gt;." in page
    broker.get().answer("default", command.id, Answer(True).dumps(), 60)
    live = response["Location"].replace("/worker/", "/live-worker/")
    assert "It does what was asked." in told(root, live)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_an_act_without_its_permission(root: Client, verb: Any) -> None:
    report()
    looker = staff("jobs.view_queues")
    assert "jobs-verbs" not in told(looker, f"{LIST}worker/w/")
    for sent in ({}, {"confirmed": "yes"}):
        assert looker.post(f"{LIST}{verb.name}/w/", sent).status_code == 403
    assert looker.get(f"{LIST}{verb.name}/w/").status_code == 403
    assert staff("jobs.manage_queues").post(f"{LIST}{verb.name}/w/").status_code == 403
    assert commands() == []
    assert not LogEntry.objects.exists()
    # A link brings those who may to its page, and does nothing.
    assert staff(*MAY).get(f"{LIST}{verb.name}/w/")["Location"] == f"{LIST}worker/w/"
    assert commands() == []


def test_which_queues_may_be_added_and_cancelled(root: Client, settings: Settings) -> None:
    queues = {"default": {}, "low": {}, "high": {}, "theirs": {"foreign_workers": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    report()

    def offered(act: str) -> list[str]:
        page = root.post(f"{LIST}{act}/w/", {"queue": "low"}).content.decode()
        return re.findall(r'<option value="([^"]+)"', page)

    assert offered("add-queue") == ["high"]
    assert offered("cancel-queue") == ["default", "low"]
    response = root.post(f"{LIST}add-queue/w/", {"queue": "no-such", "confirmed": "yes"})
    assert "'no-such' is not declared" in said(response)[0]
    assert commands() == []
    assert not LogEntry.objects.exists()


def test_acts_need_the_token() -> None:
    report()
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = staff(*MAY).cookies
    assert careful.post(f"{LIST}quiet/w/").status_code == 403
    assert commands() == []


def test_one_that_has_gone_meanwhile(root: Client) -> None:
    response = root.post(f"{LIST}quiet/w/")
    assert response["Location"] == LIST
    assert said(response) == ["Worker “w” doesn’t report any more."]
    assert not LogEntry.objects.exists()
    assert "No worker of this name reports." in told(root, f"{LIST}worker/w/")


def test_stacks_are_for_those_who_may_ask_for_them(root: Client) -> None:
    report()
    queue, command = control.workers.command("w", Act.STACK)
    answer = Answer(True, "", (("w/1.a", "File secret.py in <module>"),))
    broker.get().answer(queue, command, answer.dumps(), 60)
    url = f"{LIST}worker/w/?queue={queue}&command={command}"
    assert "File secret.py in &lt;module&gt;" in told(root, url)
    assert "secret.py" not in told(staff("jobs.view_queues"), url)


@pytest.mark.parametrize("url", [LIST, f"{LIST}live/", f"{LIST}worker/w/", f"{LIST}live-worker/w/"])
def test_who_may_look(url: str) -> None:
    assert Client().get(url).status_code == 302
    assert staff("jobs.view_taskresult").get(url).status_code == 403
    for permission in ("jobs.view_queues", "jobs.control_workers"):
        assert staff(permission).get(url).status_code == 200


@pytest.mark.parametrize(
    "query", ["queue=nowhere&command=0123456789abcdef", "queue=default&command=../x", "queue=%00"]
)
def test_answers_to_nothing(root: Client, query: str) -> None:
    report()
    assert "jobs-answer" not in told(root, f"{LIST}worker/w/?{query}")


def test_an_answer_of_another_version() -> None:
    broker.get().answer("default", "0123456789abcdef", b'{"new": 1}', 60)
    assert control.workers.answered("default", "0123456789abcdef") == Answer(True)
    assert Command.loads(b'{"id": "1", "act": "dance", "by": ""}') is None


def test_the_broker_is_away(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.exceptions import BrokerUnavailable

    def away(*args: Any, **kwargs: Any) -> Any:
        raise BrokerUnavailable("gone for lunch")

    report()
    for verb in ("reports", "survey"):
        monkeypatch.setattr(broker.get(), verb, away)
    assert "gone for lunch" in told(root)
    assert "gone for lunch" in told(root, f"{LIST}worker/w/")
    assert said(root.post(f"{LIST}quiet/w/")) == ["gone for lunch"]


@pytest.mark.one_version
def test_hostile_values(root: Client) -> None:
    """With every version, test_hostile.py has some of these values."""
    report()
    wrong = []
    for value in VALUES:
        place = value.replace("+", "%20")
        # Of the verbs, which share a view, one that asks first and one that doesn't; each has some
        # of the values in test_hostile.py.
        for what in ("worker", "live-worker", "stop", "quiet", "add-queue"):
            wrong += [asked(root, how, f"{LIST}{what}/{place}/") for how in ("get", "post")]
        wrong.append(asked(root, "get", f"{LIST}worker/w/", f"queue=default&command={value}"))
        wrong.append(asked(root, "get", f"{LIST}worker/w/", f"queue={value}&command={value}"))
        wrong.append(asked(root, "post", f"{LIST}stop/w/", f"confirmed=yes&why={value}"))
        wrong.append(asked(root, "post", f"{LIST}add-queue/w/", f"confirmed=yes&queue={value}"))
    assert not [text for text in wrong if text]


def test_fifty_busy_workers_cost_some_round_trips(
    root: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = {name: {} for name in ("default", "low", *(f"q{n}" for n in range(20)))}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    for n in range(50):
        add.delay(n, 1)
        child = f"w{n}/1.a"
        report(f"w{n}", running=[["default", child, 1, 1.7e9], ["default", "w0/1.a", 1, 1.7e9]])
        broker.get().claim("default", child, 1, 1, 60)
    told(root)  # the scripts are known from now on
    told(root, "/admin/jobs/tasks/")
    trips: list[int] = []
    exchange = Connections._exchange

    def counted(self: Connections, parts: Any) -> Any:
        trips.append(1)
        return exchange(self, parts)

    monkeypatch.setattr(Connections, "_exchange", counted)
    page = told(root)
    # What each queue holds, the ages of reports, what runs, and how others have ended.
    assert len(trips) == 4
    assert all(f"worker/w{n}/" in page for n in range(50))
    trips.clear()
    told(root, "/admin/jobs/tasks/")
    assert len(trips) <= 4
