"""Results as CSV and as JSON, written while they are read: memory holds one batch of rows."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from jobs.admin import words
from jobs.models import TaskResult
from jobs.timing import clock

#: Rows of one query.
_BATCH = 500

#: The columns. Arguments are as the ledger has them: those of sensitive tasks are hidden.
COLUMNS = (
    "id",
    "task",
    "queue",
    "state",
    "args",
    "kwargs",
    "result",
    "error_type",
    "error",
    "attempts",
    "worker",
    "created_at",
    "eta",
    "started_at",
    "finished_at",
    "group_id",
    "parent_id",
    "root_id",
    "label",
)

#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class _Echo:
    """A file whose `write` returns the text, for `csv.writer`."""

    def write(self, text: str) -> str:
        return text


def as_csv(request: HttpRequest, rows: QuerySet[TaskResult]) -> StreamingHttpResponse:
    # Each text in quotes: some spreadsheets take a semicolon for the end of a cell.
    writer = csv.writer(_Echo(), quoting=csv.QUOTE_NONNUMERIC)

    def lines() -> Iterator[str]:
        yield writer.writerow(COLUMNS)
        for row in _rows(rows):
            yield writer.writerow([_cell(value) for value in row])

    return _answer(request, lines(), "csv", "text/csv; charset=utf-8")


def as_json(request: HttpRequest, rows: QuerySet[TaskResult]) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield "["
        for number, row in enumerate(_rows(rows)):
            yield "\n" if not number else ",\n"
            # Escaped, so that a lone surrogate of a stored value can be sent.
            yield json.dumps(dict(zip(COLUMNS, row, strict=True)))
        yield "\n]\n"

    return _answer(request, lines(), "json", "application/json")


def _rows(rows: QuerySet[TaskResult]) -> Iterator[tuple[Any, ...]]:
    """Newest first, a batch by its key."""
    # No `values_list`: annotations of the list's own columns are left out.
    ordered = rows.order_by("-pk").only(*COLUMNS)
    last: str | None = None
    while True:
        batch = list((ordered if last is None else ordered.filter(pk__lt=last))[:_BATCH])
        for row in batch:
            yield tuple(
                value.isoformat() if hasattr(value, "isoformat") else value
                for value in (getattr(row, name) for name in COLUMNS)
            )
        if len(batch) < _BATCH:
            return
        last = batch[-1].pk


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = words.writable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _answer(
    request: HttpRequest, lines: Iterator[str], ending: str, kind: str
) -> StreamingHttpResponse:
    pieces = _joined(lines)
    # Django would read all of it into memory before it sends the first line over ASGI.
    content: Any = _in_thread(pieces) if isinstance(request, ASGIRequest) else pieces
    name = f"results-{timezone.localtime(clock.now()):%Y%m%d-%H%M%S}.{ending}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(content, content_type=kind, headers=headers)


def _joined(lines: Iterable[str]) -> Iterator[bytes]:
    """In pieces of a sensible size for the network."""
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size > 32_768:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield "".join(waiting).encode()


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    following = sync_to_async(lambda: next(pieces, None))
    while (piece := await following()) is not None:
        yield piece
