"""The examples of docs/tenants.md and docs/upgrading.md do what they say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobs import AsyncResult
from jobs.models import TaskResult
from tests.project import ROOT
from tests.workers import put_message, work

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("broker_url", "own_tasks"),
]


def run(page: str) -> dict[str, Any]:
    """Execute the page's blocks that are no files of another project; returns their names."""
    path = ROOT / "docs" / page
    blocks = re.findall(r"^```python\n(?!# )(.*?)^```", path.read_text(), re.M | re.S)
    assert blocks
    names: dict[str, Any] = {"__name__": f"docs.{path.stem}"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)
    return names


def test_tenants() -> None:
    names = run("tenants.md")
    names["render"].delay(1, "small")
    names["call_api"].delay("small")
    work()
    assert set(TaskResult.objects.values_list("state", flat=True)) == {"SUCCESS"}
    assert TaskResult.objects.count() == 103
    imports = TaskResult.objects.filter(task="docs.tenants.import_row").order_by("started_at")
    order = [AsyncResult(pk).result for pk in imports.values_list("pk", flat=True)]
    assert order.index("1 of small") < 5, "it doesn't wait behind a hundred others"


def test_a_task_under_two_names() -> None:
    run("upgrading.md")
    call = put_message(task="shop.tasks.send_invoice", args=[7])
    work()
    assert AsyncResult(call).get(timeout=0) == "1 of 7"
