"""`manage.py jobs_import_celery_beat`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections, router
from django.utils.translation import gettext as _

from jobs.management.operating import JobsCommand
from jobs.models import Schedule
from jobs.schedules import celery_beat, declared
from jobs.schedules.celery_beat import Import


class Command(JobsCommand):
    help = """\
Import the schedules of django-celery-beat from its tables.

Without --apply it only says what it would do. The package need not be installed any more. For each
schedule it says what has no equal here; one that can't simply go on is imported switched off.

A schedule whose name is there already is left alone, so the command may be run again. Stop Celery's
beat first, since it would send the same tasks. Its tables stay as they are."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help=_("write the schedules"))
        parser.add_argument(
            "--database",
            choices=sorted(connections),
            help=_("which database the tables are in; default: that of the schedules"),
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        using = options["database"] or router.db_for_write(Schedule)
        if not celery_beat.exist(using):
            raise CommandError(
                _("Database %s has no tables of django-celery-beat; name another by --database.")
                % using
            )
        rows = Schedule.objects.using(router.db_for_write(Schedule))
        taken = dict.fromkeys(rows.values_list("name", flat=True), _("there already, left alone"))
        for declaration in declared.find():
            taken[declaration.name] = _("declared in code, left alone")
        imports = celery_beat.plan(using, taken)
        for one in imports if not options["json"] else ():
            self._show(one)
        made = sum(one.schedule is not None for one in imports)
        known = sum(one.known for one in imports)
        counts = {"made": made, "known": known, "left": len(imports) - made - known}
        if options["apply"]:
            celery_beat.save(imports)
            text = _(
                "%(made)d are imported, %(left)d are not, %(known)d are there already or declared."
            )
        else:
            text = _(
                "%(made)d to import, %(left)d that can't be, %(known)d that are there already or "
                "declared. Nothing is written; --apply writes it."
            )
        if options["json"]:
            shown = [
                {
                    "name": one.name,
                    "task": one.schedule.task if one.schedule else None,
                    "rule": _rule(one.schedule) if one.schedule else None,
                    "importable": one.schedule is not None,
                    "known": one.known,
                    "notes": one.notes,
                }
                for one in imports
            ]
            self.print_json({"written": options["apply"], "schedules": shown})
        else:
            self.stdout.write(text % counts)

    def _show(self, one: Import) -> None:
        schedule = one.schedule
        if one.known:
            self.stdout.write(f"= {one.name}: {one.notes[0]}")
        elif schedule is None:
            self.stdout.write(f"- {one.name}: {' '.join(one.notes)}", self.style.WARNING)
        else:
            self.stdout.write(f"+ {one.name}: {schedule.task}, {_rule(schedule)}")
            for note in one.notes:
                self.stdout.write(f"    {note}", self.style.WARNING)


def _rule(schedule: Schedule) -> str:
    if schedule.crontab:
        return f"{schedule.crontab} ({schedule.timezone})"
    if schedule.interval is not None:
        return _("every %s") % schedule.interval
    return _("once at %s") % schedule.at
