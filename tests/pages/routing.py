"""What docs/routing.md takes for granted."""

from types import SimpleNamespace
from typing import Any

from shop.models import Order

from jobs import task
from jobs.models import TaskResult

__all__ = ["Order", "request", "resize"]

request = SimpleNamespace(user=SimpleNamespace(company_id=3))


@task
def resize(pk: int) -> None: ...


def afterwards(page: Any) -> None:
    def queues(task: str) -> list[str]:
        rows = TaskResult.objects.filter(task=f"shop.tasks.{task}").order_by("created_at", "queue")
        return list(rows.values_list("queue", flat=True))

    # As the page's comments say.
    assert queues("shrink") == ["audit", "images", "audit", "images", "images"]
    assert queues("forget_cache") == ["web1", "web2"]
    assert page.by_tenant("x", (), {"tenant": "acme"}, {}) == {"queue": "acme"}
    assert page.by_tenant("x", (), {"tenant": "other"}, {}) is None
    letters = TaskResult.objects.filter(task="shop.tasks.send_letter").order_by("created_at")
    assert letters.count() == 3
