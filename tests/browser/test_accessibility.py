"""The admin's pages as axe-core sees them: no finding that it calls critical or serious."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from jobs import broker
from jobs.models import Schedule
from tests.integration.admin.conftest import row
from tests.tasks import add
from tests.workers import put

AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")


#: What Django itself renders: the label of its search field is an image with a text of its own.
DJANGOS = ("label-title-only", 'id="searchbar"')


def findings(browser: Chrome) -> list[str]:
    """Serious findings on the open page: rule, and the first elements."""
    browser.execute_script(AXE)
    found: list[dict[str, Any]] = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run({resultTypes: ['violations']}).then((all) => done(all.violations));"
    )
    return [
        f"{one['id']}: {node['html'][:200]} {[a['message'] for a in node['any']][:2]}"
        for one in found
        if one["impact"] in ("critical", "serious")
        for node in one["nodes"][:4]
        if not (one["id"] == DJANGOS[0] and DJANGOS[1] in node["html"])
    ]


@pytest.fixture
def full(transactional_db: None, broker_url: str) -> dict[str, str]:
    """Something of everything; the id of a failed result, and the primary key of a schedule."""
    failed = row(state="FAILURE", error_type="builtins.ValueError", error="no", traceback="Trace")
    row(state="RETRY", error_type="builtins.OSError", error="away")
    row(state="SUCCESS", result="3")
    schedule = Schedule.objects.create(name="nightly", task=add.name, crontab="0 3 * * *")
    add.delay(1, 2)
    add.apply_async((1, 2), countdown=3_600)
    put(b"no message")
    claim = broker.get().claim("default", "here/1", 1, 1, 30.0)
    broker.get().dead_letter("default", "here/1", claim.messages[0][0], "unreadable", "here")
    return {"result": failed.pk, "schedule": str(schedule.pk)}


PAGES = [
    "/admin/jobs/",
    "/admin/jobs/dashboard/",
    "/admin/jobs/queues/",
    "/admin/jobs/queues/history/",
    "/admin/jobs/queues/dead/default/",
    "/admin/jobs/queues/pause/default/",
    "/admin/jobs/queues/purge/default/",
    "/admin/jobs/queues/pause-task/",
    "/admin/jobs/taskresult/",
    "/admin/jobs/taskresult/{result}/change/",
    "/admin/jobs/errors/",
    "/admin/jobs/deadletters/",
    "/admin/jobs/tasks/",
    "/admin/jobs/workers/",
    "/admin/jobs/schedule/",
    "/admin/jobs/schedule/add/",
    "/admin/jobs/schedule/{schedule}/change/",
    "/admin/jobs/schedule/{schedule}/runs/",
]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding(
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], User],
    full: dict[str, str],
    theme: str,
) -> None:
    sign_in()
    browser.get(live_server.url + "/admin/jobs/")
    browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    found = []
    for page in PAGES:
        browser.get(live_server.url + page.format(**full))
        found += [f"{page} {one}" for one in findings(browser)]
    browser.execute_script("localStorage.removeItem('theme')")
    assert not found, "\n".join(found)
