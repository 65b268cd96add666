"""A connection to the database in the process that forks a worker's children. What else there is to
forks runs the same on every database: see `test_forkserver.py`."""

from __future__ import annotations

from tests.e2e.test_forkserver import ONE_FORK, App, app, names
from tests.services import wait_for
from tests.tasks import add

__all__ = ["app"]


def test_a_log_file_and_a_connection_are_no_hindrance(app: App) -> None:
    app.set(
        "LOGGING = {'version': 1, 'handlers': {'file': {'class': 'logging.FileHandler', "
        f"'filename': r'{app.folder / 'log'}'}}}}, 'root': {{'handlers': ['file']}}}}\n"
    )
    (app.folder / "apps.py").write_text(
        "from django.apps import AppConfig\n"
        "class Config(AppConfig):\n"
        "    name = 'forked_app'\n"
        "    def ready(self):\n"
        "        from django.db import connection\n"
        "        connection.ensure_connection()\n"
    )
    worker = app.project.manage("runworker", "--processes", "1", **app.env)
    wait_for(lambda: names(worker) == ONE_FORK, what="the child")
    assert add.delay(1, 2).get(timeout=30) == 3
    assert worker.stop() == 0
