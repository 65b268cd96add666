"""The dead letters of all queues."""

from __future__ import annotations

import base64
import json
import re

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils.html import escape

from jobs import broker, message, registry, task
from jobs.admin.deadletters import admin as deadletters
from jobs.admin.deadletters import letters as all_letters
from jobs.models import TaskResult
from tests.integration.admin.conftest import SIGN_IN, bury, letter, row, staff
from tests.services import Valkey

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/deadletters/"
DEAD = "/admin/jobs/deadletters/?queue=default"
SCRIPT = "<script>alert('x')</script>"


def said(response: object) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]  # type: ignore[attr-defined]


def at(key: str, queue: str = "default") -> str:
    """As a form names a dead letter."""
    return f"{key}:{queue}"


def test_actions_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    response = root.post(DEAD, {"action": "requeue", "key": at("1-0")})
    assert response.status_code == 302
    assert "can't be used" in said(response)[0]
    assert root.get("/admin/jobs/deadletters/letter/default/1-0/").status_code == 302


# ------------------------------------------------------------------------------ dead letters


def test_an_empty_list_and_an_unknown_queue(root: Client, broker_url: str) -> None:
    assert "There are no dead letters" in root.get(DEAD).content.decode()
    assert root.get(LIST + "?queue=nowhere").status_code == 404
    assert root.get("/admin/jobs/deadletters/letter/nowhere/1-0/").status_code == 404
    assert root.post(LIST + "?queue=nowhere").status_code == 404


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
    page = root.get(f"/admin/jobs/deadletters/letter/default/{key}/").content.decode()
    assert escape("['straße']") in page
    assert escape("{'n': 1}") in page
    assert escape('"jobs_sig"') in page
    key = bury(b"\xff<not json>")
    page = root.get(f"/admin/jobs/deadletters/letter/default/{key}/").content.decode()
    assert escape("\\xff<not json>") in page


def test_a_dead_letter_that_is_gone(root: Client, broker_url: str) -> None:
    response = root.get("/admin/jobs/deadletters/letter/default/1-0/")
    assert response.status_code == 302
    assert said(response) == ["This dead letter is not there any more."]


def test_pages_of_dead_letters(root: Client, broker_url: str) -> None:
    keys = [bury(b"%d" % n) for n in range(120)][::-1]
    seen: list[str] = []
    url = DEAD
    while url:
        page = root.get(url).content.decode()
        seen += re.findall(r'name="key" value="([^":]+):default"', page)
        older = re.search(r'href="(\?queue=default&amp;before=[^"]+)" rel="next"', page)
        url = LIST + older[1].replace("&amp;", "&") if older else ""
    assert seen == keys


@pytest.mark.parametrize("place", ["nonsense", "1-0-0", "", "-", "99999999999999999999999999-0"])
def test_places_and_keys_that_mean_nothing(root: Client, broker_url: str, place: str) -> None:
    letter()
    assert root.get(LIST, {"before": place}).status_code == 200
    response = root.post(DEAD, {"action": "requeue", "key": at(place)})
    assert response.status_code == 302
    if place:
        assert root.get(f"/admin/jobs/deadletters/letter/default/{place}/").status_code == 302


def test_dead_letters_are_escaped(root: Client, broker_url: str) -> None:
    sent = message.Message(
        task=SCRIPT, id=SCRIPT, queue="default", args=[SCRIPT], kwargs={SCRIPT: 1}
    )
    key = bury(message.encode(sent), reason=SCRIPT)
    for url in (DEAD, f"/admin/jobs/deadletters/letter/default/{key}/"):
        page = root.get(url).content.decode()
        assert "<script>alert" not in page
        assert escape("<script>alert") in page


# ------------------------------------------------------------------------------ actions


def test_putting_back(root: Client, broker_url: str) -> None:
    key, sent = letter()
    row(id=sent.id, task=sent.task, state="FAILURE", error="no")
    response = root.post(DEAD, {"action": "requeue", "key": at(key)})
    assert response["Location"] == DEAD
    assert said(response) == ["1 message is back on the queue."]
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.dead) == (1, 0)
    assert TaskResult.objects.get(pk=sent.id).state == "PENDING"


def test_putting_back_what_is_gone(root: Client, broker_url: str) -> None:
    key, _sent = letter()
    broker.get().discard("default", key)
    response = root.post(DEAD, {"action": "requeue", "key": at(key)})
    assert said(response) == ["1 was not there any more."]


def test_discarding_asks_first(root: Client, broker_url: str) -> None:
    keys = [letter()[0] for _ in range(3)]
    chosen = {"action": "discard", "key": [at(key) for key in keys[:2]]}
    page = root.post(DEAD, chosen).content.decode()
    assert "2 messages will be deleted for good." in page
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
        chosen = {"action": action, "key": at(key), "confirmed": "yes"}
        assert viewer.post(DEAD, chosen).status_code == 403
    assert 'name="action"' not in viewer.get(DEAD).content.decode()
    assert broker.get().stats("default").dead == 1
    manager = staff("jobs.manage_queues")
    assert manager.post(DEAD, {"action": "requeue", "key": at(key)}).status_code == 302
    assert broker.get().stats("default").dead == 0


