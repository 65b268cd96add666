"""`manage.py jobs_dead_letters`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import broker, conf, control, message
from jobs.broker.base import DeadLetter
from jobs.exceptions import BrokerUnavailable, ConfigurationError, MessageError
from jobs.management.asking import is_sure
from jobs.management.processes import refuse_memory

#: Dead letters read at once.
_PAGE = 100

#: Queue and key of a dead letter.
Place = tuple[str, str]


class Command(BaseCommand):
    help = """\
List dead letters: messages that could not be run. Put them back on their queues, or delete them.

Newest first: queue, key, when, which task, why."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

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

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        try:
            queues = _queues(options["queue"])
            if options["requeue"]:
                self._requeue(_places(queues, options["requeue"]))
            elif options["discard"]:
                self._discard(_places(queues, options["discard"]), sure=options["yes"])
            else:
                self._list(queues, options["count"])
        except (BrokerUnavailable, ConfigurationError) as error:
            raise CommandError(str(error)) from error

    def _list(self, queues: list[str], count: int) -> None:
        for queue in queues:
            for shown, letter in enumerate(_letters(queue)):
                if shown >= count:
                    more = broker.get().stats(queue).dead - shown
                    self.stdout.write(_("%(queue)s: … %(n)d more") % {"queue": queue, "n": more})
                    break
                self.stdout.write(_line(queue, letter))

    def _requeue(self, places: list[Place]) -> None:
        # The oldest first, as they came.
        done = _each(control.requeue, reversed(places))
        self.stdout.write(
            ngettext(
                "%d message is back on its queue.", "%d messages are back on their queues.", done
            )
            % done
        )

    def _discard(self, places: list[Place], *, sure: bool) -> None:
        question = ngettext(
            "Delete %d dead letter for good?", "Delete %d dead letters for good?", len(places)
        ) % len(places)
        if places and not sure and not is_sure(question):
            raise CommandError(_("Nothing was deleted."))
        done = _each(control.discard, iter(places))
        said = ngettext("%d dead letter deleted.", "%d dead letters deleted.", done)
        self.stdout.write(said % done)


def _queues(asked: str | None) -> list[str]:
    declared = conf.get().queues
    if asked is None:
        return list(declared)
    if asked not in declared:
        raise CommandError(
            _("Queue %(queue)s is not declared in JOBS['QUEUES'].") % {"queue": repr(asked)}
            + conf.nearest(asked, declared)
        )
    return [asked]


def _letters(queue: str) -> Iterator[DeadLetter]:
    """All of them, the newest first."""
    oldest = None
    while letters := broker.get().dead_letters(queue, _PAGE, oldest):
        yield from letters
        oldest = letters[-1].key


def _places(queues: list[str], key: str) -> list[Place]:
    """Where the dead letter with this key is, or all that there are now: what dies again
    meanwhile is not among them."""
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


def _each(verb: Callable[[str, str], bool], places: Iterator[Place]) -> int:
    """For how many it was still there."""
    return sum(verb(queue, key) for queue, key in places)


def _line(queue: str, letter: DeadLetter) -> str:
    at = timezone.localtime(letter.at).isoformat(" ", "seconds")
    try:
        # Whoever signed it: it may be here for just that reason.
        sent = message.decode(letter.raw, queue, trusted=True)
        call = f"{sent.task}[{sent.id}]"
    except MessageError:
        call = "?"
    return f"{queue} {letter.key} {at} {call} {letter.reason}"
