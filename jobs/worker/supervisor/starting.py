"""How children are started: forked by the fork server, or as fresh interpreters where there is
none. The fork server's own side is `jobs.worker.forkserver`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from jobs.timing.clock import growing_pause
from jobs.worker import forkserver, leftovers
from jobs.worker.board import scratch
from jobs.worker.prctl import SET_CHILD_SUBREAPER, prctl

log = logging.getLogger("jobs.worker")

#: Tells a fresh interpreter where to find code. PYTHONPATH would be inherited by all that tasks
#: start.
_START = "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "

#: Seconds in which the fork server must answer. It takes milliseconds.
_ANSWERS = 5.0

#: A fork server that dies within so many seconds of its start is replaced after a pause.
_SOON = 60.0
_LONGEST_PAUSE = 60.0


class Process(Protocol):
    """A process of ours, whichever way it was started."""

    @property
    def pid(self) -> int: ...
    def wait(self) -> int: ...
    def send_signal(self, signum: signal.Signals, /) -> None: ...


class Forked:
    """A process of ours that was started by a fork."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @property
    def pid(self) -> int:
        return self._pid

    def wait(self) -> int:
        """The exit status as `subprocess` has it; 0 if somebody else has waited for it."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:
            return 0

    def send_signal(self, signum: signal.Signals, /) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signum)


def ended(process: Process) -> bool:
    """Whether a process of ours has ended; it can still be waited for."""
    try:
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, how) is not None
    except ChildProcessError:
        return True  # somebody else has waited for it


def how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def python(code: str) -> list[str]:
    """The command that runs this code in a fresh interpreter with our flags and import path."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        here = [str(Path.cwd())]
    except OSError:  # the folder was deleted
        here = []
    path = [place for one in sys.path for place in ([one] if one else here)]
    return [sys.executable, *flags, "-c", _START + code, os.pathsep.join(path)]


def can_fork() -> bool:
    """Whether this system can give the supervisor children that another process has forked."""
    if sys.platform != "linux":
        return False
    try:
        _children()
        with _adopting():
            return True
    except OSError:
        return False


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _children() -> set[int]:
    """The processes below this one. Of its threads, the first has all that it has adopted."""
    me = os.getpid()
    return set(map(int, Path(f"/proc/{me}/task/{me}/children").read_text("ascii").split()))


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Inside this context, processes below this one become its children when their parents end.
    Only for a moment: processes that tasks leave behind aren't the supervisor's affair."""
    prctl(SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(SET_CHILD_SUBREAPER, 0)


class Leftover(Exception):
    """The fork server has something open or running, and can't fork."""


class ForkServer:
    """A fork server that has loaded the project, as the supervisor holds it."""

    def __init__(self, process: Process, link: socket.socket) -> None:
        self.process = process
        self._link = link
        link.settimeout(_ANSWERS)
        self.since = time.monotonic()

    def fork(self, consumer: str, tie: int, board: int, options: str) -> Forked:
        """Fork a child. Raises `OSError`, and `Leftover`."""
        request = json.dumps({"consumer": consumer, "options": options}).encode()
        if len(request) > forkserver.LONGEST:
            raise OSError(f"the worker's options have {len(request)} bytes")
        with _adopting():
            try:
                socket.send_fds(self._link, [request], [tie, board])
                said = self._link.recv(4096)
            except TimeoutError:
                # It would answer the next request with this child.
                self.process.send_signal(signal.SIGKILL)
                raise OSError(f"the fork server hasn't answered for {_ANSWERS:g} s") from None
        if not said:
            raise OSError("the fork server has ended")
        answer = json.loads(said)
        if "leftover" in answer:
            raise Leftover(answer["leftover"])
        if "error" in answer:
            raise OSError(answer["error"])
        return Forked(answer["pid"])

    def end(self) -> int:
        """End it, if it hasn't ended; its exit status. Its children go on."""
        self._link.close()
        if not ended(self.process):
            self.process.send_signal(signal.SIGKILL)
        return self.process.wait()


class Trial:
    """A fresh process that loads the project and its tasks. If it is to, it then is a fork server.

    What it prints meanwhile is kept, to say why it failed.
    """

    #: Seconds that it may take.
    longest = 300.0

    def __init__(self, preload: bool) -> None:
        self.server: ForkServer | None = None
        #: Why it isn't a fork server, though the project can be loaded.
        self.leftover = ""
        self._preload = preload
        self._link: socket.socket | None = None
        self._ends = time.monotonic() + self.longest
        self._said = scratch()
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": self._said,
            "stderr": subprocess.STDOUT,
            "process_group": 0,
        }
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._said)
            if not preload:
                self._process = subprocess.Popen(python("import django; django.setup()"), **options)
            else:
                self._link, other = _pair()
                undo.callback(self._link.close)
                with other:
                    fds = [other.fileno(), os.dup(1), os.dup(2)]
                    try:
                        self._process = subprocess.Popen(
                            [
                                *python("from jobs.worker.forkserver import main; main()"),
                                *map(str, fds),
                            ],
                            pass_fds=fds,
                            **options,
                        )
                    finally:
                        os.close(fds[1])
                        os.close(fds[2])
                self._link.setblocking(False)
            undo.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """What becomes readable when `problem` has news; -1: the end of the process tells."""
        return self._link.fileno() if self._link else -1

    def problem(self) -> str | None:
        """What went wrong; "": nothing; None: it isn't over yet."""
        if self._link and (answer := self._answer()):
            if "ready" in answer:
                os.close(self._said)
                self.server = ForkServer(self._process, self._link)
            else:
                self.leftover = answer["leftover"]
                self.end()
            return ""
        code = self._process.poll()
        if code is None and time.monotonic() < self._ends:
            return None
        printed = os.pread(self._said, 20_000, max(0, os.fstat(self._said).st_size - 20_000))
        self.end()
        if code is None:
            return f"It takes longer than {self.longest:g} s."
        if code == 0 and not self._preload:
            return ""
        return printed.decode(errors="replace") or f"It ended: {how(code)}."

    def _answer(self) -> dict[str, Any]:
        """What it has said; empty if nothing."""
        assert self._link
        try:
            said = self._link.recv(4096)
        except OSError:
            return {}
        if said:
            answer: dict[str, Any] = json.loads(said)
            return answer
        self._link.close()
        self._link = None  # it ends; its end will tell
        return {}

    def end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._link:
            self._link.close()
        os.close(self._said)