def test_actions_are_protected_from_other_sites(root: Client, broker_url: str) -> None:
    key, _sent = letter()
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(DEAD, {"action": "requeue", "key": at(key)}).status_code == 403
    assert strict.get(LIST, {"action": "requeue", "key": at(key)}).status_code == 200
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
    assert "120 messages go back on their queues" in asked
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
    assert "3 messages will be deleted for good" in asked
    assert broker.get().stats("default").dead == 3
    values = {"action": "discard_all", "confirmed": "yes", "newest": newest(asked)}
    assert said(root.post(DEAD, values)) == ["3 messages discarded."]
    stats = broker.get().stats("default")
    assert (stats.waiting, stats.dead) == (0, 0)


def test_all_is_bounded(root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "ALL", 4)
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
    values = {"action": action, "key": at(key), "confirmed": "yes", "newest": at(key)}
    assert root.post(DEAD, values).status_code == 302
    assert broker.get().stats("default").dead == 1


def test_all_needs_its_permission(broker_url: str) -> None:
    key, _sent = letter()
    viewer = staff("jobs.view_queues", "jobs.retry_taskresult", "jobs.delete_taskresult")
    for action in ("requeue_all", "discard_all"):
        values = {"action": action, "confirmed": "yes", "newest": at(key)}
        assert viewer.post(DEAD, values).status_code == 403
        assert viewer.post(DEAD, {"action": action}).status_code == 403
        assert Client().post(DEAD, values)["Location"].startswith(SIGN_IN)
    assert "_all" not in viewer.get(DEAD).content.decode().partition("<form method")[2]
    assert broker.get().stats("default").dead == 1


def test_all_with_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for values in ({}, {"confirmed": "yes", "newest": at("1-0")}):
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
    return f"/admin/jobs/deadletters/letter/default/{bury(message.encode(sent))}/"


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


def test_sensitive_arguments_of_what_follows_are_not_shown(root: Client, broker_url: str) -> None:
    @task(name="tests.admin.sign_in", sensitive=["password"])
    def sign_in(name: str, password: str) -> None: ...

    following = sign_in.si("ada", password="lovelace")
    sent = message.Message(task="shop.tasks.gone", id=message.new_id(), queue="default")
    sent.embed = {"chain": [dict(following)]}
    raw = message.encode(sent)
    # Also of a message that can't be read, and one that no JSON is.
    broken = raw.replace(b'"task"', b'"tusk"')
    try:
        pages = [
            root.get(f"/admin/jobs/deadletters/letter/default/{bury(one)}/").content.decode()
            for one in (raw, broken, raw[:-1])
        ]
    finally:
        del registry.tasks["tests.admin.sign_in"]
    assert b"sign_in" in raw or b"lovelace" not in raw
    for page in pages:
        assert "lovelace" not in page
        assert base64.b64encode(b"lovelace").decode()[:8] not in page


# ------------------------------------------------------------------------------ all queues


def listed(client: Client, url: str) -> list[str]:
    """What the boxes of all pages send."""
    found: list[str] = []
    while url:
        shown = client.get(url).content.decode()
        found += re.findall(r'name="key" value="([^"]+)"', shown)
        older = re.search(r'href="(\?[^"]+)" rel="next"', shown)
        url = LIST + older[1].replace("&amp;", "&") if older else ""
    return found


def test_all_queues_in_one_order(root: Client, broker_url: str) -> None:
    names = ["default", "low", "high", "low", "low", "high"] * 25
    made = [at(bury(b"%d" % n, queue=name), name) for n, name in enumerate(names)]
    # Keys of one millisecond that several queues have: by name, and each once.
    order = sorted(made, key=lambda place: place.partition(":")[2])
    order.sort(key=lambda place: [-int(n) for n in place.partition(":")[0].split("-")])
    assert listed(root, LIST) == order
    assert set(listed(root, f"{LIST}?queue=low")) == {p for p in made if p.endswith(":low")}


def test_one_key_on_several_queues(root: Client, own_valkey: Valkey) -> None:
    fields = {"reason": "no", "worker": "w", "message": "x"}
    with own_valkey.client() as client:
        for queue in ("low", "default", "high"):
            for n in range(40):
                client.xadd(f"{{{queue}}}:dead", fields, id=f"7-{n}")
    found = listed(root, LIST)
    assert len(found) == len(set(found)) == 120
    assert found[:4] == ["7-39:default", "7-39:high", "7-39:low", "7-38:default"]
    values = {"action": "discard_all", "confirmed": "yes", "newest": "7-38:high"}
    root.post(LIST, values)
    assert listed(root, LIST) == [
        "7-39:default",
        "7-39:high",
        "7-39:low",
        "7-38:default",
    ]


