"""The thread of a supervisor that brings the ends of calls on Celery's workers into the ledger.

It hears results as they are published, and looks through all calls that wait for one every half
minute: what is published may be missed. One supervisor of the fleet does it at a time. Should two,
for a moment, the ledger takes each end once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from django.db import close_old_connections, connections

from jobs import broker, conf, ledger
from jobs.broker.base import Revocation
from jobs.broker.celery_ends import Hear
from jobs.broker.limiting import Lock
from jobs.exceptions import BrokerUnavailable
from jobs.message import is_name
from jobs.models import TaskResult
from jobs.states import TERMINAL, State
from jobs.worker.loops import AWAY, Backoff
from jobs.worker.record.celery_ends import is_end, outcome_of, revoked
from jobs.worker.record.recorder import Recorder

log = logging.getLogger("jobs.worker")

#: The lock of the supervisor that does it, how long it has it (seconds), and how often it is
#: renewed, or asked for by the others.
_LOCK, _LEASE, _RENEW = "jobs.celery-ends", 6.0, 1.0
#: Seconds between the end of one look through all calls and the next.
_SWEEP = 30.0
#: Most calls that are looked at together, and most results that are read at once.
_PAGE, _READ = 500, 100
#: Seconds after which a revoked call ends of which no worker of Celery's says anything.
_GIVE_UP = 60.0
#: Seconds for which a first result waits for others.
_LINGER = 0.005

_OPEN = (State.PENDING, State.STARTED, State.RETRY)


class Ends:
    def __init__(self, worker: str) -> None:
        self._worker = worker
        #: Raises `ConfigurationError` where Celery's workers can't be.
        self._ends = broker.celery_ends()
        self._recorder = Recorder(f"{worker}/celery")
        self._stopping = threading.Event()
        #: When to renew the lock (monotonic).
        self._renew_at = 0.0
        #: States that the present look through all calls has still to look at, after which id it
        #: goes on, and when the next look begins (monotonic).
        self._states: list[State] = []
        self._after = ""
        self._sweep_at = 0.0
        #: Id of a call that was revoked and has not ended → when that was first seen (monotonic).
        self._revoked: dict[str, float] = {}
        self._patience = Backoff(
            log,
            "the {what} is away; results of Celery's workers are not recorded",
            "the {what} is back; results of Celery's workers are recorded again",
            failing="results of Celery's workers can't be recorded; trying again",
            working="results of Celery's workers can be recorded again",
        )
        self._thread = threading.Thread(target=self._loop, name="jobs-celery-ends", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave it to another supervisor. What is being recorded may be recorded by both."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_RENEW)

    def _loop(self) -> None:
        """Whatever fails is tried again: no error must end this thread."""
        while not self._stopping.is_set():
            try:
                if self._leads():
                    self._serve()
                else:
                    self._stopping.wait(_RENEW)
            except AWAY as error:
                self._stopping.wait(self._patience.away(error))
                connections.close_all()
            except Exception as error:  # noqa: BLE001  it is logged there
                self._stopping.wait(self._patience.failed(error))
                connections.close_all()
        with contextlib.suppress(BrokerUnavailable), broker.get().briefly(insist=False):
            broker.get().unlock([Lock(_LOCK, self._worker)])
        connections.close_all()
        self._ends.close()
        broker.get().close()

    def _leads(self) -> bool:
        """Whether this supervisor is the one; asks about once a second."""
        if time.monotonic() < self._renew_at:
            return True
        (other,) = broker.get().lock([Lock(_LOCK, self._worker, _LEASE)])
        if not other:
            self._renew_at = time.monotonic() + _RENEW
        return not other

    def _serve(self) -> None:
        with self._ends.listen() as hear:
            # At once: what has ended before isn't heard any more.
            self._states, self._after = list(_OPEN), ""
            while not self._stopping.is_set() and self._leads():
                self.bring(self._heard(hear))
                self.sweep()
                self._recorder.step()  # what is left, and the numbers of the metrics
                self._patience.back()
                close_old_connections()

    def _heard(self, hear: Hear) -> dict[str, bytes]:
        """What is said of calls, as `bring` takes it; waits for the first of it unless a look
        through all calls is under way."""
        found: dict[str, bytes] = {}
        pause, ends = 0.0 if self._states else _RENEW, 0.0
        for _ in range(_PAGE):
            said = hear(pause)
            if said is None:
                break
            if is_name(said.task_id) and not found.get(said.task_id):
                found[said.task_id] = said.text if is_end(said.text) else b""
            ends = ends or time.monotonic() + _LINGER
            pause = ends - time.monotonic()
        return found

    def bring(self, said: Mapping[str, bytes]) -> None:
        """Record what Celery's workers say of these calls, those left out that are not theirs.

        ``said``: the end of each as it was published; empty for what is to be read. An end that was
        heard is not read again: Celery's worker sends the next attempt before it stores that this
        one is retried, and so may have written that over the end.
        """
        if not said:
            return
        rows = ledger.results().filter(id__in=list(said), queue__in=conf.foreign_queues())
        self._record(list(rows.exclude(state__in=TERMINAL)), said)

    def sweep(self) -> None:
        """Look at the next calls that wait, if it is time to."""
        if not self._states:
            if time.monotonic() < self._sweep_at:
                return
            self._states, self._after = list(_OPEN), ""
        rows = ledger.results().in_state(self._states[0]).filter(queue__in=conf.foreign_queues())
        page = list(rows.filter(id__gt=self._after).order_by("id")[:_PAGE])
        self._record(page, {})
        self._end_revoked(page)
        if len(page) == _PAGE:
            self._after = page[-1].id
        else:
            self._states, self._after = self._states[1:], ""
            if not self._states:
                before = time.monotonic() - 4 * _SWEEP
                self._revoked = {i: at for i, at in self._revoked.items() if at > before}
            self._sweep_at = time.monotonic() + _SWEEP

    def _end_revoked(self, rows: Sequence[TaskResult]) -> None:
        """End those of these calls that were revoked a while ago: a worker of Celery's that has
        dropped a call, or has died with it, will say nothing."""
        queues: dict[str, list[TaskResult]] = defaultdict(list)
        for row in rows:
            queues[row.queue].append(row)
        now = time.monotonic()
        for queue, some in queues.items():
            said = broker.get().revoked(queue, [row.id for row in some])
            for row, revocation in zip(some, said, strict=True):
                ends = Revocation.TERMINATE if row.state == State.STARTED else Revocation.REVOKED
                if revocation >= ends and now - self._revoked.setdefault(row.id, now) > _GIVE_UP:
                    self._recorder.add(revoked(row))
        self._recorder.step()

    def _record(self, rows: Sequence[TaskResult], said: Mapping[str, bytes]) -> None:
        known = {row.id: row for row in rows}
        for ids in ledger.chunks(list(known), _READ):
            texts = {task_id: said[task_id] for task_id in ids if said.get(task_id)}
            texts |= self._ends.read([task_id for task_id in ids if task_id not in texts])
            for task_id, text in texts.items():
                if outcome := outcome_of(known[task_id], text):
                    self._recorder.add(outcome)
            self._recorder.step()


def ends_of(worker: str) -> Ends | None:
    """The thread that the settings ask for. Raises `ConfigurationError`."""
    return Ends(worker) if conf.foreign_queues() else None
