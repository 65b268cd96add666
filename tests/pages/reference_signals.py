"""What becomes of the examples of docs/reference/signals.md."""

from typing import Any

from jobs import task
from tests.workers import work


@task
def whose() -> str:
    return str(tenant.get())  # noqa: F821  the page's


def afterwards(page: Any) -> None:
    token = page.tenant.set("acme")
    result = page.whose.delay()
    page.tenant.reset(token)
    work()
    assert result.get() == "acme"
