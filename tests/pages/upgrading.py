"""What becomes of the examples of docs/upgrading.md."""

from typing import Any

from jobs import AsyncResult
from tests.workers import put_message, work


def afterwards(page: Any) -> None:
    call = put_message(task="shop.tasks.send_invoice", args=[7])
    work()
    assert AsyncResult(call).get(timeout=0) == "1 of 7"
