"""docs/tutorial.md, followed from the empty folder to the tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.services import wait_for

PAGE = ROOT / "docs" / "tutorial.md"
SHELL = "python manage.py shell"

#: What the page's `django-admin startproject shop .` and `startapp orders` do, in one process.
BEGIN = """
from django.core.management import call_command
call_command("startproject", "shop", ".")
call_command("startapp", "orders")
"""
MIGRATE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
call_command("makemigrations", "orders", verbosity=0)
call_command("migrate", verbosity=0)
call_command("jobs_sync_schedules")  # as beat does at its start
"""
OUTCOME = """
from jobs.models import Schedule
print(list(Order.objects.values_list("email", "paid")))
print(Schedule.objects.get(task="orders.tasks.remind").interval)
"""


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


class Newcomer:
    """Somebody in a folder of their own, with nothing set but what the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours = {"ENV_FILE", "SECRET_KEY", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}
        usual = {name: value for name, value in os.environ.items() if name not in ours}
        self.env = {**usual, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *args: str) -> Path:
        log = self.folder / f"{args[0]}.log"
        with log.open("wb") as out:
            command = [sys.executable, "manage.py", *args]
            self.running.append(
                subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=out, stderr=out)
            )
        return log

    def write(self, block: str) -> str:
        """Put a block into the file that its first line names; returns what that line says."""
        title = block.splitlines()[0].removeprefix("# ")
        name, _, where = title.partition(", ")
        if name != SHELL:
            with (self.folder / name).open("a" if where else "w") as file:
                file.write(f"\n{block}" if where else block)
        return title


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    somebody = Newcomer(tmp_path)
    yield somebody
    for process in somebody.running:
        process.send_signal(signal.SIGTERM)
    for process in somebody.running:
        process.wait(60)
    somebody.run("manage.py", "runbroker", "--stop")


@pytest.mark.skipif(sys.platform == "win32", reason="the embedded broker needs a socket file")
def test_the_tutorial(newcomer: Newcomer) -> None:
    newcomer.run("-c", BEGIN)
    shell = []
    for block in blocks("python"):
        if newcomer.write(block) == SHELL:
            shell.append(block)
    assert len(shell) == 4
    newcomer.run("-c", MIGRATE)

    worker = newcomer.start("runworker", "--processes", "1")
    shown = newcomer.run("manage.py", "shell", "-v", "0", "-c", "\n".join([*shell, OUTCOME]))
    assert "This is no address." in shown
    assert "[('ada@example.com', True)]" in shown
    assert "0:00:10" in shown
    wait_for(lambda: "To ada@example.com" in worker.read_text(), what="the receipt")

    assert "Ran 4 tests" in newcomer.run("manage.py", "test")


def test_the_commands_exist() -> None:
    """All that the page has one type is known to this package, to Django, or to a new machine."""
    ours = {path.stem for path in (ROOT / "jobs/management/commands").glob("*.py")}
    django = {
        "startapp",
        "shell",
        "makemigrations",
        "migrate",
        "createsuperuser",
        "runserver",
        "test",
    }
    typed = re.findall(r"^python manage\.py (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert len(typed) > 5
    assert set(typed) <= ours | django
