"""The parent process of a worker: children, leases, signals of the operating system.

It runs no task and holds no message. It renews the leases of its living children, so that a task
which keeps the interpreter busy for an hour keeps its message, and gives back at once what a dead
child held.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import time
from types import FrameType

from jobs import broker, conf
from jobs.exceptions import BrokerUnavailable
from jobs.worker import upkeep
from jobs.worker.health import Health
from jobs.worker.options import Options
from jobs.worker.patience import Patience
from jobs.worker.reload import Watch, importable
from jobs.worker.reports import Reporter
from jobs.worker.slot import Left, Slot

log = logging.getLogger("jobs.worker")

#: How often, in seconds, the children's boards are looked at: limits and revocations are written
#: there while the supervisor sleeps.
_LOOK = 0.5


class Supervisor:
    def __init__(self, options: Options) -> None:
        self.options = options
        self._conf = conf.get()
        self._slots = [Slot(number, options) for number in range(1, options.processes + 1)]
        #: Ended children whose messages could not be given back yet.
        self._left: list[Left] = []
        #: Slots with the children that are to be replaced, one at a time, by such with new code.
        self._outdated: list[tuple[Slot, str]] = []
        self._reload_asked = False
        self._relay = upkeep.Relay()
        self._health = Health(options.health_file)
        self._reporter = Reporter(options, self._slots)
        self._watch = Watch() if options.reload else None
        #: How often it was asked to stop.
        self._stops = 0
        self._kill_at = float("inf")
        self._next_renewal = 0.0
        self._patience = Patience(
            "the supervisor can't reach the {what}", "the supervisor reaches the {what} again"
        )

    # ------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Supervise until asked to stop or, with ``burst``, until every child has ended.

        The exit code for the process.
        """
        wakeup = self._install_signals()
        log.info(
            "worker %s: %d processes, queues %s",
            self.options.name,
            self.options.processes,
            ", ".join(self.options.queues),
        )
        self._health.remove()  # a former worker's, that was killed
        self._relay.start()
        while not self.step():
            select.select([wakeup], [], [], self._pause())
            _empty(wakeup)
        self._relay.stop()
        self._reporter.leave()
        self._health.remove()
        log.info("worker %s stopped", self.options.name)
        return 0

    def step(self) -> bool:
        """Do what is due. Whether all is over."""
        self._reap()
        if self._stops:
            self._stop_children()
        elif self._watch and self._watch.changed():
            log.info("code has changed; restarting the children")
            for slot in self._slots:
                slot.start_at = 0.0  # the change may be what a failing start waited for
            self._signal_children(signal.SIGTERM)
        elif self._reload_asked or self._outdated:
            self._reload()
        for slot in self._slots:
            slot.enforce_limits(time.monotonic())
        self._start_children()
        self._keep_order()
        running = any(slot.process for slot in self._slots)
        return not running and (bool(self._stops) or self.options.burst)

    def _pause(self) -> float:
        """Seconds until something is due that no signal tells of."""
        now = time.monotonic()
        due = [self._next_renewal, self._kill_at]
        due += [slot.start_at for slot in self._slots if not slot.process and not self._stops]
        due += [slot.next_limit() for slot in self._slots]
        due.append(now + (_LOOK if not self._outdated else 0.05))
        if self._watch:
            due.append(now + 1.0)
        return max(0.01, min(due) - now)

    # ------------------------------------------------------------------ children

    def _start_children(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            over = self._stops or (self.options.burst and slot.consumer)
            if slot.process is None and slot.start_at <= now and not over:
                slot.start()
                self._next_renewal = now  # from here on it counts among the living

    def _reap(self) -> None:
        for slot in self._slots:
            left = slot.reap(stopping=bool(self._stops))
            if left is not None:
                self._left.append(left)

    def _stop_children(self) -> None:
        if self._stops > 1 or time.monotonic() >= self._kill_at:
            self._signal_children(signal.SIGKILL)
        elif self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + self._conf.grace_seconds
            self._signal_children(signal.SIGTERM)
            log.info("worker %s is stopping; once more ends it now", self.options.name)

    def _signal_children(self, signum: signal.Signals) -> None:
        for slot in self._slots:
            slot.signal(signum)

    def _reload(self) -> None:
        """Restart the children one at a time, once a fresh process has shown that the new code can
        be imported."""
        if self._reload_asked and not self._outdated:
            self._reload_asked = False
            problem = importable()
            if problem:
                log.error("the new code can't be imported; the old goes on:\n%s", problem)
                return
            log.info("the new code can be imported; restarting the children one by one")
            self._outdated = [(slot, slot.consumer) for slot in self._slots]
            self._outdated[0][0].signal(signal.SIGTERM)
        slot, consumer = self._outdated[0]
        if slot.ready and slot.consumer != consumer:
            self._outdated.pop(0)
            if self._outdated:
                self._outdated[0][0].signal(signal.SIGTERM)
            else:
                log.info("all children run the new code")

    # ------------------------------------------------------------------ leases

    def _keep_order(self) -> None:
        """Give back what dead children held; renew, reclaim and report when it is time."""
        now = time.monotonic()
        urgent = bool(self._left) or self._reporter.has_news(now)
        if (self._patience.missing or not urgent) and now < self._next_renewal:
            return
        try:
            while self._left:
                consumer, blamed, killed = self._left[0]
                upkeep.give_back(self.options.queues, consumer, blamed=blamed, killed=killed)
                self._left.pop(0)
            if time.monotonic() >= self._next_renewal:
                self._renew()
            self._reporter.report()
        except BrokerUnavailable as error:
            self._next_renewal = time.monotonic() + self._patience.away(error)
        else:
            self._patience.back()

    def _renew(self) -> None:
        lease = self._conf.lease_seconds
        alive = [slot.consumer for slot in self._slots if slot.process]
        if alive:
            for queue in self.options.queues:
                broker.get().renew(queue, alive, lease)
        upkeep.reclaim_expired(self.options.queues, alive=alive)
        if any(slot.ready for slot in self._slots):
            self._health.touch()
        # Two renewals may fail before the lease ends.
        self._next_renewal = time.monotonic() + lease / 3

    # ------------------------------------------------------------------ signals

    def _install_signals(self) -> int:
        """A file descriptor that becomes readable at every signal."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGQUIT, self._on_quit)
        # Handled, so that the end of a child wakes the loop; what it means is read by _reap.
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        return read

    def _on_reload(self, signum: int, frame: FrameType | None) -> None:
        self._reload_asked = True

    def _on_quit(self, signum: int, frame: FrameType | None) -> None:
        """What is every thread doing? Of this process and of each child."""
        faulthandler.dump_traceback(all_threads=True)
        self._signal_children(signal.SIGQUIT)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stops += 1


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
