"""The examples of docs/canvas.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs import AsyncResult, GroupResult
from tests.workers import work

PAGE = Path(__file__).resolve().parents[2] / "docs" / "canvas.md"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def working(method: Any) -> Any:
    """The worker runs whenever somebody waits."""

    def wait(*args: Any, **kwargs: Any) -> Any:
        work()
        return method(*args, **kwargs)

    return wait


def test_every_example(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (AsyncResult, GroupResult):
        monkeypatch.setattr(kind, "get", working(kind.get))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    names: dict[str, Any] = {"__name__": "docs.canvas"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    work()
