"""Beats: this program's, and Celery's with its two best-known places for schedules."""

from dataclasses import dataclass

from ..bench import Bench
from .base import System


@dataclass
class Beat(System):
    """One beat process."""

    command: tuple[str, ...] = ()
    settings: str = "benchmarks.settings"

    def commands(self, processes: int) -> list[list[str]]:
        return [list(self.command)]

    def waiting(self, bench: Bench) -> int:
        return int(bench.valkey.client.llen("bench"))

    def environment(self, bench: Bench) -> dict[str, str]:
        return {**super().environment(bench), "DJANGO_SETTINGS_MODULE": self.settings}


def _celery(app: str) -> tuple[str, ...]:
    return ("-m", "celery", "-A", app, "beat", "--loglevel", "WARNING", "--pidfile", "")


OURS = "benchmarks.apps.beat_jobsite"
ROWS = "benchmarks.apps.beat_celery"
REDBEAT = "benchmarks.apps.beat_redbeat"
RUN = ("manage.py", "runbeat")
SYSTEMS = [
    Beat("beat-postgres", OURS, "jobsite", results="postgres", peer=False, command=RUN),
    Beat("beat-sqlite", OURS, "jobsite", results="sqlite", peer=False, command=RUN),
    Beat(
        "django-celery-beat",
        ROWS,
        "django-celery-beat",
        results="postgres",
        command=_celery(ROWS),
        settings="benchmarks.settings_beat",
    ),
    Beat("redbeat", REDBEAT, "celery-redbeat", results="redis", command=_celery(REDBEAT)),
]
