"""The examples of docs/long-tasks.md, run by a worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from jobs import AsyncResult, registry
from jobs.api.task import Task
from jobs.models import TaskResult
from jobs.states import State
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "long-tasks.md"


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    """The names that the page's examples define, each of which stands by itself."""
    before = dict(registry.tasks)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        alone = {"__name__": "examples"}
        exec(compile(block, str(PAGE), "exec"), alone)
        names |= alone
    yield names
    registry.tasks.clear()
    registry.tasks.update(before)


def test_every_example_runs(page: dict[str, Any], tmp_path: Path) -> None:
    User.objects.create(username="ann", first_name=" Ann ", email="ANN@example.com")
    lines = tmp_path / "lines"
    lines.write_text("a\nb\n")
    sent: dict[str, AsyncResult[Any]] = {
        "import_rows": page["import_rows"].delay(["a", "b"]),
        "pack": page["pack"].delay("order"),
        "tidy_names": page["tidy_names"].delay(),
        "import_file": page["import_file"].delay(str(lines)),
        "lower_emails": page["lower_emails"].delay(),
        "charge": page["charge"].delay(amount=3),
    }
    examples = {name for name, found in page.items() if isinstance(found, Task)}
    assert examples == {*sent, "index"}, "an example that is not run here"
    work()
    assert {name: result.state for name, result in sent.items()} == dict.fromkeys(
        sent, State.SUCCESS
    )
    assert sent["charge"].result == "charged 3"
    # The page itself sends two.
    assert TaskResult.objects.filter(task=page["index"].name, state=State.SUCCESS).count() == 2
    ann = User.objects.get()
    assert (ann.first_name, ann.email) == ("Ann", "ann@example.com")
    assert page["show"](sent["pack"].id) == State.SUCCESS
    page["watch"](sent["pack"].id)
