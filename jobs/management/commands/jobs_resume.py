"""`manage.py jobs_resume`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control
from jobs.management.operating import OperatorCommand


class Command(OperatorCommand):
    help = """\
Hand out again what jobs_pause has held back, at once.

It is safe to repeat, and should be repeated if it was interrupted."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", nargs="*", help=_("names of queues"))
        parser.add_argument(
            "--task", action="append", default=[], metavar="NAME", help=_("resume this task")
        )
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        if not options["queue"] and not options["task"]:
            raise CommandError(_("Name a queue, or a task with --task."))
        #: Whether each was paused.
        queues = {queue: control.resume(queue) for queue in options["queue"]}
        tasks = {task: control.resume_task(task) for task in options["task"]}
        if options["json"]:
            self.print_json({"resumed_queues": queues, "resumed_tasks": tasks})
            return
        for queue, was in queues.items():
            said = _("Queue %s is resumed.") if was else _("Queue %s was not paused.")
            self.stdout.write(said % queue)
        for task, was in tasks.items():
            said = _("Task %s is resumed.") if was else _("Task %s was not paused.")
            self.stdout.write(said % task)
