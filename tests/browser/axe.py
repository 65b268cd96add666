"""The open page as axe-core sees it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from selenium.webdriver import Chrome

AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")

#: What Django itself renders: the label of its search field is an image with a text of its own.
DJANGOS = ("label-title-only", 'id="searchbar"')


def findings(browser: Chrome, rules: list[str] | None = None) -> list[str]:
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
