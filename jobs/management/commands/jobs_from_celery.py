"""`manage.py jobs_from_celery`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs.management import celery_report
from jobs.management.operating import JobsCommand


class Command(JobsCommand):
    help = """\
Say what code uses of Celery, line by line, and what to write here.

Each line begins with = for what stays as it is, ~ for what has another name here, or ! for what
isn't here. The files are only read: nothing is imported, run or changed.

Exit status: 0 nothing has to be changed; 1 something has."""

    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path, help=_("a file, or a folder with all below it"))
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(_("There is no %s.") % path)
        uses, files = celery_report.report(path)
        counts = Counter(use.verdict for use in uses)
        if options["json"]:
            said = {verdict: counts[verdict] for verdict in ("same", "other", "none")}
            self.print_json({"files": files, **said, "uses": [use._asdict() for use in uses]})
        else:
            self._show(uses)
            self.stdout.write(
                _(
                    "%(files)d files: %(same)d uses of Celery stay as they are, %(other)d have "
                    "another name, %(none)d have no equal."
                )
                % {"files": files, **{v: counts[v] for v in ("same", "other", "none")}}
            )
        if counts["other"] or counts["none"]:
            sys.exit(1)

    def _show(self, uses: list[celery_report.Use]) -> None:
        styles: dict[str, Callable[[str], str]] = {
            "same": str,
            "other": self.style.NOTICE,
            "none": self.style.WARNING,
        }
        for file, its in groupby(uses, key=lambda use: use.file):
            self.stdout.write(file)
            for use in its:
                mark = {"same": "=", "other": "~", "none": "!"}[use.verdict]
                told = f": {use.told.replace('`', '')}" if use.told else ""
                line = f"  {mark} {use.line:>4}  {use.kind:<9} {use.what}{told}"
                self.stdout.write(line, styles[use.verdict])
