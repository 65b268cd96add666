"""`python -m jobsite.dev`: web server, worker, beat and broker together, for development.

This is what `make run` starts once everything is installed. Each part is an ordinary `manage.py`
process; a line of its output is shown behind the part's name. When one ends, all end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

from jobs import conf
from jobs.broker import embedded, embedded_folder
from jobs.management.parts import LOOK_SECONDS, Part, describe, end, note_interrupts, say

ROOT = Path(__file__).resolve().parent.parent
QUEUES = "high,default,low"
USER = PASSWORD = "admin"  # noqa: S105 - it is printed, and for development only


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m jobsite.dev", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the web server")
    port = parser.parse_args().port
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
    django.setup()
    if not settings.DEBUG:
        raise SystemExit(
            "This starts development servers, and DEBUG is off. Set DEBUG=on in .env; on a "
            "server, run the web server, `runworker` and `runbeat` as services."
        )
    refuse_taken(port)
    sign_in = prepare()
    interrupts = note_interrupts()
    parts: list[Part] = []
    try:
        parts += start(port)
        return watch(parts, port, sign_in, interrupts)
    finally:
        stop(parts, interrupts)


def refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SystemExit(
                f"Port {port} can't be used ({error.strerror}). Choose another: "
                f"make run PORT={port + 1}"
            ) from error


def prepare() -> str:
    """Bring the database up to date; gives the words on how to sign in."""
    from django.contrib.auth import get_user_model
    from django.db import connections

    users = get_user_model()._default_manager
    folder = embedded.private_folder(embedded_folder(conf.get().embedded_dir))
    try:
        # Another `make run` in this clone may do the same at this moment.
        with embedded.locked(folder / "setup.lock"):
            call_command("migrate", interactive=False, verbosity=1 if sys.stdout.isatty() else 0)
            if not users.filter(is_superuser=True).exists():
                users.create_superuser(USER, f"{USER}@example.com", PASSWORD)
        known = users.filter(username=USER, is_superuser=True).first()
        if known is not None and known.check_password(PASSWORD):
            return f"sign in as {USER} with the password {PASSWORD}"
        return "sign in with the superuser of your database"
    finally:
        connections.close_all()


def start(port: int) -> list[Part]:
    """All parts in the order in which they end; the broker only where the settings name none."""
    commands = {
        "web": ["runserver", f"127.0.0.1:{port}"],
        "worker": ["runworker", "--queues", QUEUES, "--reload"],
        "beat": ["runbeat"],
    }
    if not settings.JOBS.get("BROKER_URL"):
        commands["broker"] = ["runbroker", "--stop-at-exit", "--verbosity=0"]
    return [
        Part(name, [sys.executable, "manage.py", *command], ROOT)
        for name, command in commands.items()
    ]


def watch(parts: list[Part], port: int, sign_in: str, interrupts: list[int]) -> int:
    """Until Ctrl-C, or until a part ends by itself; the exit status."""
    announced = False
    while not interrupts:
        for part in parts:
            if part.ended():
                say(f"{part.name} ended by itself ({describe(part.process.returncode)}).")
                return 1
        if not announced and answers(port):
            announced = True
            announce(port, sign_in)
        time.sleep(LOOK_SECONDS)
    return 0


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def announce(port: int, sign_in: str) -> None:
    site = f"http://127.0.0.1:{port}/"
    say("")
    say("Jobsite is running.")
    say(f"  Site    {site}")
    say(f"  Admin   {site}admin/   {sign_in}")
    say("  Ctrl-C ends all of it; a second one at once.")
    say("")


def stop(parts: list[Part], interrupts: list[int]) -> None:
    """End what uses the broker first, then the broker, so that nothing misses it."""
    say("Ending …")
    asked = len(interrupts)
    end([part for part in parts if part.name != "broker"], lambda: len(interrupts) > asked)
    end([part for part in parts if part.name == "broker"], lambda: False)
    if not settings.JOBS.get("BROKER_URL"):
        # Another part may have started it, and its own have ended before it was up.
        embedded.stop_unused(embedded_folder(conf.get().embedded_dir))
    say("All has ended.")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
