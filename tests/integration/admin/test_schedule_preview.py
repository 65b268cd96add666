"""What the form says while somebody types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from jobs import registry
from jobs.api.task import Task, task_of
from jobs.models import Schedule
from tests.integration.admin.conftest import staff
from tests.integration.admin.schedules import HOUR, LIST, made

URL = f"{LIST}preview/"


@pytest.fixture
def greet() -> Iterator[Task[..., Any]]:
    """A task whose author said much about it."""

    def greet(self: Any, name: str, *, loud: bool = False) -> None:
        """Greet <somebody>.

        Politely.
        """
        raise AssertionError("the admin must not run tasks")

    task = task_of(greet, name="tests.admin.greet", bind=True)
    yield task
    del registry.tasks[task.name]


def asked(client: Client, **fields: Any) -> dict[str, Any]:
    usual = {"kind": "crontab", "crontab": "", "timezone": "Asia/Tokyo", "id": ""}
    response = client.get(URL, {**usual, **fields})
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_words_and_the_next_five_runs(root: Client) -> None:
    said = asked(root, crontab="30 6 * * *")
    assert "daily at 06:30" in said["html"]
    assert said["html"].count(" 06:30:00") == 5
    assert said["html"].count("T21:30:00+00:00") == 5
    assert said["errors"] == {}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"crontab": "0 0 31 2 *"}, "crontab", "never happens"),
        ({"crontab": "0 0 1 1 *", "timezone": "Mars"}, "timezone", "valid choice"),
        ({"kind": "interval", "interval_0": "0", "interval_1": "1"}, "interval", "above zero"),
        ({"kind": "at", "at": "2020-01-01T00:00"}, "at", "past"),
        ({"crontab": "0 0 * * *", "end_at": "2020-01-01T00:00"}, "end_at", "No run falls"),
    ],
)
def test_what_can_not_fire(root: Client, fields: dict[str, str], field: str, words: str) -> None:
    said = asked(root, **fields)
    assert list(said["errors"]) == [field]
    assert words in said["errors"][field][0]
    assert said["html"] == ""


def test_what_is_not_written_yet_is_no_error(root: Client) -> None:
    assert asked(root) == {"html": "", "task": "", "errors": {}}
    assert asked(root, kind="")["errors"] == {}


def test_an_interval_keeps_the_grid_of_what_is_stored(root: Client) -> None:
    schedule = made()
    said = asked(
        root, id=schedule.pk, kind="interval", interval_0="1", interval_1="3600", timezone="UTC"
    )
    assert schedule.next_run_at is not None
    assert schedule.next_run_at.isoformat() in said["html"]


def test_a_task_is_explained_and_never_run(root: Client, greet: Task[..., Any]) -> None:
    said = asked(root, task=greet.name)["task"]
    assert "greet(name: str, *, loud: bool = False)" in said
    assert "Greet &lt;somebody&gt;." in said
    assert "Politely." in said
    assert "This code has no task" in asked(root, task="gone.<b>")["task"]
    assert "<b>" not in asked(root, task="gone.<b>")["task"]


def test_it_changes_nothing(root: Client) -> None:
    schedule = made()
    asked(root, id=schedule.pk, crontab="30 6 * * *")
    assert Schedule.objects.get(pk=schedule.pk).interval == HOUR


def test_in_chinese(root: Client) -> None:
    response = root.get(
        URL,
        {"kind": "crontab", "crontab": "30 6 * * mon-fri", "timezone": "UTC"},
        headers={"accept-language": "zh-hans"},
    )
    assert "星期一至星期五 06:30" in response.json()["html"]


@pytest.mark.parametrize("permission", ["add", "view", "change"])
def test_who_may(db: None, permission: str) -> None:
    client = staff(f"jobs.{permission}_schedule")
    assert client.get(URL).status_code == 200
