"""What docs/testing.md tests."""

import sys

from shop.models import Order


def place_order(pk: int) -> None:
    Order.objects.create(pk=pk)
    sys.modules["shop.tasks"].send_invoice.delay(pk)  # the page's own task
