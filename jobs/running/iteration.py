"""Loops that continue where an earlier run of their call stopped.

After each step the position is noted. A thread sends it to the broker a few times a second
(`notes`), where it outlives the process. When the process is to stop, the loop ends at its next
step, and the message goes back to its queue.
"""

from __future__ import annotations

import contextvars
import functools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from django.db.models import QuerySet
from django.db.models.expressions import Col
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable, RawQuerySet

from jobs import broker, serialization
from jobs.broker.base import About
from jobs.exceptions import BrokerUnavailable, Interrupted
from jobs.message import Message
from jobs.running import notes, progress
from jobs.running.request import current

#: Seconds between two reports of the progress; the position is noted at each step.
_REPORT = 0.05
#: Seconds between two attempts to read the position while the broker is away.
_AGAIN = 1.0


class Process:
    """The process that the loops run in."""

    #: Whether loops stop at their next step. A signal handler sets it, so it must not need a lock.
    stopping = False


class Position(NamedTuple):
    """Where a loop is."""

    #: Key of the last row done, or the number of items done; None: at the beginning.
    at: Any = None
    done: int = 0
    #: How many there are; None: unknown.
    total: int | None = None


class Step(NamedTuple):
    """One turn of a loop."""

    #: What the body of the loop gets: an item, or a list of items.
    value: Any
    #: The position after it.
    at: Any
    #: How many items it has.
    items: int


# ------------------------------------------------------------------------------ sources


#: Takes a source and a position, gives the steps after it.
Steps = Callable[["Source", Any], Iterator[Step]]


class Source(Protocol):
    """Can be iterated again, starting at any position."""

    def pages(self, at: Any) -> Iterator[list[tuple[Any, Any]]]:
        """The items after a position in pages, each with the position after it."""

    def count(self) -> int | None:
        """How many items there are, if that is known."""


class Items:
    """A sequence or another iterable; a position is a number of items."""

    def __init__(self, items: Iterable[Any], size: int) -> None:
        self._items = items
        self._size = size

    def pages(self, at: int | None) -> Iterator[list[tuple[Any, int]]]:
        first = at or 0
        if isinstance(self._items, Sequence):
            rest = (self._items[n] for n in range(first, len(self._items)))
        else:
            rest = (item for item in islice(self._items, first, None))
        numbered = ((item, n) for n, item in enumerate(rest, first + 1))
        while page := list(islice(numbered, self._size)):
            yield page

    def count(self) -> int | None:
        try:
            return len(self._items)  # type: ignore[arg-type]
        except TypeError:
            return None


class Rows:
    """The rows of a queryset, ordered by a unique column; a position is a value of that column."""

    def __init__(self, rows: QuerySet[Any], key: str, size: int) -> None:
        if problem := _problem(rows):
            raise TypeError(f"iterate() can't go through {problem}")
        meta = rows.model._meta
        try:
            field = meta.pk if key == "pk" else meta.get_field(key)
        except FieldDoesNotExist as error:
            raise ValueError(f"iterate(key={key!r}): {error}.") from None
        if not getattr(field, "unique", False) or getattr(field, "null", False):
            raise ValueError(
                f"iterate(key={key!r}) needs a column of {rows.model.__name__} that is unique and "
                "never null, or rows would be left out."
            )
        # The attribute with the key's value, by which rows can be filtered as well.
        self._key = "pk" if key == "pk" else str(getattr(field, "attname", key))
        self._rows = rows.order_by(self._key)
        self._rows.query.standard_ordering = True  # a new order doesn't undo `reverse()`
        self._size = size

    def pages(self, at: Any) -> Iterator[list[tuple[Any, Any]]]:
        while True:
            rest = self._rows if at is None else self._rows.filter(**{f"{self._key}__gt": at})
            found = [(row, getattr(row, self._key)) for row in rest[: self._size]]
            # A join repeats a row for each related row; in this order, side by side.
            page = [one for n, one in enumerate(found) if n == 0 or one[1] != found[n - 1][1]]
            if page:
                at = page[-1][1]
                serialization.dumps(at)  # raises before the first step if it can't be kept
                yield page
            if len(found) < self._size:
                return

    def count(self) -> int:
        if len(self._rows.query.alias_map) > 1 or self._rows.query.extra_tables:
            return self._rows.order_by().values(self._key).distinct().count()
        return self._rows.count()


def _problem(rows: QuerySet[Any]) -> str:
    """Why this queryset would leave rows out or give them twice; "" if it wouldn't."""
    query = rows.query
    if query.combinator:
        return (
            f"what {query.combinator}() makes of querysets, which can't be filtered. Combine their "
            "conditions in one filter(), as Q(…) | Q(…), or go through one after the other."
        )
    if query.is_sliced:
        return "a slice of a queryset, only one that isn't sliced. Filter it instead."
    if not issubclass(rows._iterable_class, ModelIterable):
        return (
            "the values() of a queryset, which may be without its key, only whole rows. Take "
            "what you need of each."
        )
    if query.distinct_fields:
        return (
            f"a queryset that is distinct({', '.join(map(repr, query.distinct_fields))}), which "
            "has to be in the order of these. Filter by a subquery instead."
        )
    for name, annotation in query.annotations.items():
        if getattr(annotation, "contains_over_clause", False):
            return (
                f"the window function {name!r} of a queryset, which would count anew in each part "
                "that is read. Filter by a subquery instead."
            )
        if name in query.annotation_select and _has_many(query, annotation):
            return (
                f"a queryset with {name!r} of many related rows, which lists its rows more than "
                "once. Go through the related rows instead."
            )
    return ""


