"""`manage.py jobs_revoke`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control, ledger
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from jobs.management.processes import refuse_memory
from jobs.models import TaskResult
from jobs.states import TERMINAL
from jobs.timing import clock

#: Seconds that a revocation is remembered, counted from when the call may start.
_REMEMBER = 86_400.0


class Command(BaseCommand):
    help = """\
Have calls end as REVOKED instead of being run, wherever they wait.

One that runs already goes on, unless --terminate is given: then the process that runs it is killed,
and whatever else that process was running is run again."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="+", help=_("id of the call, as delay() returned it"))
        parser.add_argument("--terminate", action="store_true", help=_("also if it runs"))

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        rows = TaskResult.objects.using(ledger.alias()).filter(id__in=options["id"])
        known = {row.id: row for row in rows.only("id", "state", "eta")}
        try:
            for task_id in options["id"]:
                self._revoke(task_id, known.get(task_id), terminate=options["terminate"])
        except (BrokerUnavailable, ConfigurationError) as error:
            raise CommandError(str(error)) from error

    def _revoke(self, task_id: str, row: TaskResult | None, *, terminate: bool) -> None:
        if row is not None and row.state in TERMINAL:
            said = _("%(id)s has ended already: %(state)s.") % {"id": task_id, "state": row.state}
            self.stdout.write(said)
            return
        remember = _REMEMBER
        if row is not None and row.eta is not None:
            remember += max(0.0, (row.eta - clock.now()).total_seconds())
        control.revoke(task_id, terminate=terminate, remember=remember)
        # Most that wait have no row: whether there is such a call can't be told.
        self.stdout.write(_("%s is revoked.") % task_id)
