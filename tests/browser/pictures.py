"""The pictures of the documentation, taken of running workers: each is a PNG in ``docs/images``.

    .venv/bin/pytest tests/browser/pictures.py

A shop sends invoices while one looks. Only the numbers of the hour before are written by hand, as
workers would have written them.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.db import transaction
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import broker, chain, chord, control, message
from jobs.broker.base import Outgoing
from jobs.message import Message
from jobs.models import TaskResult
from tests.browser.pages import see
from tests.project import ROOT, Project
from tests.services import wait_for

FOLDER = ROOT / "docs" / "images"

#: Most bytes of a picture.
BYTES = 140_000

SHOP = """
import time

from jobs import task


class CardDeclined(Exception):
    pass


@task(autoretry_for=(ConnectionError,), default_retry_delay=900)
def send_invoice(order, copies=1):
    time.sleep(0.02)
    if order % 9 == 4:
        raise ConnectionError("the mail server does not answer")
    return f"{copies} of order {order}"


@task(queue="high")
def charge_card(order, amount):
    if order % 4 == 1:
        raise CardDeclined(f"order {order}: the bank declines {amount}")
    return amount


@task(queue="low")
def read_orders(day):
    return [1, 2, 3]


@task(queue="low")
def sum_up(totals, month):
    if month == "2026-02":
        raise ValueError(f"no orders in {month}")
    return 3


@task(queue="low")
def mail_report(sums):
    return "sent"


@task(bind=True, queue="low")
def build_catalogue(self, edition):
    for n in range(1, 61):
        self.progress(n, 60, "pages")
        time.sleep(0.5)
"""

SETTINGS = """
from tests.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "shop"]
JOBS = {**JOBS, "POLL_SECONDS": 0.2, "REVISION": "4f2a91c"}
"""


@pytest.fixture
def shop(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with the shop's tasks, which the workers know as well."""
    package = project.folder / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(SHOP)
    (project.folder / "shop_settings.py").write_text(SETTINGS)
    monkeypatch.syspath_prepend(str(project.folder))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    return importlib.import_module("shop.tasks")


def past(redis_url: str) -> None:
    """The numbers of the hour before."""
    with redis.Redis.from_url(redis_url) as client:
        this = int(time.time() // 60)
        for n in range(1, 60):
            for queue, share in (("default", 1.0), ("high", 0.4), ("low", 0.1)):
                came = int(share * (300 + 160 * math.sin(n / 9) + 40 * math.sin(n * 1.7)))
                bad = int(share * (4 + n % 5)) + (12 if 20 < n < 26 and queue == "high" else 0)
                numbers = {"sent": came, "succeeded": came - bad, "failed": bad, "retried": n % 4}
                slow = int(came * (0.04 + 0.03 * math.sin(n / 5)))
                numbers |= {f"w{18 + n % 3}": came - slow, f"w{26 + n % 4}": slow}
                numbers |= {"r24": came - slow, f"r{33 + n % 3}": slow}
                client.hset(f"{{{queue}}}:metrics:minute:{this - n}", mapping=numbers)


def test_pictures(
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], User],
    project: Project,
    shop: Any,
) -> None:
    past(project.redis_url)
    env = {
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "PYTHONPATH": os.pathsep.join([str(project.folder), str(ROOT)]),
    }
    for name, queues in (("mail-1", "high,default"), ("reports-1", "low")):
        started = project.manage(
            "runworker", "--processes", "2", "--queues", queues, "--name", name, **env
        )
        started.wait_for_output(" ready, queues")
    project.manage("runbeat", **env)
    for n in range(90):
        shop.send_invoice.delay(1_700 + n)
        shop.charge_card.delay(1_700 + n, "19.90")
    months = [f"2026-{n:02}" for n in range(1, 4)]
    parts = [chain(shop.read_orders.s(month), shop.sum_up.s(month)) for month in months]
    with transaction.atomic():
        chord(parts, shop.mail_report.s()).delay()
    failing = TaskResult.objects.filter(task=shop.sum_up.name, state="FAILURE")
    wait_for(failing.exists)
    for edition in ("spring", "summer"):
        shop.build_catalogue.delay(edition)
    for n in range(3):
        dead = Message(
            task="shop.tasks.send_coupon", id=message.new_id(), queue="default", args=[n]
        )
        broker.get().push([Outgoing("default", message.encode(dead))])
    wait_for(lambda: broker.get().stats("default").dead == 3)
    wait_for(lambda: not broker.get().stats("high").waiting)
    control.pause("default", by="ada", why="the mail server is away")
    for n in range(30):
        shop.send_invoice.delay(1_790 + n, copies=2)

    sign_in()
    browser.get(f"{live_server.url}/admin/")
    browser.execute_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")

    def take(
        name: str, path: str, words: str, height: int, theme: str = "light", top: str = "body"
    ) -> None:
        browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        size = {"width": 1100, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(f"{live_server.url}/admin/jobs/{path}")
        see(browser, "#content", words)
        if path.startswith("dashboard"):
            wait_for(lambda: browser.find_elements("css selector", ".jobs-chart canvas"))
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", top)
        picture = browser.get_screenshot_as_png()
        assert len(picture) <= BYTES, name
        FOLDER.mkdir(exist_ok=True)
        Path(FOLDER, f"{name}.png").write_bytes(picture)

    take("dashboard", "dashboard/", "the mail server is away", 990)
    take("dashboard-dark", "dashboard/", "the mail server is away", 990, "dark")
    take("queue", "queues/queue/low/?tab=running", "pages", 620)
    take("errors", "errors/", "CardDeclined", 640)
    result = f"taskresult/{failing.get().pk}/change/"
    take("result", result, "no orders in", 760)
    take("workflow", result, "no orders in", 300, top="fieldset:has(.jobs-graph)")
    take("workers", "workers/", "build_catalogue", 430)
    browser.execute_script("localStorage.clear()")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
