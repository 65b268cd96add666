"""`manage.py jobs_rate_limit`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import control, registry
from jobs.management.operating import OperatorCommand, not_empty, time_of, user


class Command(OperatorCommand):
    help = """\
Override the rate limit that a task has in the code, in the whole fleet.

It holds for every worker, also for one that starts later, until --reset. Without a rate, show what
is set, by whom and when."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("task", nargs="?", type=not_empty, help=_("name of a task"))
        parser.add_argument(
            "rate", nargs="?", type=not_empty, help=_("like 100/s, 100/m, 100/h; or: unlimited")
        )
        parser.add_argument("--burst", type=int, help=_("so many starts at once after a pause"))
        parser.add_argument("--reset", action="store_true", help=_("back to the rate in the code"))
        parser.add_argument(
            "--ask-again",
            action="store_true",
            help=_("have calls that wait for a permit ask for it now, since the rate is faster"),
        )
        parser.add_argument("--by", default="", help=_("who; by default whose session this is"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        task, rate, burst = options["task"], options["rate"], options["burst"]
        changes = (bool(rate), options["reset"], options["ask_again"])
        if sum(changes) > 1:
            raise CommandError(_("Give a rate, --reset or --ask-again, one of them."))
        if (any(changes) and not task) or (burst is not None and not rate):
            raise CommandError(_("Name a task and a rate."))
        if rate:
            control.rate_limit(task, rate, burst=burst, by=options["by"] or user())
            self.note_foreign(task)
        elif options["reset"]:
            control.rate_limit(task, None)
        elif options["ask_again"]:
            n = control.ask_again(task)
            if options["json"]:
                self.print_json({"task": task, "asking_again": n})
            else:
                self.stdout.write(ngettext("%d call asks again.", "%d calls ask again.", n) % n)
            return
        if options["json"] or not any(changes):
            self._show(task, as_json=options["json"])
        elif rate:
            text = _("Task %(task)s has the rate %(rate)s.")
            self.stdout.write(text % {"task": task, "rate": rate})
        else:
            self.stdout.write(_("Task %s has the rate of its code.") % task)

    def _show(self, task: str, *, as_json: bool) -> None:
        """The rates that are set for a task, or for all."""
        limits = control.rate_limits()
        if task and task not in limits:
            registry.find(task)
        shown = {name: said for name, said in limits.items() if name == task or not task}
        if as_json:
            rates = {
                name: {"rate": said.rate, "burst": said.burst, "by": said.by, "at": said.at}
                for name, said in shown.items()
            }
            self.print_json({"rates": rates})
            return
        for name, said in shown.items():
            named = {
                "task": name,
                "rate": str(said),
                "by": said.by or "?",
                "at": time_of(said.at),
            }
            self.stdout.write(_("task %(task)s: rate %(rate)s, set by %(by)s at %(at)s") % named)
