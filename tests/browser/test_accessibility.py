"""The admin's pages as axe-core sees them: no finding that it calls critical or serious."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from tests.browser.every_page import full, open_each

__all__ = ["full"]

AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")

#: What Django itself renders: the label of its search field is an image with a text of its own.
DJANGOS = ("label-title-only", 'id="searchbar"')


def findings(browser: Chrome, rules: list[str] | None) -> list[str]:
    """Serious findings on the open page: rule, and the first elements. ``rules``: None: all."""
    browser.execute_script(AXE)
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: list[dict[str, Any]] = browser.execute_async_script(
        "const [options, done] = arguments;axe.run(options).then((all) => done(all.violations));",
        options,
    )
    return [
        f"{one['id']}: {node['html'][:200]} {[a['message'] for a in node['any']][:2]}"
        for one in found
        if one["impact"] in ("critical", "serious")
        for node in one["nodes"][:4]
        if not (one["id"] == DJANGOS[0] and DJANGOS[1] in node["html"])
    ]


# The dark theme has other colours, and the same elements.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("theme", "rules"), [("light", None), ("dark", ["color-contrast"])])
def test_no_serious_finding(
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], User],
    full: dict[str, str],
    theme: str,
    rules: list[str] | None,
) -> None:
    sign_in()
    browser.get(live_server.url + "/admin/jobs/")
    browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    found = []
    for page in open_each(browser, live_server.url, full):
        found += [f"{page} {one}" for one in findings(browser, rules)]
    browser.execute_script("localStorage.removeItem('theme')")
    assert not found, "\n".join(found)
