"""What holds for each page of the admin: it is light, loads its own files alone, has nothing that
axe-core calls critical or serious, and fits into a desktop's and a telephone's window, also in a
language that is written from right to left."""

from __future__ import annotations

from collections.abc import Callable

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

#: Addresses and sizes of the page and of those of its files that aren't known yet: as they are, and
#: compressed; None for the size of one that is.
SIZES = """
    const [known, done] = arguments;
    const files = [location.href, ...performance.getEntriesByType("resource")
        .map((entry) => entry.name).filter((name) => !/\\/(live|numbers|stream)\\//.test(name))];
    Promise.all([...new Set(files)].map(async (file) => {
        if (known.includes(file)) return [file, null];
        const body = await (await fetch(file)).blob();
        const packed = new Response(body.stream().pipeThrough(new CompressionStream("gzip")));
        return [file, [body.size, (await packed.blob()).size]];
    })).then(done);
"""

#: The top and the navigation are the same on all pages, and on many most of the elements. axe-core
#: sees them on the first two: the very first has no navigation.
SAME = ("#header", "#nav-sidebar")
#: The rows of a long table are alike.
MORE_ROWS = "#content tbody tr:nth-child(n + 21)"

#: Put on the dark theme, as the button at the top does. The colours change at once, without the
#: transitions of Django's style sheet: half-way there is no contrast.
DARK = """
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("* { transition: none !important }");
    document.adoptedStyleSheets.push(sheet);
    document.documentElement.dataset.theme = "dark";
"""


def set_width(browser: Chrome, width: int) -> None:
    """Make the window so wide; a narrow one is a telephone's."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.timeout(600)
def test_a_page_is_light_fits_and_has_no_serious_finding(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User], full: dict[str, str]
) -> None:
    """One visit to each page, since to load it takes longer than to look: on a telephone, which
    becomes a desktop, and then dark. The dark theme has other colours, and the same elements."""
    sign_in()
    sizes: dict[str, tuple[int, int]] = {}
    heavy, strangers, cut_off, found, dark = {}, set(), {}, [], []
    set_width(browser, 390)
    for number, page in enumerate(open_each(browser, live_server.url, full)):
        seen = [MORE_ROWS, *(SAME if number > 1 else ())]
        fits(browser, 390)
        # What acts is reached without scrolling sideways.
        if cut := overflow(browser, "button, .button, input[type=submit]", 390):
            cut_off[page] = cut
        set_width(browser, 1280)
        fits(browser, 1280)
        if page in PAGES:
            # Its style sheets and scripts.
            wait_for(lambda: browser.execute_script(FILES) > 1, what=f"the files of {page}")
            # A file is the same for all pages, an address is one page.
            files = dict(browser.execute_async_script(SIZES, list(sizes)))
            sizes |= {file: size for file, size in files.items() if size}
            plain, packed = (sum(sizes[file][n] for file in files) for n in (0, 1))
            if packed > PACKED or plain > PLAIN:
                largest = sorted(files, key=lambda file: -sizes[file][1])[:5]
                heavy[page] = (packed, plain, {file: sizes[file] for file in largest})
            strangers |= {file for file in files if not file.startswith(live_server.url)}
        found += [f"{page} {one}" for one in findings(browser, exclude=seen)]
        browser.execute_script(DARK)
        dark += [f"{page} {one}" for one in findings(browser, ["color-contrast"], seen)]
        set_width(browser, 390)
    assert not cut_off
    assert not heavy
    assert not strangers
    assert not found, "\n".join(found)
    assert not dark, "\n".join(dark)


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


@pytest.fixture
def from_right_to_left(settings: Settings) -> None:
    """The admin in Arabic."""
    settings.LANGUAGES = [("ar", "Arabic")]
    settings.LANGUAGE_CODE = "ar"


@pytest.mark.usefixtures("from_right_to_left")
def test_from_right_to_left(
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], User],
    full: dict[str, str],
    screenshot: Callable[[str], None],
) -> None:
    """On a desktop, which then becomes a telephone."""
    sign_in()
    for page in PAGES:
        set_width(browser, 1280)
        browser.get(live_server.url + page.format(**full))
        assert (
            browser.execute_script("return document.dir || document.documentElement.dir") == "rtl"
        )
        fits(browser, 1280)
        if page in ("/admin/jobs/dashboard/", PAGES[5], PAGES[6]):
            screenshot(f"rtl-{PAGES.index(page)}")
        set_width(browser, 390)
        fits(browser, 390)
