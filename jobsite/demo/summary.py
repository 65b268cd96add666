"""The summary of a table, row by row: the rows that don't fit, and numbers of its columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

#: Most common values kept of a text column, and faulty lines kept of a file.
COMMON = 5
ERRORS = 20

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
#: Beyond it, digits are a name (an account, a telephone), and sums would overflow.
_LARGEST = 1e18


class Column:
    """Takes in the values of one column; it is one of numbers while every value is a number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.filled = 0
        self.empty = 0
        self.values: Counter[str] = Counter()
        self.numeric = True
        self.smallest = float("inf")
        self.largest = float("-inf")
        self.total = 0.0

    def add(self, value: str) -> None:
        value = value.strip()
        if not value:
            self.empty += 1
            return
        self.filled += 1
        self.values[value] += 1
        if self.numeric:
            self._add_number(value)

    def _add_number(self, value: str) -> None:
        number = float(value) if _NUMBER.fullmatch(value) else None
        if number is None or abs(number) > _LARGEST:
            self.numeric = False
            return
        self.smallest = min(self.smallest, number)
        self.largest = max(self.largest, number)
        self.total += number

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "filled": self.filled, "empty": self.empty}
        if self.numeric and self.filled:
            mean = self.total / self.filled
            return found | {"min": self.smallest, "max": self.largest, "mean": mean}
        common = [list(pair) for pair in self.values.most_common(COMMON)]
        return found | {"distinct": len(self.values), "common": common}


class RowCheck:
    """Tells rows that have a value for each column from those with more or fewer."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.errors = 0
        self.faulty: list[dict[str, int]] = []

    def fits(self, line: int, values: Sequence[str]) -> bool:
        if len(values) == self.columns:
            return True
        self.errors += 1
        if len(self.faulty) < ERRORS:
            self.faulty.append({"line": line, "values": len(values)})
        return False

    def as_dict(self) -> dict[str, Any]:
        return {"errors": self.errors, "faulty": self.faulty}


class Summary:
    """Takes in the rows that fit. ``checks``: what `RowCheck` found in each part of the file, in
    their order."""

    def __init__(self, header: Sequence[str], checks: Sequence[dict[str, Any]]) -> None:
        self.columns = [Column(name) for name in header]
        self.checks = checks
        self.rows = 0

    def add(self, values: Sequence[str]) -> None:
        self.rows += 1
        for column, value in zip(self.columns, values, strict=True):
            column.add(value)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, for `Upload.summary`."""
        faulty = [line for check in self.checks for line in check["faulty"]]
        return {
            "rows": self.rows,
            "errors": sum(check["errors"] for check in self.checks),
            "faulty": faulty[:ERRORS],
            "columns": [column.as_dict() for column in self.columns],
        }
