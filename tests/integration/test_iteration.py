"""Loops that the next attempt goes on with."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef

from jobs import (
    broker,
    control,
    message,
    serialization,
)
from jobs.broker.base import About, Note
from jobs.models import TaskResult
from jobs.running import iteration
from jobs.running.iteration import (
    Position,
    by_pages,
    one_by_one,
    source_of,
)
from jobs.running.request import current
from jobs.states import State
from jobs.worker.record.outcome import Back
from jobs.worker.record.recorder import Recorder
from tests.models import Author, Badge, Book, Genre, Novel, Run, Seat
from tests.tasks import greet_all, walk
from tests.workers import on_redis, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def authors() -> None:
    Author.objects.bulk_create([Author(name=name) for name in NAMES])


def greeted() -> list[str]:
    return list(Run.objects.order_by("pk").values_list("label", flat=True))


def position(task_id: str) -> Any:
    found = broker.get().noted("default", task_id, About.POSITION)
    return found and json.loads(found)["loops"]


@pytest.mark.usefixtures("authors")
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_another_attempt_goes_on_where_the_first_failed(size: int) -> None:
    result = greet_all.delay("d", size=size)
    work()
    assert greeted() == NAMES
    assert result.get(timeout=0) == 5
    assert TaskResult.objects.get().attempts == 2
    assert position(result.id) is None


@pytest.mark.usefixtures("authors")
def test_a_failed_call_that_is_tried_again_goes_on() -> None:
    result = greet_all.delay("c", attempts=2)
    work()
    assert result.state == State.FAILURE
    assert greeted() == ["a", "b"]
    assert position(result.id) == [[Author.objects.get(name="b").pk, 2, 5]]
    Author.objects.filter(name="c").update(name="C")
    assert control.retry(result.id)
    work()
    assert TaskResult.objects.get().state == State.SUCCESS
    assert greeted() == ["a", "b", "C", "d", "e"]


def test_a_position_of_other_arguments_is_not_gone_on_from() -> None:
    noted = iteration.encoded((Position(3, 3, 4),), 1234)
    task_id = put_message(task=walk.name, args=[4, "", -1])
    broker.get().note("default", [Note(task_id, About.POSITION, noted)], 60)
    work()
    assert greeted() == ["0", "1", "2", "3"]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A call of `walk` runs here."""
    monkeypatch.setattr(iteration.Process, "stopping", False)
    sent = walk.message((3, "", -1), {})
    sent = message.decode(message.encode(sent), "default")
    token = current.set((sent, "w/1"))
    yield sent
    current.reset(token)
    iteration.notes.sender.stop()
    iteration.progress.told.clear()


def test_a_step_is_noted_when_it_is_done(running: Any) -> None:
    loop = walk.iterate(["x", "y"])
    assert next(loop) == "x"
    assert iteration.notes.sender.flush(20)
    assert position(running.id) is None
    assert next(loop) == "y"
    assert iteration.notes.sender.flush(20)
    assert position(running.id) == [[1, 1, 2]]


def test_inside_a_transaction_nothing_is_noted_and_nothing_interrupted(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration.Process, "stopping", True)
    with transaction.atomic():
        assert list(walk.iterate("xyz")) == ["x", "y", "z"]
    assert iteration.notes.sender.flush(20)
    assert position(running.id) is None


def test_a_transaction_for_each_list_is_noted_after_it(running: Any) -> None:
    for names in walk.iterate_batches("xyz", size=2, total=3):
        with transaction.atomic():
            Run.objects.create(label="".join(names))
    assert iteration.notes.sender.flush(20)
    assert position(running.id) == [[3, 3, 3]]
    assert greeted() == ["xy", "z"]


def test_its_progress_is_told_by_itself(running: Any) -> None:
    walk.progress(0, message="reading")
    assert list(walk.iterate("xyz")) == ["x", "y", "z"]
    assert iteration.notes.sender.flush(20)
    said = iteration.progress.read(running.id)
    assert said is not None
    assert (said.done, said.total, said.message) == (3, 3, "reading")


