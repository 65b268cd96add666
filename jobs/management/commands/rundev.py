"""`manage.py rundev`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import autoreload
from django.utils.translation import gettext as _

from jobs.management.operating import JobsCommand
from jobs.management.parts import LOOK_SECONDS, Part, describe, end, note_interrupts, say
from jobs.management.processes import refuse_memory
from jobs.worker.child import ORDERS

#: Seconds between two looks for changed code.
_WATCH_SECONDS = 1.0

#: Options of `runworker` that are handed on.
_OF_WORKER = ("queues", "queue_order", "processes", "threads", "concurrency")

#: Folders that hold no code of the project, besides hidden ones and virtual environments.
_NOT_CODE = {"__pycache__", "node_modules"}


class Command(JobsCommand):
    help = """\
Run a worker and beat together, for development, and start both again when code changes.

A line of their output is shown behind the name of its process. One that ends by itself, such as for
an error in the code, is started again at the next change. Ctrl-C lets running tasks finish and ends
both; a second one ends them at once. On a server, run runworker and runbeat as two services."""
    #: The worker and beat check, and a mistake must not end this process.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        as_worker = _("as for runworker")
        add("-Q", "--queues", help=as_worker)
        add("--queue-order", choices=ORDERS, help=as_worker)
        add("--processes", type=int, metavar="N", help=as_worker)
        add("--threads", type=int, metavar="M", help=as_worker)
        add("--concurrency", type=int, metavar="K", help=as_worker)

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory()
        shared = [f"--verbosity={options['verbosity']}"]
        if options["pythonpath"]:
            shared.append(f"--pythonpath={options['pythonpath']}")
        own = [
            f"--{name.replace('_', '-')}={options[name]}"
            for name in _OF_WORKER
            if options[name] is not None
        ]
        commands = {
            "worker": [*_manage(), "runworker", *shared, *own],
            "beat": [*_manage(), "runbeat", *shared],
        }
        interrupts = note_interrupts()
        parts: list[Part] = []
        watch = Watch()
        say(_("A worker and beat are started, again whenever code changes. Ctrl-C ends both."))
        try:
            parts += [Part(name, command) for name, command in commands.items()]
            while not interrupts:
                for part in [part for part in parts if part.ended()]:
                    how = describe(part.process.returncode)
                    part.finish()
                    parts.remove(part)
                    told = {"name": part.name, "how": how}
                    say(_("%(name)s ended by itself (%(how)s); a change starts it again.") % told)
                if changed := watch.changed():
                    say(_("%s has changed: worker and beat are started again.") % changed)
                    end(parts, lambda: bool(interrupts))
                    parts.clear()
                    if not interrupts:
                        parts += [Part(name, command) for name, command in commands.items()]
                time.sleep(LOOK_SECONDS)
        finally:
            asked = len(interrupts)
            end(parts, lambda: len(interrupts) > asked)


def _manage() -> list[str]:
    """The command line with which this process was started, as far as the name of the command."""
    line = autoreload.get_child_arguments()
    return line[: len(line) - len(sys.argv[1:])]


class Watch:
    """Watches the code below BASE_DIR, new files included, by its times of modification."""

    def __init__(self) -> None:
        self._root = Path(getattr(settings, "BASE_DIR", None) or Path.cwd())
        self._next = time.monotonic() + _WATCH_SECONDS
        self._seen = dict(self._times())

    def changed(self) -> str:
        """The path of a file that has changed, is new or gone; "" for none, or if it is too early
        to look."""
        if time.monotonic() < self._next:
            return ""
        before, self._seen = self._seen, dict(self._times())
        self._next = time.monotonic() + _WATCH_SECONDS
        changed = {path for path, _ in before.items() ^ self._seen.items()}
        return os.path.relpath(min(changed), self._root) if changed else ""

    def _times(self) -> Iterator[tuple[Path, float]]:
        for folder, folders, files in os.walk(self._root):
            folders[:] = [
                name
                for name in folders
                if not (name.startswith(".") or name in _NOT_CODE)
                and not Path(folder, name, "pyvenv.cfg").exists()
            ]
            for path in (Path(folder, name) for name in files if name.endswith(".py")):
                try:
                    yield path, path.stat().st_mtime
                except OSError:
                    continue  # deleted a moment ago
