"""`manage.py jobs_revoke`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control, ledger, message
from jobs.management.operating import OperatorCommand, user
from jobs.models import TaskResult
from jobs.states import TERMINAL
from jobs.timing import clock

#: For how many seconds a revocation is remembered, counted from when the call may start.
_REMEMBER = 86_400.0


class Command(OperatorCommand):
    help = """\
Have calls end as REVOKED instead of being run, wherever they wait.

One that runs already goes on, unless --terminate is given: then the process that runs it is killed,
and whatever else that process was running is run again.

With --stamp, all calls end so that have this stamp, also those that are sent within a day; --undo
takes that back."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="*", help=_("id of the call, as delay() returned it"))
        parser.add_argument(
            "--stamp",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=_("calls that were stamped so; may be repeated"),
        )
        parser.add_argument("--terminate", action="store_true", help=_("also if it runs"))
        parser.add_argument(
            "--undo", action="store_true", help=_("with --stamp: no longer revoke such calls")
        )
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        if not options["id"] and not options["stamp"]:
            raise CommandError(_("Name calls by their ids, or by a --stamp."))
        if options["undo"] and (options["id"] or options["terminate"]):
            raise CommandError(
                _("--undo is for a --stamp alone; jobs_retry runs a revoked call again.")
            )
        for task_id in options["id"]:
            message.checked_id(task_id)  # before any of them is revoked
        if options["stamp"]:
            self._by_stamps(options)
        rows = TaskResult.objects.using(ledger.alias()).filter(id__in=options["id"])
        known = {row.id: row for row in rows.only("id", "state", "eta")}
        #: Each call, and the state in which it had ended already; "": it is revoked.
        ended: dict[str, str] = {}
        for task_id in options["id"]:
            row = known.get(task_id)
            if row is not None and row.state in TERMINAL:
                ended[task_id] = row.state
                if not options["json"]:
                    said = _("%(id)s has ended already: %(state)s.")
                    self.stdout.write(said % {"id": task_id, "state": row.state})
                continue
            remember = _REMEMBER
            if row is not None and row.eta is not None:
                remember += max(0.0, (row.eta - clock.now()).total_seconds())
            control.revoke(task_id, terminate=options["terminate"], remember=remember)
            # Most that wait have no row, so nothing here can tell whether there is such a call.
            ended[task_id] = ""
            if not options["json"]:
                self.stdout.write(_("%s is revoked.") % task_id)
        if options["json"]:
            calls = [{"id": i, "revoked": not s, "ended": s or None} for i, s in ended.items()]
            self.print_json({"calls": calls, "stamps": options["stamp"]})

    def _by_stamps(self, options: dict[str, Any]) -> None:
        stamps = options["stamp"]
        said = _("Calls with the stamp %s are revoked.")
        if options["undo"]:
            control.unrevoke_by_stamped_headers(stamps, by=user())
            said = _("Calls with the stamp %s are not revoked any more.")
        else:
            control.revoke_by_stamped_headers(stamps, terminate=options["terminate"], by=user())
        for stamp in () if options["json"] else stamps:
            self.stdout.write(said % stamp)
