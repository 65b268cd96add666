"""The thread of a supervisor that obeys Celery's clients, and sends the worker's events.

Nothing that a client sends is signed: whoever can write to Redis is a client. So it is off unless
the settings say otherwise, takes bounded arguments only, and does nothing that hasn't its own
command in the registry.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import platform
import sys
import threading
import time
from typing import Any

from django.db import connections

from jobs import broker, conf
from jobs.broker.celery import OURS, Broadcast
from jobs.control.inspecting import Place
from jobs.control.remote import commands
from jobs.exceptions import BrokerUnavailable, shown
from jobs.worker.celery import events
from jobs.worker.celery.panel import load_average
from jobs.worker.celery.state import WorkerState
from jobs.worker.loops import AWAY, Backoff

log = logging.getLogger("jobs.worker")

#: Seconds between two heartbeats; Celery's own.
_HEARTBEAT = 2.0
#: Seconds between two looks at what runs, while somebody listens.
_LOOK = 0.5
#: Seconds between two looks whether it is to stop.
_IDLE = 1.0
#: Most characters of what somebody has sent that are logged.
_SHOWN = 100


class Listener:
    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._obeys = conf.get().celery_control != "none"
        self._changes = conf.get().celery_control == "all"
        self._events = conf.get().celery_events
        #: Raises `ConfigurationError` where Celery's clients can't be.
        self._channels = broker.get().celery()
        self._stopping = threading.Event()
        #: Whether somebody has heard the last heartbeat, and when the next is due (monotonic).
        self._heard = False
        self._beat_at = 0.0
        #: What ran at the last look.
        self._known: set[Place] = set()
        self._patience = Backoff(
            log,
            "the {what} is away; Celery's clients are not answered",
            "the {what} is back; Celery's clients are answered again",
            failing="Celery's clients can't be served; the worker tries again",
            working="Celery's clients can be served again",
        )
        self._thread = threading.Thread(target=self._loop, name="jobs-celery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more commands, and say that the worker goes."""
        self._stopping.set()
        if self._events:
            try:
                with broker.get().briefly(insist=False):
                    self._tell("worker-offline")
            except BrokerUnavailable as error:
                log.debug("nobody is told that the worker goes: %s", error)

    def _loop(self) -> None:
        """Whatever fails is tried again: no error must end this thread."""
        while not self._stopping.is_set():
            try:
                self._serve()
            except AWAY as error:
                self._stopping.wait(self._patience.away(error))
            except Exception as error:  # noqa: BLE001  it is logged there
                self._stopping.wait(self._patience.failed(error))
        connections.close_all()

    def _serve(self) -> None:
        if not self._obeys:
            self._greet()
            while not self._stopping.wait(self._due()):
                self._report()
            return
        with self._channels.listen() as receive:
            self._greet()
            while not self._stopping.is_set():
                try:
                    found = receive(self._due())
                except ValueError as error:
                    log.warning("a command of a client of Celery can't be read: %s", error)
                    continue
                if found is not None:
                    self._obey(found)
                self._report()

    def _greet(self) -> None:
        if self._events:
            self._tell("worker-online")
        self._patience.back()

    def _due(self) -> float:
        """Seconds until something is to be done that nobody asks for."""
        if not self._events:
            return _IDLE
        left = self._beat_at - time.monotonic()
        return max(0.01, min(left, _LOOK if self._heard else _IDLE))

    # ------------------------------------------------------------------ commands

    def _obey(self, found: Broadcast) -> None:
        """Do what a client asks for, if it asks this worker, and answer it."""
        if found.headers.get(OURS):
            return  # this program has said it, and done its part
        self._state.adjust(found.headers.get("clock"))
        body = found.body
        if not self._is_asked(body):
            return
        method, arguments = str(body.get("method")), body.get("arguments") or {}
        answer = self._done(method, arguments)
        reply_to = body.get("reply_to")
        if isinstance(reply_to, dict):
            headers = {"ticket": body.get("ticket"), "clock": self._state.forward()}
            try:
                client: Any = reply_to.get("routing_key")
                self._channels.answer(client, {self._state.hostname: answer}, headers)
            except (TypeError, ValueError) as error:  # its name can be no client's
                log.warning("the answer to %.*r can't be sent: %s", _SHOWN, method, error)

    def _is_asked(self, body: Any) -> bool:
        destination, pattern = body.get("destination"), body.get("pattern")
        if destination:
            return isinstance(destination, list) and self._state.hostname in destination
        if not pattern:
            return True
        if body.get("matcher") == "glob" and isinstance(pattern, str):
            return fnmatch.fnmatchcase(self._state.hostname, pattern)
        # There are regular expressions that take hours, and would stop the whole supervisor.
        log.warning("a command for the workers that match %.*r is left alone", _SHOWN, pattern)
        return False

    def _done(self, method: str, arguments: Any) -> Any:
        command = commands.get(method)
        if command is None:
            return {"error": f"This worker knows no command {method[:_SHOWN]!r}."}
        if not isinstance(arguments, dict):
            return {"error": f"Arguments are given by name, not as {shown(arguments)}."}
        if command.changes:
            if not self._changes:
                return {
                    "error": "This worker may only be looked at: JOBS['CELERY_CONTROL'] is "
                    f"{conf.get().celery_control!r}."
                }
            log.warning("a client of Celery asks for %s %.200r", method, arguments)
        try:
            answer = command.function(self._state, **arguments)
            json.dumps(answer)  # or the client would get none
            return answer
        except AWAY:
            raise
        except (Exception, SystemExit) as error:  # the latter would end this thread without a word
            log.warning("the command %s of a client of Celery failed", method, exc_info=True)
            return {"error": f"{type(error).__name__}: {error}"}
        finally:
            connections.close_all()

    # ------------------------------------------------------------------ events

    def _report(self) -> None:
        """Send what is due of the worker's events."""
        if not self._events:
            return
        if self._state.beat.is_set() or time.monotonic() >= self._beat_at:
            self._state.beat.clear()
            self._tell("worker-heartbeat")
        if self._heard:
            self._tell_begun()

    def _tell(self, kind: str) -> None:
        """Send an event of the worker itself."""
        state = self._state
        event = {
            **events.head(kind, state.hostname, time.time()),
            "freq": _HEARTBEAT,
            "active": len(state.places()),
            "processed": state.processed,
            "loadavg": load_average(),
            "sw_ident": "py-jobs",
            "sw_ver": sys.modules["jobs"].__version__,
            "sw_sys": platform.system(),
            "clock": state.forward(),
        }
        heard = self._channels.tell(kind.replace("-", "."), event, state.hostname)
        self._heard = heard > 0
        self._beat_at = time.monotonic() + _HEARTBEAT

    def _tell_begun(self) -> None:
        """Announce the calls that have begun since the last look. Of a call that has also ended
        since then, its child sends all events."""
        running = self._state.places()
        new = [place for place in running if place not in self._known]
        self._known = set(running)
        told = [
            event
            for one in (self._state.at(new) if new else ())
            for event in events.of_begin(one.running, self._state.hostname, one.pid)
        ]
        if told:
            self._channels.tell(events.MANY, told, self._state.hostname)


def listener_of(state: WorkerState) -> Listener | None:
    """The listener that the settings ask for. Raises `ConfigurationError`."""
    wanted = conf.get().celery_control != "none" or conf.get().celery_events
    return Listener(state) if wanted else None
