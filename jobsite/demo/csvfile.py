"""Reading a CSV file that a visitor sent: rows with their lines, or what is wrong with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

from django.db import models
from django.utils.translation import gettext_lazy as _

MAX_COLUMNS = 100
MAX_ROWS = 100_000
_DELIMITERS = ",;\t"


class Problem(models.TextChoices):
    """Why a whole file can't be used, in words for the visitor; ``%(line)s`` is where."""

    BINARY = "binary", _("This is not a text file. From a spreadsheet, save it as “CSV UTF-8”.")
    ENCODING = "encoding", _("Line %(line)s is not UTF-8 text. Save the file as “CSV UTF-8”.")
    MALFORMED = "malformed", _("Line %(line)s is not CSV: check its quotation marks.")
    NO_HEADER = "header", _("The first line is empty. It must hold the names of the columns.")
    NO_ROWS = "rows", _("There are no rows below the first line, which holds the columns' names.")
    NO_ROW_FITS = "fit", _("No row has as many values as the first line has column names.")
    TOO_WIDE = "wide", _("There are more columns than the 100 that are read.")
    TOO_LONG = "long", _("There are more rows than the 100,000 that are read.")


class FileProblem(Exception):
    """The file can't be used: a `Problem` and the line, counted from 1, where it shows."""

    def __init__(self, problem: Problem, line: int = 1) -> None:
        super().__init__(problem, line)
        self.problem = problem
        self.line = line


class Row(NamedTuple):
    line: int
    values: list[str]


class CsvFile:
    """Iterate it once to get its rows; blank lines are left out.

    Creating and iterating it raise `FileProblem`.
    """

    def __init__(self, content: bytes) -> None:
        text = _decode(content)
        self.lines = text.count("\n") + (not text.endswith("\n"))
        first_line = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first_line.count)
        # Strict: a quotation mark that is never closed would otherwise swallow the rest unnoticed.
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        self.header = self._header()

    def _header(self) -> list[str]:
        names = [name.strip() for name in self._next() or []]
        if not any(names):
            raise FileProblem(Problem.NO_HEADER)
        if len(names) > MAX_COLUMNS:
            raise FileProblem(Problem.TOO_WIDE)
        return [name or str(number) for number, name in enumerate(names, start=1)]

    def __iter__(self) -> Iterator[Row]:
        line = self._reader.line_num + 1
        count = 0
        while (values := self._next()) is not None:
            if values:
                count += 1
                if count > MAX_ROWS:
                    raise FileProblem(Problem.TOO_LONG, line)
                yield Row(line, values)
            line = self._reader.line_num + 1

    def _next(self) -> list[str] | None:
        line = self._reader.line_num + 1
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise FileProblem(Problem.MALFORMED, line) from error


def _decode(content: bytes) -> str:
    if b"\0" in content:
        raise FileProblem(Problem.BINARY)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileProblem(Problem.ENCODING, line) from error
