"""What `test_themes.py` runs once for each theme: each page shows its buttons, and each kind of act
can be done by clicks. To run one alone::

    THEME=unfold pytest --ds=tests.themed -W default tests/browser/themed.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.support.select import Select

from jobs import broker, message
from jobs.message import Message
from jobs.models import Schedule, TaskResult
from tests.browser import every_page
from tests.integration.admin.conftest import row
from tests.services import wait_for
from tests.tasks import add

full = every_page.full


@pytest.fixture
def failed(transactional_db: None) -> str:
    """The id of a result that can be run again."""
    sent = Message(task=add.name, id=message.new_id(), queue="default", args=[1, 2])
    values = {"state": "FAILURE", "error_type": "builtins.OSError", "error": "away"}
    row(id=sent.id, task=add.name, message=message.encode(sent), **values)
    return sent.id


#: The name of each of the app's links and buttons that a person can't see or hit, and why.
UNSEEN = """
const wrong = [];
for (const one of document.querySelectorAll(
    ".jobs-tabs a, .jobs-actions .button, .jobs-choice .button, .jobs-links a")) {
    const box = one.getBoundingClientRect();
    const style = getComputedStyle(one);
    const why = [];
    if (!one.checkVisibility({opacityProperty: true, visibilityProperty: true})) why.push("hidden");
    if (box.width < 20 || box.height < 12) why.push(`${box.width} × ${box.height}`);
    if (box.left < 0 || box.right > innerWidth) why.push("beside the page");
    if (one.scrollWidth > box.width + 2) why.push("its text is cut off");
    const clear = style.backgroundColor === "rgba(0, 0, 0, 0)";
    if (one.matches(".button") && clear) why.push("no background");
    if (style.backgroundColor === style.color) why.push("no contrast");
    if (why.length) wrong.push(`${one.innerText || one.outerHTML}: ${why}`);
}
return wrong;
"""


@pytest.fixture
def visit(
    browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User], full: dict[str, str]
) -> Callable[[str], None]:
    sign_in()
    return lambda page: browser.get(live_server.url + page.format(**full))


def click(browser: Chrome, selector: str) -> None:
    found = browser.find_element("css selector", selector)
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found
    )
    found.click()


def confirm(browser: Chrome) -> None:
    click(browser, "[name=confirmed]")


def test_the_theme_is_there(browser: Chrome, visit: Callable[[str], None]) -> None:
    visit("/admin/")
    theme = f"/static/{settings.THEME}/"
    wait_for(lambda: theme in browser.page_source, what=f"the theme {settings.THEME}")


def test_every_page(browser: Chrome, visit: Callable[[str], None]) -> None:
    wrong: dict[str, Any] = {}
    for page in every_page.PAGES:
        visit(page)
        # The index is Django's own page, and the list of runs has a way back instead.
        if page not in ("/admin/jobs/", "/admin/jobs/schedule/{schedule}/runs/"):
            browser.find_element("css selector", ".jobs-tabs a")
        if found := browser.execute_script(UNSEEN):
            wrong[page] = found
    assert wrong == {}


def test_pages_of_the_list(browser: Chrome, visit: Callable[[str], None]) -> None:
    one = TaskResult.objects.filter(state="SUCCESS").get()
    for n in range(120):
        one.pk = f"{one.pk[:-4]}{n:04}"
        one.save(force_insert=True)
    visit("/admin/jobs/taskresult/")
    click(browser, ".jobs-pages a[rel=next]")
    wait_for(lambda: 'rel="prev"' in browser.page_source, what="the second page")


def test_an_act_on_a_result(browser: Chrome, visit: Callable[[str], None], failed: str) -> None:
    visit(f"/admin/jobs/taskresult/{failed}/change/")
    click(browser, "#jobs-again")
    confirm(browser)
    wait_for(lambda: TaskResult.objects.get(pk=failed).state == "PENDING", 20, what="the act")


def test_an_act_on_results_of_the_list(
    browser: Chrome, visit: Callable[[str], None], failed: str
) -> None:
    visit("/admin/jobs/taskresult/")
    click(browser, f"input[name=_selected_action][value='{failed}']")
    chosen = browser.find_element("css selector", "select[name=action]")
    if chosen.is_displayed():
        Select(chosen).select_by_value("run_again")
    else:
        # Jazzmin covers it with a field of its own.
        browser.execute_script("arguments[0].value = 'run_again'", chosen)
    click(browser, "button[name=index], .grp-actions button, #changelist-form button[type=submit]")
    confirm(browser)
    wait_for(lambda: TaskResult.objects.get(pk=failed).state == "PENDING", 20, what="the act")


def test_an_act_on_a_schedule(
    browser: Chrome, visit: Callable[[str], None], full: dict[str, str]
) -> None:
    visit("/admin/jobs/schedule/{schedule}/change/")
    click(browser, "#jobs-disable")
    wait_for(lambda: not Schedule.objects.get(pk=full["schedule"]).enabled, what="the act")


def test_the_form_of_a_schedule(browser: Chrome, visit: Callable[[str], None]) -> None:
    visit("/admin/jobs/schedule/{schedule}/change/")
    script = (
        "return [...document.querySelectorAll('[name=crontab], [name=interval_0], [name=at]')]"
        ".filter((one) => !one.closest('[hidden]')).map((one) => one.name)"
    )
    wait_for(lambda: browser.execute_script(script) == ["crontab"], what="one kind's fields")


def test_an_act_on_a_queue(browser: Chrome, visit: Callable[[str], None]) -> None:
    visit("/admin/jobs/queues/queue/default/")
    click(browser, "a.button[href$='/pause/default/']")
    browser.find_element("css selector", "#jobs-why").send_keys("tests")
    click(browser, "#content-main button.button")
    wait_for(lambda: broker.get().paused("default"), what="the pause")


def test_an_act_on_a_dead_letter(browser: Chrome, visit: Callable[[str], None]) -> None:
    visit("/admin/jobs/deadletters/")
    click(browser, ".jobs-table tbody input[name=key]")
    click(browser, "button[value=discard]")
    confirm(browser)
    wait_for(lambda: not broker.get().stats("default").dead, what="the act")


def test_an_act_on_an_error(browser: Chrome, visit: Callable[[str], None], failed: str) -> None:
    visit("/admin/jobs/errors/")
    click(browser, f"form[action$='/retry/']:has([value='{add.name}']) button")
    confirm(browser)
    wait_for(lambda: TaskResult.objects.get(pk=failed).state == "PENDING", 20, what="the act")
