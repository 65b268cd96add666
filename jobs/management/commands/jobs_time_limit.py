"""`manage.py jobs_time_limit`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import control, registry
from jobs.management.operating import OperatorCommand, not_empty, time_of, user


class Command(OperatorCommand):
    help = """\
Override the time limits that a task has in the code, in the whole fleet.

They hold for calls that start later, for every worker, also for one that starts later, until
--reset. Without limits, show what is set, by whom and when."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("task", nargs="?", type=not_empty, help=_("name of a task"))
        parser.add_argument(
            "--soft", type=float, metavar="S", help=_("SoftTimeLimitExceeded after so many seconds")
        )
        parser.add_argument(
            "--hard", type=float, metavar="S", help=_("the process is killed after so many seconds")
        )
        parser.add_argument(
            "--reset", action="store_true", help=_("back to the limits in the code")
        )
        parser.add_argument("--by", default="", help=_("who; by default whose session this is"))
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        task, soft, hard = options["task"], options["soft"], options["hard"]
        changes = soft is not None or hard is not None
        if changes and options["reset"]:
            raise CommandError(_("Give limits or --reset, one of them."))
        if (changes or options["reset"]) and not task:
            raise CommandError(_("Name a task."))
        if changes or options["reset"]:
            control.time_limit(task, soft=soft, hard=hard, by=options["by"] or user())
            self.note_foreign(task)
        limits = control.time_limits()
        if task and task not in limits:
            registry.find(task)
        shown = {name: said for name, said in limits.items() if name == task or not task}
        if options["json"]:
            self.print_json({"time_limits": shown})
        elif options["reset"]:
            self.stdout.write(_("Task %s has the time limits of its code.") % task)
        else:
            for name, said in shown.items():
                named = {"task": name, "by": said.by or "?", "at": time_of(said.at)}
                named |= {"soft": _seconds(said.soft), "hard": _seconds(said.hard)}
                text = _("task %(task)s: soft %(soft)s, hard %(hard)s, set by %(by)s at %(at)s")
                self.stdout.write(text % named)


def _seconds(limit: float | None) -> str:
    return _("none") if limit is None else _("%g s") % limit
