"""Where a loop is, and what it goes through from there."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from django.db.models import Count, F, Window
from django.db.models.functions import Lower, RowNumber

from jobs import message
from jobs.message import Message
from jobs.running.iteration import (
    Items,
    Loops,
    Position,
    by_pages,
    decoded,
    encoded,
    one_by_one,
    source_of,
)
from tests.models import Author, Badge, Book
from tests.tasks import add


class Unsized:
    def __iter__(self) -> Any:
        return iter("abcde")


LETTERS = ["abcde", list("abcde"), deque("abcde"), Unsized()]


@pytest.mark.parametrize("items", LETTERS)
def test_items_behind_a_position(items: Any) -> None:
    source = Items(items, 2)
    assert [(s.value, s.at, s.items) for s in one_by_one(source, 3)] == [("d", 4, 1), ("e", 5, 1)]
    assert [s.value for s in one_by_one(source, None)] == list("abcde")
    assert [s.value for s in one_by_one(source, 5)] == []
    assert [s.value for s in one_by_one(source, 9)] == []


@pytest.mark.parametrize("items", LETTERS)
def test_lists_of_them_behind_a_position(items: Any) -> None:
    steps = list(by_pages(Items(items, 2), 1))
    assert [(s.value, s.at, s.items) for s in steps] == [(["b", "c"], 3, 2), (["d", "e"], 5, 2)]


def test_how_many_there_are() -> None:
    assert Items([1, 2], 1).count() == 2
    assert Items(iter([1, 2]), 1).count() is None


def test_positions_are_kept_for_the_same_arguments_alone() -> None:
    positions = (Position(7, 3, 10), Position(message.new_id(), 1, None))
    raw = encoded(positions, 1234)
    assert decoded(raw, 1234) == positions
    assert decoded(raw, 4321) == ()


@pytest.mark.parametrize(
    "found", [None, b"", b"[]", b"{}", b'{"loops":[[1,2,3,4]]}', b'{"loops":[1]}', b'{"loops":[]}']
)
def test_what_is_no_position_is_the_beginning(found: bytes | None) -> None:
    assert decoded(found, 0) == ()


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Loops:
    """Those of a run whose former run was in the second of two loops."""
    kept = encoded((Position(9, 9, 9), Position(2, 2, 5)), 0)
    monkeypatch.setattr("jobs.running.iteration._noted", lambda sent: kept)
    monkeypatch.setattr("jobs.running.notes.sender.put", lambda key, value: None)
    return Loops(Message(task="a", id="id-1", queue="default"))


def test_loops_one_after_the_other_go_on_where_each_was(loops: Loops) -> None:
    assert loops.begin() == (0, Position(9, 9, 9))  # over: nothing is noted of it
    assert loops.begin() == (1, Position(2, 2, 5))
    loops.note(1, Position(3, 3, 5))
    assert loops.begin() == (2, Position())


def test_a_loop_inside_of_another_begins_anew_at_each_step_of_that(loops: Loops) -> None:
    assert loops.begin() == (0, Position(9, 9, 9))
    assert loops.begin() == (1, Position(2, 2, 5))  # the step that was interrupted
    loops.note(1, Position(3, 3, 5))
    loops.note(0, Position(10, 10, 11))
    assert loops.begin() == (1, Position())
    loops.note(1, Position(1, 1, 5))
    loops.note(0, Position(11, 11, 11))
    assert loops.begin() == (1, Position())


def test_the_first_step_of_an_outer_loop_has_its_own_place(loops: Loops) -> None:
    loops._positions = ()
    assert loops.begin() == (0, Position())
    assert loops.begin() == (1, Position())
    loops.note(1, Position(1, 1, 5))
    assert loops._positions == (Position(), Position(1, 1, 5))


def test_outside_of_a_worker_it_is_a_plain_loop() -> None:
    assert list(add.iterate("abc", size=2)) == ["a", "b", "c"]
    assert list(add.iterate_batches("abc", size=2)) == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("items", "options", "told"),
    [
        (7, {}, "goes through a queryset or other items, not 7"),
        ([1], {"size": 0}, "at least 1 at a time, not 0"),
        (Author.objects.all()[:3], {}, "isn't sliced"),
        (Author.objects.values("pk"), {}, "whole rows"),
        (Author.objects.values_list("pk", flat=True), {}, "whole rows"),
        (Badge.objects.datetimes("at", "day"), {}, "whole rows"),
        (Book.objects.values("title").annotate(n=Count("pk")), {}, "whole rows"),
        (Book.objects.all().union(Book.objects.all()), {}, r"what union\(\) makes"),
        (Book.objects.all().intersection(Book.objects.all()), {}, r"intersection\(\)"),
        (Book.objects.all().difference(Book.objects.all()), {}, r"difference\(\)"),
        (Book.objects.raw("SELECT * FROM tests_book"), {}, "Give it the queryset itself"),
        (Book.objects.iterator(), {}, "Give it the queryset itself"),
        (Book.objects.aiterator(), {}, "queryset or other items"),
        (Book.objects.distinct("title"), {}, r"distinct\('title'\)"),
        (Book.objects.annotate(n=Window(RowNumber())), {}, "window function 'n'"),
        (Book.objects.alias(n=Window(RowNumber())).filter(n__lte=3), {}, "window function 'n'"),
        (Book.objects.annotate(genre=F("genres__code")), {}, "'genre' of many related rows"),
        (Book.objects.annotate(genre=Lower("genres")), {}, "'genre' of many related rows"),
        (Book, {}, "queryset or other items"),
        ({1, 2}, {}, "a set has not"),
        (frozenset("ab"), {}, "a set has not"),
        (Badge.objects.all(), {"key": "-pk"}, "-pk"),
        (Badge.objects.all(), {"key": "genre__code"}, "genre__code"),
        (Author.objects.all(), {"key": "name"}, "needs a column of Author that is unique"),
        (Author.objects.all(), {"key": "nmae"}, "nmae"),
    ],
)
def test_what_cannot_be_gone_through_is_an_error_at_the_call(
    items: Any, options: dict[str, Any], told: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        source_of(items, **{"key": "pk", "size": 2, **options})