def _has_many(query: Any, annotation: Any) -> bool:
    """Whether an annotation has several values for one row, by joining many related rows."""
    if getattr(annotation, "contains_aggregate", False) or not hasattr(annotation, "flatten"):
        return False
    for part in annotation.flatten():
        alias = part.alias if isinstance(part, Col) else None
        while alias in query.alias_map:
            join = query.alias_map[alias]
            relation = getattr(join, "join_field", None)
            if isinstance(relation, ForeignObjectRel) and not relation.one_to_one:
                return True
            alias = join.parent_alias
    return False


def source_of(items: Iterable[Any], key: str, size: int) -> Source:
    """Raises `TypeError` or `ValueError` for what `iterate` can't go through."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"iterate() reads at least 1 at a time, not {size!r}.")
    if isinstance(items, BaseManager):
        items = items.all()
    if isinstance(items, QuerySet):
        return Rows(items, key, size)
    if isinstance(items, RawQuerySet) or getattr(items, "gi_code", None) is _ROWS_ITERATOR:
        raise TypeError(
            "iterate() finds its place in a queryset by its key, which SQL of your own and "
            "queryset.iterator() don't let it do. Give it the queryset itself."
        )
    if isinstance(items, set | frozenset):
        raise TypeError(
            "iterate() goes through the same items in the same order each time, which a set has "
            "not. Give it sorted(…)."
        )
    if not isinstance(items, Iterable):
        raise TypeError(f"iterate() goes through a queryset or other items, not {items!r}.")
    return Items(items, size)


#: The code object of the generators that `QuerySet.iterator` returns.
_ROWS_ITERATOR = QuerySet._iterator.__code__  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ loops


def one_by_one(source: Source, at: Any) -> Iterator[Step]:
    for page in source.pages(at):
        for item, behind in page:
            yield Step(item, behind, 1)


def by_pages(source: Source, at: Any) -> Iterator[Step]:
    for page in source.pages(at):
        yield Step([item for item, _ in page], page[-1][1], len(page))


def loop(source: Source, steps: Steps, total: int | None) -> Iterator[Any]:
    """The values of the steps; in a worker, from where the last run of the call stopped."""
    running, last = current.get(), _last.get()
    if running is None:  # not in a worker
        yield from (step.value for step in steps(source, None))
        return
    if last is None or last[0] is not running:
        last = (running, Loops(running[0]))
        _last.set(last)
    loops = last[1]
    depth, position = loops.begin()
    if position.at is None:
        position = Position(None, 0, source.count() if total is None else total)
    progress.count(position.done, position.total)
    reported = time.monotonic()
    for step in steps(source, position.at):
        # Inside a transaction the loop goes on: nothing done there counts before its end.
        if Process.stopping and not _in_transaction():
            notes.sender.flush()
            raise Interrupted
        yield step.value
        position = Position(step.at, position.done + step.items, position.total)
        loops.note(depth, position)
        if time.monotonic() - reported > _REPORT:
            progress.count(position.done, position.total)
            reported = time.monotonic()
    progress.count(position.done, position.total)


def _in_transaction() -> bool:
    return any(connection.in_atomic_block for connection in connections.all(True))


class Loops:
    """The loops of one run of a call, one after the other and nested."""

    def __init__(self, sent: Message) -> None:
        self._key = (sent.queue, sent.id, About.POSITION)
        #: Positions hold for these arguments only; the next attempt may have others.
        self._arguments = zlib.crc32((sent.body or "").encode())
        self._positions = decoded(_noted(sent), self._arguments)
        self._next = 0

    def begin(self) -> tuple[int, Position]:
        """The depth of the next loop, and where the last run stopped in it."""
        depth = self._next
        self._next += 1
        if depth == len(self._positions):
            self._positions = (*self._positions, Position())
        return depth, self._positions[depth]

    def note(self, depth: int, position: Position) -> None:
        # Loops inside this step are over; the next loop that begins takes their place.
        self._next = depth + 1
        if _in_transaction():  # it may be rolled back: its steps are noted once it is over
            self._positions = self._positions[: depth + 1]
            return
        self._positions = (*self._positions[:depth], position)
        noted = functools.partial(encoded, self._positions, self._arguments)
        notes.sender.put(self._key, noted)


def encoded(positions: Sequence[Position], arguments: int) -> bytes:
    return serialization.dumps({"arguments": arguments, "loops": positions}).encode()


def decoded(found: bytes | None, arguments: int) -> tuple[Position, ...]:
    """No positions if the note is for other arguments, or isn't ours."""
    if found is None:
        return ()
    try:
        noted = serialization.loads(found)
        if noted["arguments"] != arguments:
            return ()
        return tuple(Position(*position) for position in noted["loops"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def _noted(sent: Message) -> bytes | None:
    """Waits for the broker: starting over could cost more than any outage."""
    notes.sender.flush()  # the attempt before may just have ended in this process
    while True:
        try:
            return broker.get().noted(sent.queue, sent.id, About.POSITION)
        except BrokerUnavailable:
            if Process.stopping:
                raise Interrupted from None
            time.sleep(_AGAIN)


#: The run in which this thread or coroutine last began a loop, and the loops of that run.
_last: contextvars.ContextVar[tuple[Any, Loops] | None] = contextvars.ContextVar(
    "jobs.loops", default=None
)
