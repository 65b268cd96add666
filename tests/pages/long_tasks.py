"""What becomes of the examples of docs/long-tasks.md."""

import tempfile
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from jobs import AsyncResult
from jobs.api.task import Task
from jobs.models import TaskResult
from tests.workers import work


def afterwards(page: Any) -> None:
    User.objects.create(username="ann", first_name=" Ann ", email="ANN@example.com")
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        lines.write_text("a\nb\n")
        sent: dict[str, AsyncResult[Any]] = {
            "import_rows": page.import_rows.delay(["a", "b"]),
            "pack": page.pack.delay("order"),
            "tidy_names": page.tidy_names.delay(),
            "import_file": page.import_file.delay(str(lines)),
            "lower_emails": page.lower_emails.delay(),
            "charge": page.charge.delay(amount=3),
        }
        examples = {name for name, found in vars(page).items() if isinstance(found, Task)}
        assert examples == {*sent, "index"}, "an example that is not run here"
        work()
    assert {name: result.state for name, result in sent.items()} == dict.fromkeys(sent, "SUCCESS")
    assert sent["charge"].result == "charged 3"
    # The page itself sends two.
    assert TaskResult.objects.filter(task=page.index.name, state="SUCCESS").count() == 2
    ann = User.objects.get()
    assert (ann.first_name, ann.email) == ("Ann", "ann@example.com")
    assert page.show(sent["pack"].id) == "SUCCESS"
    page.watch(sent["pack"].id)
