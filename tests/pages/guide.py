"""What docs/guide.md takes for granted."""

import asyncio
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

from django.contrib.auth.models import User
from django.test import RequestFactory
from shop.models import Account, Order

from jobs import task
from jobs.models import Schedule, TaskResult
from tests.workers import hasten, work

customer = User.objects.create(username="ann")
order = Order.objects.create(customer=customer)
Order.objects.bulk_create(Order(pk=pk) for pk in (1, 2, 3, 7) if pk != order.pk)
seen: list[Any] = []


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


_server = HTTPServer(("127.0.0.1", 0), _Answer)
threading.Thread(target=_server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{_server.server_port}/"
pages = [1, 2]


@task
def charge(order: object) -> str:
    return f"charged {order}"


@task
def send_welcome(pk: int, email: str) -> None:
    seen.append((pk, email))


@task
def ping() -> None: ...


@task
def send_receipt(said: object) -> object:
    return said


@task
def warn(failed_id: str) -> None: ...


@task
def parse(status: int) -> int:
    return status


@task
def store(pk: int) -> int:
    return pk


@task
def count_words(pk: int) -> int:
    return pk * 10


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def import_file(pk: int) -> None: ...


def deliver(order: Order) -> None:
    seen.append(order)


def ask_for_report(pk: int) -> Any:
    if not seen:
        return SimpleNamespace(status_code=429, headers={"Retry-After": "60"})
    return SimpleNamespace(status_code=200, json=lambda: {"pk": pk})


def run_converter(pk: int) -> None:
    from jobs.exceptions import SoftTimeLimitExceeded

    raise SoftTimeLimitExceeded


def remove_half_finished(pk: int) -> None:
    seen.append(("removed", pk))


def afterwards(page: Any) -> None:
    _server.shutdown()
    _server.server_close()
    failed = TaskResult.objects.filter(state="FAILURE").values_list("task", "error")
    assert not failed, list(failed)
    names = set(Schedule.objects.values_list("name", flat=True))
    assert {"Nightly report", "Heartbeat"} <= names

    request = RequestFactory().get("/")
    request.user = customer
    before = Order.objects.count()
    page.buy(request)
    assert Order.objects.count() == before + 1
    viewed = asyncio.run(_viewed(page))
    assert viewed == "1 of order 7"

    user = User.objects.create(username="eve", email="eve@example.com")
    work()
    assert seen.pop() == (user.pk, "eve@example.com")

    account = Account.objects.create(balance=1)
    assert page.push.delay(7).get() is None
    seen.clear()
    asked = page.fetch_report.delay(7)
    work()
    assert asked.state == "RETRY"
    seen.append("ready")
    hasten()
    assert asked.get() == {"pk": 7}
    page.book.delay(account.pk).get()
    account.refresh_from_db()
    assert account.balance == 2
    assert type(page.convert.delay(7).get(propagate=False)).__name__ == "SoftTimeLimitExceeded"
    assert seen.pop() == ("removed", 7)
    assert page.patience(OSError(), 2) == 120
    assert page.patience(ValueError(), 2) is None
    assert page.old < page.timezone.now() - timedelta(days=29)


async def _viewed(page: Any) -> Any:
    """`aget` waits for a worker, which is another thread here."""
    from jobs.testing import worker

    running = worker()
    await asyncio.to_thread(running.__enter__)
    try:
        return await page.view(RequestFactory().get("/"))
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
