"""`manage.py jobs_sync_schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import schedules
from jobs.management.operating import JobsCommand
from jobs.schedules.rows import Step, Verb

_WORDS = {
    Verb.CREATED: gettext_lazy("created"),
    Verb.CHANGED: gettext_lazy("changed"),
    Verb.DROPPED: gettext_lazy("not declared any more: switched off"),
    Verb.RETURNED: gettext_lazy("declared again"),
    Verb.ADOPTED: gettext_lazy("adopted"),
    Verb.TAKEN: gettext_lazy("left alone"),
    Verb.REFUSED: gettext_lazy("not written"),
}


class Command(JobsCommand):
    help = """\
Write the schedules that code declares into the database, as beat does when it starts.

What was edited in the admin stays as it is there. What code declares no more is switched off, not
deleted. The exit status is 1 when something could not be written."""
    # The command itself reports a wrong declaration, which must not keep back the others.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help=_("only say what there is to do")
        )
        parser.add_argument(
            "--adopt",
            action="store_true",
            help=_(
                "let schedules that were made in the admin under a declared name belong to the "
                "code; their values stay"
            ),
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        steps = schedules.synchronise(write=not options["dry_run"], adopt=options["adopt"])
        failed = sum(step.failed for step in steps)
        if options["json"]:
            told = [
                {"name": s.name, "act": s.verb, "detail": s.detail, "failed": s.failed}
                for s in steps
            ]
            self.print_json({"written": not options["dry_run"], "schedules": told})
        else:
            self._show(steps, written=not options["dry_run"])
        if failed:
            raise CommandError(_("%d could not be written.") % failed)

    def _show(self, steps: Sequence[Step], *, written: bool) -> None:
        for step in steps:
            line = f"{step.name}: {_WORDS[step.verb]}"
            if step.detail:
                line += f" ({step.detail})"
            self.stdout.write(line, self.style.ERROR if step.failed else None)
        if not steps:
            self.stdout.write(_("All schedules are as code declares them, or were edited."))
        elif not written:
            self.stdout.write(_("Nothing is written: this was a dry run."))
