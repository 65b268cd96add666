"""What README.md takes for granted."""

from typing import Any

from shop.models import Order

from jobs.models import Schedule, TaskResult

order = Order()
DATABASES: dict[str, dict[str, object]] = {"default": {}}


def afterwards(page: Any) -> None:
    order = page.order
    # The trigger's, which is the same call as that of the view, and the one for later.
    sent = TaskResult.objects.filter(task="shop.tasks.send_invoice")
    assert sent.filter(state="SUCCESS").count() == 2
    assert page.result.get() == f"1 of order {order.pk}"
    assert Schedule.objects.get(name="Monday's invoice").task == "shop.tasks.send_invoice"
