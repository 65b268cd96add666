"""`manage.py jobs_call`."""

from __future__ import annotations

import datetime as dt
import difflib
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from jobs import registry
from jobs.exceptions import UnknownTask
from jobs.management import results
from jobs.management.operating import OperatorCommand, not_empty


class Command(OperatorCommand):
    help = """\
Send a call of a task, and print its id; with --wait, print what it returns.

Arguments are JSON: jobs_call shop.tasks.bill --args '[17]' --kwargs '{"draft": true}'

Exit status: 0 it is sent, or with --wait has succeeded; 1 it could not be sent, has failed or was
revoked; 3 it has not ended within the time of --wait."""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        when = _("a time such as 2026-03-01T14:30, in the project's time zone")
        add("task", help=_("name of the task"))
        add(
            *("-a", "--args"),
            dest="arguments",  # Django takes "args" for itself
            default="[]",
            metavar="JSON",
            help=_("list of arguments"),
        )
        add("-k", "--kwargs", default="{}", metavar="JSON", help=_("arguments by name"))
        add("--queue", type=not_empty, help=_("default: as the task and TASK_ROUTES say"))
        add("--priority", type=int, help=_("from 0, the most urgent, to 9"))
        add("--countdown", type=float, metavar="SECONDS", help=_("not before so many seconds"))
        add("--eta", metavar="TIME", help=_("not before then: %s") % when)
        add("--expires", metavar="WHEN", help=_("not later than then: seconds, or a time"))
        add("--label", type=not_empty, help=_("a word to find the call by"))
        results.add_wait(parser)
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        task = _find(options["task"])
        given = {
            name: options[name]
            for name in ("queue", "priority", "countdown", "label")
            if options[name] is not None
        }
        if options["eta"] is not None:
            given["eta"] = _moment("--eta", options["eta"])
        if options["expires"] is not None:
            given["expires"] = _when("--expires", options["expires"])
        args = _read("--args", options["arguments"], list, _('a list, such as [1, "a"]'))
        kwargs = _read("--kwargs", options["kwargs"], dict, _('an object, such as {"n": 1}'))
        try:
            sent = task.apply_async(args, kwargs, **given)
        except TypeError as error:
            raise CommandError(str(error)) from error
        if options["wait"] is None:
            if options["json"]:
                self.print_json({"id": sent.id, "task": task.name})
            else:
                self.stdout.write(sent.id)
            return
        # What is printed to the output is the result alone.
        self.stderr.write(_("%s is sent.") % f"{task.name}[{sent.id}]", style_func=str)
        if sent.ignored:
            raise CommandError(
                _("Task %s keeps no result, so that nobody can wait for it.") % task.name
            )
        results.wait(sent, options["wait"])
        row = results.row_of(sent.id)
        if options["json"]:
            self.print_json(results.as_json(sent.id, row, sent.state))
        elif row is not None and sent.successful():
            self.stdout.write(row.result or "null")
        results.check_end(sent.id, row)


def _find(name: str) -> registry.Sendable:
    """The task. Raises `CommandError` with tasks of similar names."""
    try:
        return registry.find(name)
    except UnknownTask:
        pass
    last = name.rpartition(".")[2]
    near = sorted(known for known in registry.tasks if known.rpartition(".")[2] == last)
    near = near or difflib.get_close_matches(name, registry.tasks, cutoff=0.5)
    text = _("There is no task %r.") % name
    if near:
        text += " " + _("Did you mean %s?") % _(" or ").join(near[:3])
    raise CommandError(text + " " + _("jobs_inspect registered lists all."))


def _read(option: str, text: str, kind: type, wanted: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        named = {"option": option, "error": error, "wanted": wanted}
        raise CommandError(
            _("%(option)s is not JSON (%(error)s): give %(wanted)s.") % named
        ) from error
    if not isinstance(value, kind):
        named = {"option": option, "wanted": wanted, "text": text}
        raise CommandError(_("%(option)s must be %(wanted)s, not %(text)s.") % named)
    return value


def _when(option: str, text: str) -> float | dt.datetime:
    try:
        return float(text)
    except ValueError:
        return _moment(option, text)


def _moment(option: str, text: str) -> dt.datetime:
    try:
        found = parse_datetime(text)
    except ValueError:  # well formed, and no time
        found = None
    if found is None:
        named = {"option": option, "text": repr(text)}
        raise CommandError(
            _("%(option)s must be a time such as 2026-03-01T14:30, not %(text)s.") % named
        )
    return found
