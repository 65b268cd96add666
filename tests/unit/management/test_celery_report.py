"""What a code base uses of Celery."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from jobs.management import celery_report
from jobs.management.celery_report import Use, report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "coming-from-celery.md"


def read(folder: Path, **files: str) -> list[Use]:
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return report(folder)[0]


def short(uses: list[Use]) -> list[tuple[int, str, str, str]]:
    return [(use.line, use.kind, use.what, use.verdict) for use in uses]


def test_tasks_calls_and_options(tmp_path: Path) -> None:
    uses = read(
        tmp_path,
        tasks="""\
        from celery import shared_task, chain, Task
        from celery.exceptions import MaxRetriesExceededError, ImproperlyConfigured2

        @shared_task(bind=True, acks_late=True, serializer="pickle", raet_limit=3)
        def add(self, x, y): ...

        @shared_task
        async def other(): ...

        def send(kind, method):
            add.delay(1, 2)
            add.apply_async((1, 2), countdown=3, serializer="json", reply_to="q", prio=1)
            add.apply_async((1, 2), serializer=method)
            chain(add.s(1, 2), other.si())()
            kind.s(5)
        """,
    )
    assert short(uses) == [
        (1, "import", "celery.Task", "other"),
        (1, "import", "celery.chain", "other"),
        (1, "import", "celery.shared_task", "other"),
        (2, "import", "celery.exceptions.ImproperlyConfigured2", "none"),
        (2, "import", "celery.exceptions.MaxRetriesExceededError", "other"),
        (4, "decorator", "@shared_task", "same"),
        (4, "option", "acks_late=True", "same"),
        (4, "option", "bind=True", "same"),
        (4, "option", "raet_limit=3", "none"),
        (4, "option", "serializer='pickle'", "none"),
        (7, "decorator", "@shared_task", "same"),
        (11, "call", "add.delay(…)", "same"),
        (12, "call", "add.apply_async(…)", "same"),
        (12, "option", "prio=1", "none"),
        (12, "option", "reply_to='q'", "none"),
        (12, "option", "serializer='json'", "same"),
        (13, "call", "add.apply_async(…)", "same"),
        (13, "option", "serializer=method", "none"),
        (14, "call", "add.s(…)", "same"),
        (14, "call", "other.si(…)", "same"),
        (14, "canvas", "chain(…)", "same"),
    ]
    told = {use.what: use.told for use in uses}
    assert told["celery.shared_task"] == "`from jobs import shared_task`"
    assert "Did you mean 'rate_limit'?" in told["raet_limit=3"]
    assert "messages and results are always JSON" in told["serializer='pickle'"]


def test_an_app_in_another_file_and_its_settings(tmp_path: Path) -> None:
    uses = read(
        tmp_path,
        shop__celery="""\
        import celery
        from celery.schedules import crontab, solar
        from celery.signals import task_prerun, worker_init
        app = celery.Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.conf.task_serializer = "pickle"
        app.conf.update(task_time_limit=9, task_rotes={})
        app.conf.beat_schedule = {
            "each": {"task": "shop.tasks.add", "schedule": 5},
            "wrong": {"task": "shop.tasks.add", "every": 5},
        }
        @app.on_after_configure.connect
        def setup(sender, **kwargs):
            sender.add_periodic_task(5, add.s())
        """,
        shop__tasks="""\
        from .celery import app

        @app.task(rate_limit="5/s")
        def add(): ...

        app.control.revoke("id")
        app.send_task("other", queue="a", priority=3, declare=[1])
        """,
        shop__settings="""\
        CELERY_TASK_ROUTES = {}
        CELERY_WORKER_CONCURRENCY = 4
        CELERYD_MAX_TASKS_PER_CHILD = 5
        CELERY_TIMEZONE = get_zone()
        CELERY_SERVERS = 5
        INSTALLED_APPS = ["shop", "django_celery_beat"]
        def f():
            CELERY_LOCAL = 1
        """,
    )
    assert short([use for use in uses if use.file == "shop/celery.py"]) == [
        (1, "import", "celery", "other"),
        (2, "import", "celery.schedules.crontab", "other"),
        (2, "import", "celery.schedules.solar", "none"),
        (3, "import", "celery.signals.task_prerun", "other"),
        (3, "import", "celery.signals.worker_init", "none"),
        (4, "import", "celery.Celery", "none"),
        (5, "app", "app.config_from_object", "none"),
        (6, "setting", "task_serializer", "none"),
        (7, "app", "app.conf", "other"),
        (7, "setting", "task_rotes", "none"),
        (7, "setting", "task_time_limit", "other"),
        (8, "setting", "beat_schedule", "other"),
        (9, "schedule", "each", "same"),
        (10, "schedule", "wrong", "none"),
        (12, "app", "app.on_after_configure", "none"),
        (14, "app", "sender.add_periodic_task", "other"),
        (14, "call", "add.s(…)", "same"),
    ]
    assert short([use for use in uses if use.file == "shop/tasks.py"]) == [
        (1, "import", "celery.app", "none"),
        (3, "decorator", "@app.task", "other"),
        (3, "option", "rate_limit='5/s'", "same"),
        (6, "app", "app.control", "other"),
        (7, "app", "app.send_task", "other"),
        (7, "option", "declare=[1]", "none"),
    ]
    assert short([use for use in uses if use.file == "shop/settings.py"]) == [
        (1, "setting", "CELERY_TASK_ROUTES", "same"),
        (2, "setting", "CELERY_WORKER_CONCURRENCY", "none"),
        (3, "setting", "CELERYD_MAX_TASKS_PER_CHILD", "same"),
        (4, "setting", "CELERY_TIMEZONE", "none"),
        (5, "setting", "CELERY_SERVERS", "none"),
        (6, "setting", "django_celery_beat", "none"),
    ]


def test_which_files_are_read(tmp_path: Path) -> None:
    for name in ("venv/lib/a", "node_modules/b", ".hidden/c"):
        read(tmp_path, **{name.replace("/", "__"): "import celery"})
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nimport celery  # \xe9\n")
    (tmp_path / "broken.py").write_text("import (")
    (tmp_path / "nul.py").write_bytes(b"a = '\0'")
    uses, files = report(tmp_path)
    assert files == 3
    found = [(use.file, use.kind) for use in uses]
    assert found == [("broken.py", "file"), ("latin.py", "import"), ("nul.py", "file")]
    assert report(tmp_path / "latin.py")[0][0].file == "latin.py"


def run(*args: Any, status: int) -> str:
    out = StringIO()
    try:
        call_command("jobs_from_celery", *args, stdout=out)
        ended: Any = 0
    except SystemExit as error:
        ended = error.code
    assert ended == status
    return out.getvalue()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from jobs import task\nadd.delay(1)\n")
    assert run(tmp_path, status=0) == (
        "a.py\n  =    2  call      add.delay(…)\n"
        "1 files: 1 uses of Celery stay as they are, 0 have another name, 0 have no equal.\n"
    )
    (tmp_path / "b.py").write_text("from celery import Celery, chain\n")
    text = run(tmp_path, status=1)
    assert "  ~    1  import    celery.chain: from jobs import chain\n" in text
    assert "  !    1  import    celery.Celery: there is no app" in text
    said = json.loads(run(tmp_path, "--json", status=1))
    assert (said["files"], said["same"], said["other"], said["none"]) == (2, 1, 1, 1)
    assert said["uses"][0] == {
        "file": "a.py",
        "line": 2,
        "kind": "call",
        "what": "add.delay(…)",
        "verdict": "same",
        "told": "",
    }
    with pytest.raises(CommandError, match="There is no"):
        run(tmp_path / "nothing", status=1)


@pytest.mark.parametrize(
    ("heading", "table"),
    [("### The app", celery_report.APP), ("### Modules", celery_report.MODULES)],
)
def test_the_page_says_the_same(heading: str, table: dict[str, tuple[str, str]]) -> None:
    section = PAGE.read_text("utf-8").partition(f"\n{heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(?:app\.)?([\w.]+)` \| (.+) \|$", section, re.MULTILINE)
    assert dict(rows) == {name: told for name, (_, told) in table.items()}
