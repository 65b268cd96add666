"""docs/troubleshooting.md has the messages as users meet them, and all that they may look up."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

from jobs import exceptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")

#: Python's own words, from `inspect.Signature.bind`, and SQLite's.
NOT_OURS = {"missing a required argument", "database is locked"}


def quoted() -> list[str]:
    """The messages that the page quotes: in the first cell of a row, and of the log."""
    cells = re.findall(r"^\| (.+?) \|", PAGE, re.MULTILINE)
    cells += re.findall(r"The log says (`[^`]+`)", PAGE)
    found = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    return [text for text in found if " " in text and text not in NOT_OURS]


@functools.cache
def messages() -> list[str]:
    """Every text in the code, with … for what is put into it, and the docstrings of exceptions."""
    found = [inspect.getdoc(kind) or "" for kind in vars(exceptions).values() if _is_error(kind)]
    for file in (ROOT / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if text := _text(node):
                found.append(re.sub(r"%\(\w+\)[sdr]|%[-.\d]*[sdrf]|\{\w*\}", "…", text))
    return found


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "…" for part in parts)
    return ""


def _is_error(kind: object) -> bool:
    return inspect.isclass(kind) and kind.__module__ == exceptions.__name__


def fits(quote: str, message: str) -> bool:
    """Whether this is a part of the message; an … of the page is any text."""
    at = 0
    for part in quote.split("…"):
        at = message.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_every_message_exists() -> None:
    assert len(quoted()) > 50
    unknown = [quote for quote in quoted() if not any(fits(quote, text) for text in messages())]
    assert unknown == []
    assert not any(fits("Task … is on holiday", text) for text in messages())


def test_every_check_and_every_exception_is_there() -> None:
    ids = {
        found
        for file in (ROOT / "jobs").rglob("*.py")
        for found in re.findall(r'id="(jobs\.[EIW]\d+)"', file.read_text("utf-8"))
    }
    names = {kind.__name__ for kind in vars(exceptions).values() if _is_error(kind)}
    assert len(ids) > 10
    in_code = set(re.findall(r"`([\w.]+)`", PAGE))
    assert sorted((ids | names) - in_code) == []
