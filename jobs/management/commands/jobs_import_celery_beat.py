"""`manage.py jobs_import_celery_beat`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections, router
from django.utils.translation import gettext as _

from jobs.models import Schedule
from jobs.schedules import celery_beat, declared
from jobs.schedules.celery_beat import Import


class Command(BaseCommand):
    help = """\
Import the schedules of django-celery-beat from its tables.

Without --apply it only says what it would do. The package need not be installed any more. What has
no equal here is said of each schedule; one that can't simply go on is imported switched off.

A schedule whose name is there already is left alone, so the command may be run again. Stop Celery's
beat before: it would send the same tasks. Its tables stay as they are."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help=_("write the schedules"))
        parser.add_argument(
            "--database",
            choices=sorted(connections),
            help=_("which database the tables are in; default: that of the schedules"),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        using = options["database"] or router.db_for_write(Schedule)
        if not celery_beat.exist(using):
            raise CommandError(
                _("Database %s has no tables of django-celery-beat; name another by --database.")
                % using
            )
        imports = celery_beat.plan(using, _taken())
        for one in imports:
            self._show(one)
        if options["apply"]:
            celery_beat.save(imports)
        self._summary(imports, apply=options["apply"])

    def _show(self, one: Import) -> None:
        if one.known:
            self.stdout.write(f"= {one.name}: {one.notes[0]}")
        elif one.schedule is None:
            self.stdout.write(self.style.WARNING(f"- {one.name}: {' '.join(one.notes)}"))
        else:
            self.stdout.write(f"+ {one.name}: {one.schedule.task}, {_rule(one.schedule)}")
            for note in one.notes:
                self.stdout.write(self.style.WARNING(f"    {note}"))

    def _summary(self, imports: list[Import], *, apply: bool) -> None:
        made = sum(one.schedule is not None for one in imports)
        known = sum(one.known for one in imports)
        counts = {"made": made, "known": known, "left": len(imports) - made - known}
        if apply:
            text = _(
                "%(made)d are imported, %(left)d are not, %(known)d are there already or declared."
            )
        else:
            text = _(
                "%(made)d to import, %(left)d that can't be, %(known)d that are there already or "
                "declared. Nothing is written; --apply writes it."
            )
        self.stdout.write(text % counts)


def _taken() -> dict[str, str]:
    rows = Schedule.objects.using(router.db_for_write(Schedule))
    names = rows.values_list("name", flat=True)
    taken = dict.fromkeys(names, _("there already, left alone"))
    declarations = {one.name: _("declared in code, left alone") for one in declared.find()}
    return {**taken, **declarations}


def _rule(schedule: Schedule) -> str:
    if schedule.crontab:
        return f"{schedule.crontab} ({schedule.timezone})"
    if schedule.interval is not None:
        return _("every %s") % schedule.interval
    return _("once at %s") % schedule.at
