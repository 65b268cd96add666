"""What becomes of the examples of docs/tenants.md."""

from typing import Any

from jobs import AsyncResult
from jobs.models import TaskResult
from tests.workers import work


def afterwards(page: Any) -> None:
    page.render.delay(1, "small")
    page.call_api.delay("small")
    work()
    assert set(TaskResult.objects.values_list("state", flat=True)) == {"SUCCESS"}
    imports = TaskResult.objects.filter(task="shop.tasks.import_row").order_by("started_at")
    order = [AsyncResult(pk).result for pk in imports.values_list("pk", flat=True)]
    assert len(order) == 101
    assert order.index("1 of small") < 5, "it doesn't wait behind a hundred others"