def test_filters(root: Client, broker_url: str) -> None:
    here = at(letter("shop.a")[0])
    there = at(letter("shop.b", queue="low")[0], "low")
    sent = message.Message(task="shop.a", id=message.new_id(), queue="low")
    lost = at(bury(message.encode(sent), queue="low", reason="WorkerLost: again"), "low")
    garbage = at(bury(b"garbage", reason="MalformedMessage: no"))
    for query, expected in (
        ("", [garbage, lost, there, here]),
        ("?queue=low", [lost, there]),
        ("?reason=UnknownTask", [there, here]),
        ("?task=shop.a", [lost, here]),
        ("?reason=UnknownTask&task=shop.a", [here]),
        ("?queue=low&reason=WorkerLost&task=shop.a", [lost]),
        ("?reason=Unknown", []),
    ):
        # Those of one millisecond stand in the order of their queues' names.
        assert sorted(listed(root, LIST + query)) == sorted(expected)
    assert "There are no dead letters that fit." in root.get(f"{LIST}?task=x").content.decode()


def test_groups_by_reason_and_task(root: Client, broker_url: str) -> None:
    for _ in range(3):
        letter("shop.a&b")
    letter("shop.c", queue="low")
    bury(b"garbage", reason=f"{SCRIPT}: no")
    shown = root.get(LIST).content.decode()
    groups = shown.partition('id="jobs-groups"')[2].partition("</table>")[0]
    rows = re.findall(r'href="([^"]+)">([^<]+)</a></th>\s*<td>(.*?)</td>\s*<td[^>]*>(\d+)', groups)
    assert [(reason, task, count) for _url, reason, task, count in rows] == [
        ("UnknownTask", "shop.a&amp;b", "3"),
        (str(escape(SCRIPT)), "<i>can’t be read</i>", "1"),
        ("UnknownTask", "shop.c", "1"),
    ]
    assert len(listed(root, LIST + rows[0][0].replace("&amp;", "&"))) == 3
    assert len(listed(root, LIST + rows[1][0].replace("&amp;", "&"))) == 1
    low = root.get(f"{LIST}?queue=low").content.decode()
    assert "shop.c" in low
    assert "shop.a" not in low
    assert 'id="jobs-groups"' not in root.get(f"{LIST}?task=shop.c").content.decode()


def test_a_search_stops_and_goes_on(
    root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_letters, "LOOKED", 10)
    wanted = at(letter("shop.rare")[0])
    for _ in range(25):
        letter("shop.often")
    url = f"{LIST}?task=shop.rare"
    shown = root.get(url).content.decode()
    assert "None of these 10 dead letters fits." in shown
    assert "Look further" in shown
    assert listed(root, url) == [wanted]
    told = said(root.post(url, {"action": "discard_all"}))
    assert told == ["None of the newest 10 dead letters fits."]


@pytest.mark.parametrize("action", ["requeue_all", "discard_all"])
def test_all_that_fit(root: Client, broker_url: str, action: str) -> None:
    kept = at(letter("shop.other")[0])
    for queue in ("default", "low", "high"):
        letter("shop.a", queue=queue)
    url = f"{LIST}?task=shop.a&reason=UnknownTask"
    asked = root.post(url, {"action": action}).content.decode()
    assert "3 messages" in asked
    assert "Reason: UnknownTask. Task: shop.a." in asked
    later = at(letter("shop.a")[0])
    values = {"action": action, "confirmed": "yes", "newest": newest(asked)}
    assert said(root.post(url, values))[0].startswith("3 messages")
    assert listed(root, LIST) == [later, kept]


def test_all_that_fit_is_bounded(
    root: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "ALL", 2)
    for queue in ("default", "low", "high"):
        letter(queue=queue)
    asked = root.post(LIST, {"action": "discard_all"}).content.decode()
    assert "There are 3 dead letters: the newest 2 are done at once." in asked
    values = {"action": "discard_all", "confirmed": "yes", "newest": newest(asked)}
    assert said(root.post(LIST, values))[-1].endswith("1 are left.")
    assert len(listed(root, LIST)) == 1
    for _ in range(3):
        letter("shop.a")
    asked = root.post(f"{LIST}?task=shop.a", {"action": "discard_all"}).content.decode()
    assert "There are more: the newest 2 are done at once." in asked


def test_the_chosen_of_several_queues(root: Client, broker_url: str) -> None:
    chosen = [at(letter(queue=queue)[0], queue) for queue in ("default", "low")]
    kept = at(letter(queue="high")[0], "high")
    response = root.post(LIST, {"action": "requeue", "key": chosen})
    assert response["Location"] == LIST
    assert said(response) == ["2 messages are back on the queue."]
    assert listed(root, LIST) == [kept]
    assert [broker.get().stats(q).waiting for q in ("default", "low", "high")] == [1, 1, 0]


def test_addresses_of_before(root: Client, broker_url: str) -> None:
    key, _sent = letter()
    old = "/admin/jobs/queues/"
    assert root.get(f"{old}dead/default/")["Location"] == DEAD
    assert root.get(f"{old}letter/default/{key}/")["Location"] == (f"{LIST}letter/default/{key}/")
    for url in (f"{old}dead/nowhere/", f"{old}letter/nowhere/{key}/"):
        assert root.get(url).status_code == 404
        assert staff().get(url).status_code == 403
    root.post(f"{old}dead/default/", {"action": "discard", "key": key, "confirmed": "yes"})
    assert broker.get().stats("default").dead == 1
