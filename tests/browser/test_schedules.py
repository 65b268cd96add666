"""The admin's pages of schedules in a real browser."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.support.select import Select

from jobs.models import Schedule, ScheduleRun, TaskResult
from tests.browser.pages import fits, see, text
from tests.integration.admin.conftest import row
from tests.project import Project
from tests.services import wait_for

Visit = Callable[[str], None]
Picture = Callable[[str], None]

TASK = "tests.tasks.add"


@pytest.fixture
def visit(browser: Chrome, live_server: LiveServer, sign_in: Callable[[], User]) -> Visit:
    """Signs a superuser in, and gives a function that opens a page of schedules."""
    Schedule.objects.all().delete()  # the demonstration site brings some of its own
    sign_in()
    return lambda path: browser.get(f"{live_server.url}/admin/jobs/schedule/{path}")


def write(browser: Chrome, selector: str, value: str) -> None:
    field = browser.find_element("css selector", selector)
    field.clear()
    field.send_keys(value)


def choose_task(browser: Chrome, name: str) -> None:
    """Type the end of its name and click on it: other test modules have tasks of like names."""
    browser.find_element("css selector", ".field-task .select2-selection").click()
    browser.find_element("css selector", ".select2-search__field").send_keys(name[-9:])
    found = f"//li[contains(@class, 'select2-results__option') and normalize-space()='{name}']"
    browser.find_element("xpath", found).click()


def with_history(name: str, **values: object) -> Schedule:
    """A schedule with runs of every outcome."""
    schedule = Schedule.objects.create(
        name=name, task=TASK, args=[1, 2], interval=dt.timedelta(minutes=5), **values
    )
    now = timezone.now()
    states = ["SUCCESS"] * 12 + ["FAILURE", "RETRY", "STARTED", "REVOKED", "SUCCESS"]
    for n, state in enumerate(states):
        error = {"error_type": "builtins.ValueError"} if state in ("FAILURE", "RETRY") else {}
        result = row(task=TASK, state=state, args="[1, 2]", **error).pk
        due = now - dt.timedelta(minutes=5 * (n + 1))
        late = dt.timedelta(milliseconds=20)
        ScheduleRun.objects.create(schedule=schedule, due_at=due, at=due + late, result=result)
        if n == 0:
            Schedule.objects.filter(pk=schedule.pk).update(
                last_run_at=due, runs=len(states), skipped=3, last_result=result
            )
    for n, outcome in enumerate(("overlapped", "skipped", "sent")):
        due = now - dt.timedelta(minutes=5 * (20 + n))
        ScheduleRun.objects.create(schedule=schedule, due_at=due, at=due, outcome=outcome)
    return schedule


def test_a_schedule_is_made_edited_and_fires(
    project: Project, browser: Chrome, visit: Visit, screenshot: Picture
) -> None:
    project.manage("runworker", "--processes", "1")
    project.manage("runbeat")
    visit("add/")
    write(browser, "#id_name", "sums")
    choose_task(browser, TASK)
    wait_for(lambda: "add(" in text(browser, "#jobs-task"))
    write(browser, "#id_args", "[2, 3]")
    Select(browser.find_element("css selector", ".jobs-cron-preset select")).select_by_value(
        "0 6 * * mon-fri"
    )
    wait_for(lambda: "Monday to Friday at 06:00" in text(browser, "#jobs-preview"))
    wait_for(lambda: text(browser, "#jobs-preview").count(" 06:00:00") == 5)
    screenshot("schedule-new")
    browser.find_element("name", "_continue").click()
    see(browser, ".messagelist", "was added successfully")
    assert not TaskResult.objects.exists()

    browser.find_element("css selector", "input[name=kind][value=interval]").click()
    write(browser, "#id_interval_0", "1")
    see(browser, "#jobs-preview", "every minute")
    Select(browser.find_element("id", "id_interval_1")).select_by_value("1")
    see(browser, "#jobs-preview", "every second")
    browser.find_element("name", "_continue").click()
    see(browser, ".messagelist", "was changed successfully")
    wait_for(lambda: TaskResult.objects.filter(state="SUCCESS", result="5").count() >= 2)

    browser.find_element("id", "jobs-disable").click()
    see(browser, ".messagelist", "Disable: 1 schedule.")
    assert browser.find_elements("css selector", ".jobs-strip a.jobs-box-success")
    screenshot("schedule-fired")


def test_what_can_not_fire_is_refused_while_it_is_typed(
    browser: Chrome, visit: Visit, screenshot: Picture
) -> None:
    visit("add/")
    error = ".field-crontab .errorlist"
    write(browser, "#id_crontab", "0 0 31 2 *")
    wait_for(lambda: "This never happens" in text(browser, error))
    screenshot("schedule-never")
    write(browser, "#id_crontab", "0 0 31 1 *")
    wait_for(lambda: text(browser, error) == "")
    see(browser, "#jobs-preview", "in January")
    # The fields below write the same text.
    day = browser.find_element("css selector", ".jobs-cron-parts label:nth-child(4) input")
    assert day.get_attribute("value") == "31"
    day.clear()
    day.send_keys("L")
    wait_for(lambda: "last day of the month" in text(browser, "#jobs-preview"))
    typed = browser.find_element("id", "id_crontab").get_attribute("value")
    assert typed == "0 0 L 1 *"


@pytest.fixture
def in_dubai(browser: Chrome) -> Iterator[None]:
    """The reader's clock is four hours ahead of UTC."""
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Dubai"})
    yield
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


