from __future__ import annotations

import importlib
from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from jobs.management import processes

processes.prepare()


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = _("Jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Once models are loaded: this registers checks and tasks, and lets edits of schedules wake
        # beat.
        from jobs.api.task import autodiscover

        # Web processes need the tasks as well, since triggers are declared beside them.
        autodiscover()

        from jobs import checks, registry  # noqa: F401  checks register themselves

        registry.inline = _inline
        processes.note_databases()


def _inline() -> Any:
    # Loaded by who needs it: web processes have no use for what makes up a worker.
    return importlib.import_module("jobs.worker.inline")
