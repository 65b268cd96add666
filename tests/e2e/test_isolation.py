"""What a process has only once: one task's doing does not reach the next."""

from __future__ import annotations

import pytest

from tests.project import Project
from tests.tasks import _CHANGES, async_change_process, change_process, process_state
from tests.workers import ready_worker

#: Changes that Python allows in the main thread alone, and those of the thread alone.
MAIN_THREAD = {"SIGTERM", "SIGINT", "SIGUSR1", "SIGCHLD", "alarm"}
#: Not restored in other threads, where another task may just be redirecting it.
NOT_IN_THREADS = {"stdout"}


def changed(name: str, which: object = change_process) -> dict[str, dict[str, str]]:
    """What differs after a task that changed one thing."""
    before = process_state.delay().get(timeout=60)
    which.delay(name).get(timeout=60)  # type: ignore[attr-defined]
    after = process_state.delay().get(timeout=60)
    return {what: after[what] for what in before if before[what] != after[what]}


def test_in_the_main_thread(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1")
    assert {name: left for name in _CHANGES if (left := changed(name))} == {}
    # The worker is still told to end, whatever the tasks did to its handlers.
    assert worker.stop() == 0
    # One that changes the same twice leaves nothing either, and is named each time but for what
    # was as before.
    assert worker.output().count("changed the umask") == 1


@pytest.mark.parametrize("which", [change_process, async_change_process])
def test_in_other_threads(project: Project, which: object) -> None:
    worker = ready_worker(project, "--processes", "1", "--threads", "1")
    names = set(_CHANGES) - MAIN_THREAD - NOT_IN_THREADS
    assert {name: left for name in sorted(names) if (left := changed(name, which))} == {}
    assert worker.stop() == 0
