"""Sends the notes of running tasks, their progress and positions, to the broker.

Taking a note costs some microseconds and never waits: a thread sends the newest note of each task a
few times a second, all in one round trip. A thousand notes a second cost no more than five, and
tasks go on while the broker is away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from jobs import broker, conf
from jobs.broker.base import About, CeleryResult, Note
from jobs.exceptions import BrokerUnavailable, QueueRefused

log = logging.getLogger("jobs.notes")

#: Seconds between two sends.
EVERY = 0.2
#: Seconds between two attempts while the broker is away.
_AGAIN = 1.0
#: Seconds for which a note is kept: a task may note nothing for long, and a killed one never
#: deletes its notes.
KEPT = {About.PROGRESS: 86_400.0, About.POSITION: 604_800.0}

#: Queue, task id, and what the note is about.
Key = tuple[str, str, About]
#: Makes the note when it is sent; None deletes it.
Value = Callable[[], bytes] | None
Noted = tuple[Key, Value]


class Thinned:
    """The newest value of each key, handed out at most once in so many seconds."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._next = 0.0
        self._newest: dict[Key, Value] = {}

    def put(self, key: Key, value: Value) -> None:
        self._newest[key] = value

    def put_back(self, taken: Sequence[Noted]) -> None:
        """Keep values that could not be sent, unless there are newer ones."""
        for key, value in taken:
            self._newest.setdefault(key, value)

    def pause(self, now: float) -> float:
        """Seconds until the next may be taken."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> list[Noted]:
        # Other threads may put values meanwhile, but only this one takes any.
        self._next = now + self._every
        return [(key, self._newest.pop(key)) for key in list(self._newest)]

    def __bool__(self) -> bool:
        return bool(self._newest)


class Sender:
    """The thread that sends, from the first note until `stop`.

    While the thread runs, `put` takes no lock but that of a `SimpleQueue`: a time limit can raise
    its exception at any instruction of the task, and would leave another lock locked.
    """

    def __init__(self) -> None:
        self.start_afresh()
        os.register_at_fork(after_in_child=self.start_afresh)

    def start_afresh(self) -> None:
        """Forget the thread and all notes, also in a forked process: the thread stays behind."""
        self._notes = Thinned()
        #: True: there are notes; a queue: send, and put there whether it worked; False: end.
        self._wake: queue.SimpleQueue[queue.SimpleQueue[bool] | bool] = queue.SimpleQueue()
        #: Runs from the first note on.
        self.thread: threading.Thread | None = None
        self._starting = threading.Lock()
        #: Sends that failed in a row.
        self._failed = 0

    def put(self, key: Key, value: Value) -> None:
        self._notes.put(key, value)
        if self._wake.empty():
            self._wake.put(True)
        if self.thread is None:
            with self._starting:
                if self.thread is None:
                    self.thread = threading.Thread(target=self._run, name="jobs-notes", daemon=True)
                    self.thread.start()

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until everything is sent; False if that fails or takes more seconds."""
        if self.thread is None:
            return True
        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._wake.put(answer)
        try:
            return answer.get(timeout=timeout)
        except queue.Empty:
            return False

    def stop(self) -> None:
        """Try once to send what is left, and end the thread."""
        if self.thread is not None:
            self._wake.put(False)
            self.thread.join()
            self.thread, self._notes = None, Thinned()

    def _run(self) -> None:
        asked: queue.SimpleQueue[bool] | bool = True
        while asked is not False:
            asked = self._wake.get()
            if asked is True:
                time.sleep(self._notes.pause(time.monotonic()))
            sent = self._send()
            if isinstance(asked, queue.SimpleQueue):
                asked.put(sent)
            if not sent and asked is not False:
                time.sleep(_AGAIN)
                self._wake.put(True)
        broker.get().close()

    def _send(self) -> bool:
        taken = self._notes.take(time.monotonic())
        try:
            _send(taken)
        except BrokerUnavailable as error:
            self._notes.put_back(taken)
            self._failed += 1
            if self._failed == 1:
                log.warning("notes of running tasks can't be sent, the tasks go on: %s", error)
            return False
        except Exception:
            log.exception("notes of running tasks are dropped")
        if self._failed:
            log.warning("notes of running tasks are sent again, after %d tries", self._failed)
            self._failed = 0
        return True


def _send(taken: Sequence[Noted]) -> None:
    kept: dict[tuple[str, About], list[Note]] = {}
    gone: dict[tuple[str, About], list[str]] = {}
    states: list[CeleryResult] = []
    for (name, task_id, about), value in taken:
        if about is About.CELERY_STATE:
            states += [CeleryResult(task_id, value().decode(), ended=False)] if value else []
        elif value is None:
            gone.setdefault((name, about), []).append(task_id)
        else:
            kept.setdefault((name, about), []).append(Note(task_id, about, value()))
    for (name, about), notes in kept.items():
        broker.get().note(name, notes, KEPT[about])
    for (name, about), task_ids in gone.items():
        broker.get().forget_notes(name, task_ids, about)
    if states:
        with contextlib.suppress(QueueRefused):  # the recorder will be refused, too, and says so
            broker.get().store_celery_results(states, conf.get().celery_result_expires)


#: This process's.
sender = Sender()


def forget(queue: str, task_id: str, *, failed: bool) -> None:
    """Delete the notes of a call whose end is recorded. A failed call keeps its position, in case
    somebody runs it again."""
    sender.put((queue, task_id, About.PROGRESS), None)
    if not failed:
        sender.put((queue, task_id, About.POSITION), None)
