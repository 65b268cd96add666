"""What docs/reference/settings.md takes for granted."""

from types import SimpleNamespace
from typing import Any

from jobs.models import TaskResult


def afterwards(page: Any) -> None:
    TaskResult.objects.create(id="1", task="x", queue="mail", state="SUCCESS")
    every = TaskResult.objects.all()
    tenant = SimpleNamespace(queues=["high"])
    one = SimpleNamespace(user=SimpleNamespace(is_superuser=False, tenant=tenant))
    assert page.own(one, every).count() == 0
    assert page.own(SimpleNamespace(user=SimpleNamespace(is_superuser=True)), every).count() == 1
