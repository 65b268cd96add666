"""`manage.py jobs_recover`."""

from __future__ import annotations

import datetime as dt
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs.exceptions import BrokerUnavailable, ConfigurationError
from jobs.ledger import recovery
from jobs.ledger.recovery import Call
from jobs.management.processes import refuse_memory
from jobs.management.progress import Progress
from jobs.registry import tasks
from jobs.timing import clock

#: Calls that are printed.
_SHOWN = 20


class Command(BaseCommand):
    help = """\
Find the calls that the database waits for and whose messages Redis has lost, and send them again.

Run it after Redis has lost its data. Without --apply it only says what it would do. Calls wait in
the database if they were sent inside a transaction, or wait for another attempt. Those of tasks
with acks="early" are left alone: they may have run. What Celery's own workers hold at this
moment is not seen; stop them before."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

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

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        if not 0 <= options["older_than"] < 10**9:
            raise CommandError(_("--older-than must be a number of seconds from 0."))
        self._progress = _Progress(self)
        before = clock.now() - dt.timedelta(seconds=options["older_than"])
        try:
            self._run(before, apply=options["apply"])
        except (BrokerUnavailable, ConfigurationError) as error:
            raise CommandError(str(error)) from error
        finally:
            self._progress.clear()

    def _run(self, before: dt.datetime, *, apply: bool) -> None:
        progress = self._progress
        early = [name for name, task in tasks.items() if task.options.acks == "early"]
        for calls in recovery.lost(before, unless=early, read=progress.read):
            self._show(calls)
            progress.lost.update(call.task for call in calls)
            if apply:
                progress.put_back += recovery.put_back(calls, before)
        progress.clear()
        self._summary(before, apply=apply)

    def _show(self, calls: list[Call]) -> None:
        left = _SHOWN - self._progress.lost.total()
        for call in calls[: max(0, left)]:
            self._progress.clear()
            self.stdout.write(f"{call.task}[{call.id}] {call.queue} {call.state}")

    def _summary(self, before: dt.datetime, *, apply: bool) -> None:
        lost, write = self._progress.lost, self.stdout.write
        if lost.total() > _SHOWN:
            write(_("… and %d more") % (lost.total() - _SHOWN))
        for name, count in sorted(lost.items()):
            write(f"{count:8,} {name}")
        if not lost:
            write(_("No call is lost."))
        elif apply:
            write(
                _("%(n)d of %(lost)d lost calls are sent again.")
                % {"n": self._progress.put_back, "lost": lost.total()}
            )
        else:
            write(_("%d calls are lost; --apply sends them again.") % lost.total())
        for queue, count in recovery.undeclared(before).items():
            self.stderr.write(
                self.style.WARNING(
                    _(
                        "%(n)d calls wait on the queue %(queue)s, which JOBS['QUEUES'] does not "
                        "declare: not looked at."
                    )
                    % {"n": count, "queue": repr(queue)}
                )
            )


class _Progress(Progress):
    """What has been done so far."""

    def __init__(self, command: Command) -> None:
        super().__init__(command.stderr)
        self._read = 0
        #: Task → how many of its calls are lost.
        self.lost: Counter[str] = Counter()
        self.put_back = 0

    def read(self) -> None:
        """Another message was looked at."""
        self._read += 1
        if self._read % 100 == 0:
            self.show()

    def show(self) -> None:
        self.tell(
            _("%(read)s messages read, %(lost)s calls lost, %(back)s sent again")
            % {
                "read": f"{self._read:,}",
                "lost": f"{self.lost.total():,}",
                "back": f"{self.put_back:,}",
            }
        )
