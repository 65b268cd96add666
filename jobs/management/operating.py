"""What the commands of operators have in common."""

from __future__ import annotations

import getpass
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from jobs.exceptions import JobsError
from jobs.management.processes import refuse_memory


class OperatorCommand(BaseCommand):
    """A command whose help keeps its lines, and whose errors are said without a traceback."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        try:
            self.operate(**options)
        except (JobsError, ValueError) as error:
            raise CommandError(str(error)) from error

    def operate(self, **options: Any) -> None:
        raise NotImplementedError


def user() -> str:
    """Whose session this is."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise CommandError(_("Say who you are with --by: %s") % error) from error
