"""The dashboard in a real browser."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import broker, control, message
from jobs.admin.dashboard import admin as dashboard
from jobs.broker.base import Outgoing
from jobs.control import attention, snapshot
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from tests.browser.pages import see, text
from tests.integration.admin.conftest import letter
from tests.project import Project
from tests.services import Valkey, wait_for
from tests.tasks import add, fail, fail_hourly, wait_at
from tests.workers import Gate, children, ready_worker, work

Visit = Callable[[str], None]

#: The live parts ask, as they do when their time has come.
LOOK = "document.querySelectorAll('.jobs-live').forEach((one) => htmx.trigger(one, 'jobs:look'))"

COUNT_REQUESTS = """
    window.requests = 0;
    document.addEventListener("htmx:beforeSend", () => { window.requests += 1; });
"""

#: Whether the chart of waits has a colour: what isn't a number there is grey.
PAINTED = """
    const canvas = document.querySelector(".jobs-chart[data-kind=wait] canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4) {
        const rgb = [...data.slice(at, at + 3)];
        if (data[at + 3] > 200 && Math.max(...rgb) - Math.min(...rgb) > 60) {
            return true;
        }
    }
    return false;
"""

WAITING = "#jobs-dashboard-queues tbody tr:nth-child(2) td:nth-of-type(1)"


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    """Signs a superuser in, and gives a function that opens a page of the admin."""
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/{path}")


@pytest.fixture
def past(broker_url: str) -> None:
    """An hour of numbers, as workers would have written them."""
    with redis.Redis.from_url(broker_url) as client:
        this = int(time.time() // 60)
        for n in range(60):
            wave = 300 + 200 * math.sin(n / 7)
            numbers = {"sent": int(wave), "succeeded": int(wave * 0.94), "failed": n % 5 * 4}
            numbers |= {"retried": n % 9, "w20": 200, "w30": 40, "w36": 4, "r24": 180, "r40": 20}
            client.hset(f"{{default}}:metrics:minute:{this - n}", mapping=numbers)


@pytest.fixture
def dark(browser: Chrome) -> Iterator[Callable[[], Any]]:
    def emulate(value: str) -> Any:
        features = [{"name": "prefers-color-scheme", "value": value}]
        return browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    yield lambda: emulate("dark")
    emulate("")


def test_the_first_link_leads_there(browser: Chrome, visit: Visit, broker_url: str) -> None:
    visit("")
    links = browser.find_elements("css selector", "#content .app-jobs th a")
    assert links[0].text == "Dashboard"
    links[0].click()
    see(browser, "#content", "What needs a person now")


@pytest.mark.usefixtures("past")
def test_the_page(
    browser: Chrome,
    visit: Visit,
    screenshot: Callable[[str], None],
    dark: Callable[[], Any],
) -> None:
    for n in range(3):
        letter(args=[n])
    broker.get().push([Outgoing("low", b"x")])
    for n in range(7):
        add.delay(n, n)
    control.pause("high", by="ada", why="the mail server is away")
    visit("jobs/dashboard/")
    see(browser, "#jobs-matters", "3 dead letters in queue “default”")
    see(browser, "#jobs-matters", "Queue “high” is paused by ada. “the mail server is away”")
    see(browser, "#jobs-matters", "Messages wait in queue “low”, and no worker takes them.")
    wait_for(lambda: len(browser.find_elements("css selector", ".jobs-chart canvas")) == 3)
    series = json.loads(
        browser.execute_script("return document.getElementById('jobs-series').dataset.series")
    )
    assert len(series["at"]) == len(series["in"]) == len(series["wait_p99"]) == 60
    assert "p99" in text(browser, ".jobs-chart[data-kind=wait] .u-legend")
    screenshot("dashboard")
    dark()
    screenshot("dashboard-dark")
    browser.find_element("link text", "Last week").click()
    see(browser, ".jobs-choice a[aria-current]", "Last week")
    wait_for(lambda: browser.find_elements("css selector", ".jobs-chart canvas"))
    browser.find_element("link text", "Last year").click()
    see(browser, ".jobs-choice a[aria-current]", "Last year")
    wait_for(lambda: browser.find_elements("css selector", ".jobs-chart canvas"))
    series = json.loads(
        browser.execute_script("return document.getElementById('jobs-series').dataset.series")
    )
    assert len(series["at"]) == 365


def shown_rows(browser: Chrome, table: str) -> dict[str, list[str]]:
    """The first cell of each row of a table → the others."""
    script = (
        "return [...document.querySelectorAll(`${arguments[0]} tbody tr`)]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    return {row[0]: row[1:] for row in browser.execute_script(script, table)}


def seconds(words: str) -> float:
    """Of a duration in one unit, such as *37 ms*."""
    number, unit = words.split()[:2]
    return float(number) * {"ms": 0.001, "s": 1.0}[unit]


def test_each_number_is_what_another_way_of_counting_says(
    browser: Chrome, visit: Visit, project: Project, tmp_path: Path
) -> None:
    """The other ways: what was sent here, the keys of Redis, the rows of the ledger, and the
    processes of the machine."""
    gate = Gate(tmp_path / "gate")
    worker = ready_worker(project, "--processes", "3", "--queues", "high,default")
    for n in range(40):
        add.delay(n, n)
    for n in range(4):
        fail.apply_async((str(n),), queue="high")
    for n in range(2):
        fail_hourly.delay(str(n))
    add.apply_async((1, 2), countdown=3_600)
    for n in range(5):
        add.apply_async((n, n), queue="low")
    for n in range(3):
        letter(args=[n])
    ended = TaskResult.objects.exclude(finished_at=None).exclude(state=State.RETRY)
    wait_for(lambda: ended.count() == 44)
    wait_for(lambda: TaskResult.objects.filter(state=State.RETRY).count() == 2)
    wait_at.delay(gate.path)
    gate.wait_for()
    sent = 40 + 4 + 2 + 1 + 5 + 1
    visit("jobs/dashboard/")

    def counts() -> dict[str, list[str]]:
        browser.refresh()
        return shown_rows(browser, "#jobs-counts")

    # A worker sends its numbers each second.
    wait_for(lambda: counts()["Out"][0] == str(ended.count()) and counts()["In"][0] == str(sent))
    failed = ended.filter(state=State.FAILURE).count()
    retried = TaskResult.objects.filter(state=State.RETRY).count()
    for label, count in (("In", sent), ("Out", 44), ("Failed", failed), ("Retried", retried)):
        number, rate = counts()[label]
        assert int(number) == count, label
        assert float(rate) == pytest.approx(count / 60, rel=0.01), label

    rows = shown_rows(browser, "#jobs-dashboard-queues")
    with redis.Redis.from_url(project.redis_url) as client:
        for queue in ("high", "default", "low"):
            waiting, oldest, _drain, in_flight, due, dead, workers = rows[queue]
            stats = broker.get().stats(queue)
            assert int(waiting) == {"low": 5}.get(queue, 0) == stats.waiting
            assert int(in_flight) == {"default": 1}.get(queue, 0)
            assert int(due) == {"default": 3}.get(queue, 0) == client.zcard(f"{{{queue}}}:due")
            assert int(dead) == {"default": 3}.get(queue, 0) == stats.dead
            assert int(workers) == (0 if queue == "low" else len(children(worker)))
            assert bool(oldest) == (queue == "low")
    (first, *_others) = broker.get().peek("low", 0, 1)
    made = message.id_time(message.decode(first.raw, "low", trusted=True).id)
    assert made is not None
    assert seconds(rows["low"][1]) == pytest.approx(time.time() - made, abs=10)

    spans: dict[str, list[float]] = {"Wait": [], "Run": []}
    moments = [(one.created_at, one.started_at, one.finished_at) for one in ended]
    for one in TaskAttempt.objects.select_related("result"):
        moments.append((one.result.created_at, one.started_at, one.finished_at))
    assert len(moments) == 44 + 2
    for created, began, over in moments:
        assert began
        assert over
        spans["Wait"].append((began - created).total_seconds())
        spans["Run"].append((over - began).total_seconds())
    for label, shown in shown_rows(browser, "#jobs-times").items():
        exact = sorted(spans[label])
        for share, words in zip((0.5, 0.95, 0.99), shown, strict=True):
            of_rows = exact[math.ceil(share * len(exact)) - 1]
            # A fifth, and what passes in a busy worker from the end in the ledger to the end that
            # is counted.
            assert seconds(words) == pytest.approx(of_rows, rel=0.25, abs=0.2), (label, share)
    gate.open()


def test_it_updates_by_itself_and_keeps_its_place(
    browser: Chrome, visit: Visit, broker_url: str
) -> None:
    broker.get().push([Outgoing("default", b"x")])
    visit("jobs/dashboard/")
    wait_for(lambda: text(browser, WAITING) == "1")
    browser.set_window_size(800, 500)
    browser.execute_script(
        "document.querySelector('#jobs-dashboard-queues a').focus();"
        "const sheet = new CSSStyleSheet();"
        "sheet.replaceSync('#jobs-live .jobs-scroll {max-width: 200px}');"
        "document.adoptedStyleSheets.push(sheet);"
        "document.querySelector('#jobs-live .jobs-scroll').scrollLeft = 40;"
        "window.scrollTo(0, 200);"
    )
    asked = (
        "return [window.scrollY, document.querySelector('#jobs-live .jobs-scroll').scrollLeft,"
        "document.activeElement.closest('#jobs-dashboard-queues') !== null]"
    )
    before = browser.execute_script(asked)
    assert before == [200, 40, True]
    broker.get().push([Outgoing("default", b"y")])
    wait_for(lambda: text(browser, WAITING) == "2")
    assert browser.execute_script(asked) == before


def test_what_somebody_selects_stays(browser: Chrome, visit: Visit, broker_url: str) -> None:
    visit("jobs/dashboard/")
    wait_for(lambda: text(browser, WAITING) == "0")
    browser.execute_script(
        "getSelection().selectAllChildren(document.querySelector('#jobs-live h2'))"
    )
    broker.get().push([Outgoing("default", b"y")])
    asked = (
        "return performance.getEntriesByType('resource')"
        ".filter((entry) => entry.name.includes('/live/')).length"
    )
    before = browser.execute_script(asked)
    wait_for(lambda: browser.execute_script(asked) > before + 1)
    assert text(browser, WAITING) == "0"
    browser.execute_script("getSelection().removeAllRanges()")
    wait_for(lambda: text(browser, WAITING) == "1")


def test_an_event_is_on_the_page_within_two_seconds(
    browser: Chrome, visit: Visit, broker_url: str
) -> None:
    assert dashboard.REFRESH + snapshot.FRESH < 2
    visit("jobs/dashboard/")
    wait_for(lambda: text(browser, WAITING) == "0")
    broker.get().push([Outgoing("default", b"x")])
    wait_for(lambda: text(browser, WAITING) == "1", timeout=10)


def test_a_chosen_queue_is_kept(browser: Chrome, visit: Visit, broker_url: str) -> None:
    visit("jobs/dashboard/?range=day")
    browser.find_element("css selector", "#jobs-queue option[value=low]").click()
    browser.find_element("css selector", ".jobs-choice button").click()
    wait_for(lambda: "queue=low" in browser.current_url)
    see(browser, ".jobs-choice a[aria-current]", "Last day")
    rows = browser.find_elements("css selector", "#jobs-dashboard-queues tbody tr")
    assert [row.text.split()[0] for row in rows] == ["low"]


def test_with_redis_away_and_back(browser: Chrome, visit: Visit, own_valkey: Valkey) -> None:
    visit("jobs/dashboard/")
    own_valkey.kill()
    see(browser, "#jobs-live", "Redis can’t be asked")
    own_valkey.start()
    wait_for(lambda: text(browser, WAITING) == "0")


def test_when_signed_out(browser: Chrome, visit: Visit, broker_url: str) -> None:
    visit("jobs/dashboard/")
    browser.execute_script(COUNT_REQUESTS)
    browser.execute_script(LOOK)
    assert browser.execute_script("return window.requests") > 0
    browser.delete_cookie("sessionid")
    see(browser, "#jobs-live-note", "You are signed out")
    # What was there stays, rather than a sign-in page in its place.
    see(browser, "#jobs-live", "What needs a person now")
    # It says how to go on, and asks no more.
    see(browser, "#jobs-live-note", "Reload the page to sign in.")
    asked = browser.execute_script("return window.requests")
    browser.execute_script(LOOK)
    assert browser.execute_script("return window.requests") == asked
    browser.refresh()
    see(browser, "#login-form", "Password")


def test_a_number_without_neighbours_is_seen(
    browser: Chrome, visit: Visit, broker_url: str
) -> None:
    add.delay(1, 2)
    work()
    visit("jobs/dashboard/?range=year")
    wait_for(lambda: browser.execute_script(PAINTED), what="a point in the chart of waits")


def test_the_page_is_light(browser: Chrome, visit: Visit, broker_url: str) -> None:
    visit("jobs/dashboard/")
    wait_for(lambda: browser.find_elements("css selector", ".jobs-chart canvas"))
    script = """
        const [done] = arguments;
        const files = [location.href, ...performance.getEntriesByType("resource")
            .map((entry) => entry.name).filter((name) => !/\\/(live|numbers)\\//.test(name))];
        Promise.all(files.map(async (file) => {
            const body = await (await fetch(file)).blob();
            const packed = new Response(body.stream().pipeThrough(new CompressionStream("gzip")));
            return [file, body.size, (await packed.blob()).size];
        })).then(done);
    """
    sizes = browser.execute_async_script(script)
    assert any("live.js" in file for file, *_ in sizes)
    assert sum(packed for _, _, packed in sizes) < 100_000, sizes
    # From a server that compresses nothing.
    assert sum(plain for _, plain, _ in sizes) < 250_000, sizes


def test_nothing_is_wider_than_a_telephone(browser: Chrome, visit: Visit, broker_url: str) -> None:
    letter()
    control.pause("high", by="a" * 60, why="w" * 200)
    metrics = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    visit("jobs/dashboard/")
    wait_for(lambda: browser.find_elements("css selector", ".jobs-chart canvas"))
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(autouse=True)
def _slow_things_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention._shared, "_seconds", 0.0)
