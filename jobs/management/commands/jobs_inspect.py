"""`manage.py jobs_inspect`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import conf, registry
from jobs.broker.base import Revoked
from jobs.control import inspect
from jobs.control.inspecting import (
    Call,
    RevokedStamp,
    Running,
    Worker,
)
from jobs.management.operating import OperatorCommand, not_empty, seconds, time_of

_LOOKS = ("active", "waiting", "due", "revoked", "stamps", "registered", "workers")

#: Workers that are named on one line.
_NAMED = 5


class Command(OperatorCommand):
    help = """\
Show what is going on, and change nothing.

active      what runs now, the longest first: since when, where, which call
waiting     what waits on the queues, the next first
due         what waits for its time, or for its task to be resumed
revoked     calls that are not to start, and until when that is remembered
stamps      stamps whose calls are not to start, likewise
registered  names of the tasks that the workers know, who are asked, and where they differ
workers     every worker: where, since when, how many tasks it has run, what it runs"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=_LOOKS)
        parser.add_argument(
            "queue", nargs="?", type=not_empty, help=_("default: all that are declared")
        )
        self.add_count(parser)
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=5.0,
            metavar="S",
            help=_("registered: wait so many seconds for the workers; default: %(default)g"),
        )
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        queue = options["queue"]
        queues = [registry.queue(queue)] if queue else list(conf.get().queues)
        count = options["count"]
        found: Sequence[Any]
        match options["what"]:
            case "active":
                found = [running for running in inspect.active() if running.call.queue in queues]
            case "waiting":
                found = [call for queue in queues for call in inspect.waiting(queue, count)]
            case "due":
                found = [call for queue in queues for call in inspect.due(queue, count)]
            case "revoked":
                found = inspect.revoked(count)
            case "stamps":
                found = inspect.revoked_stamps(count)
            case "registered":
                known = inspect.registered_by_worker(options["timeout"], queues)
                self._show_tasks(known, as_json=options["json"])
                return
            case "workers":
                found = [w for w in inspect.workers() if not set(queues).isdisjoint(w.queues)]
        if options["json"]:
            self.print_json(found)
            return
        for item in found:
            self.stdout.write(_line(item))

    def _show_tasks(self, known: Mapping[str, Sequence[str] | None], *, as_json: bool) -> None:
        """``known``: worker → the tasks that it knows; None: it hasn't answered."""
        told = {worker: set(names) for worker, names in known.items() if names is not None}
        silent = sorted(known.keys() - told.keys())
        here = set(inspect.registered())
        names = sorted(here.union(*told.values()))
        if as_json:
            tasks = [
                {
                    "name": name,
                    "workers": [worker for worker in told if name in told[worker]],
                    "here": name in here,
                }
                for name in names
            ]
            self.print_json({"tasks": tasks, "workers": list(told), "silent": silent})
            return
        differ = 0
        for name in names:
            lack = [worker for worker in told if name not in told[worker]]
            where = ""
            if told and len(lack) == len(told):
                where = _("no worker knows it")
            elif lack:
                where = _("not known to %s") % _listed(lack)
            elif name not in here:
                where = _("not known here, where this command runs")
            differ += bool(where)
            self.stdout.write(f"{name}: {where}" if where else name)
        if silent:
            self._warn(_("These workers have not answered: %s.") % _listed(silent))
        if not told:
            self._warn(_("No worker has told its tasks; these are the ones known here."))
        elif differ:
            text = ngettext(
                "%d task is not known everywhere: some process runs other code than the rest.",
                "%d tasks are not known everywhere: some process runs other code than the rest.",
                differ,
            )
            self._warn(text % differ)

    def _warn(self, text: str) -> None:
        self.stderr.write(text, self.style.WARNING)


def _listed(workers: Sequence[str]) -> str:
    more = len(workers) - _NAMED
    text = ", ".join(workers[:_NAMED])
    return _("%(names)s and %(n)d more") % {"names": text, "n": more} if more > 0 else text


def _line(item: Any) -> str:
    match item:
        case Call():
            when = time_of(item.due) if item.due else _("parked") if item.parked else ""
            name = f"{item.task}[{item.id}]" if item.id else "?"
            arguments = [text for text in (item.args, item.kwargs) if text not in ("[]", "{}")]
            return " ".join(part for part in (item.queue, when, name, *arguments) if part)
        case Running():
            return " ".join([time_of(item.since), item.consumer, _line(item.call)])
        case Revoked() | RevokedStamp():
            until = time_of(dt.datetime.fromtimestamp(item.until, dt.UTC))
            what = item.id if isinstance(item, Revoked) else f"{item.name}={item.value}"
            parts = [what, until, _("terminate") if item.terminate else ""]
            return " ".join(part for part in parts if part)
        case Worker():
            own = _("%(name)s: process %(pid)d on %(host)s since %(at)s, %(n)d tasks run") % {
                **item._asdict(),
                "at": time_of(item.started),
                "n": item.processed,
            }
            if item.silent:
                own += ", " + _("silent for %d s") % (item.age or 0)
            elif item.state not in ("", "running"):
                own += f", {item.state}"
            return "\n".join([own, *(f"  {_line(running)}" for running in item.current)])
    return str(item)
