"""The parent process of a worker: children, leases, signals of the operating system.

It runs no task and holds no message. It renews the leases of its living children, so that a task
which keeps the interpreter busy for an hour keeps its message, and gives back at once what a dead
child held.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

from jobs import broker, conf
from jobs.exceptions import BrokerUnavailable, QueueRefused
from jobs.loops import Backoff
from jobs.worker.child import Options
from jobs.worker.supervisor import upkeep
from jobs.worker.supervisor.reload import Health, Trial, Watch
from jobs.worker.supervisor.reports import Reporter
from jobs.worker.supervisor.slot import Left, Slot

log = logging.getLogger("jobs.worker")

#: How often, in seconds, the children's boards are looked at: limits and revocations are written
#: there while the supervisor sleeps.
_LOOK = 0.5


def _silent(text: str) -> None:
    pass


class Supervisor:
    def __init__(self, options: Options, say: Callable[[str], None] = _silent) -> None:
        """``say``: tells the person at the terminal what the log may not show."""
        self.options = options
        self._say = say
        self._conf = conf.get()
        self._slots = [Slot(number, options) for number in range(1, options.processes + 1)]
        #: Ended children whose messages could not be given back yet.
        self._left: list[Left] = []
        #: Slots with the children that are to be replaced, one at a time, by such with new code.
        self._outdated: list[tuple[Slot, str]] = []
        self._reload_asked = False
        #: The new code that is being tried.
        self._trial: Trial | None = None
        #: All children have been ready at once.
        self._was_ready = False
        #: What can't be done on which queue, and the kind of its error.
        self._refused: dict[tuple[str, str], type[Exception]] = {}
        self._relay = upkeep.Relay()
        self._health = Health(options.health_file)
        self._reporter = Reporter(options, self._slots)
        self._watch = Watch() if options.reload else None
        #: How often it was asked to stop.
        self._stops = 0
        self._kill_at = float("inf")
        self._next_renewal = 0.0
        self._patience = Backoff(
            log, "the supervisor can't reach the {what}", "the supervisor reaches the {what} again"
        )

    # ------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Supervise until asked to stop or, with ``burst``, until every child has ended.

        The exit code for the process.
        """
        wakeup = self._install_signals()
        self._tell(_introduction(self.options))
        self._health.remove()  # a former worker's, that was killed
        self._relay.start()
        while not self.step():
            select.select([wakeup], [], [], self._pause())
            _empty(wakeup)
        self._end_trial()
        self._relay.stop()
        self._reporter.leave()
        self._health.remove()
        self._tell(f"worker {self.options.name} stopped")
        failed = {slot.number: slot.failed for slot in self._slots if slot.failed}
        if self.options.burst and failed and not self._stops:
            log.error("of %d children, %d could not start", len(self._slots), len(failed))
            return 1
        return 0

    def _tell(self, text: str) -> None:
        log.info("%s", text)
        if not (log.isEnabledFor(logging.INFO) and log.hasHandlers()):
            self._say(text)

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
        elif self._reload_asked or self._trial or self._outdated:
            self._reload()
        for slot in self._slots:
            slot.enforce_limits(time.monotonic())
        self._start_children()
        if not self._was_ready and all(slot.ready for slot in self._slots):
            self._was_ready = True
            self._tell(f"worker {self.options.name} is ready")
        self._keep_order()
        if any(slot.process for slot in self._slots):
            return False
        return bool(self._stops) or all(self._is_over(slot) for slot in self._slots)

    def _is_over(self, slot: Slot) -> bool:
        """Whether its last child was its last one: with ``burst``, unless it died at work."""
        return self.options.burst and (slot.done or bool(slot.failed))

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
            over = self._stops or self._is_over(slot)
            if slot.process is None and slot.start_at <= now and not over:
                slot.start()
                self._next_renewal = now  # from here on it counts among the living

    def _reap(self) -> None:
        for slot in self._slots:
            left = slot.reap()
            if left is not None:
                self._left.append(left)
        if os.getpid() == 1:
            self._reap_orphans()

    def _reap_orphans(self) -> None:
        """Process 1 of a container is given all processes whose parents have ended."""
        own = {slot.process.pid for slot in self._slots if slot.process}
        if self._trial:
            own.add(self._trial.pid)
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):  # there is none at all
            while (ended := os.waitid(os.P_ALL, 0, how)) and ended.si_pid not in own:
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _stop_children(self) -> None:
        if self._stops > 1 or time.monotonic() >= self._kill_at:
            self._signal_children(signal.SIGKILL)
        elif self._kill_at == float("inf"):
            self._end_trial()
            self._kill_at = time.monotonic() + self._conf.grace_seconds
            self._signal_children(signal.SIGTERM)
            log.info("worker %s is stopping; once more ends it now", self.options.name)

    def _signal_children(self, signum: signal.Signals) -> None:
        for slot in self._slots:
            slot.signal(signum)

    def _reload(self) -> None:
        """Restart the children one at a time, once a fresh process has shown that the new code can
        be imported. That may take long, and nothing waits for it."""
        if self._reload_asked and not self._outdated:
            self._reload_asked = False
            self._end_trial()  # of code that was newer once
            self._try_code()
        if self._trial:
            problem = self._trial.problem()
            if problem is None:
                return
            self._trial = None
            if problem:
                log.error("the new code can't be imported; the old goes on:\n%s", problem)
                return
            log.info("the new code can be imported; restarting the children one by one")
            self._outdated = [(slot, slot.consumer) for slot in self._slots]
            self._outdated[0][0].signal(signal.SIGTERM)
        if not self._outdated:
            return
        slot, consumer = self._outdated[0]
        if slot.ready and slot.consumer != consumer:
            self._outdated.pop(0)
            if self._outdated:
                self._outdated[0][0].signal(signal.SIGTERM)
            else:
                log.info("all children run the new code")

    def _try_code(self) -> None:
        try:
            self._trial = Trial()
        except OSError as error:
            log.error("the new code can't be tried, the old goes on: %s", error)

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.end()
            self._trial = None

    # ------------------------------------------------------------------ leases

    def _keep_order(self) -> None:
        """Give back what dead children held; renew, reclaim and report when it is time."""
        now = time.monotonic()
        urgent = bool(self._left) or self._reporter.has_news(now)
        if (self._patience.missing or not urgent) and now < self._next_renewal:
            return
        try:
            self._left = [left for left in self._left if not self._given_back(left)]
            if time.monotonic() >= self._next_renewal:
                self._renew()
            first = self.options.queues[:1]
            self._each_queue("say what runs", first, lambda queue: self._reporter.report())
        except BrokerUnavailable as error:
            self._next_renewal = time.monotonic() + self._patience.away(error)
        else:
            self._patience.back()

    def _given_back(self, left: Left) -> bool:
        """Give back what a child held; whether all of it is back."""
        consumer, blamed, killed = left
        return self._each_queue(
            "give back what a child held",
            self.options.queues,
            lambda queue: upkeep.give_back([queue], consumer, blamed=blamed, killed=killed),
        )

    def _renew(self) -> None:
        lease = self._conf.lease_seconds
        alive = [slot.consumer for slot in self._slots if slot.process]

        def renew(queue: str) -> None:
            if alive:
                broker.get().renew(queue, alive, lease)
            upkeep.reclaim_expired([queue], alive=alive)

        self._each_queue("renew leases", self.options.queues, renew)
        if any(slot.ready for slot in self._slots):
            self._health.touch()
        # Two renewals may fail before the lease ends.
        self._next_renewal = time.monotonic() + lease / 3

    def _each_queue(self, what: str, queues: Sequence[str], act: Callable[[str], object]) -> bool:
        """Do something with each queue; one with which it fails stops no other. Whether it failed
        with none.

        Raises `BrokerUnavailable` when the broker is away.
        """
        failed = False
        for queue in queues:
            try:
                act(queue)
            except Exception as error:
                if isinstance(error, BrokerUnavailable) and not isinstance(error, QueueRefused):
                    raise
                failed = True
                if self._refused.get((what, queue)) is not type(error):
                    self._refused[what, queue] = type(error)
                    log.error(
                        "can't %s on queue %s, and will keep trying: %s",
                        what,
                        queue,
                        error,
                        exc_info=None if isinstance(error, QueueRefused) else error,
                    )
            else:
                if self._refused.pop((what, queue), None):
                    log.warning("can %s on queue %s again", what, queue)
        return not failed

    # ------------------------------------------------------------------ signals

    def _install_signals(self) -> int:
        """A file descriptor that becomes readable at every signal."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        handled = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD}
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGQUIT, self._on_quit)
        # Handled, so that the end of a child wakes the loop; what it means is read by _reap.
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        # Whoever started this process may have had them blocked, which is inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        return read

    def _on_reload(self, signum: int, frame: FrameType | None) -> None:
        self._reload_asked = True

    def _on_quit(self, signum: int, frame: FrameType | None) -> None:
        """What is every thread doing? Of this process and of each child."""
        faulthandler.dump_traceback(all_threads=True)
        self._signal_children(signal.SIGQUIT)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stops += 1


def _introduction(options: Options) -> str:
    processes = "1 process" if options.processes == 1 else f"{options.processes} processes"
    threads = f" of {options.threads} threads" if options.threads else ""
    return (
        f"worker {options.name}: {processes}{threads}, queues {', '.join(options.queues)}, "
        f"broker {broker.get().address}"
    )


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
