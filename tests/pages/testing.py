"""What docs/testing.md takes for granted. The page has the broker of a project's tests."""

from typing import Any

from django.core import mail
from shop.models import Order
from shop.orders import place_order

from jobs import task
from jobs.testing import in_memory

__all__ = ["browser", "enqueued", "place_order", "remind", "send_invoice"]

around = in_memory


@task
def send_invoice(pk: int) -> None:
    if not Order.objects.filter(pk=pk).exists():
        raise ValueError("no such order")
    mail.send_mail("Invoice", f"of order {pk}", None, ["ann@example.com"])


@task
def remind(pk: int) -> None:
    reminded.append(pk)


reminded: list[int] = []

with in_memory() as enqueued:
    send_invoice.apply_async(kwargs={"pk": 7}, queue="mail")


class Browser:
    """Clicks send a call, for whose end it can wait."""

    def click(self, name: str) -> None:
        self.sent = remind.delay(8)

    def wait_for(self, text: str) -> None:
        self.sent.get(timeout=30)


browser = Browser()


def afterwards(page: Any) -> None:
    assert reminded == [7, 8]
