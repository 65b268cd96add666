"""``manage.py runbroker``: the embedded server in a terminal."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from jobs import conf
from jobs.broker import embedded, embedded_folder
from jobs.exceptions import JobsError
from jobs.management.operating import JobsCommand

_LOOK_SECONDS = 0.25


class Command(JobsCommand):
    help = """\
Run the embedded broker (Valkey) of a development machine, and show its log (not with -v 0).

Nobody has to call this: web server, worker and beat start the broker by themselves when
JOBS["BROKER_URL"] is empty, and it stays in the background. Ctrl-C here ends the broker that this
command started, unless another runbroker shows it as well. If it ran before, its log is shown and
Ctrl-C leaves it running. What waits in it is on disk either way."""
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--status", action="store_true", help=_("say whether it runs, and where"))
        what.add_argument("--stop", action="store_true", help=_("end it and return"))
        what.add_argument(
            "--stop-at-exit",
            action="store_true",
            help=_("end it on Ctrl-C even if it ran before"),
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            folder = embedded_folder(conf.get().embedded_dir)
            if options["status"]:
                url, pid = embedded.running(folder), embedded.pid(folder)
                if options["json"]:
                    self.print_json({"running": url is not None, "pid": pid, "url": url})
                if url is None:
                    raise CommandError(_("The embedded broker is not running."), returncode=1)
                if not options["json"]:
                    self.stdout.write(self._where(folder, url))
            elif options["stop"]:
                self._stop(folder)
            else:
                shown, stop = options["verbosity"] > 0, options["stop_at_exit"]
                self._run(folder, shown=shown, always_stop=stop)
        except JobsError as error:
            raise CommandError(str(error)) from error

    def _stop(self, folder: Path) -> None:
        if embedded.stop(folder):
            self.stdout.write(_("The embedded broker has ended; its data is on disk."))
        else:
            self.stdout.write(_("The embedded broker was not running."))

    def _run(self, folder: Path, *, shown: bool, always_stop: bool) -> None:
        if conf.get().broker_url:
            self.stderr.write(
                _('JOBS["BROKER_URL"] is set: the project does not use this embedded broker.'),
                self.style.WARNING,
            )
        asked = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: asked.set())
        was_running = embedded.running(folder) is not None
        log = embedded.log_file(folder)
        shown_to = log.stat().st_size if log.exists() else 0
        with embedded.in_use(folder):
            url = embedded.ensure(folder)
            where = self._where(folder, url)
            self.stdout.write(_("It was running already: %s") % where if was_running else where)
            ended = self._follow(folder, shown_to, asked, shown=shown)
        if ended:
            raise CommandError(_("The embedded broker was ended by someone else."))
        if not always_stop and was_running:
            self.stdout.write(_("The embedded broker goes on; `runbroker --stop` ends it."))
        elif embedded.stop_unused(folder):
            self.stdout.write(_("The embedded broker has ended; its data is on disk."))
        else:
            self.stdout.write(_("The embedded broker goes on: another runbroker shows it."))

    def _where(self, folder: Path, url: str) -> str:
        return _("The embedded broker runs as process %(pid)s at %(url)s") % {
            "pid": embedded.pid(folder),
            "url": url,
        }

    def _follow(self, folder: Path, start: int, asked: threading.Event, *, shown: bool) -> bool:
        """Wait until asked to end, with ``shown`` showing what is added to the log; True when the
        server ended first."""
        with embedded.log_file(folder).open(encoding="utf-8", errors="replace") as log:
            log.seek(start)
            while True:
                last_look = asked.wait(_LOOK_SECONDS)
                alive = embedded.pid(folder) is not None
                for line in log if shown else ():
                    self.stdout.write(line, ending="")
                self.stdout.flush()
                if last_look or not alive:
                    return not last_look
