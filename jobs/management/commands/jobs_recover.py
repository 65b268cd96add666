"""`manage.py jobs_recover`."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs.ledger import recovery
from jobs.management.operating import OperatorCommand, Progress
from jobs.registry import tasks
from jobs.timing import clock

#: Calls that are printed.
_SHOWN = 20


class Command(OperatorCommand):
    help = """\
Find the calls that the database waits for and whose messages Redis has lost, and send them again.

Run it after Redis has lost its data. Without --apply it only says what it would do. Calls wait in
the database if they were sent inside a transaction, or wait for another attempt. Those of tasks
with acks="early" are left alone: they may have run. So are those of queues with
'foreign_workers': what Celery's workers hold is seen by nobody else. If such workers take calls
from other queues, too, stop them first."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help=_("send them again"))
        parser.add_argument(
            "--older-than",
            type=float,
            default=60.0,
            metavar="S",
            help=_(
                "leave alone what was sent or tried less than S seconds ago; default: %(default)g"
            ),
        )
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        if not 0 <= options["older_than"] < 10**9:
            raise CommandError(_("--older-than must be a number of seconds from 0."))
        before = clock.now() - dt.timedelta(seconds=options["older_than"])
        early = [name for name, task in tasks.items() if task.options.acks == "early"]
        progress = Progress(self.stderr)
        #: Task → how many of its calls are lost.
        lost: Counter[str] = Counter()
        shown: list[recovery.Call] = []
        looked_at = sent_again = 0

        def read() -> None:
            nonlocal looked_at
            looked_at += 1
            if looked_at % 100 == 0:
                counts = {"read": looked_at, "lost": lost.total(), "back": sent_again}
                progress.tell(
                    _("%(read)s messages read, %(lost)s calls lost, %(back)s sent again")
                    % {name: f"{count:,}" for name, count in counts.items()}
                )

        try:
            for calls in recovery.lost(before, unless=early, read=read):
                for call in calls[: max(0, _SHOWN - lost.total())]:
                    shown.append(call)
                    if not options["json"]:
                        progress.clear()
                        self.stdout.write(f"{call.task}[{call.id}] {call.queue} {call.state}")
                lost.update(call.task for call in calls)
                if options["apply"]:
                    sent_again += recovery.put_back(calls, before)
        finally:
            progress.clear()
        undeclared = recovery.undeclared(before)
        with_celery = recovery.with_celery(before)
        if options["json"]:
            told = {"lost": lost.total(), "sent_again": sent_again, "tasks": lost, "calls": shown}
            told |= {"undeclared_queues": undeclared, "celerys_queues": with_celery}
            self.print_json(told)
            return
        if lost.total() > _SHOWN:
            self.stdout.write(_("… and %d more") % (lost.total() - _SHOWN))
        for name, count in sorted(lost.items()):
            self.stdout.write(f"{count:8,} {name}")
        if not lost:
            self.stdout.write(_("No call is lost."))
        elif options["apply"]:
            said = _("%(n)d of %(lost)d lost calls are sent again.")
            self.stdout.write(said % {"n": sent_again, "lost": lost.total()})
        else:
            self.stdout.write(_("%d calls are lost; --apply sends them again.") % lost.total())
        for queue, count in with_celery.items():
            said = _("%(n)d calls wait for Celery's workers of the queue %(queue)s: not looked at.")
            self.stdout.write(said % {"n": count, "queue": repr(queue)})
        for queue, count in undeclared.items():
            said = _(
                "%(n)d calls wait on the queue %(queue)s, which JOBS['QUEUES'] does not "
                "declare: not looked at."
            )
            self.stderr.write(said % {"n": count, "queue": repr(queue)}, self.style.WARNING)
