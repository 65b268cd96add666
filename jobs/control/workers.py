"""What an operator wants of a worker, and how workers ended.

A command is left on the broker, on the queue that has the worker's reports. The worker's supervisor
takes it within about a second, and leaves its answer there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import logging
import secrets
from typing import Any, NamedTuple

from jobs import broker, conf, registry
from jobs.exceptions import UnknownWorker, shown
from jobs.timing import clock

log = logging.getLogger("jobs.control")

#: Seconds within which a worker must take a command: nobody expects it to act later.
TAKEN_WITHIN = 60.0

#: Seconds for which answers are kept.
ANSWER_KEPT = 3600.0

#: The children of a worker with more queues have leases on the first of them, and where they hold
#: messages. With fewer they have one on each, which operators see from any version.
FEW_QUEUES = 10

#: Most characters of an answer's text, and of the stacks of one process.
_LONGEST = 200_000


def read(text: bytes) -> Any:
    """JSON that anybody can have written who reaches the server: another version of a worker, or
    somebody else. Raises `ValueError`."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if b"\\ud" in text.lower():
        # Half of a surrogate pair can neither be asked for nor be shown.
        whole = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
        found = json.loads(whole)
    return found


class Act(enum.StrEnum):
    #: Claim nothing more, finish what runs, and stay.
    QUIET = "quiet"
    #: Claim again.
    RESUME = "resume"
    #: Claim nothing more, and stop when nothing runs any more, however long that takes.
    DRAIN = "drain"
    #: Stop like after SIGTERM: what runs has JOBS["GRACE_SECONDS"] to finish.
    STOP = "stop"
    #: Restart the children one by one with new code, like after SIGHUP.
    RESTART = "restart"
    #: Claim from a further queue, until it is restarted.
    ADD_QUEUE = "add-queue"
    #: Claim no longer from one of its queues, until it is restarted.
    CANCEL_QUEUE = "cancel-queue"
    #: Tell what all threads are doing.
    STACK = "stack"
    #: Tell which tasks it knows: their names, a line each.
    TASKS = "tasks"


#: What is asked about one queue.
ABOUT_QUEUE = (Act.ADD_QUEUE, Act.CANCEL_QUEUE)


class Command(NamedTuple):
    id: str
    act: Act
    #: Who asked, for the worker's log.
    by: str
    #: Of the acts `ABOUT_QUEUE`.
    queue: str = ""

    def dumps(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def loads(cls, text: bytes) -> Command | None:
        """None for one that another version has sent and that can't be read."""
        try:
            said = read(text)
            queue = str(said.get("queue", ""))
            return cls(str(said["id"]), Act(said["act"]), str(said["by"]), queue)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Answer(NamedTuple):
    #: Whether the worker does what was asked.
    done: bool
    #: More about it, such as why not; may be empty.
    text: str = ""
    #: Process → the stacks of its threads.
    stacks: tuple[tuple[str, str], ...] = ()

    def dumps(self) -> bytes:
        stacks = [(name[:_LONGEST], text[:_LONGEST]) for name, text in self.stacks]
        return json.dumps([self.done, self.text[:_LONGEST], stacks]).encode()


class How(enum.StrEnum):
    """How a worker or a child has ended."""

    STOPPED = "stopped"
    #: By its supervisor: at a time limit, for a revocation, or since it took too long to stop.
    KILLED = "killed"
    #: By itself.
    CRASHED = "crashed"
    #: Nobody knows: its lease has ended.
    LOST = "lost"


class Gone(NamedTuple):
    """A worker or a child that has ended."""

    #: The worker's name, or the child's.
    name: str
    how: How
    why: str
    at: dt.datetime
    host: str = ""
    pid: int = 0

    def dumps(self) -> bytes:
        values = {**self._asdict(), "at": self.at.timestamp()}
        return json.dumps(values).encode()

    @classmethod
    def loads(cls, text: bytes) -> Gone | None:
        """None for one that can't be read."""
        try:
            said: dict[str, Any] = read(text)
            at = dt.datetime.fromtimestamp(float(said["at"]), dt.UTC)
            host, pid = str(said.get("host", "")), int(said.get("pid", 0))
            return cls(str(said["name"]), How(said["how"]), str(said["why"]), at, host, pid)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
            return None


def command(worker: str, act: Act, *, by: str = "", queue: str = "") -> tuple[str, str]:
    """Ask something of a worker. The queue and the id under which `answered` finds its answer.

    ``queue``: for the acts `ABOUT_QUEUE`. Raises `UnknownWorker` when no worker of this name
    reports, for these acts `UnknownQueue`, and `ValueError` for what is no act: a worker would drop
    it without an answer.
    """
    act = Act(act)
    if act in ABOUT_QUEUE:
        registry.queue(queue)
    where = queue_of(worker)
    command_id = ask(where, worker, act, by=by, queue=queue)
    asked = f"{act} {queue}".rstrip()
    log.warning("worker %s is to %s, asked by %s", worker, asked, by or "somebody")
    return where, command_id


def ask(where: str, worker: str, act: Act, *, by: str = "", queue: str = "") -> str:
    """Ask something of a worker that reports on the queue ``where``. The id for `answered`.
    ``queue``: as of `command`."""
    # Its time comes first: see `is_late`.
    asked = Command(f"{int(clock.now().timestamp()):08x}{secrets.token_hex(4)}", act, by, queue)
    broker.get().command(where, worker, asked.dumps(), TAKEN_WITHIN)
    return asked.id


def is_late(command_id: str, now: dt.datetime) -> bool:
    """Whether a worker that hasn't taken this command won't take it any more."""
    return now.timestamp() > int(command_id[:8], 16) + TAKEN_WITHIN


def answered(queue: str, command_id: str) -> Answer | None:
    """What the worker answers; None: nothing yet, or it was too long ago."""
    found = broker.get().answered(queue, command_id)
    if found is None:
        return None
    try:
        done, text, stacks = read(found)
        return Answer(bool(done), str(text), tuple((str(who), str(s)) for who, s in stacks))
    except (ValueError, TypeError):
        return Answer(done=True)  # of another version


def queue_of(worker: str) -> str:
    """The queue on which a worker reports. Raises `UnknownWorker`."""
    names: list[str] = []
    for queue in conf.get().queues:
        reporting = broker.get().reports(queue)
        if worker in list(reporting):
            return queue
        names += reporting
    near = conf.nearest(worker, names)
    raise UnknownWorker(f"No worker {shown(worker)} reports on the queues of JOBS['QUEUES'].{near}")


def gone() -> list[Gone]:
    """The workers and children that have ended lately, the last first."""
    said = broker.get().gone_of(list(conf.get().queues))
    found = [Gone.loads(text) for texts in said for text in texts]
    return sorted((one for one in found if one), key=lambda one: one.at, reverse=True)


def note_lost(queue: str, worker: str, report: bytes) -> bool:
    """Replace the report of a worker that is gone by a note that it was lost. False: somebody else
    has done that, or it came back."""
    host, pid = "", 0
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):  # of another version
        said = read(report)
        host, pid = str(said["host"]), int(said["pid"])
    why = "Its lease has ended: it was killed, or can't reach Redis."
    lost = Gone(worker, How.LOST, why, clock.now(), host, pid)
    return broker.get().note_gone(queue, lost.dumps(), worker)
