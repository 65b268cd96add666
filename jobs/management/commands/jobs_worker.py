"""`manage.py jobs_worker`."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control
from jobs.control.workers import ABOUT_QUEUE, Act
from jobs.management.operating import OperatorCommand, seconds, user

#: Seconds between two looks for the answer.
_PAUSE = 0.1


class Command(OperatorCommand):
    help = """\
Ask something of a running worker, wherever it is, and wait for its answer.

quiet    claim nothing more, finish what runs, and stay
resume   claim again, also after quiet and drain
drain    claim nothing more, and stop when nothing runs any more
stop     stop as after SIGTERM
restart  replace the children one by one with new code, as after SIGHUP
add-queue, cancel-queue
         claim from a further queue, or no longer from one, until it is restarted
stack    print what all its threads are doing
tasks    print the names of the tasks that it knows"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", choices=[act.value for act in Act])
        parser.add_argument("worker", help=_("its name, as jobs_inspect workers shows it"))
        parser.add_argument(
            "queue", nargs="?", default="", help=_("of add-queue and cancel-queue: its name")
        )
        parser.add_argument("--by", default="", help=_("who; by default whose session this is"))
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=60.0,
            metavar="S",
            help=_("wait so many seconds for the answer; default: %(default)g"),
        )
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        worker, act = options["worker"], Act(options["act"])
        if (act in ABOUT_QUEUE) != bool(options["queue"]):
            raise CommandError(_("Name a queue for add-queue and cancel-queue, and for no other."))
        place = control.workers.command(
            worker, act, by=options["by"] or user(), queue=options["queue"]
        )
        ends = time.monotonic() + options["timeout"]
        while (answer := control.workers.answered(*place)) is None:
            if time.monotonic() >= ends:
                raise CommandError(_("Worker %s hasn't answered.") % worker)
            time.sleep(_PAUSE)
        if not answer.done:
            raise CommandError(answer.text or _("Worker %s doesn't do it.") % worker)
        if options["json"]:
            names = answer.text.splitlines() if act is Act.TASKS else None
            told = {"worker": worker, "act": act, "tasks": names, "stacks": dict(answer.stacks)}
            self.print_json(told)
            return
        for process, text in answer.stacks:
            self.stdout.write(f"{process}\n{text}")
        if act is Act.TASKS:
            self.stdout.write(answer.text)
        elif not answer.stacks:
            self.stdout.write(_("Worker %s does what was asked.") % worker)
