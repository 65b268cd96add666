from __future__ import annotations

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

        from jobs import checks  # noqa: F401  they register
