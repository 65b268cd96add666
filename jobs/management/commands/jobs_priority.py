"""`manage.py jobs_priority`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control
from jobs.management.operating import OperatorCommand


class Command(OperatorCommand):
    help = """\
Change the priority of a call that waits on a queue, or is due later.

0 is the most urgent, 9 the least. It is put behind those that have the priority already."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", help=_("name of the queue"))
        parser.add_argument("id", help=_("id of the call, as delay() returned it"))
        parser.add_argument("priority", type=int, choices=range(10), help=_("from 0 to 9"))
        parser.add_argument("--dry-run", action="store_true", help=_("change nothing"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        queue, task_id, priority = options["queue"], options["id"], options["priority"]
        named = {"id": task_id, "queue": queue, "n": priority}
        if options["dry_run"]:
            done = control.find(queue, task_id) is not None
            said = _("%(id)s would get the priority %(n)d.")
        else:
            done = control.change_priority(queue, task_id, priority)
            said = _("%(id)s has the priority %(n)d.")
        if not done:
            raise CommandError(_("Call %(id)s doesn't wait on queue %(queue)s.") % named)
        if options["json"]:
            told = {"id": task_id, "queue": queue, "priority": priority}
            self.print_json({**told, "changed": not options["dry_run"]})
        else:
            self.stdout.write(said % named)
