"""The plugin for pytest, which installing this package registers.

Each test gets an empty broker in memory, whatever the settings name. A test marked
``@pytest.mark.jobs_broker`` uses the broker of the settings; ``jobs_broker = settings`` in pytest's
configuration makes all of them do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs import registry
from jobs.exceptions import JobsError

_MARK = "jobs_broker"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        _MARK,
        "The broker of tests: memory (an empty one for each test) or settings (that of the "
        "project's settings).",
        default="memory",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{_MARK}: use the broker of the settings in this test")
    if config.getini(_MARK) not in ("memory", "settings"):
        raise pytest.UsageError(
            f"{_MARK} is {config.getini(_MARK)!r}; it can be memory or settings."
        )


@pytest.fixture(autouse=True)
def _jobs_in_memory(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The empty broker of each test, and what is sent there."""
    own = request.node.get_closest_marker(_MARK) or request.config.getini(_MARK) == "settings"
    if own or registry.inline is None:  # without Django, or without this app
        yield None
        return
    from jobs import testing  # loads models, so not before there are apps

    with testing.in_memory() as sent:
        yield sent


@pytest.fixture
def enqueued(_jobs_in_memory: Any) -> Iterator[Any]:
    """The calls that the test has sent: `jobs.testing.Enqueued`."""
    if _jobs_in_memory is not None:
        yield _jobs_in_memory
        return
    from jobs import testing

    sent = testing.Enqueued()
    with sent.recording():
        yield sent


@pytest.fixture
def run_jobs() -> Callable[..., Any]:
    """`jobs.testing.run_jobs`: run what waits, in this thread and on this test's database."""
    try:
        from jobs.testing import run_jobs
    except ImportError as error:  # Django isn't set up
        raise JobsError(f"run_jobs needs Django's settings: {error}") from error
    return run_jobs
