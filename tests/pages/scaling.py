"""What becomes of the examples of docs/scaling.md."""

from typing import Any

from django.contrib.auth.models import User

from jobs.models import TaskResult


def afterwards(page: Any) -> None:
    router = page.Router()
    assert router.db_for_read(TaskResult) == "replica"
    assert router.db_for_write(TaskResult) == "default"
    assert router.db_for_read(User) is None
