"""People with and without permissions, rows of the ledger, and dead letters."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from jobs import broker, message
from jobs.control import attention, snapshot
from jobs.message import Message
from jobs.models import TaskResult

SIGN_IN = "/admin/login/"

_places = itertools.count()


def staff(*permissions: str, superuser: bool = False) -> Client:
    """A client signed in as somebody new who may use the admin and has these permissions."""
    user = User.objects.create_user(
        f"user{User.objects.count()}", password="a", is_staff=True, is_superuser=superuser
    )
    for permission in permissions:
        app, _, codename = permission.partition(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def root(db: None) -> Client:
    """Signed in as a superuser."""
    return staff(superuser=True)


def row(**values: Any) -> TaskResult:
    """A row of the ledger, saved: a task that succeeded, unless told otherwise."""
    now = timezone.now()
    defaults: dict[str, Any] = {
        # Ids made within a millisecond have no order; those of these rows have that of the rows.
        "id": message.id_at(time.time_ns() // 1_000_000, next(_places).to_bytes(10, "big")),
        "task": "shop.tasks.send_receipt",
        "queue": "default",
        "state": "SUCCESS",
        "args": "[17]",
        "kwargs": '{"copy":true}',
        "result": '"sent"',
        "attempts": 1,
        "worker": "worker-1",
        "created_at": now - dt.timedelta(seconds=10),
        "published_at": now - dt.timedelta(seconds=9),
        "started_at": now - dt.timedelta(seconds=5),
        "finished_at": now - dt.timedelta(seconds=3),
    }
    return TaskResult.objects.create(**{**defaults, **values})


def bury(raw: bytes, *, queue: str = "default", reason: str = "UnknownTask: who?") -> str:
    """Make a dead letter of this message; gives its key."""
    port = broker.get()
    port.bury(queue, raw, reason, "the-worker")
    return port.dead_letters(queue, 1)[0].key


def letter(
    task: str = "shop.tasks.gone", *, queue: str = "default", **values: Any
) -> tuple[str, Message]:
    """A dead letter that can be read: its key, and its message."""
    sent = Message(task=task, id=message.new_id(), queue=queue, **values)
    return bury(message.encode(sent), queue=queue), sent


@pytest.fixture
def no_counting(django_assert_num_queries: Any) -> Callable[[Any], None]:
    """Checks that none of the captured queries counts without a bound."""

    def check(captured: Any) -> None:
        for query in captured.captured_queries:
            sql = query["sql"].upper()
            assert "COUNT(" not in sql or "LIMIT 10001)" in sql, query["sql"]

    return check


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tasks are on a page of their list, which takes as long as ten other pages otherwise: for
    tests that open every page again and again."""
    monkeypatch.setattr("jobs.admin.tasks.admin._PAGE", 5)


@pytest.fixture(autouse=True)
def _nothing_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is as of now: tests change things and look at once."""
    monkeypatch.setattr(snapshot._shared, "_seconds", 0.0)
    monkeypatch.setattr(attention._shared, "_seconds", 0.0)