@pytest.mark.usefixtures("in_dubai")
def test_the_reader_s_own_clock(browser: Chrome, visit: Visit) -> None:
    rule = {"crontab": "0 12 * * *", "timezone": "Asia/Tokyo"}
    pk = Schedule.objects.create(name="s", task=TASK, **rule).pk
    visit(f"{pk}/change/")
    wait_for(lambda: "Asia/Dubai" in text(browser, "#jobs-preview"))
    shown = text(browser, "#jobs-preview")
    assert shown.count(" 12:00:00") == 5
    assert shown.count(" 07:00:00") == 5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_list_and_its_actions(
    browser: Chrome, visit: Visit, screenshot: Picture, theme: str
) -> None:
    nightly = with_history("Nightly report", labels="mail, night")
    with_history("Sums", enabled=False)
    Schedule.objects.create(
        name="Gone", task="gone.task", crontab="30 6 * * mon-fri", timezone="Asia/Tokyo"
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )
    visit("")
    see(browser, "#result_list", "its task is unknown here")
    assert len(browser.find_elements("css selector", "#result_list .jobs-box-failure")) == 2
    screenshot(f"schedules-{theme}")
    visit(f"{nightly.pk}/change/")
    wait_for(lambda: "Next runs" in text(browser, "#jobs-preview"))
    screenshot(f"schedule-{theme}")
    browser.find_element("id", "jobs-skip_next").click()
    see(browser, ".messagelist", "Skip the next run: 1 schedule.")
    browser.find_element("link text", "all runs").click()
    see(browser, "#jobs-runs tbody tr:first-child", "skipped by hand")
    screenshot(f"schedule-runs-{theme}")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_copy_is_edited_before_it_is_made(browser: Chrome, visit: Visit) -> None:
    pk = with_history("Nightly").pk
    visit(f"{pk}/change/")
    browser.find_element("id", "jobs-duplicate").click()
    value = "return document.getElementById('id_name')?.value"
    wait_for(lambda: browser.execute_script(value) == "Nightly (copy)", what="the form of a copy")
    wait_for(lambda: "every 5 minutes" in text(browser, "#jobs-preview"))
    browser.find_element("name", "_save").click()
    wait_for(Schedule.objects.filter(name="Nightly (copy)").exists)
    copy = Schedule.objects.get(name="Nightly (copy)")
    assert (copy.enabled, copy.args, copy.interval) == (False, [1, 2], dt.timedelta(minutes=5))


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window(browser: Chrome, visit: Visit, width: int) -> None:
    pk = with_history("n" * 80, labels="long" * 20).pk
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in ("", "add/", f"{pk}/change/", f"{pk}/runs/"):
        visit(path)
        fits(browser, width)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_next_day_at_a_glance(
    browser: Chrome, visit: Visit, live_server: LiveServer, screenshot: Picture
) -> None:
    """Two clicks from the admin's front page tell when the nightly run comes, and how the last one
    ended."""
    with_history("nightly")
    Schedule.objects.create(name="often", task=TASK, args=[1, 2], crontab="*/20 * * * *")
    visit("")
    see(browser, ".jobs-day summary", "runs in the next 24 hours")
    see(browser, ".jobs-day-next", "nightly")
    assert len(browser.find_elements("css selector", ".jobs-day-bar")) == 48
    screenshot("schedules-day")
    browser.find_element("css selector", ".jobs-day-next a").click()
    see(browser, ".field-so_far", "Outcome")
