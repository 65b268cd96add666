"""The queues, and their dead letters."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils.html import escape
from pytest_django import Settings

from jobs import (
    broker,
    message,
    registry,
    task,
)
from jobs.admin.queues import admin as queues
from jobs.broker.base import Outgoing
from jobs.models import TaskResult
from tests.integration.admin.conftest import SIGN_IN, bury, letter, row, staff
from tests.services import Valkey

pytestmark = pytest.mark.django_db

LIVE = "/admin/jobs/queues/live/"
OVERVIEW = "/admin/jobs/queues/"
DEAD = "/admin/jobs/queues/dead/default/"
SCRIPT = "<script>alert('x')</script>"


def numbers(client: Client, queue: str) -> list[int]:
    """Waiting, in flight, due, dead and workers of a queue, as the page has them."""
    page = client.get(LIVE).content.decode()
    cells = page.partition(f'<th scope="row">{queue}</th>')[2].partition("</tr>")[0]
    return [int(n) for n in re.findall(r">\s*(\d+)\s*</(?:td|a)>", cells)]


def said(response: object) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ overview


def test_the_numbers_of_a_queue(root: Client, broker_url: str) -> None:
    port = broker.get()
    port.push([Outgoing("high", b"%d" % n) for n in range(5)])
    port.push([Outgoing("high", b"later", due=4e9)])
    port.claim("high", "child-1", 1, 2, 600.0)
    port.renew("low", ["child-1"], 600.0)
    port.dead_letter("high", "child-1", 1, "why", "w")
    assert numbers(root, "high") == [3, 1, 1, 1, 1]
    assert numbers(root, "default") == [0, 0, 0, 0, 0]
    page = root.get(OVERVIEW).content.decode()
    assert 'hx-get="/admin/jobs/queues/live/"' in page
    assert re.search(r"child-1</th>\s*<td>high, low</td>\s*<td[^>]*>1</td>", page)
    (left,) = re.findall(r"ends in (\d+) s unless renewed", page)
    assert 500 < int(left) <= 600


def test_a_queue_that_nobody_serves_is_told(root: Client, broker_url: str) -> None:
    assert "no worker takes them" not in root.get(LIVE).content.decode()
    broker.get().push([Outgoing("low", b"x")])
    page = root.get(LIVE).content.decode()
    assert "Messages wait in queue “low”, and no worker takes them." in page
    assert "manage.py runworker --queues low" in page


def test_a_worker_whose_lease_has_ended(root: Client, broker_url: str) -> None:
    port = broker.get()
    port.push([Outgoing("low", b"x")])
    port.claim("low", "gone", 1, 1, -5.0)
    page = root.get(LIVE).content.decode()
    assert "what it holds goes back to its queue" in page
    assert 'class="jobs-gone"' in page


@pytest.mark.parametrize("url", [OVERVIEW, LIVE, DEAD])
def test_redis_away(root: Client, own_valkey: Valkey, url: str) -> None:
    own_valkey.kill()
    response = root.get(url)
    assert response.status_code == 200
    page = response.content.decode()
    assert "Redis can’t be asked" in page
    assert str(own_valkey.port) in page
    own_valkey.start()
    assert "Redis can’t be asked" not in root.get(url).content.decode()


def test_no_broker_configured(root: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": ""}
    settings.DEBUG = False
    assert "BROKER_URL" in root.get(OVERVIEW).content.decode()


def test_actions_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    response = root.post(DEAD, {"action": "requeue", "key": "1-0"})
    assert response.status_code == 302
    assert "can't be used" in said(response)[0]
    assert root.get("/admin/jobs/queues/letter/default/1-0/").status_code == 302


# ------------------------------------------------------------------------------ dead letters


def test_an_empty_list_and_an_unknown_queue(root: Client, broker_url: str) -> None:
    assert "There are no dead letters" in root.get(DEAD).content.decode()
    assert root.get("/admin/jobs/queues/dead/nowhere/").status_code == 404
    assert root.get("/admin/jobs/queues/letter/nowhere/1-0/").status_code == 404
    assert root.post("/admin/jobs/queues/dead/nowhere/").status_code == 404


def test_dead_letters_are_listed_with_what_can_be_read(root: Client, broker_url: str) -> None:
    _key, sent = letter(args=[1])
    row(id=sent.id, task=sent.task, state="FAILURE")
    bury(b"garbage", reason="MalformedMessage: no")
    page = root.get(DEAD).content.decode()
    assert "shop.tasks.gone" in page
    assert f'href="/admin/jobs/taskresult/{sent.id}/change/"' in page
    assert "can’t be read" in page
    assert page.index("MalformedMessage: no") < page.index("UnknownTask: who?")


def test_the_link_to_the_result_needs_its_permission(broker_url: str) -> None:
    _key, sent = letter()
    row(id=sent.id, task=sent.task)
    page = staff("jobs.view_queues").get(DEAD).content.decode()
    assert sent.id in page
    assert "/admin/jobs/taskresult/" not in page


def test_one_dead_letter_is_shown_whole(root: Client, broker_url: str) -> None:
    key, _sent = letter(args=["straße"], kwargs={"n": 1})
    page = root.get(f"/admin/jobs/queues/letter/default/{key}/").content.decode()
    assert escape("['straße']") in page
    assert escape("{'n': 1}") in page
    assert escape('"jobs_sig"') in page
    key = bury(b"\xff<not json>")
    page = root.get(f"/admin/jobs/queues/letter/default/{key}/").content.decode()
    assert escape("\\xff<not json>") in page


def test_a_dead_letter_that_is_gone(root: Client, broker_url: str) -> None:
    response = root.get("/admin/jobs/queues/letter/default/1-0/")
    assert response.status_code == 302
    assert said(response) == ["This dead letter is not there any more."]


def test_pages_of_dead_letters(root: Client, broker_url: str) -> None:
    keys = [bury(b"%d" % n) for n in range(120)][::-1]
    seen: list[str] = []
    url = DEAD
    while url:
        page = root.get(url).content.decode()
        seen += re.findall(r'name="key" value="([^"]+)"', page)
        older = re.search(r'href="(\?before=[^"]+)" rel="next"', page)
        url = DEAD + older[1] if older else ""
    assert seen == keys


@pytest.mark.parametrize("place", ["nonsense", "1-0-0", "", "-", "99999999999999999999999999-0"])
def test_places_and_keys_that_mean_nothing(root: Client, broker_url: str, place: str) -> None:
    letter()
    assert root.get(DEAD, {"before": place}).status_code == 200
    response = root.post(DEAD, {"action": "requeue", "key": place})
    assert response.status_code == 302
    if place:
        assert root.get(f"/admin/jobs/queues/letter/default/{place}/").status_code == 302


def test_dead_letters_are_escaped(root: Client, broker_url: str) -> None:
    sent = message.Message(
        task=SCRIPT, id=SCRIPT, queue="default", args=[SCRIPT], kwargs={SCRIPT: 1}
    )
    key = bury(message.encode(sent), reason=SCRIPT)
    for url in (DEAD, f"/admin/jobs/queues/letter/default/{key}/"):
        page = root.get(url).content.decode()
        assert "<script>alert" not in page
        assert escape("<script>alert") in page


# ------------------------------------------------------------------------------ actions


def test_putting_back(root: Client, broker_url: str) -> None:
    key, sent = letter()
    row(id=sent.id, task=sent.task, state="FAILURE", error="no")
    response = root.post(DEAD, {"action": "requeue", "key": key})
    assert response["Location"] == DEAD
    assert said(response) == ["1 message is back on the queue."]
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.dead) == (1, 0)
    assert TaskResult.objects.get(pk=sent.id).state == "PENDING"


def test_putting_back_what_is_gone(root: Client, broker_url: str) -> None:
    key, _sent = letter()
    broker.get().discard("default", key)
    response = root.post(DEAD, {"action": "requeue", "key": key})
    assert said(response) == ["1 was not there any more."]


def test_discarding_asks_first(root: Client, broker_url: str) -> None:
    keys = [letter()[0] for _ in range(3)]
    chosen = {"action": "discard", "key": keys[:2]}
    page = root.post(DEAD, chosen).content.decode()
    assert "2 messages of queue “default” will be deleted for good." in page
    assert broker.get().stats("default").dead == 3
    response = root.post(DEAD, {**chosen, "confirmed": "yes"})
    assert said(response) == ["2 messages discarded."]
    assert [left.key for left in broker.get().dead_letters("default", 9)] == [keys[2]]


def test_nothing_chosen(root: Client, broker_url: str) -> None:
    assert said(root.post(DEAD, {"action": "discard"})) == ["Choose dead letters first."]


def test_actions_need_their_permission(broker_url: str) -> None:
    key, _sent = letter()
    viewer = staff("jobs.view_queues")
    for action in ("requeue", "discard"):
        chosen = {"action": action, "key": key, "confirmed": "yes"}
        assert viewer.post(DEAD, chosen).status_code == 403
    assert 'name="action"' not in viewer.get(DEAD).content.decode()
    assert broker.get().stats("default").dead == 1
    manager = staff("jobs.manage_queues")
    assert manager.post(DEAD, {"action": "requeue", "key": key}).status_code == 302
    assert broker.get().stats("default").dead == 0


def test_actions_are_protected_from_other_sites(root: Client, broker_url: str) -> None:
    key, _sent = letter()
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(DEAD, {"action": "requeue", "key": key}).status_code == 403
    assert strict.get(DEAD, {"action": "requeue", "key": key}).status_code == 200
    assert broker.get().stats("default").dead == 1


# ------------------------------------------------------------------------------ all of them


def newest(asked: str) -> str:
    found = re.search(r'name="newest" value="([^"]+)"', asked)
    assert found is not None
    return found[1]


def test_putting_all_back_asks_first(root: Client, broker_url: str) -> None:
    for n in range(120):
        letter(args=[n])
    asked = root.post(DEAD, {"action": "requeue_all"}).content.decode()
    assert "120 messages go back on queue “default”" in asked
    assert broker.get().stats("default").dead == 120
    _key, later = letter(args=["later"])
    values = {"action": "requeue_all", "confirmed": "yes", "newest": newest(asked)}
    response = root.post(DEAD, values)
    assert said(response) == ["120 messages are back on the queue."]
    # What became one after the question is not meant.
    (left,) = broker.get().dead_letters("default", 9)
    assert message.decode(left.raw, "default").id == later.id
    claimed = broker.get().claim("default", "w", 1, 500, 15.0).messages
    assert [message.decode(raw, "default").args for _n, raw in claimed] == [[n] for n in range(120)]


def test_discarding_all_asks_first(root: Client, broker_url: str) -> None:
    for _ in range(3):
        letter()
    asked = root.post(DEAD, {"action": "discard_all"}).content.decode()
    assert "3 messages of queue “default” will be deleted for good" in asked
    assert broker.get().stats("default").dead == 3
    values = {"action": "discard_all", "confirmed": "yes", "newest": newest(asked)}
    assert said(root.post(DEAD, values)) == ["3 messages discarded."]
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.dead) == (0, 0)


def test_all_is_bounded(root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ALL", 4)
    for _ in range(6):
        letter()
    asked = root.post(DEAD, {"action": "discard_all"}).content.decode()
    assert "There are 6 dead letters: the newest 4 are done at once." in asked
    values = {"action": "discard_all", "confirmed": "yes", "newest": newest(asked)}
    told = said(root.post(DEAD, values))
    assert told[0] == "4 messages discarded."
    assert "Do it again for the others." in told[1]
    assert broker.get().stats("default").dead == 2


def test_all_of_none(root: Client, broker_url: str) -> None:
    for action in ("requeue_all", "discard_all"):
        response = root.post(DEAD, {"action": action})
        assert (response.status_code, said(response)) == (302, [])


@pytest.mark.parametrize("place", ["", "nonsense", "-"])
def test_a_confirmation_without_a_place_is_asked_again(
    root: Client, broker_url: str, place: str
) -> None:
    letter()
    values = {"action": "discard_all", "confirmed": "yes", "newest": place}
    assert "Are you sure?" in root.post(DEAD, values).content.decode()
    assert broker.get().stats("default").dead == 1


@pytest.mark.parametrize("action", ["", "delete", "discard_all_all", "discard_allx", "_all"])
def test_actions_that_there_are_not(root: Client, broker_url: str, action: str) -> None:
    key, _sent = letter()
    values = {"action": action, "key": key, "confirmed": "yes", "newest": key}
    assert root.post(DEAD, values).status_code == 302
    assert broker.get().stats("default").dead == 1


def test_all_needs_its_permission(broker_url: str) -> None:
    key, _sent = letter()
    viewer = staff("jobs.view_queues", "jobs.retry_taskresult", "jobs.delete_taskresult")
    for action in ("requeue_all", "discard_all"):
        values = {"action": action, "confirmed": "yes", "newest": key}
        assert viewer.post(DEAD, values).status_code == 403
        assert viewer.post(DEAD, {"action": action}).status_code == 403
        assert Client().post(DEAD, values)["Location"].startswith(SIGN_IN)
    assert "_all" not in viewer.get(DEAD).content.decode().partition("<form method")[2]
    assert broker.get().stats("default").dead == 1


def test_all_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for values in ({}, {"confirmed": "yes", "newest": "1-0"}):
        response = root.post(DEAD, {"action": "discard_all", **values})
        assert response.status_code == 302
        assert "can't be used" in said(response)[0]


# ------------------------------------------------------------------------------ what is hidden


def secret_letter(task: str) -> str:
    """A dead letter of a call whose sender hid an argument; the page of it."""
    sent = message.Message(
        task=task,
        id=message.new_id(),
        queue="default",
        args=["ada"],
        kwargs={"password": "lovelace"},
        sensitive=frozenset({"password", "1"}),
    )
    return f"/admin/jobs/queues/letter/default/{bury(message.encode(sent))}/"


def body_of(url: str) -> str:
    key = url.rstrip("/").rpartition("/")[2]
    found = broker.get().dead_letter_at("default", key)
    assert found is not None
    return str(json.loads(found.raw)["body"])


def test_sensitive_arguments_are_not_shown(root: Client, broker_url: str) -> None:
    @task(name="tests.admin.sign_in", sensitive=["password"])
    def sign_in(name: str, password: str) -> None: ...

    try:
        url = secret_letter("tests.admin.sign_in")
        page = root.get(url).content.decode()
    finally:
        del registry.tasks["tests.admin.sign_in"]
    assert escape("['ada']") in page
    assert escape("{'password': '…'}") in page
    assert "lovelace" not in page
    assert body_of(url) not in page


def test_what_its_sender_hid_is_not_shown_of_an_unknown_task(root: Client, broker_url: str) -> None:
    url = secret_letter("shop.tasks.gone")
    page = root.get(url).content.decode()
    assert escape("['…']") in page
    assert escape("{'password': '…'}") in page
    assert "lovelace" not in page
    assert body_of(url) not in page
