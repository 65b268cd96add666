"""`manage.py jobs_move`."""

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
from jobs.management.operating import OperatorCommand, not_empty


class Command(OperatorCommand):
    help = """\
Put the messages that wait on a queue on another one, in the same order.

With --id, move only that call, which may also be due later. If the command is killed on the way,
some messages can be on both queues under the same id; they run once, like all that is delivered
twice. Start the command again for the rest."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", help=_("name of the queue"))
        parser.add_argument("to", help=_("name of the other queue"))
        parser.add_argument("--id", type=not_empty, help=_("id of the only call to move"))
        parser.add_argument("--dry-run", action="store_true", help=_("only count"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        queue, to = registry.queue(options["queue"]), registry.queue(options["to"])
        task_id = options["id"]
        if options["dry_run"]:
            found = control.find(queue, task_id) if task_id else None
            count = int(found is not None) if task_id else broker.get().stats(queue).waiting
            said = ngettext("%d message would be moved.", "%d messages would be moved.", count)
        else:
            count = control.move(queue, to, task_id=task_id)
            said = ngettext("%d message moved.", "%d messages moved.", count)
        if task_id and not count:
            raise CommandError(
                _("Call %(id)s doesn't wait on queue %(queue)s.") % {"id": task_id, "queue": queue}
            )
        if options["json"]:
            moved = 0 if options["dry_run"] else count
            self.print_json({"queue": queue, "to": to, "found": count, "moved": moved})
        else:
            self.stdout.write(said % count)
