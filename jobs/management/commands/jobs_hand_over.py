"""`manage.py jobs_hand_over`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import (
    broker,
    control,
    registry,
)
from jobs.management.operating import OperatorCommand


class Command(OperatorCommand):
    help = """\
Hand what is due later on a queue over to Celery's workers, for a project that goes back to Celery.

They know nothing of messages that wait here for their time. This puts them on the list of what
waits, from where Celery's workers take them, and wait for their time themselves. Stop the workers
of this program that serve the queue first: they would take them back."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", help=_("name of the queue"))
        parser.add_argument("--dry-run", action="store_true", help=_("only count"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        queue = registry.queue(options["queue"])
        if options["dry_run"]:
            count = broker.get().stats(queue).due
            said = ngettext("%d message is due later.", "%d messages are due later.", count)
        else:
            count = control.hand_over(queue)
            said = ngettext("%d message handed over.", "%d messages handed over.", count)
        if options["json"]:
            handed = 0 if options["dry_run"] else count
            self.print_json({"queue": queue, "found": count, "handed_over": handed})
        else:
            self.stdout.write(said % count)