class Starter:
    """Starts children. Made by `runworker` before it opens anything, since it forks the first fork
    server from this process."""

    def __init__(self, preload: bool = False) -> None:
        #: Whether there is to be a fork server.
        self.preload = preload and can_fork()
        #: Loads the project to be the fork server; until then no child is started.
        self.loading: Trial | None = None
        self._server: ForkServer | None = None
        #: What tasks had left behind, and came to this process at the moment when a child did.
        self._adopted: set[int] = set()
        self._failures = 0
        #: When to start another fork server, since the last one died (monotonic).
        self._again_at = float("inf")
        if not self.preload:
            return
        try:
            if not leftovers.noted():
                # Not started from the command line: who knows what this process has done before.
                self.loading = Trial(preload=True)
                return
            forkserver.warm()
            if left := leftovers.find():
                self._do_without(left)
            else:
                self._server = _fork_server()
        except OSError as error:
            log.error("the fork server can't be started: %s", error)

    @property
    def pids(self) -> set[int]:
        """Processes of ours that are no children."""
        found = {self._server.process.pid} if self._server else set()
        return found | ({self.loading.pid} if self.loading else set())

    def start(self, consumer: str, tie: int, board: int, options: str) -> Process:
        """Start a child. Raises `OSError` if this machine lacks the means."""
        if self._server:
            before = _children()
            try:
                child = self._server.fork(consumer, tie, board, options)
                gained = _children() - before
                if child.pid not in gained:
                    raise Leftover("the system doesn't give the supervisor its children")
                self._adopted |= gained - {child.pid}
                return child
            except Leftover as error:
                self._do_without(str(error))
        return subprocess.Popen(
            [
                *python("from jobs.worker.__main__ import main; main()"),
                *(consumer, str(tie), str(board), options),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=[tie, board],
            # Ctrl-C is for the supervisor alone. What tasks start is in the child's group, and ends
            # with the child.
            process_group=0,
        )

    def step(self) -> None:
        """Do what is due: replace a fork server that has died, and take one that has loaded."""
        self._adopted = {pid for pid in self._adopted if not _reaped(pid)}
        if self._server and ended(self._server.process):
            lived = time.monotonic() - self._server.since
            log.warning("the fork server ended: %s; another one is started", how(self._end()))
            self._failures = self._failures + 1 if lived < _SOON else 0
            pause = growing_pause(self._failures - 1, 0.5, _LONGEST_PAUSE) if self._failures else 0
            self._again_at = time.monotonic() + pause
        if time.monotonic() >= self._again_at:
            self.renew()
        if self.loading:
            problem = self.loading.problem()
            if problem is None:
                return
            loaded, self.loading = self.loading, None
            if problem:
                text = "the fork server can't load the project; fresh interpreters try it:\n%s"
                log.error(text, problem)
            else:
                self.use(loaded)

    def next_step(self) -> float:
        """When a fork server that has died is to be replaced (monotonic)."""
        return self._again_at

    def renew(self) -> None:
        """Start another fork server, with the code of now, and end the one before."""
        self._again_at = float("inf")
        if not self.preload:
            return
        self.end()
        try:
            self.loading = Trial(preload=True)
        except OSError as error:
            log.error("the fork server can't be started: %s", error)

    def use(self, trial: Trial) -> None:
        """From now on start children with the code that this one has loaded."""
        if not self.preload:
            return
        self.end()
        self._server = trial.server
        if trial.leftover:
            self._do_without(trial.leftover)

    def end(self) -> None:
        if self.loading:
            self.loading.end()
            self.loading = None
        if self._server:
            self._end()

    def _end(self) -> int:
        assert self._server
        server, self._server = self._server, None
        return server.end()

    def _do_without(self, leftover: str) -> None:
        """Start fresh interpreters until the code changes."""
        self.end()
        log.warning(
            "children start as fresh interpreters, which takes more time and memory than a fork: "
            "once the project is loaded, %s. Begin it in a receiver of jobs.signals.worker_ready, "
            "or set JOBS['PRELOAD'] = False",
            leftover,
        )


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _fork_server() -> ForkServer:
    """Fork the fork server from this process, which has loaded the project and opened nothing."""
    ours, theirs = _pair()
    with theirs:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            forkserver.serve(theirs)
    return ForkServer(Forked(pid), ours)
