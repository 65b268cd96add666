"""The peers that keep results, or messages as well, in a database: each with rows to count."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System
from .rows import count_rows


@dataclass
class Procrastinate(System):
    """Two of its workers, ten coroutines at once each."""

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "procrastinate", "--app", f"{self.app}.app", "worker"]
        return [[*command, "--queues", "bench", "--concurrency", "10"]] * processes

    def waiting(self, bench: Bench) -> int:
        return self._rows(bench, "status IN ('todo', 'doing')")

    def recorded(self, bench: Bench) -> int | None:
        return self._rows(bench, "status = 'succeeded'")

    def _rows(self, bench: Bench, where: str) -> int:
        return count_rows(self.database_url(bench), "procrastinate_jobs", where)


@dataclass
class DjangoQ2(System):
    """``qcluster`` with so many workers, besides its pusher and its monitor, which records."""

    def commands(self, processes: int) -> list[list[str]]:
        return [["-m", "django", "qcluster"]]

    def environment(self, bench: Bench) -> dict[str, str]:
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.settings_django_q2"}
        return {**super().environment(bench), **settings}

    def waiting(self, bench: Bench) -> int:
        # It takes a message off its list before it runs it; what is in flight is seen by no one.
        return int(bench.valkey.client.llen("django_q:bench:q"))

    def recorded(self, bench: Bench) -> int | None:
        return count_rows(self.database_url(bench), "django_q_task", "success")


@dataclass
class DjangoTasksDb(System):
    """Two ``db_worker`` commands, which look for tasks once a second when they have none."""

    def commands(self, processes: int) -> list[list[str]]:
        command = ["-m", "django", "db_worker", "--queue-name", "bench", "--verbosity", "0"]
        return [[*command, "--no-startup-delay", "--no-reload"]] * processes

    def environment(self, bench: Bench) -> dict[str, str]:
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.settings_django_tasks"}
        return {**super().environment(bench), **settings}

    def waiting(self, bench: Bench) -> int:
        return self._rows(bench, "status IN ('READY', 'RUNNING')")

    def recorded(self, bench: Bench) -> int | None:
        return self._rows(bench, "status = 'SUCCESSFUL'")

    def _rows(self, bench: Bench, where: str) -> int:
        return count_rows(self.database_url(bench), "django_tasks_database_dbtaskresult", where)


SYSTEMS = [
    Procrastinate(
        "procrastinate",
        "benchmarks.apps.procrastinate",
        "procrastinate",
        results="postgres",
        backlog=5_000,
        answers=False,
    ),
    DjangoQ2(
        "django-q2",
        "benchmarks.apps.django_q2",
        "django-q2",
        results="postgres",
        backlog=5_000,
        countdowns=False,
    ),
    DjangoTasksDb(
        "django-tasks-db",
        "benchmarks.apps.django_tasks_db",
        "django-tasks-db",
        results="postgres",
        backlog=3_000,
    ),
]
