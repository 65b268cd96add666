"""`manage.py jobs_purge`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import (
    broker,
    control,
    registry,
)
from jobs.management.operating import OperatorCommand, is_sure


class Command(OperatorCommand):
    help = """\
Delete the messages that wait on a queue, for good: their calls are never run.

Calls that the ledger knows end as REVOKED. What runs goes on, what is due later and dead letters
stay, unless they are asked for (see jobs_dead_letters). What is sent meanwhile stays as well."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", help=_("name of the queue"))
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--due", action="store_true", help=_("also what is due later"))
        what.add_argument("--only-due", action="store_true", help=_("only what is due later"))
        parser.add_argument("--dry-run", action="store_true", help=_("only count"))
        parser.add_argument("--yes", action="store_true", help=_("don't ask before deleting"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        queue = registry.queue(options["queue"])
        waiting, due = not options["only_due"], options["due"] or options["only_due"]
        stats = broker.get().stats(queue)
        count = stats.waiting * waiting + stats.due * due
        named = {"n": count, "queue": queue}
        if options["dry_run"] and options["json"]:
            self.print_json({"queue": queue, "found": count, "deleted": 0})
            return
        if options["dry_run"]:
            said = ngettext(
                "%(n)d message of queue %(queue)s would be deleted.",
                "%(n)d messages of queue %(queue)s would be deleted.",
                count,
            )
            self.stdout.write(said % named)
            return
        question = ngettext(
            "Delete %(n)d message of queue %(queue)s for good?",
            "Delete %(n)d messages of queue %(queue)s for good?",
            count,
        )
        if count and not options["yes"] and not is_sure(question % named):
            raise CommandError(_("Nothing was deleted."))
        done = control.purge(queue, waiting=waiting, due=due)
        if options["json"]:
            self.print_json({"queue": queue, "found": count, "deleted": done})
            return
        self.stdout.write(ngettext("%d message deleted.", "%d messages deleted.", done) % done)
