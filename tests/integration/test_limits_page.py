"""The examples of ``docs/limits.md`` run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs import (
    control,
    limits,
    registry,
)
from jobs.exceptions import LimitReached

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@pytest.fixture
def names() -> dict[str, Any]:
    """What the page defines, run from top to bottom in one module."""
    known = set(registry.tasks)
    defined: dict[str, Any] = {
        "__name__": "shop.tasks",
        "read": lambda file: None,
        "ask_geocoder": lambda address: address,
    }
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), defined)
    for name in set(registry.tasks) - known:
        del registry.tasks[name]
    return defined


def test_the_page_runs(names: dict[str, Any]) -> None:
    assert names["look_up_now"]("here") == "here"
    assert names["import_now"]("file") is None
    with (
        limits.concurrency("imports", 1),
        pytest.raises(LimitReached),
        limits.concurrency("imports", 1),
    ):
        pass
    assert names["sync_account"].delay(pk=7) == names["first"]
    assert names["settle"].key((7, 5), {}) == "7"
    assert names["remind"].key((), {"customer": "x"}) == "x"
    assert names["update_index"].uniqueness.quiet == 5
    set_now = {task: str(said) for task, said in control.rate_limits().items()}
    assert set_now == {"shop.tasks.look_up": "unlimited", "shop.tasks.render": "5/s, burst 10"}
