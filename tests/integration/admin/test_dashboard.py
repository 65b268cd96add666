"""The dashboard: its numbers, its links, and who may see them."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import json
import re
import statistics
import time
from collections.abc import AsyncIterator, Coroutine
from html import unescape
from typing import Any, TypeVar

import pytest
import redis
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connections
from django.db.models import Count
from django.test import AsyncClient, Client
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, control
from jobs.admin.dashboard import overview, stream
from jobs.broker.base import Outgoing
from jobs.control import attention, snapshot
from jobs.control.metrics import Numbers
from jobs.control.throughput import Rate
from jobs.models import TaskResult
from tests.integration.admin.conftest import SIGN_IN, letter, row, staff
from tests.integration.beats import no_other_schedules, scheduled  # noqa: F401
from tests.services import Valkey
from tests.tasks import add, fail
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

PAGE = "/admin/jobs/dashboard/"
PAGES = [PAGE, f"{PAGE}live/", f"{PAGE}numbers/", f"{PAGE}metrics.json"]


def live(client: Client, **asked: str) -> str:
    return client.get(f"{PAGE}live/", asked).content.decode()


def cells(client: Client, queue: str) -> list[str]:
    """Waiting, oldest, done in, in flight, due, dead and workers of a queue."""
    table = live(client).partition('id="jobs-dashboard-queues"')[2]
    line = re.search(rf'<th scope="row">(?:<a [^>]*>)?{queue}[<\s].*?</tr>', table, re.DOTALL)
    assert line is not None
    found = re.findall(r"<td[^>]*>(.*?)</td>", line[0], re.DOTALL)
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in found]


def matters(client: Client) -> dict[str, str]:
    """The text of each matter → the address that it leads to."""
    part = live(client).partition('id="jobs-matters"')[2].partition("</ul>")[0]
    items = re.findall(r"<li [^>]*>(?:<a href=\"([^\"]*)\">)?(.*?)(?:</a>)?</li>", part)
    return {unescape(text): unescape(url) for url, text in items}


def numbers(client: Client, **asked: str) -> dict[str, Any]:
    page = client.get(f"{PAGE}numbers/", asked).content.decode()
    found = re.search(r'data-series="([^"]*)"', page)
    assert found is not None
    series: dict[str, Any] = json.loads(unescape(found[1]))
    for label, count, rate in re.findall(
        r'<th scope="row">(\w+)</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d.,]+)</td></tr>', page
    ):
        series[label] = (int(count.replace(",", "")), float(rate.replace(",", "")))
    return series


# ------------------------------------------------------------------------------ numbers


def test_the_numbers_of_a_queue(root: Client) -> None:
    port = broker.get()
    port.push([Outgoing("high", b"%d" % n) for n in range(5)])
    port.push([Outgoing("high", b"later", due=4e9)])
    port.claim("high", "child-1", 1, 2, 600.0)
    port.dead_letter("high", "child-1", 1, "why", "w")
    assert cells(root, "high") == ["3", "", "", "1", "1", "1", "1"]
    assert cells(root, "low") == ["0", "", "", "0", "0", "0", "0"]


def test_how_long_the_oldest_waits_and_how_long_all_take(root: Client, broker_url: str) -> None:
    for n in range(60):
        add.delay(n, n)
    with redis.Redis.from_url(broker_url) as client:
        before = int(time.time() // 60) - 1
        client.hset(f"{{default}}:metrics:minute:{before}", "succeeded", 6000)
    waiting, oldest, done_in, *_rest = cells(root, "default")
    assert waiting == "60"
    assert re.fullmatch(r"\d+ ms|[\d.]+ s", oldest)
    # 6,000 in at most five minutes, less the 60 that came: 2.5 to 3.1 s.
    assert 2.3 < float(done_in.removesuffix(" s")) < 3.1


@pytest.mark.parametrize(
    ("waiting", "rate", "said"),
    [
        (0, Rate(1.0, 2.0), ""),
        (10, None, ""),
        (10, Rate(5.0, 0.0), ""),
        (10, Rate(1.0, 3.0), "5 s"),
        (10, Rate(3.0, 3.0), "grows"),
        (7200, Rate(0.0, 1.0), "2 h 0 min"),
    ],
)
def test_an_estimate(waiting: int, rate: Rate | None, said: str) -> None:
    assert overview.drain(waiting, rate) == said


def test_the_charts_numbers_are_those_of_the_ledger(root: Client) -> None:
    for n in range(7):
        add.delay(n, n)
    for n in range(3):
        fail.delay(str(n))
    work()
    add.apply_async((1, 2), queue="low")
    by_state = dict(TaskResult.objects.values_list("state").annotate(Count("id")))
    # Of calls outside a transaction, the ledger has those that have ended.
    assert by_state == {"SUCCESS": 7, "FAILURE": 3}
    found = numbers(root)
    assert found["In"][0] == 11
    assert found["Out"][0] == sum(by_state.values())
    assert found["Failed"][0] == by_state["FAILURE"]
    assert found["Retried"][0] == 0
    assert found["In"][1] == pytest.approx(11 / 60, abs=0.001)
    assert len(found["at"]) == 60
    assert sum(value > 0 for value in found["in"]) in (1, 2)
    assert max(value or 0 for value in found["run_p99"]) > 0
    assert numbers(root, queue="low")["In"][0] == 1
    assert numbers(root, queue="default")["In"][0] == 10


@pytest.mark.parametrize(
    ("period", "spans", "seconds"), [("hour", 60, 60), ("day", 144, 600), ("week", 168, 3600)]
)
def test_ranges(root: Client, period: str, spans: int, seconds: int) -> None:
    at = numbers(root, range=period)["at"]
    assert len(at) == spans
    assert {b - a for a, b in itertools.pairwise(at)} == {seconds}
    page = root.get(PAGE, {"range": period, "queue": "low"}).content.decode()
    assert f'hx-get="/admin/jobs/dashboard/numbers/?range={period}&amp;queue=low"' in page


@pytest.mark.parametrize(("asked", "spans"), [("day", 144), ("week", 168), ("year", 365)])
def test_each_range(root: Client, asked: str, spans: int) -> None:
    assert len(numbers(root, range=asked)["at"]) == spans


def test_the_rates_of_a_year_are_those_of_a_day(root: Client) -> None:
    for n in range(73):
        add.delay(n, n)
    found = numbers(root, range="year")
    assert found["In"] == (73, pytest.approx(0.2))
    assert max(found["in"]) >= 73  # of today, which is not over yet
    page = root.get(PAGE, {"range": "year"}).content.decode()
    assert "Calls per day" in page
    assert "Per day" in page
    assert "er minute" not in page


@pytest.mark.parametrize(
    ("sent", "said"),
    [(0, "0"), (1, "< 0.01"), (504, "0.05"), (10_080, "1"), (123_456_789, "12,248")],
)
def test_a_rate_is_written_without_powers_of_ten(sent: int, said: str) -> None:
    week = Numbers(dt.datetime.now(dt.UTC), 7 * 86_400, sent=sent)
    assert overview.counts(week)[0] == ("In", f"{sent:,}", said)


@pytest.mark.parametrize("asked", ["", "nonsense", "ever", "x" * 5000])
def test_what_there_is_not_is_the_last_hour(root: Client, asked: str) -> None:
    assert len(numbers(root, range=asked, queue=asked)["at"]) == 60


# ------------------------------------------------------------------------------ what needs a person


def test_each_matter_leads_to_where_one_acts(root: Client) -> None:
    letter(queue="low")
    control.pause("high", by="ada", why="<b>")
    control.pause_task(add.name, by="grace")
    broker.get().push([Outgoing("default", b"x")])
    scheduled(due=timezone.now() - dt.timedelta(minutes=10))
    row(
        state="PENDING",
        created_at=timezone.now() - dt.timedelta(minutes=5),
        published_at=None,
        started_at=None,
        finished_at=None,
    )
    found = matters(root)
    kinds = {kind: url for kind, url in found.items() if url}
    assert len(kinds) == len(found) == 7, found
    for text, url in found.items():
        response = root.get(url)
        assert response.status_code == 200, (text, url)
    assert found["Queue “high” is paused by ada. “<b>”"] == "/admin/jobs/queues/resume/high/"
    assert "paused by ada. “<b>" not in live(root)


def test_links_only_to_pages_that_one_may_see() -> None:
    row(
        state="PENDING",
        created_at=timezone.now() - dt.timedelta(minutes=5),
        published_at=None,
        started_at=None,
        finished_at=None,
    )
    letter(queue="low")
    dead, backlog = sorted(matters(staff("jobs.view_queues")).values(), reverse=True)
    assert dead.startswith("/admin/jobs/deadletters/")
    assert backlog == ""


def test_all_is_well(root: Client) -> None:
    assert "Nothing." in live(root)
    assert matters(root) == {}


def test_one_queue_only(root: Client) -> None:
    page = live(root, queue="low").partition('id="jobs-dashboard-queues"')[2]
    assert "low" in page
    assert "default" not in page


def test_an_undeclared_queue_is_seen(root: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    add.apply_async((1, 2), queue="made.up")
    assert cells(root, "made.up")[0] == "1"
    assert "not in QUEUES" in live(root)
    assert root.get("/admin/jobs/queues/pause/made.up/").status_code == 200
    assert root.get("/admin/jobs/queues/live/").content.decode().count("made.up") > 1


def test_of_many_queues_the_busiest_are_shown(root: Client, settings: Settings) -> None:
    busy = [f"busy_{n}" for n in range(overview.MOST_QUEUES - 1)]
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "high": {}, "low": {}}}
    settings.JOBS["QUEUES"] |= {name: {} for name in busy}
    broker.get().push([Outgoing(name, b"waits") for name in busy])
    control.pause("low", by="ada")
    page = live(root)
    table = page.partition('id="jobs-dashboard-queues"')[2]
    assert re.findall(r'<th scope="row"><a [^>]*>(\w+)</a>', table) == ["low", *busy]
    assert "2 quieter queues are left out." in page
    assert "left out" not in live(root, queue="high")


def test_redis_away(root: Client, own_valkey: Valkey) -> None:
    own_valkey.kill()
    for url in PAGES[:3]:
        response = root.get(url)
        assert response.status_code == 200
        assert str(own_valkey.port) in response.content.decode()
    own_valkey.start()
    assert "can’t be" not in root.get(PAGE).content.decode()


def test_another_version_s_report_is_no_error(root: Client) -> None:
    broker.get().renew("default", ["w/1"], 60.0)
    broker.get().report("default", "w", b'{"consumers": ["w/1"], "revision": ["?"], "x": 1}')
    for url in (*PAGES, "/admin/jobs/queues/"):
        assert root.get(url).status_code == 200


# ------------------------------------------------------------------------------ who, and how much


@pytest.mark.parametrize("url", [*PAGES, f"{PAGE}stream/"])
def test_it_needs_its_permission(url: str) -> None:
    assert Client().get(url)["Location"].startswith(SIGN_IN)
    assert staff().get(url).status_code == 403
    assert staff("jobs.view_taskresult").get(url).status_code == 403
    for code in ("jobs.view_queues", "jobs.pause_queues", "jobs.manage_queues"):
        # Without ASGI there is no stream.
        expected = 404 if url.endswith("stream/") else 200
        assert staff(code).get(url).status_code == expected


def test_it_is_strict_under_a_content_security_policy(root: Client) -> None:
    page = root.get(PAGE).content.decode()
    content = page.partition('id="content"')[2].partition('<footer id="footer">')[0]
    assert not re.search(r'<script(?![^>]*\bsrc="/)[^>]*>', page.replace(" defer", ""))
    assert not re.search(r'<style|\sstyle="|\son\w+="|javascript:', content)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert '"allowEval":false' in page
    assert '"includeIndicatorStyles":false' in page


def test_a_look_costs_little(
    root: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, broker_url: str
) -> None:
    """All pages that are open share one snapshot."""
    settings.JOBS = {**settings.JOBS, "QUEUES": {f"q{n}": {} for n in range(20)} | {"default": {}}}
    live(root)
    monkeypatch.setattr(snapshot._shared, "_seconds", 600.0)
    monkeypatch.setattr(attention._shared, "_seconds", 600.0)
    live(root)
    with redis.Redis.from_url(broker_url) as client:
        before = client.info("stats")["total_commands_processed"]
        took = []
        for _ in range(100):
            begun = time.process_time()  # others may use the machine
            live(root)
            took.append(time.process_time() - begun)
        # Two are those that ask for INFO.
        assert client.info("stats")["total_commands_processed"] - before <= 2
    assert statistics.median(took) < 0.15


# ------------------------------------------------------------------------------ the stream

T = TypeVar("T")


async def events(client: AsyncClient) -> AsyncIterator[bytes]:
    response = await client.get(f"{PAGE}stream/")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    async for part in response.streaming_content:  # type: ignore[attr-defined]
        yield part


def run(made: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. The thread that asks the database for it lets go of it at the end,
    as `AsyncClient` doesn't."""

    async def closing() -> T:
        try:
            return await made
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(closing())


