"""Headless Chromium for the tests of pages.

===========  ==========================================================================
`chromium`   the run's browser
`browser`    the same, signed out and without a page, in a window of 1280 × 900
`sign_in`    call it to open the admin as a superuser
===========  ==========================================================================
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests import services

#: Most keep it from calling home, which a closed network answers with long waits.
OPTIONS = [
    "--headless=new",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """The run's browser; ask for `browser` to have it fresh."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        services.missing("no chromium and chromedriver on the PATH")
    options = ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("chromium")
    for option in [*OPTIONS, f"--user-data-dir={profile}", "--lang=en"]:
        options.add_argument(option)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # root has none
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, ChromeService(driver)) as found:
        # A click returns before the next page is there.
        found.implicitly_wait(20)
        yield found


@pytest.fixture
def browser(chromium: Chrome, transactional_db: None, live_server: LiveServer) -> Iterator[Chrome]:
    """The browser, signed out, at a desktop's size; fails the test on an error in its console.

    ``browser.get(live_server.url + "/path/")`` opens a page; wait with
    ``services.wait_for(lambda: …)``. With the environment variable SCREENSHOTS naming a folder,
    `screenshot` puts pictures there.
    """
    chromium.set_window_size(1280, 900)
    # A test that failed may have left these.
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get(live_server.url + "/static/demo/icon.svg")  # cookies belong to the open page
    chromium.delete_all_cookies()
    _console(chromium)
    yield chromium
    entries = [e["message"] for e in _console(chromium) if e["level"] == "SEVERE"]
    chromium.get("about:blank")  # ends the page's own polling
    assert [e for e in entries if "favicon.ico" not in e] == []


def _console(chromium: Chrome) -> list[dict[str, Any]]:
    """What the console has shown since it was last asked."""
    entries: list[dict[str, Any]] = chromium.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


@pytest.fixture
def sign_in(browser: Chrome, live_server: LiveServer) -> Callable[..., User]:
    """``sign_in()`` makes a superuser, or takes the given user, and signs them in."""

    def sign_in(user: User | None = None) -> User:
        user = user or User.objects.create_superuser("operator", "", "secret")
        client = Client()
        client.force_login(user)
        cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value, "path": "/"}
        browser.get(live_server.url + "/static/demo/icon.svg")
        browser.add_cookie(cookie)
        return user

    return sign_in


@pytest.fixture
def screenshot(browser: Chrome) -> Callable[[str], None]:
    """``screenshot("name")`` takes the page at a desktop's and a telephone's width, where
    SCREENSHOTS names a folder for them."""

    def screenshot(name: str) -> None:
        folder = os.environ.get("SCREENSHOTS")
        if not folder:
            return
        for width in (1280, 390):
            # A window can't be made narrower than about 500 px, but what it emulates can.
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            height = browser.execute_script("return document.documentElement.scrollHeight")
            size["height"] = max(900, height)
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            Path(folder, f"{name}-{width}.png").write_bytes(browser.get_screenshot_as_png())
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    return screenshot
