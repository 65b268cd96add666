"""What holds for each page of the admin: it is light, loads its own files alone, has nothing that
axe-core calls critical or serious, and fits into a desktop's and a telephone's window, also in a
language that is written from right to left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from tests.browser.axe import findings
from tests.browser.every_page import PAGES, full, open_each
from tests.browser.pages import fits, overflow
from tests.services import wait_for
from tests.strict import POLICY

__all__ = ["full"]

#: Most bytes of a page and its files, compressed as servers do it, and as they are.
PACKED, PLAIN = 200_000, 650_000

FILES = "return performance.getEntriesByType('resource').length"

#: Addresses and sizes of the page and its files; as they are, and compressed.
SIZES = """
    const [done] = arguments;
    const files = [location.href, ...performance.getEntriesByType("resource")
        .map((entry) => entry.name).filter((name) => !/\\/(live|numbers|stream)\\//.test(name))];
    Promise.all([...new Set(files)].map(async (file) => {
        const body = await (await fetch(file)).blob();
        const packed = new Response(body.stream().pipeThrough(new CompressionStream("gzip")));
        return [file, body.size, (await packed.blob()).size];
    })).then(done);
"""


@pytest.fixture
def at_390(browser: Chrome) -> Iterator[None]:
    """A telephone's window."""
    metrics = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.timeout(600)
def test_a_page_on_a_desktop_is_light_fits_and_has_no_serious_finding(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User], full: dict[str, str]
) -> None:
    """One look at each page, since to load it takes longer than to look."""
    sign_in()
    heavy, strangers, found = {}, set(), []
    for page in open_each(browser, live_server.url, full):
        if page in PAGES:
            # Its style sheets and scripts.
            wait_for(lambda: browser.execute_script(FILES) > 1, what=f"the files of {page}")
            sizes = browser.execute_async_script(SIZES)
            plain, packed = sum(one[1] for one in sizes), sum(one[2] for one in sizes)
            if packed > PACKED or plain > PLAIN:
                heavy[page] = (packed, plain, sorted(sizes, key=lambda one: -one[2])[:5])
            strangers |= {one[0] for one in sizes if not one[0].startswith(live_server.url)}
        fits(browser, 1280)
        found += [f"{page} {one}" for one in findings(browser)]
    assert not heavy
    assert not strangers
    assert not found, "\n".join(found)


@pytest.mark.timeout(600)
def test_the_dark_theme_has_contrast(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User], full: dict[str, str]
) -> None:
    """It has other colours, and the same elements."""
    sign_in()
    browser.get(live_server.url + "/admin/jobs/")
    browser.execute_script("localStorage.setItem('theme', 'dark')")
    found = []
    for page in open_each(browser, live_server.url, full):
        found += [f"{page} {one}" for one in findings(browser, ["color-contrast"])]
    browser.execute_script("localStorage.removeItem('theme')")
    assert not found, "\n".join(found)


def test_the_policy_is_in_force(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]
) -> None:
    """Or the tests of pages would not notice what a strict site refuses."""
    sign_in()
    browser.get(live_server.url + "/admin/jobs/")
    policy = "return fetch(location.href).then((a) => a.headers.get('content-security-policy'))"
    assert browser.execute_script(policy) == POLICY
    browser.execute_script(
        "const made = document.createElement('script');"
        "made.textContent = 'window.ranInline = true';"
        "document.body.append(made);"
    )
    assert browser.execute_script("return window.ranInline") is None
    said = [e["message"] for e in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert any("Content Security Policy" in message for message in said)


@pytest.mark.usefixtures("at_390")
def test_no_page_is_wider_than_a_telephone(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User], full: dict[str, str]
) -> None:
    sign_in()
    for _page in open_each(browser, live_server.url, full):
        fits(browser, 390)
        # What acts is reached without scrolling sideways.
        assert overflow(browser, "button, .button, input[type=submit]", 390) == []


@pytest.fixture
def from_right_to_left(settings: Settings) -> None:
    """The admin in Arabic."""
    settings.LANGUAGES = [("ar", "Arabic")]
    settings.LANGUAGE_CODE = "ar"


@pytest.mark.usefixtures("from_right_to_left")
@pytest.mark.parametrize("width", [390, 1280])
def test_from_right_to_left(
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], User],
    full: dict[str, str],
    screenshot: Callable[[str], None],
    width: int,
) -> None:
    sign_in()
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for page in PAGES:
        browser.get(live_server.url + page.format(**full))
        assert (
            browser.execute_script("return document.dir || document.documentElement.dir") == "rtl"
        )
        fits(browser, width)
        if width == 1280 and page in ("/admin/jobs/dashboard/", PAGES[5], PAGES[6]):
            screenshot(f"rtl-{PAGES.index(page)}")
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