@pytest.mark.parametrize("acks", ["late", "early"])
def test_a_call_that_is_interrupted_goes_back_as_it_is(acks: str) -> None:
    put_message(task=walk.name, args=[1, "", -1])
    ((number, raw),) = broker.get().claim("default", "w/1", 1, 1, 60).messages
    held = acks == "late"
    if not held:
        broker.get().ack("default", "w/1", [number])
    recorder = Recorder("w/1")
    back = Back("default", number, raw=raw, priority=0, held=held)
    recorder.add(back)
    recorder.step()
    assert on_redis() == (1, 0)
    assert broker.get().claim("default", "w/2", 1, 1, 60).messages == [(1, raw)]
    assert not TaskResult.objects.exists()


# ------------------------------------------------------------------------- of any queryset


@pytest.fixture
def library() -> None:
    """Ten books, each in several genres, and five that are in none."""
    books = [Book.objects.create(title=f"title {n % 3}") for n in range(10)]
    for n in range(5):
        genre = Genre.objects.create(code=f"g{n}")
        genre.books.set(books[n:])
        at = dt.datetime(2026, 1, 1, 0, 0, n, 5, tzinfo=dt.UTC)
        Badge.objects.create(genre=genre, at=at, price=Decimal(n) + Decimal("9.50"))
        Seat.objects.bulk_create(Seat(row=f"{n % 2}", number=3 * n + m) for m in range(3))
        Novel.objects.create(title=f"novel {n}")


QUERYSETS: dict[str, Callable[[], Any]] = {
    "reversed": lambda: Book.objects.order_by("title").reverse(),
    "reversed by key": lambda: Book.objects.order_by("-pk").reverse(),
    "distinct": lambda: Book.objects.distinct().reverse(),
    "join": lambda: Book.objects.filter(genres__code__gte="g0"),
    "join, reversed": lambda: Book.objects.filter(genres__gte="g0").order_by("genres").reverse(),
    "join, distinct": lambda: Book.objects.filter(genres__code__gte="g0").distinct(),
    "or": lambda: Book.objects.filter(genres="g1") | Book.objects.filter(title="title 1"),
    "alias of many": lambda: Book.objects.alias(g=F("genres__code")).filter(g__gte="g0"),
    "counted": lambda: Book.objects.annotate(n=Count("genres")).filter(n__gt=2),
    "exists": lambda: Book.objects.annotate(e=Exists(Genre.objects.filter(books=OuterRef("pk")))),
    "extra": lambda: Book.objects.extra(tables=["tests_genre"], order_by=["-title"]),
    "only": lambda: Book.objects.only("title"),
    "random": lambda: Book.objects.order_by("?"),
    "manager": lambda: Book.objects,
    "related manager": lambda: Genre.objects.get(code="g0").books,
    "none": lambda: Book.objects.none(),
    "inherited": lambda: Novel.objects.order_by("-title").reverse().select_related("book_ptr"),
    "key of a relation": lambda: Badge.objects.select_related("genre").reverse(),
    "text": lambda: Genre.objects.prefetch_related("books"),
    "composite": lambda: Seat.objects.order_by("-number").reverse(),
}


def interrupted(items: Any, key: str) -> list[Any]:
    """The values of a loop that is interrupted after each step."""
    values: list[Any] = []
    at: Any = None
    while step := next(one_by_one(source_of(items(), key, 3), at), None):
        values.append(step.value)
        at = serialization.loads(serialization.dumps(step.at))
    return values


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("items", QUERYSETS.values(), ids=QUERYSETS)
def test_every_row_is_gone_through_once(items: Callable[[], Any]) -> None:
    rows = items().all()
    expected = sorted(set(rows.order_by().values_list("pk", flat=True)))
    source = source_of(items(), "pk", 3)
    assert [row.pk for row in interrupted(items, "pk")] == expected
    assert [step.value.pk for step in one_by_one(source, None)] == expected
    assert [row.pk for step in by_pages(source, None) for row in step.value] == expected
    assert source.count() == len(expected)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("key", ["pk", "uid", "at", "price", "genre", "genre_id"])
def test_keys_of_any_type(key: str) -> None:
    badges = interrupted(lambda: Badge.objects.order_by("-price").reverse(), key)
    assert sorted(badge.pk for badge in badges) == ["g0", "g1", "g2", "g3", "g4"]
