"""`manage.py runbeat`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from jobs import broker, schedules
from jobs.beat import Beat
from jobs.exceptions import ConfigurationError
from jobs.management import processes


class Command(BaseCommand):
    help = """\
Run beat: it sends the task of each schedule when it is due.

Schedules are edited in the admin; what is changed there counts at once. Those that code declares
are put among them at the start. Run one beat, or several on different machines: each due time is
sent once, whoever is there. What becomes of times that were missed while none ran is for each
schedule to say.

While the database or Redis is away, beat keeps trying and goes on by itself. Ctrl-C or SIGTERM
ends it after what it is doing; a second one ends it at once, which loses nothing either. SIGHUP,
which the end of a terminal sends, is ignored."""
    requires_migrations_checks = False

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        processes.refuse_memory()
        try:
            broker.get()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        beat = Beat(prepare=schedules.sync)
        beat.stop_on_signals()
        self._say(_("Beat is running. Ctrl-C ends it."), **options)
        where = _("It sends to the broker %(address)s.") % {"address": broker.get().address}
        self._say(where, **options)
        beat.run()
        self._say(_("Beat has ended."), **options)

    def _say(self, text: str, *, verbosity: int = 1, **_: Any) -> None:
        if verbosity > 0:
            processes.say(self.stdout, text)
