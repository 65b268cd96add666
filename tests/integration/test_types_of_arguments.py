"""What a task is given has the types that it was sent with, by whichever way it came."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from pytest_django import Settings

from jobs import AsyncResult, Task, chain, chord, group, signature, task
from jobs.beat import tick
from jobs.models import TaskResult
from jobs.schedules.rows import synchronise
from tests.integration.beats import NOON, no_other_schedules, scheduled  # noqa: F401
from tests.tasks import add, echo, fail
from tests.workers import hasten, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
VALUES: list[Any] = [
    decimal.Decimal("1.50"),
    NOW,
    NOW.replace(tzinfo=None),
    NOW.date(),
    NOW.time(),
    uuid.UUID(int=5),
    b"abc",
    b"\xff\x00",
    2**70,
    1.5,
    None,
    True,
    "text",
    {"a": [decimal.Decimal(2), {"b": NOW}]},
    [[uuid.UUID(int=1)]],
]

#: Positional arguments of each call of `keep` that has run.
seen: list[list[Any]] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    seen.clear()
    yield
    seen.clear()


@task
def keep(*args: Any) -> list[Any]:
    seen.append(list(args))
    return list(args)


@task(bind=True)
def tries_again(self: Task[..., Any], *args: Any) -> None:
    seen.append(list(args))
    if self.request.retries == 0:
        raise self.retry(countdown=0, args=args)


@task(bind=True)
def is_replaced(self: Task[..., Any], *args: Any) -> None:
    self.replace(chain(keep.si(*args), keep.si(*args)))


@task(bind=True)
def adds_one(self: Task[..., Any], *args: Any) -> None:
    self.add_to_chord(keep.s(*args))


WAYS: dict[str, Callable[[], Any]] = {
    "plain": lambda: keep.delay(*VALUES),
    "chain": lambda: (add.s(1, 2) | keep.si(*VALUES) | keep.si(*VALUES)).delay(),
    "result": lambda: (keep.s(*VALUES) | echo.s() | keep_all.s()).delay(),
    "link": lambda: add.apply_async((1, 2), link=keep.si(*VALUES)),
    "link of a link": lambda: add.apply_async((1, 2), link=add.si(1, 2).set(link=keep.si(*VALUES))),
    "errback": lambda: fail.apply_async(("no",), link_error=keep.si(*VALUES)),
    "group": lambda: group(keep.s(*VALUES), keep.s(*VALUES)).delay(),
    "group behind": lambda: (add.s(1, 2) | group(keep.si(*VALUES), keep.si(*VALUES))).delay(),
    "header": lambda: chord([keep.s(*VALUES), add.s(1, 2)], echo.s()).delay(),
    "body": lambda: chord([add.s(1, 2), add.s(1, 2)], keep.si(*VALUES)).delay(),
    "results of a header": lambda: chord([echo.s(one) for one in VALUES], keep_all.s()).delay(),
    "errback of a body": lambda: chord(
        [fail.s("no"), add.s(1, 2)], echo.s().set(link_error=keep.si(*VALUES))
    ).delay(),
    "JSON form": lambda: signature((add.s(1, 2) | keep.si(*VALUES)).as_dict()).delay(),
    "starmap": lambda: keep.starmap([VALUES, VALUES]).delay(),
    "chunks": lambda: keep.chunks([VALUES, VALUES], 1).delay(),
    "retry": lambda: tries_again.delay(*VALUES),
    "retry in a chain": lambda: (tries_again.s(*VALUES) | keep.si(*VALUES)).delay(),
    "replace": lambda: is_replaced.delay(*VALUES),
    "add_to_chord": lambda: chord([adds_one.s(*VALUES)], echo.s()).delay(),
}


@task
def keep_all(values: list[Any]) -> None:
    seen.append(values)


@pytest.mark.parametrize("way", WAYS)
def test_values_keep_their_types(way: str) -> None:
    WAYS[way]()
    work()
    hasten()
    work()
    assert seen
    for got in seen:
        assert repr(got) == repr(VALUES)


def test_results_keep_their_types() -> None:
    sent = keep.delay(*VALUES)
    work()
    assert repr(AsyncResult[Any](sent.id).get(timeout=0)) == repr(VALUES)


@pytest.mark.usefixtures("no_other_schedules")
def test_a_schedules_arguments(settings: Settings) -> None:
    scheduled("row", task=keep.name, args=VALUES, headers={"at": NOW})
    entry = {"task": keep.name, "schedule": 60, "args": VALUES, "options": {"headers": {"at": NOW}}}
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {"declared": entry}}
    assert [step.failed for step in synchronise() if step.name == "declared"] == [False]
    assert [step for step in synchronise() if step.name == "declared"] == []
    tick(NOON)
    tick(NOON + dt.timedelta(days=400 * 50))
    work()
    assert len(seen) >= 2
    for got in seen:
        assert repr(got) == repr(VALUES)
    assert not TaskResult.objects.filter(state="FAILURE").exists()


def test_lazy_text_behind_a_call() -> None:
    (add.s(1, 2) | keep.si(gettext_lazy("Yes"))).delay()
    work()
    assert seen == [["Yes"]]
