"""`manage.py jobs_inspect`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs import conf, registry
from jobs.broker.base import Revoked
from jobs.control import inspect
from jobs.control.inspecting import (
    Call,
    Running,
    Worker,
)
from jobs.management.operating import OperatorCommand

_LOOKS = ("active", "waiting", "due", "revoked", "registered", "workers")


class Command(OperatorCommand):
    help = """\
Show what is going on, and change nothing.

active      what runs now, the longest first: since when, where, which call
waiting     what waits on the queues, the next first
due         what waits for its time, or for its task to be resumed
revoked     calls that are not to start, and until when that is remembered
registered  names of the tasks that this code knows
workers     every worker: where, since when, how many tasks it has run, what it runs"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=_LOOKS)
        parser.add_argument("queue", nargs="?", help=_("default: all that are declared"))
        parser.add_argument(
            "--count",
            type=int,
            default=50,
            metavar="N",
            help=_("list N of each queue at most; default: %(default)d"),
        )
        parser.add_argument("--json", action="store_true", help=_("print JSON"))

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
            case "registered":
                found = inspect.registered()
            case "workers":
                found = [w for w in inspect.workers() if not set(queues).isdisjoint(w.queues)]
        if options["json"]:
            self.stdout.write(json.dumps([_plain(item) for item in found], indent=2))
            return
        for item in found:
            self.stdout.write(_line(item))


def _line(item: Any) -> str:
    match item:
        case Call():
            when = _at(item.due) if item.due else _("parked") if item.parked else ""
            name = f"{item.task}[{item.id}]" if item.id else "?"
            arguments = [text for text in (item.args, item.kwargs) if text not in ("[]", "{}")]
            return " ".join(part for part in (item.queue, when, name, *arguments) if part)
        case Running():
            return " ".join([_at(item.since), item.consumer, _line(item.call)])
        case Revoked():
            until = _at(dt.datetime.fromtimestamp(item.until, dt.UTC))
            parts = [item.id, until, _("terminate") if item.terminate else ""]
            return " ".join(part for part in parts if part)
        case Worker():
            own = _("%(name)s: process %(pid)d on %(host)s since %(at)s, %(n)d tasks run") % {
                **item._asdict(),
                "at": _at(item.started),
                "n": item.processed,
            }
            if item.silent:
                own += ", " + _("silent for %d s") % (item.age or 0)
            elif item.state not in ("", "running"):
                own += f", {item.state}"
            return "\n".join([own, *(f"  {_line(running)}" for running in item.current)])
    return str(item)


def _at(moment: dt.datetime) -> str:
    return timezone.localtime(moment).isoformat(" ", "seconds")


def _plain(item: Any) -> Any:
    """An item as JSON has it."""
    if isinstance(item, dt.datetime):
        return item.isoformat()
    if hasattr(item, "_asdict"):
        return {name: _plain(value) for name, value in item._asdict().items()}
    return [_plain(part) for part in item] if isinstance(item, list) else item
