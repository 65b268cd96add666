"""The tables belong to the app of the tests."""

from tests.models import Account, Order

__all__ = ["Account", "Order"]
