"""`manage.py jobs_dead_letters`."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, control, message, registry
from jobs.broker.base import DeadLetter
from jobs.exceptions import MessageError
from jobs.management.operating import OperatorCommand, is_sure, not_empty, time_of, user

#: Dead letters read at once.
_PAGE = 100

#: Queue and key of a dead letter.
Place = tuple[str, str]


class Command(OperatorCommand):
    help = """\
List dead letters: messages that could not be run. Put them back on their queues, or delete them.

Newest first: queue, key, when, which task, why."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", nargs="?", help=_("default: all that are declared"))
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--requeue", type=not_empty, metavar="KEY", help=_("put back this one, or 'all'")
        )
        what.add_argument(
            "--discard", type=not_empty, metavar="KEY", help=_("delete this one, or 'all'")
        )
        parser.add_argument("--yes", action="store_true", help=_("don't ask before deleting"))
        self.add_count(parser)
        self.add_json(parser)

    def operate(self, **options: Any) -> None:
        asked = options["queue"]
        queues = list(conf.get().queues) if asked is None else [registry.queue(asked)]
        if options["requeue"]:
            # The oldest first, as they came.
            places = _places(queues, options["requeue"])[::-1]
            by = user()
            done = sum(control.requeue(queue, key, by) for queue, key in places)
            if options["json"]:
                self.print_json({"requeued": done})
                return
            said = ngettext(
                "%d message is back on its queue.", "%d messages are back on their queues.", done
            )
            self.stdout.write(said % done)
        elif options["discard"]:
            places = _places(queues, options["discard"])
            question = ngettext(
                "Delete %d dead letter for good?", "Delete %d dead letters for good?", len(places)
            ) % len(places)
            if places and not options["yes"] and not is_sure(question):
                raise CommandError(_("Nothing was deleted."))
            done = sum(control.discard(queue, key) for queue, key in places)
            if options["json"]:
                self.print_json({"discarded": done})
                return
            said = ngettext("%d dead letter deleted.", "%d dead letters deleted.", done)
            self.stdout.write(said % done)
        elif options["json"]:
            found = {queue: list(_listed(queue, options["count"])) for queue in queues}
            more = {queue: _more(queue, len(listed)) for queue, listed in found.items()}
            letters = [one._asdict() for listed in found.values() for one in listed]
            self.print_json({"letters": letters, "more": more})
        else:
            for queue in queues:
                self._list(queue, options["count"])

    def _list(self, queue: str, count: int) -> None:
        listed = list(_listed(queue, count))
        for one in listed:
            call = f"{one.task}[{one.id}]" if one.id else "?"
            self.stdout.write(f"{queue} {one.key} {time_of(one.at)} {call} {one.reason}")
        if len(listed) == count and (more := _more(queue, count)):
            self.stdout.write(_("%(queue)s: … %(n)d more") % {"queue": queue, "n": more})


class _Letter(NamedTuple):
    """A dead letter as it is listed. ``id`` and ``task`` are empty if it can't be read."""

    queue: str
    key: str
    at: dt.datetime
    id: str
    task: str
    reason: str


def _listed(queue: str, count: int) -> Iterator[_Letter]:
    for letter in itertools.islice(_letters(queue), count):
        try:
            # Whoever signed it: a bad signature may be why it is here.
            sent = message.decode(letter.raw, queue, trusted=True)
            task_id, task = sent.id, sent.task
        except MessageError:
            task_id = task = ""
        yield _Letter(queue, letter.key, letter.at, task_id, task, letter.reason)


def _more(queue: str, shown: int) -> int:
    """How many dead letters of a queue are not shown."""
    return max(0, broker.get().stats(queue).dead - shown)


def _letters(queue: str) -> Iterator[DeadLetter]:
    """The dead letters of a queue, the newest first."""
    oldest = None
    while letters := broker.get().dead_letters(queue, _PAGE, oldest):
        yield from letters
        oldest = letters[-1].key


def _places(queues: list[str], key: str) -> list[Place]:
    """Where the dead letter with this key is; for "all", where those are that there are now, so
    that none is treated twice which comes back meanwhile."""
    if key == "all":
        return [(queue, letter.key) for queue in queues for letter in _letters(queue)]
    found = [(queue, key) for queue in queues if broker.get().dead_letter_at(queue, key)]
    if not found:
        raise CommandError(
            _("There is no dead letter %(key)s in %(queues)s.")
            % {"key": repr(key), "queues": ", ".join(queues)}
        )
    if len(found) > 1:
        raise CommandError(
            _("There are dead letters %(key)s in %(queues)s: name the queue as well.")
            % {"key": repr(key), "queues": ", ".join(queue for queue, _key in found)}
        )
    return found
