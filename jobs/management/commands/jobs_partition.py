"""`manage.py jobs_partition`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError
from django.utils.translation import gettext as _

from jobs.exceptions import ConfigurationError
from jobs.ledger import partitions
from jobs.management.operating import JobsCommand
from jobs.timing import clock


class Command(JobsCommand):
    #: Whether nothing but JSON is printed.
    _silent = False
    help = """\
Store results in partitions: a table for each day, week or month, on PostgreSQL.

Deleting old results then means dropping a table. Without --apply it only shows what it would do.
Workers may run meanwhile: the present table becomes one of the partitions as it is, and is read
once without a lock that anybody waits for. Afterwards the task of every night (jobs.prune, or
jobs_prune) makes the partitions of the time to come, and drops old ones."""

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--every", choices=partitions.EVERY, default="", help=_("how long a partition is")
        )
        what.add_argument(
            "--undo", action="store_true", help=_("put all results back into one table")
        )
        parser.add_argument("--apply", action="store_true", help=_("do it"))
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        self._silent = options["json"]
        found = partitions.read()
        self._show(found)
        in_the_way = options["undo"] or not found.parted
        if in_the_way and (problems := partitions.obstacles()):
            raise CommandError("\n".join(problems))
        try:
            if options["undo"]:
                self._undo(found, apply=options["apply"])
            else:
                self._partition(found, options["every"], apply=options["apply"])
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            busy = _(
                "%s. Where a lock isn't available, a long transaction or autovacuum has it: look "
                "into pg_stat_activity, and run the command again. What is done stays in order."
            )
            raise CommandError(busy % str(error).strip()) from error
        if options["json"]:
            self.print_json(_as_json(options["every"], undo=options["undo"]))

    def _say(self, text: str) -> None:
        if not self._silent:
            self.stdout.write(text)

    def _show(self, found: partitions.Ledger) -> None:
        if not found.parted:
            self._say(_("Results are in one table."))
            return
        n = len(found.partitions)
        told = _("Results are in %(n)d partitions and %(rest)s.")
        self._say(told % {"n": n, "rest": partitions.REST})
        for one in found.partitions:
            self._say(f"    {_line(one)}")

    def _partition(self, found: partitions.Ledger, every: str, *, apply: bool) -> None:
        if not (every or found.parted):
            self._say(_("Say how long a partition is to be: --every day, week or month."))
            return
        made = partitions.to_make(found, clock.now(), every)
        if found.parted and not made:
            self._say(_("There is nothing to do."))
            return
        self._say(_("To do:"))
        if not found.parted:
            told = _("    name the present table %s, and put a partitioned one in its place")
            self._say(told % partitions.REST)
        for one in made:
            self._say(_("    add %s") % _line(one))
        if not apply:
            self._say(_("Nothing was done. Use --apply to do it."))
            return
        partitions.make_parted()
        partitions.extend(clock.now(), every, lambda what: self._say(f"... {what}"))
        self._say(_("Done."))

    def _undo(self, found: partitions.Ledger, *, apply: bool) -> None:
        if not found.parted:
            self._say(_("There is nothing to do."))
            return
        self._say(_("To do:"))
        for one in found.partitions:
            rows = {"name": one.name, "n": f"{one.rows().count():,}"}
            told = _(
                "    copy the %(n)s rows of %(name)s into the rest, while others wait; drop it"
            )
            self._say(told % rows)
        told = _("    name %(rest)s %(table)s again")
        self._say(told % {"rest": partitions.REST, "table": partitions.TABLE})
        if not apply:
            self._say(_("Nothing was done. Use --apply to do it."))
            return
        partitions.make_whole(lambda name: self._say(f"... {name}"))
        self._say(_("Done."))


def _as_json(every: str, *, undo: bool) -> dict[str, Any]:
    """How results are stored now, and which partitions are to be added."""
    found = partitions.read()
    asked = not undo and (every or found.parted)
    added = partitions.to_make(found, clock.now(), every) if asked else []
    return {
        "partitioned": found.parted,
        "partitions": [_plain(one) for one in found.partitions],
        "to_add": [_plain(one) for one in added],
    }


def _plain(one: partitions.Partition) -> dict[str, Any]:
    start, end = partitions.time_of(one.start), partitions.time_of(one.end)
    return {"name": one.name, "every": one.every, "start": start, "end": end}


def _line(one: partitions.Partition) -> str:
    start, end = (f"{partitions.time_of(at):%Y-%m-%d %H:%M}" for at in (one.start, one.end))
    return _("%(name)s: sent from %(start)s to %(end)s (UTC)") % {
        "name": one.name,
        "start": start,
        "end": end,
    }
