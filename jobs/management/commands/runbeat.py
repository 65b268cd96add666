"""`manage.py runbeat`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from jobs import broker, schedules
from jobs.beat import Beat
from jobs.exceptions import ConfigurationError
from jobs.management import processes
from jobs.management.operating import JobsCommand


class Command(JobsCommand):
    help = """\
Run beat: it sends the task of each schedule when it is due.

Schedules are edited in the admin; what is changed there counts at once. At its start, beat adds
those that code declares. Run one beat, or several on different machines: each due time is sent
once, whoever is there. Each schedule says what becomes of times that were missed while no beat ran.

While the database or Redis is away, beat keeps trying and goes on by itself. Ctrl-C or SIGTERM
ends it after what it is doing; a second one ends it at once, which loses nothing either. SIGHUP,
which the end of a terminal sends, is ignored."""
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        processes.refuse_memory()
        try:
            broker.get()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        beat = Beat(prepare=schedules.sync)
        beat.stop_on_signals()

        def say(text: str) -> None:
            if options.get("verbosity", 1) > 0:
                processes.say(self.stdout, text)

        say(_("Beat is running. Ctrl-C ends it."))
        say(_("It sends to the broker %(address)s.") % {"address": broker.get().address})
        beat.run()
        say(_("Beat has ended."))
