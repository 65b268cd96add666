"""The demonstration in a real browser, with a real worker behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from jobsite.demo.models import Row, Upload
from tests.browser.pages import see, text
from tests.project import Project
from tests.services import wait_for

LINE = "[data-live-line]"

Worker = Callable[[], object]
Picture = Callable[[str], None]


@pytest.fixture
def worker(project: Project) -> Worker:
    """Starts a worker on the queues of this test."""
    return lambda: project.manage("runworker", "--processes", "1")


def press(browser: Chrome, button: str) -> None:
    browser.find_element(By.XPATH, f"//button[.='{button}']").click()


def test_the_outcome_of_the_sample_appears_by_itself(
    worker: Worker,
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], object],
    screenshot: Picture,
) -> None:
    sign_in()
    browser.get(live_server.url + "/uploads/")
    screenshot("upload")
    press(browser, "Use the sample")
    wait_for(lambda: text(browser, LINE) == "Waiting for a worker.")
    browser.execute_script("window.neverReloaded = true")
    screenshot("waiting")

    worker()
    wait_for(lambda: text(browser, LINE) == "Done: 10,112 rows.", 60)
    assert browser.execute_script("return window.neverReloaded")
    see(browser, "main", "Europe/Berlin")
    screenshot("outcome")

    browser.find_element(By.LINK_TEXT, "This task in the admin").click()
    see(browser, "body", "jobsite.demo.tasks.summarise")
    browser.find_element(By.LINK_TEXT, "jobsite.demo.tasks.store_chunk 11").click()
    see(browser, ".field-group_text", "jobsite.demo.tasks.finish")
    screenshot("member")


def test_a_failed_part_is_run_again_in_the_admin(
    worker: Worker,
    browser: Chrome,
    live_server: LiveServer,
    sign_in: Callable[[], object],
    screenshot: Picture,
) -> None:
    sign_in()
    browser.get(live_server.url + "/uploads/")
    press(browser, "Use the sample")
    wait_for(lambda: text(browser, LINE) == "Waiting for a worker.")
    address = browser.current_url
    in_the_way = Row.objects.create(upload=Upload.objects.get(), line=1500, values=["x"])
    worker()
    wait_for(lambda: text(browser, LINE) == "A task that reads the file has failed.", 60)
    see(browser, "main", "Part 2 of the file, from row 1,001 on, could not be stored.")
    screenshot("failed")

    in_the_way.delete()
    browser.find_element(By.LINK_TEXT, "This part in the admin").click()
    see(browser, ".field-group_text", "Then:")
    press(browser, "Run again…")
    see(browser, "#content", "1 task will be run again")
    press(browser, "Yes, run again")
    wait_for(lambda: Upload.objects.get().finished, 60)
    browser.get(address)
    assert text(browser, LINE) == "Done: 10,112 rows."


def test_a_file_that_cannot_be_used_says_so(
    worker: Worker, browser: Chrome, live_server: LiveServer, tmp_path: Path, screenshot: Picture
) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("city\nZürich\n".encode("latin-1"))
    worker()
    browser.get(live_server.url + "/uploads/")
    browser.find_element(By.NAME, "file").send_keys(str(path))
    press(browser, "Send the file")
    wait_for(lambda: text(browser, LINE) == "The file can't be used.", 60)
    see(browser, ".error", "Line 2 is not UTF-8 text.")
    screenshot("refused")


def test_the_welcome_mail_appears_by_itself(
    worker: Worker, browser: Chrome, live_server: LiveServer, screenshot: Picture
) -> None:
    worker()
    browser.get(live_server.url + "/")
    screenshot("home")
    browser.find_element(By.LINK_TEXT, "Sign up").click()
    browser.find_element(By.NAME, "name").send_keys("Ada")
    browser.find_element(By.NAME, "email").send_keys("ada@example.org")
    press(browser, "Sign up")
    wait_for(lambda: text(browser, LINE) == "The mail has been sent.", 60)
    see(browser, "article", "Hello Ada,")
    screenshot("welcome")
