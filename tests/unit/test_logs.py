"""What a record of the log says of the call that wrote it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import logs
from jobs.logs import JobFilter
from jobs.message import Message
from jobs.running.request import current

SENT = Message(task="shop.tasks.pay", id="id-1", queue="mail", retries=2)
ABOUT = ["id-1", "shop.tasks.pay", "mail", 3, "w1/1"]


def passed(by: JobFilter, **extra: Any) -> list[Any]:
    """The attributes of a record that this filter has seen."""
    record = logging.makeLogRecord({"name": "shop", **extra})
    assert by.filter(record)
    return [getattr(record, name) for name in logs.NAMES]


@pytest.fixture
def running() -> Iterator[None]:
    before = current.set((SENT, "w1/1"))
    yield
    current.reset(before)


@pytest.mark.usefixtures("running")
def test_the_running_call_is_on_every_record() -> None:
    assert passed(JobFilter()) == ABOUT
    assert list(logs.context().values()) == ABOUT


def test_outside_of_a_call_nothing_is_said() -> None:
    assert passed(JobFilter()) == ["-"] * 5
    assert passed(JobFilter(empty=None)) == [None] * 5
    assert logs.context() == {}


@pytest.mark.usefixtures("running")
def test_what_a_record_says_itself_counts() -> None:
    about = logs.about(Message(task="other", id="id-2", queue="low"), "w2/1")
    assert passed(JobFilter(), **about) == ["id-2", "other", "low", 1, "w2/1"]


@pytest.mark.usefixtures("running")
def test_a_thread_of_its_own_runs_no_call() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(passed(JobFilter())))
    thread.start()
    thread.join()
    # Python 3.14 may be built to hand the context on.
    assert found == (ABOUT if getattr(sys.flags, "thread_inherit_context", 0) else ["-"] * 5)


def test_a_name_lets_records_of_that_logger_pass_alone() -> None:
    record = logging.makeLogRecord({"name": "shop"})
    assert not JobFilter("jobs").filter(record)
    assert JobFilter("shop").filter(record)


def test_django_configures_it_before_apps_are_loaded() -> None:
    code = """
import logging, django
from django.conf import settings
settings.configure(SECRET_KEY="x", INSTALLED_APPS=["jobs"], LOGGING={
    "version": 1,
    "filters": {"jobs": {"()": "jobs.logs.JobFilter"}},
    "formatters": {"jobs": {"format": "[%(task_id)s] %(message)s"}},
    "handlers": {"c": {
        "class": "logging.StreamHandler", "filters": ["jobs"], "formatter": "jobs"}},
    "root": {"handlers": ["c"]},
})
django.setup()
logging.getLogger("shop").warning("hello")
"""
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.stderr == "[-] hello\n"
