"""The Chinese pages keep in step with the English ones: same headings, same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.check_docs import prose
from tests.pages import CHINESE, ROOT, blocks_of, name_of


def english_of(page: Path) -> Path:
    return ROOT / "README.md" if page.name == "README.md" else ROOT / "docs" / page.name


def levels(page: Path) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


def rows(page: Path) -> list[int]:
    """How many rows each table has."""
    return [table.count("\n") for table in re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE)]


@pytest.mark.parametrize("page", CHINESE, ids=name_of)
def test_a_page_is_in_step(page: Path) -> None:
    english = english_of(page)
    assert levels(page) == levels(english)
    assert rows(page) == rows(english)
    code = [(block.language, block.text) for block in blocks_of(page)]
    assert code == [(block.language, block.text) for block in blocks_of(english)]


def test_there_are_pages() -> None:
    assert {page.name for page in CHINESE} >= {"README.md", "tutorial.md"}
