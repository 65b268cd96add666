"""The open page as axe-core sees it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from selenium.webdriver import Chrome

AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")

#: What Django itself renders: the label of its search field is an image with a text of its own.
DJANGOS = ("label-title-only", 'id="searchbar"')

#: What counts as serious.
IMPACTS = ("critical", "serious")

#: Run these rules, or those whose findings can be serious: the others take as long again.
RUN = """
    const [only, exclude, impacts, done] = arguments;
    const {rules, data} = axe._audit;
    const possible = (rule) => [rule.impact, ...[...rule.any, ...rule.all, ...rule.none]
        .map((check) => data.checks[check.id ?? check].impact)];
    const serious = rules.filter((rule) => rule.enabled && !rule.tags.includes("experimental")
        && possible(rule).some((impact) => impacts.includes(impact)));
    const shown = exclude.filter((selector) => document.querySelector(selector));
    const runOnly = only ?? serious.map((rule) => rule.id);
    axe.run({exclude: shown}, {resultTypes: ["violations"], runOnly})
        .then((all) => done(all.violations));
"""


def findings(
    browser: Chrome, rules: list[str] | None = None, exclude: Sequence[str] = ()
) -> list[str]:
    """Serious findings on the open page: rule, and the first elements.

    ``rules``: None: all. ``exclude``: selectors of elements that are not looked at.
    """
    if not browser.execute_script("return 'axe' in window"):
        browser.execute_script(AXE)
    found: list[dict[str, Any]] = browser.execute_async_script(RUN, rules, exclude, IMPACTS)
    return [
        f"{one['id']}: {node['html'][:200]} {[a['message'] for a in node['any']][:2]}"
        for one in found
        if one["impact"] in IMPACTS
        for node in one["nodes"][:4]
        if not (one["id"] == DJANGOS[0] and DJANGOS[1] in node["html"])
    ]
