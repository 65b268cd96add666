"""A worker that loads Django's tasks by itself."""

from __future__ import annotations

import pytest

from tests import django_tasks as tasks
from tests.project import Project


@pytest.mark.one_database
def test_a_real_worker(project: Project) -> None:
    project.manage("runworker", "--processes", "1")
    result = tasks.add.enqueue(20, 22)

    def is_there() -> bool:
        result.refresh()
        return bool(result.is_finished)

    project.wait_for(is_there)
    assert result.return_value == 42
