"""`manage.py jobs_retry`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import ledger
from jobs.control import acts, selecting
from jobs.management.operating import OperatorCommand, Progress, not_empty
from jobs.states import State
from jobs.timing import clock

#: Rows of one query.
_BATCH = 100


class Command(OperatorCommand):
    help = """\
Run failed calls again, with all their attempts.

Say which: by their ids, or by filters, which must all match. Filters find calls that have failed;
one that was revoked, or that waits for its next attempt, is run when its id is given. Calls that
fail while the command runs are left out, and so are dead letters: see jobs_dead_letters."""

    def add_arguments(self, parser: CommandParser) -> None:
        when = _(
            "a time such as 2026-03-01T14:30 in the project's time zone, or an age such as 90m"
        )
        parser.add_argument("id", nargs="*", help=_("id of the call"))
        parser.add_argument("--task", type=not_empty, help=_("calls of this task"))
        parser.add_argument("--queue", type=not_empty, help=_("calls on this queue"))
        parser.add_argument(
            "--label", type=not_empty, help=_("calls that were sent with this label")
        )
        parser.add_argument(
            "--error",
            type=not_empty,
            metavar="CLASS",
            help=_("calls that failed with this exception"),
        )
        parser.add_argument(
            "--since", type=not_empty, metavar="TIME", help=_("calls sent from then on: %s") % when
        )
        parser.add_argument(
            "--until", type=not_empty, metavar="TIME", help=_("calls sent before then")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("only count them"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        names = ("task", "queue", "label", "since", "until")
        filters = {name: options[name] or "" for name in names}
        filters["error_type"] = options["error"] or ""
        if not options["id"] and not any(filters.values()):
            raise CommandError(_("Say which calls: give ids, or one of the filters."))
        now = clock.now()
        selection = selecting.read(
            {
                **filters,
                "ids": options["id"],
                "state": "" if options["id"] else State.FAILURE,
                # Or it might never end: what is run again can fail again meanwhile.
                "until": filters["until"] or now.isoformat(),
            }
        )
        retry = acts.ACTS["retry"]
        rows = retry.among(selection.all_of(ledger.results())).order_by("pk")
        matched: Counter[tuple[str, str]] = Counter()
        done = 0
        progress = Progress(self.stderr)
        last = ""
        try:
            while batch := list(
                rows.filter(pk__gt=last).only("pk", "state", "eta", "task", "error_type")[:_BATCH]
            ):
                last = batch[-1].pk
                matched.update((row.task, row.error_type) for row in batch)
                if not options["dry_run"]:
                    done += retry.run(batch, {})
                progress.tell(_("%s calls") % f"{matched.total():,}")
        finally:
            progress.clear()
        if options["json"]:
            kinds = [
                {"task": task, "error": error, "count": count}
                for (task, error), count in matched.most_common()
            ]
            self.print_json({"matched": matched.total(), "run_again": done, "kinds": kinds})
            return
        for (task, error), count in matched.most_common():
            self.stdout.write(f"{count:10,} {task} {error}".rstrip())
        numbers = {"n": f"{matched.total():,}", "done": f"{done:,}"}
        if not matched:
            said = _("No call matches.")
        elif options["dry_run"]:
            said = ngettext(
                "%(n)s call would be run again.",
                "%(n)s calls would be run again.",
                matched.total(),
            )
        else:
            said = ngettext(
                "%(done)s of %(n)s call is run again.",
                "%(done)s of %(n)s calls are run again.",
                matched.total(),
            )
        self.stdout.write(said % numbers)
