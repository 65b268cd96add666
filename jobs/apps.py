from __future__ import annotations

import importlib
import sys
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from jobs.management import processes

processes.prepare()

_DJANGO_TASKS = "jobs.contrib.django_tasks"


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

        if _DJANGO_TASKS in sys.modules or _has_django_tasks():
            # It also registers Django's own checks of TASKS, and receivers that log.
            importlib.import_module(_DJANGO_TASKS).register_tasks()
        registry.inline = _inline
        processes.note_databases()


def _has_django_tasks() -> bool:
    configured = getattr(settings, "TASKS", None) or {}
    return any(
        str(one.get("BACKEND", "")).startswith(f"{_DJANGO_TASKS}.") for one in configured.values()
    )


def _inline() -> Any:
    # Loaded by who needs it: web processes have no use for what makes up a worker.
    return importlib.import_module("jobs.worker.inline")
