"""`manage.py jobs_pause`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from jobs import control
from jobs.management.operating import OperatorCommand, pause_lines, pauses_as_json, user


class Command(OperatorCommand):
    help = """\
Hand out nothing of a queue, or start no call of a task, until jobs_resume.

What runs already ends as usual, and what is sent meanwhile waits. It holds for every worker, also
for one that starts later. Without a name, show what is paused, by whom, when and why."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", nargs="*", help=_("names of queues"))
        parser.add_argument(
            "--task", action="append", default=[], metavar="NAME", help=_("pause this task")
        )
        parser.add_argument("--why", default="", help=_("the reason, for those who look"))
        parser.add_argument("--by", default="", help=_("who; by default whose session this is"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        said = {"by": options["by"] or user(), "why": options["why"]}
        names = options["queue"] or options["task"]
        if not names and not options["json"]:
            for line in pause_lines(control.paused(), control.paused_tasks()):
                self.stdout.write(line)
        for queue in options["queue"]:
            control.pause(queue, **said)
            if not options["json"]:
                self.stdout.write(_("Queue %s is paused.") % queue)
        for task in options["task"]:
            control.pause_task(task, **said)
            self.note_foreign(task)
            if not options["json"]:
                self.stdout.write(_("Task %s is paused.") % task)
        if options["json"]:
            self.print_json(pauses_as_json(control.paused(), control.paused_tasks()))
