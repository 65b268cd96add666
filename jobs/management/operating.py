"""What the commands have in common."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import getpass
import json
import math
import re
import select
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    OutputWrapper,
)
from django.db import Error as DatabaseError
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs import registry, routing
from jobs.control import Pause
from jobs.exceptions import JobsError
from jobs.ledger.refusals import told
from jobs.management.processes import refuse_memory, to_nowhere

#: Seconds between two lines of progress.
TELL = 0.2


#: What a terminal would obey instead of showing it, line breaks and tabs aside; what turns round
#: the order in which a line is shown; and halves of surrogate pairs, which no stream takes.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters escaped, as in ``\\x1b``: names, arguments and errors are
    anybody's, and a terminal must not obey them."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class Output(OutputWrapper):
    """Standard output or error of a command, to which everything goes `printable`."""

    def write(  # type: ignore[override]  # as in Django
        self,
        msg: str = "",
        style_func: Callable[[str], str] | None = None,
        ending: str | None = None,
    ) -> None:
        super().write(printable(str(msg)), style_func, ending)


#: Exit status of a program whose reader has gone, as shells have it: 128 and SIGPIPE.
READER_GONE = 141


class JobsCommand(BaseCommand):
    """A command whose help keeps its line breaks, and whose output obeys nobody. It ends quietly
    when nobody reads its output any more, as with ``| head``, and with a sentence when the database
    is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("stdout", "stderr"):
            given = getattr(self, name)
            made = Output(given._out)
            made.style_func = given.style_func
            setattr(self, name, made)

    def execute(self, *args: Any, **options: Any) -> str | None:
        for name in ("stdout", "stderr"):
            if options.get(name):
                setattr(self, name, Output(options[name]))
                options[name] = None  # or it would be replaced
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            raise CommandError(_("The database: %s") % told(error)) from error

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            try:
                super().run_from_argv(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not _reader_gone():
                raise
            to_nowhere(sys.stdout.fileno())
            sys.exit(READER_GONE)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs["formatter_class"] = RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_json(self, parser: CommandParser) -> None:
        """Take the option ``--json``."""
        parser.add_argument("--json", action="store_true", help=_("print JSON"))

    def note_foreign(self, task: str) -> None:
        """Say so if Celery's workers, which know nothing of what was done, run calls of a task."""
        if task in registry.tasks and (queue := routing.foreign_queue_of(task)):
            said = _(
                "Calls of %(task)s that name no queue go to %(queue)s, where Celery's workers take "
                "them. Those know nothing of it."
            )
            self.stderr.write(said % {"task": task, "queue": queue})

    def add_count(self, parser: CommandParser) -> None:
        """Take the option ``--count``: how many of each queue to list."""
        parser.add_argument(
            "--count",
            type=int,
            default=50,
            metavar="N",
            help=_("list N of each queue at most; default: %(default)d"),
        )

    def print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(plain(value), indent=2))


def _reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    look = select.poll()
    try:
        look.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # it is something else
        return False
    return any(event & select.POLLERR for _, event in look.poll(0))


class OperatorCommand(JobsCommand):
    """A command that asks the broker, and shows this app's errors without a traceback."""

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        try:
            self.operate(**options)
        except (JobsError, ValueError) as error:
            raise CommandError(str(error)) from error

    def operate(self, **options: Any) -> None:
        raise NotImplementedError


def not_empty(text: str) -> str:
    """``type`` of an option or argument that means something by being there. An empty one is mostly
    a variable of a shell that has no value: to take it for none would widen what is asked for."""
    if not text:
        raise argparse.ArgumentTypeError(_("it is empty: give it a value, or leave it out"))
    return text


def seconds(text: str) -> float:
    """``type`` of an option that is a number of seconds, from 0; infinity is one."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found >= 0:
        raise argparse.ArgumentTypeError(_("%r is not a number of seconds") % text)
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, named tuples as objects."""
    match value:
        case dt.datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return plain(value._asdict())
        case list() | tuple():
            return [plain(one) for one in value]
    return value


class Progress:
    """A line on a terminal's standard error that says how far a command is; nothing elsewhere."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out: Any = out
        self._shown = out.isatty()
        self._next = time.monotonic() + TELL
        self._width = 0

    def tell(self, line: str) -> None:
        """Show this line, if the last one has stood for a moment."""
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL
            self._write(printable(line))

    def clear(self) -> None:
        if self._width:
            self._write("")

    def _write(self, line: str) -> None:
        text = "\r" + line.ljust(self._width) + ("" if line else "\r")
        self._out._out.write(text)  # past `Output`, which would escape the \\r
        self._out.flush()
        self._width = len(line)


def user() -> str:
    """The name of whoever runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise CommandError(_("Say who you are with --by: %s") % error) from error


def is_sure(question: str) -> bool:
    """Ask at the terminal, before something is destroyed; whether the answer is yes. The question
    goes to standard error, since the output may be JSON for a program."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise CommandError(
            _("Nobody is there to ask. Use --yes to delete without a question.")
        ) from None


def time_of(moment: dt.datetime) -> str:
    """A time as it is shown: in the time zone of the project, without fractions of a second."""
    return timezone.localtime(moment).isoformat(" ", "seconds")


def pauses_as_json(queues: Mapping[str, Pause], tasks: Mapping[str, Pause]) -> dict[str, Any]:
    """All queues and tasks that are paused, by name, with by whom, why and when."""
    return {
        what: {name: {"by": one.by, "why": one.why, "at": one.at} for name, one in paused.items()}
        for what, paused in (("paused_queues", queues), ("paused_tasks", tasks))
    }


def pause_lines(queues: Mapping[str, Pause], tasks: Mapping[str, Pause]) -> Iterator[str]:
    """A line for each queue and task that is paused."""
    paused = [(_("queue %s") % name, pause) for name, pause in queues.items()]
    paused += [(_("task %s") % name, pause) for name, pause in tasks.items()]
    for what, pause in paused:
        named = {
            "what": what,
            "by": pause.by or "?",
            "at": time_of(pause.at),
            "why": pause.why or "?",
        }
        yield _("%(what)s: paused by %(by)s at %(at)s: %(why)s") % named
