"""The parent process of a worker: it looks after children, leases and signals.

It runs no task and holds no message. It renews the leases of its living children, so that a task
may keep its interpreter busy for an hour and keep its message, and gives back at once what a dead
child held.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import itertools
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

from jobs import broker, conf
from jobs.broker.sharding import queue_of, shown
from jobs.control.workers import ANSWER_KEPT, FEW_QUEUES, Act, Answer, Command, How
from jobs.exceptions import BrokerUnavailable, ConfigurationError, QueueRefused, UnknownQueue
from jobs.worker.board import scratch
from jobs.worker.celery.ends import ends_of
from jobs.worker.celery.listener import listener_of
from jobs.worker.celery.state import WorkerState
from jobs.worker.child import Options
from jobs.worker.loops import Backoff
from jobs.worker.supervisor import comparing, upkeep
from jobs.worker.supervisor.queues import Queues, Size
from jobs.worker.supervisor.reload import Health, Watch
from jobs.worker.supervisor.reporter import Reporter
from jobs.worker.supervisor.slot import Left, Slot
from jobs.worker.supervisor.starting import Starter, Trial

log = logging.getLogger("jobs.worker")

#: Seconds between two looks at the children's boards: time limits and revocations are written there
#: while the supervisor sleeps.
_LOOK = 0.5

#: Seconds between two looks for commands of operators.
_LISTEN = 1.0

#: Seconds that children get to write down their stacks.
_DUMPING = 0.5


class Supervisor:
    def __init__(
        self, options: Options, starter: Starter, say: Callable[[str], object] | None = None
    ) -> None:
        """``say``: shows the person at the terminal what the log doesn't show."""
        self.options = options
        self._say = say
        self._conf = conf.get()
        self._starter = starter
        self._slots = [Slot(number, options, starter) for number in range(1, options.processes + 1)]
        self._queues = Queues(options, self._slots)
        self._size = Size(options.processes)
        #: Ended children whose messages could not be given back yet.
        self._left: list[Left] = []
        #: Slots and their children that are still to be replaced by children with the new code.
        self._outdated: list[tuple[Slot, str]] = []
        self._reload_asked = False
        #: Tries the new code at the moment.
        self._trial: Trial | None = None
        #: Whether all children have been ready at once.
        self._was_ready = False
        #: A node of a Cluster was away in this pass over the queues.
        self._away: BrokerUnavailable | None = None
        #: What fails on which queue → the kind of its error.
        self._refused: dict[tuple[str, str], type[Exception]] = {}
        self._relay = upkeep.Relay()
        #: Open queue → what waits for its messages; and the queues for which that was looked up.
        self._ringers: dict[str, upkeep.Ringer] = {}
        self._rung: tuple[str, ...] = ()
        self._comparison = comparing.Comparison(options.name)
        #: When to ask next whether the broker may have lost messages (monotonic).
        self._doubt_at = 0.0 if self._conf.recover else float("inf")
        self._health = Health(options.health_file)
        self._reporter = Reporter(options, self._slots, self._queues)
        #: Obeys Celery's clients, if it may.
        self._listener = listener_of(
            WorkerState(options, self._slots, self._reporter, self._queues, self._size)
        )
        #: Brings what Celery's workers have done into the ledger, if calls are sent to them.
        self._ends = None if options.burst else ends_of(options.name)
        self._watch = Watch() if options.reload else None
        #: How often it was asked to stop.
        self._stops = 0
        #: Why it stops, for the note that operators see.
        self._why = "asked by a signal"
        #: Whether what ran was cut off.
        self._cut = False
        #: Whether the children are to claim nothing, and whether to stop when nothing runs.
        self._quiet = False
        self._draining = False
        #: When to look for commands (monotonic).
        self._listen_at = 0.0
        #: The id of the command that waits to hear how the reload went; "": none does.
        self._reload_command = ""
        #: The command that asked for stacks, and when to collect these (monotonic).
        self._stack_command = ""
        self._collect_at = float("inf")
        self._kill_at = float("inf")
        self._next_renewal = 0.0
        self._patience = Backoff(
            log, "the supervisor can't reach the {what}", "the supervisor reaches the {what} again"
        )

    # ------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Supervise until asked to stop or, with ``burst``, until every child has ended. The exit
        code of the process."""
        wakeup = self._install_signals()
        options = self.options
        processes = "1 process" if options.processes == 1 else f"{options.processes} processes"
        threads = f" of {options.threads} threads" if options.threads else ""
        self._tell(
            f"worker {options.name}: {processes}{threads}, queues {', '.join(options.queues)}, "
            f"broker {broker.get().address}"
        )
        self._health.remove()  # left by a worker that was killed
        self._relay.start()
        if self._listener:
            self._listener.start()
        if self._ends:
            self._ends.start()
        while not self.step():
            links = [one.fileno() for one in (self._trial, self._starter.loading) if one]
            wakes = [wakeup, *(fd for fd in links if fd >= 0)]
            select.select(wakes, [], [], self._pause())
            with contextlib.suppress(BlockingIOError):
                while os.read(wakeup, 512):
                    pass
        self._end_trial()
        self._starter.end()
        self._relay.stop()
        if self._listener:
            self._listener.stop()
        if self._ends:
            self._ends.stop()
        for ringer in self._ringers.values():
            ringer.stop()
        self._comparison.stop()
        why = self._why if self._stops else "the queues were empty"
        self._reporter.leave(How.KILLED if self._cut else How.STOPPED, why)
        self._health.remove()
        self._tell(f"worker {options.name} stopped")
        failed = sum(bool(slot.failed) for slot in self._slots)
        if options.burst and failed and not self._stops:
            log.error("of %d children, %d could not start", len(self._slots), failed)
            return 1
        return 0

    def _tell(self, text: str) -> None:
        log.info("%s", text)
        if self._say and not (log.isEnabledFor(logging.INFO) and log.hasHandlers()):
            self._say(text)

    def step(self) -> bool:
        """Do what is due. Whether everything is over."""
        self._reap()
        if not self._stops:
            self._starter.step()
        if self._draining and not any(slot.running() for slot in self._slots):
            self._stops = max(1, self._stops)
        if self._stops:
            if self._stops > 1 or time.monotonic() >= self._kill_at:
                self._cut |= any(slot.running() for slot in self._slots)
                self._signal_children(signal.SIGKILL)
            elif self._kill_at == float("inf"):
                self._end_trial()
                self._kill_at = time.monotonic() + self._conf.grace_seconds
                self._signal_children(signal.SIGTERM)
                log.info("worker %s is stopping; once more ends it now", self.options.name)
        elif self._watch and self._watch.changed():
            log.info("code has changed; restarting the children")
            self._starter.renew()
            for slot in self._slots:
                slot.start_at = 0.0  # the change may have mended what kept it from starting
            self._signal_children(signal.SIGTERM)
        elif self._reload_asked or self._trial or self._outdated:
            self._reload()
        for slot in self._slots:
            slot.enforce_limits(time.monotonic())
        now = time.monotonic()
        for slot in self._slots:
            over = self._stops or self._is_over(slot)
            if (
                slot.process is None
                and slot.start_at <= now
                and not (over or self._starter.loading)
            ):
                slot.start()
                self._next_renewal = now  # from now on its lease is renewed
        if not self._was_ready and all(slot.ready for slot in self._slots):
            self._was_ready = True
            self._tell(f"worker {self.options.name} is ready")
        self._ring()
        self._resize()
        self._keep_order()
        if any(slot.process for slot in self._slots):
            return False
        return bool(self._stops) or all(self._is_over(slot) for slot in self._slots)

    def _ring(self) -> None:
        """Wait for the messages of foreign senders on the open queues that are served now. A burst
        doesn't wait for messages."""
        served = () if self.options.burst else self._queues.served
        if served == self._rung:
            return
        self._rung = served
        for queue in self._ringers.keys() - {*served}:
            self._ringers.pop(queue).stop()
        for queue in served:
            if queue not in self._ringers and self._conf.queue(queue).open:
                self._ringers[queue] = upkeep.Ringer(queue)
                self._ringers[queue].start()

    def _resize(self) -> None:
        """Have as many children as are wanted now. Those that are too many finish what they run."""
        wanted = self._size.wanted
        if wanted == sum(not slot.retired for slot in self._slots):
            return
        for number in range(len(self._slots) + 1, wanted + 1):
            slot = Slot(number, self._queues.options, self._starter)
            slot.set_quiet(self._quiet)
            self._slots.append(slot)
            slot.use(self._queues.options)  # it may just have changed
        for slot in self._slots:
            slot.retired = slot.number > wanted
            if slot.retired:
                slot.signal(signal.SIGTERM)
        log.warning("worker %s has %d processes now", self.options.name, wanted)

    def _is_over(self, slot: Slot) -> bool:
        """Whether it starts no other child: when it is retired and, with ``burst``, unless the last
        one died at work."""
        if slot.retired:
            return True
        return self.options.burst and (slot.done or bool(slot.failed))

    def _pause(self) -> float:
        """Seconds until something is due that no signal announces."""
        now = time.monotonic()
        due = [self._next_renewal, self._kill_at]
        if not self._stops:
            due.append(self._starter.next_step())
        if not self._stops and not self._starter.loading:
            due += [slot.start_at for slot in self._slots if not slot.process]
        due += [slot.next_limit() for slot in self._slots]
        due.append(self._collect_at)
        due.append(now + (_LOOK if not self._outdated else 0.05))
        if self._watch:
            due.append(now + 1.0)
        return max(0.01, min(due) - now)

    # ------------------------------------------------------------------ children

    def _reap(self) -> None:
        for slot in self._slots:
            left = slot.reap()
            if left is not None:
                self._left.append(left)
                self._reporter.child_ended(left)
        if os.getpid() != 1:
            return
        # Process 1 of a container inherits all processes whose parents have ended.
        own = {slot.process.pid for slot in self._slots if slot.process}
        if self._trial:
            own.add(self._trial.pid)
        own |= self._starter.pids
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):  # there is none at all
            while (ended := os.waitid(os.P_ALL, 0, how)) and ended.si_pid not in own:
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _signal_children(self, signum: signal.Signals) -> None:
        for slot in self._slots:
            slot.signal(signum)

    def _reload(self) -> None:
        """Restart the children one at a time, once a fresh process has imported the new code. That
        may take long, so nothing waits for it."""
        if self._reload_asked and not self._outdated:
            self._reload_asked = False
            self._end_trial()  # its code is no longer the newest
            try:
                self._trial = Trial(self._starter.preload)
            except OSError as error:
                log.error("the new code can't be tried, the old goes on: %s", error)
                self._answer_reload(str(error))
        if self._trial:
            problem = self._trial.problem()
            if problem is None:
                return
            loaded, self._trial = self._trial, None
            if problem:
                log.error("the new code can't be imported; the old goes on:\n%s", problem)
                self._answer_reload(problem)
                return
            log.info("the new code can be imported; restarting the children one by one")
            self._starter.use(loaded)
            self._outdated = [(slot, slot.consumer) for slot in self._slots]
            self._outdated[0][0].signal(signal.SIGTERM)
        if not self._outdated:
            return
        slot, consumer = self._outdated[0]
        if slot.retired or (slot.ready and slot.consumer != consumer):
            self._outdated.pop(0)
            if self._outdated:
                self._outdated[0][0].signal(signal.SIGTERM)
            else:
                log.info("all children run the new code")
                self._answer_reload()

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.end()
            self._trial = None

    # ------------------------------------------------------------------ leases

    def _keep_order(self) -> None:
        """Give back what dead children held. Renew, reclaim, report and listen when that is due."""
        now = time.monotonic()
        self._reporter.state = self._state()
        renewing = now >= self._next_renewal
        listening = now >= min(self._listen_at, self._collect_at)
        news = bool(self._left) or self._reporter.has_news(now)
        if not renewing and (self._patience.missing or not (news or listening)):
            return
        first = [self._queues.home]
        try:
            for left in list(self._left):
                return_deliveries = functools.partial(
                    upkeep.return_deliveries,
                    consumer=left.consumer,
                    blamed=left.blamed,
                    killed=left.killed,
                )
                where = broker.get().attended(self._shards())
                if self._each_queue("give back what a child held", return_deliveries, where):
                    self._left.remove(left)
            if renewing:
                self._renew()
            if now >= self._doubt_at:
                self._doubt()
            self._listen_at = now + _LISTEN
            self._each_queue("take commands", self._listen, first)
            if renewing or self._reporter.has_news(now):
                self._each_queue("say what runs", self._reporter.report, first)
            if self._away:
                raise self._away
        except BrokerUnavailable as error:
            self._next_renewal = time.monotonic() + self._patience.away(error)
            self._away = None
        else:
            self._patience.back()

    def _renew(self) -> None:
        lease = self._conf.lease_seconds
        alive = [slot.consumer for slot in self._slots if slot.process]
        queues, shards = self._queues.served, self._shards()
        self._reporter.shards = shards
        # With many queues, the children have leases on the first, and where they hold something: a
        # claim gives them one. Then only queues with consumers need any care.
        always = set(queues if len(queues) <= FEW_QUEUES else [self._queues.home])
        others = [shard for shard in shards if shard not in always]
        attended = set(broker.get().attended(others)) if others else set()

        def renew(queues: Sequence[str]) -> None:
            for queue in queues if alive else ():
                if queue in always:
                    broker.get().renew(queue, alive, lease)
                else:
                    broker.get().retain(queue, alive, lease)
            upkeep.reclaim_expired(queues, alive=alive)
            upkeep.note_lost([queue for queue in queues if queue == queue_of(queue)])

        where = [shard for shard in shards if shard in always or shard in attended]
        self._each_queue("renew leases", renew, where)
        self._each_queue("look for shards without use", self._forget_unused)
        # So that operators find them.
        undeclared = [queue for queue in queues if queue not in self._conf.queues]
        self._each_queue("be seen", broker.get().remember_queues, undeclared)
        if any(slot.ready for slot in self._slots):
            self._health.touch()
        # Two renewals may fail before the lease ends.
        self._next_renewal = time.monotonic() + lease / 3

    def _doubt(self) -> None:
        """If the broker may have lost messages, put back what the children hold, and send again
        what is missing. A burst is over when its queues are empty, and waits for nothing."""
        queues = comparing.doubtful(self._queues.attended)
        if queues:
            for slot in self._slots:
                slot.note_loss()
            if not self.options.burst:
                self._comparison.start(queues)
        self._doubt_at = time.monotonic() + comparing.look_seconds()

    def _shards(self) -> list[str]:
        """The shards of this worker's queues, and of those that it has given up."""
        found = broker.get().all_shards(self._queues.attended)
        return list(itertools.chain.from_iterable(found.values()))

    def _forget_unused(self, queues: Sequence[str]) -> None:
        for queue in queues:
            if broker.get().forget_unused(queue):
                log.warning("queue %s has fewer shards now: the others are empty", queue)

    def _each_queue(
        self,
        what: str,
        act: Callable[[Sequence[str]], object],
        queues: Sequence[str] | None = None,
    ) -> bool:
        """Do something with each queue, by default with all; an error of one doesn't stop the
        others. Whether there was none.

        Raises `BrokerUnavailable` when the broker is away. If a part of it is, that is noted: on
        the other nodes of a Cluster, leases have to be renewed all the same.
        """
        failed = False
        for queue in self._queues.attended if queues is None else queues:
            try:
                # A node that has not answered isn't waited for again, queue by queue.
                with broker.get().briefly(insist=False) if self._away else contextlib.nullcontext():
                    act([queue])
            except Exception as error:
                failed = True
                if isinstance(error, BrokerUnavailable) and not isinstance(error, QueueRefused):
                    if not error.partly:
                        raise
                    self._away = error
                    continue
                if self._refused.get((what, queue)) is not type(error):
                    self._refused[what, queue] = type(error)
                    log.error(
                        "can't %s on queue %s, and will keep trying: %s",
                        what,
                        shown(queue),
                        error,
                        exc_info=None if isinstance(error, QueueRefused) else error,
                    )
            else:
                if self._refused.pop((what, queue), None):
                    log.warning("can %s on queue %s again", what, shown(queue))
        return not failed

    # ------------------------------------------------------------------ commands

    def _state(self) -> str:
        if self._stops:
            return "stopping"
        if self._draining:
            return "draining"
        if self._reload_asked or self._trial or self._outdated:
            return "restarting"
        return "quiet" if self._quiet else "running"

    def _listen(self, queues: Sequence[str]) -> None:
        """Do what operators ask for. ``queues``: the one that has this worker's reports."""
        if time.monotonic() >= self._collect_at:
            self._collect_stacks()
        for queue in queues:
            for text in broker.get().take_commands(queue, self.options.name):
                command = Command.loads(text)
                if command is None:
                    log.error("a command can't be read, and is dropped: %.200r", text)
                else:
                    self._obey(command)
        self._reporter.state = self._state()

    def _obey(self, command: Command) -> None:
        who = command.by or "somebody"
        if command.act is Act.TASKS:
            self._answer_tasks(command.id)
            return
        asked = f"{command.act} {command.queue}".rstrip()
        log.warning("worker %s is to %s, asked by %s", self.options.name, asked, who)
        if self._stops and command.act is not Act.STACK:
            self._answer(command.id, Answer(False, "It is stopping."))
            return
        match command.act:
            case Act.QUIET:
                self._set_quiet(True)
            case Act.RESUME:
                self._draining = False
                self._set_quiet(False)
            case Act.DRAIN:
                self._why = f"drained, asked by {who}"
                self._draining = True
                self._set_quiet(True)
            case Act.STOP:
                self._why = f"asked by {who}"
                self._stops = 1
            case Act.ADD_QUEUE | Act.CANCEL_QUEUE:
                self._answer(command.id, self._change_queues(command))
                return
            case Act.RESTART:
                self._reload_asked, self._reload_command = True, command.id
                return
            case Act.STACK:
                self._stack_command = command.id
                self._collect_at = time.monotonic() + _DUMPING
                for slot in self._slots:
                    slot.ask_for_stacks()
                return
        self._answer(command.id, Answer(True))

    def _change_queues(self, command: Command) -> Answer:
        take_on = command.act is Act.ADD_QUEUE
        change = self._queues.take_on if take_on else self._queues.give_up
        try:
            changed = change(command.queue)
        except (UnknownQueue, ConfigurationError) as error:
            return Answer(False, str(error))
        if changed:
            return Answer(True)
        claims = "claims from it already" if take_on else "doesn't claim from it"
        return Answer(False, f"Queue {command.queue!r}: worker {self.options.name!r} {claims}.")

    def _answer_tasks(self, command_id: str) -> None:
        """Tell which tasks the child knows that was started last."""
        known = [(slot.started, names) for slot in self._slots if (names := slot.tasks())]
        if known:
            self._answer(command_id, Answer(True, "\n".join(max(known)[1])))
        else:
            self._answer(command_id, Answer(False, "None of its processes is ready."))

    def _set_quiet(self, quiet: bool) -> None:
        self._quiet = quiet
        for slot in self._slots:
            slot.set_quiet(quiet)

    def _collect_stacks(self) -> None:
        self._collect_at = float("inf")
        fd = scratch()
        try:
            faulthandler.dump_traceback(fd, all_threads=True)
            own = os.pread(fd, 100_000, 0).decode(errors="replace")
        finally:
            os.close(fd)
        stacks = [(self.options.name, own)]
        stacks += [(slot.consumer, slot.take_stacks()) for slot in self._slots if slot.process]
        self._answer(self._stack_command, Answer(True, "", tuple(stacks)))

    def _answer_reload(self, problem: str = "") -> None:
        """Tell whoever asked for the reload by a command how it went."""
        if self._reload_command:
            self._answer(self._reload_command, Answer(not problem, problem))
            self._reload_command = ""

    def _answer(self, command_id: str, answer: Answer) -> None:
        try:
            broker.get().answer(self._queues.home, command_id, answer.dumps(), ANSWER_KEPT)
        except BrokerUnavailable as error:
            log.warning("the answer to an operator is lost, for the broker is away: %s", error)

    # ------------------------------------------------------------------ signals

    def _install_signals(self) -> int:
        """Handle signals. A file descriptor that becomes readable at each of them."""

        def on_stop(signum: int, frame: FrameType | None) -> None:
            self._stops += 1

        def on_reload(signum: int, frame: FrameType | None) -> None:
            self._reload_asked = True

        def on_quit(signum: int, frame: FrameType | None) -> None:
            """Print what every thread is doing, of this process and of each child."""
            faulthandler.dump_traceback(all_threads=True)
            self._signal_children(signal.SIGQUIT)

        def on_child(signum: int, frame: FrameType | None) -> None:
            """Only wakes the loop, which reaps the child."""

        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        signal.signal(signal.SIGHUP, on_reload)
        signal.signal(signal.SIGQUIT, on_quit)
        signal.signal(signal.SIGCHLD, on_child)
        # The parent may have blocked them, which is inherited.
        handled = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        return read
