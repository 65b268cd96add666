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
        # Models must be loaded; checks and tasks register, edits of schedules are told to beat.
        from jobs.api.task import autodiscover

        # Web processes need the tasks too: the triggers stand beside them.
        autodiscover()

        from jobs import checks  # noqa: F401  they register
