"""`manage.py jobs_result`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from jobs.api.results import AsyncResult
from jobs.management import results
from jobs.management.operating import OperatorCommand


class Command(OperatorCommand):
    help = """\
Show what is known of a call: its state, result or error, attempts, worker and times.

Exit status: 0 it has succeeded; 1 it has failed or was revoked; 3 it has not ended yet."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help=_("id of the call, as delay() returned it"))
        results.add_wait(parser)
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        result = AsyncResult(options["id"])
        if options["wait"] is not None:
            results.wait(result, options["wait"])
        row, state = results.row_of(result.id), result.state
        if options["json"]:
            self.print_json(results.as_json(result.id, row, state))
        elif row is not None:
            for line in results.lines(row, state):
                self.stdout.write(line)
        results.check_end(result.id, row)
