"""A recorder that can't keep up: the worker claims nothing meanwhile, and goes on as soon as there
is room again."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jobs.models import TaskResult
from jobs.states import State
from jobs.worker import child
from jobs.worker.record import recorder
from jobs.worker.record.recorder import Recorder
from jobs.worker.run.runners import SyncRunners
from tests.services import wait_for
from tests.tasks import add
from tests.workers import on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

COUNT = 400


class Watched(threading.Event):
    """The event for which the consumer waits. Its waits last until somebody ends them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = False
        self.ended_by_nobody = 0
        #: The names of the threads that have set it.
        self.set_by: list[str] = []

    def set(self) -> None:
        self.set_by.append(threading.current_thread().name)
        super().set()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting = True
        ended = super().wait(20)
        self.waiting = False
        self.ended_by_nobody += not ended
        return ended


def test_the_recorder_wakes_the_consumer_when_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FULL", 10)
    monkeypatch.setattr(recorder, "_BACKLOG_MOST", 40)
    freed, runners, woken = Watched(), list[SyncRunners](), list[bool]()

    class Observed(Recorder):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.freed = freed

        def step(self) -> None:
            was_full, before = self.full, len(freed.set_by)
            if was_full:
                wait_for(self._others_wait, what="the consumer to wait for the recorder")
            super().step()
            if was_full and not self.full:
                woken.append("jobs-recorder" in freed.set_by[before:])

        def _others_wait(self) -> bool:
            (sync,) = runners
            idle = not (sync.unstarted or sync.busy)
            return idle and freed.waiting and not freed.is_set()

    def make(*args: Any, **options: Any) -> SyncRunners:
        runners.append(SyncRunners(*args, **options))
        return runners[0]

    monkeypatch.setattr(child, "Recorder", Observed)
    monkeypatch.setattr(child, "SyncRunners", make)
    add.enqueue_many([(n, 1) for n in range(COUNT)])
    work()
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == COUNT
    assert on_redis() == (0, 0)
    assert woken, "the recorder was never full"
    assert all(woken)
    assert freed.ended_by_nobody == 0