def signed_in(user: User) -> AsyncClient:
    client = AsyncClient()
    client.force_login(user)
    return client


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK", 0.01)


@pytest.mark.usefixtures("fast")
def test_a_change_is_told() -> None:
    client = signed_in(User.objects.create_superuser("ada"))

    async def look() -> list[bytes]:
        found = []
        async for event in events(client):
            found.append(event)
            if len(found) == 3:
                await asyncio.to_thread(broker.get().push, [Outgoing("default", b"x")])
            if b"data" in event or len(found) > 500:
                return found
        return found

    found = run(look())
    assert found[:3] == [b":\n\n"] * 3
    assert found[-1] == b"data: -\n\n"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("how", ["signed out", "not staff any more", "deactivated"])
def test_the_stream_ends_with_the_session(how: str) -> None:
    user = User.objects.create_superuser("ada")
    client = signed_in(user)

    def end() -> None:
        if how == "signed out":
            Session.objects.all().delete()
        elif how == "deactivated":
            User.objects.update(is_active=False)
        else:
            User.objects.update(is_staff=False, is_superuser=False)

    async def look() -> list[bytes]:
        found = []
        async for event in events(client):
            found.append(event)
            if len(found) == 2:
                await sync_to_async(end)()
            assert len(found) < 2 * stream.CHECK + 5
        return found

    assert run(look())[-1] == b"event: over\ndata: -\n\n"


def test_the_page_listens_where_the_server_can_stream() -> None:
    client = signed_in(User.objects.create_superuser("ada"))

    async def page() -> str:
        return (await client.get(PAGE)).content.decode()

    assert 'data-stream="/admin/jobs/dashboard/stream/"' in run(page())
    assert "data-stream" not in staff("jobs.view_queues").get(PAGE).content.decode()
