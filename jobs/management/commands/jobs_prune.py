"""`manage.py jobs_prune`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from jobs.ledger import pruning
from jobs.management.operating import JobsCommand, Progress
from jobs.timing import clock


class Command(JobsCommand):
    help = """\
Delete results, and the history of schedules, that are older than the settings keep them.

Beat sends a task every night that does the same (jobs.prune); this command is for a first time with
many rows, and for installations without beat. It deletes in small transactions: it may be run while
workers run, and stopped at any time. Calls that have not ended are never deleted."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help=_("only count them"))
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        gone: Counter[str] = Counter()
        progress = Progress(self.stderr)

        def done(what: str, number: int) -> None:
            gone[what] += number
            told = {"n": f"{gone.total():,}", "what": what}
            progress.tell(_("%(n)s rows deleted: %(what)s") % told)

        if options["dry_run"]:
            gone.update(pruning.count(clock.now()))
        else:
            try:
                pruning.prune(clock.now(), done=done)
            finally:
                progress.clear()
        if options["json"]:
            deleted = 0 if options["dry_run"] else gone.total()
            self.print_json({"found": gone.total(), "deleted": deleted, "rows": gone})
            return
        for what, number in sorted(gone.items()):
            self.stdout.write(f"{number:10,} {what}")
        if not gone:
            self.stdout.write(_("Nothing is old enough."))
        elif options["dry_run"]:
            self.stdout.write(_("%s rows would be deleted.") % f"{gone.total():,}")
        else:
            self.stdout.write(_("%s rows are deleted.") % f"{gone.total():,}")
