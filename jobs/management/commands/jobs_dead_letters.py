"""`manage.py jobs_dead_letters`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, control, message
from jobs.broker.base import DeadLetter
from jobs.exceptions import MessageError
from jobs.management.operating import OperatorCommand, is_sure, user

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
        what.add_argument("--requeue", metavar="KEY", help=_("put back this one, or 'all'"))
        what.add_argument("--discard", metavar="KEY", help=_("delete this one, or 'all'"))
        parser.add_argument("--yes", action="store_true", help=_("don't ask before deleting"))
        parser.add_argument(
            "--count",
            type=int,
            default=50,
            metavar="N",
            help=_("list N of each queue at most; default: %(default)d"),
        )

    def operate(self, **options: Any) -> None:
        declared, asked = conf.get().queues, options["queue"]
        if asked is not None and asked not in declared:
            raise CommandError(
                _("Queue %(queue)s is not declared in JOBS['QUEUES'].") % {"queue": repr(asked)}
                + conf.nearest(asked, declared)
            )
        queues = list(declared) if asked is None else [asked]
        if options["requeue"]:
            # The oldest first, as they came.
            places = _places(queues, options["requeue"])[::-1]
            by = user()
            done = sum(control.requeue(queue, key, by) for queue, key in places)
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
            said = ngettext("%d dead letter deleted.", "%d dead letters deleted.", done)
            self.stdout.write(said % done)
        else:
            for queue in queues:
                self._list(queue, options["count"])

    def _list(self, queue: str, count: int) -> None:
        for shown, letter in enumerate(_letters(queue)):
            if shown >= count:
                more = broker.get().stats(queue).dead - shown
                self.stdout.write(_("%(queue)s: … %(n)d more") % {"queue": queue, "n": more})
                return
            at = timezone.localtime(letter.at).isoformat(" ", "seconds")
            try:
                # Whoever signed it: a bad signature may be why it is here.
                sent = message.decode(letter.raw, queue, trusted=True)
                call = f"{sent.task}[{sent.id}]"
            except MessageError:
                call = "?"
            self.stdout.write(f"{queue} {letter.key} {at} {call} {letter.reason}")


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
