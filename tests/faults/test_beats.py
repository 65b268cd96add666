"""Three beats on schedules of one second, each killed at random: no due time missed, none doubled.

BEATS_SECONDS=60 python -m tests.with_postgres python -m pytest tests/faults/test_beats.py
"""

from __future__ import annotations

import datetime as dt
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from jobs import broker, message
from jobs.beat import run_id
from jobs.models import Schedule, ScheduleRun, TaskResult
from tests.project import Process, Project

#: How long they are killed, in seconds.
LENGTH = float(os.environ.get("BEATS_SECONDS", "6"))
BEATS = 3
SECOND = dt.timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _no_other_schedules(transactional_db: None) -> None:
    """The demonstration site brings some of its own."""
    Schedule.objects.all().delete()


def kill_for(seconds: float, beats: list[Process], project: Project) -> int:
    """Kill one after the other, and start another in its place; how many."""
    dice, over, kills = random.Random(), threading.Event(), 0
    timer = threading.Timer(seconds, over.set)
    timer.start()
    while not over.wait(dice.uniform(0.1, 1.2)):
        place = dice.randrange(len(beats))
        beats[place].kill_group()
        beats[place] = project.manage("runbeat")
        kills += 1
    timer.join()
    return kills


def due_times(schedule: Schedule, until: dt.datetime) -> Iterator[dt.datetime]:
    due = schedule.created_at + SECOND
    while due <= until:
        yield due
        due += SECOND


@pytest.mark.timeout(120 + 2 * LENGTH)
def test_no_due_time_is_missed_or_doubled(project: Project) -> None:
    schedules = [
        Schedule.objects.create(name=f"s{n}", task="tests.no_such_task", interval=SECOND)
        for n in range(5)
    ]
    beats = [project.manage("runbeat") for _ in range(BEATS)]
    project.wait_for(lambda: TaskResult.objects.count() >= 5, what="the first runs")
    kills = kill_for(LENGTH, beats, project)
    assert kills >= 2
    until = dt.datetime.now(dt.UTC)
    project.wait_for(
        lambda: not Schedule.objects.filter(next_run_at__lte=until).exists(), what="the last runs"
    )
    # What a beat had no time to publish, or to mark as published, is for the relay.
    project.wait_for(
        lambda: not TaskResult.objects.filter(published_at=None, eta=None).exists(), 30
    )
    for process in beats:
        process.stop()

    for schedule in schedules:
        schedule.refresh_from_db()
        assert schedule.skipped == 0
        assert schedule.last_run_at is not None
        expected = [run_id(schedule.pk, due) for due in due_times(schedule, schedule.last_run_at)]
        runs = ScheduleRun.objects.filter(schedule=schedule).order_by("due_at")
        assert list(runs.values_list("result", flat=True)) == expected
        assert schedule.runs == len(expected)
    sent = [message.decode(raw, "default") for raw in broker.get().scan("default")]
    assert {one.id for one in sent} == set(TaskResult.objects.values_list("id", flat=True))
    assert TaskResult.objects.count() == sum(schedule.runs for schedule in schedules)
    # The relay publishes again what it can't be sure of, and says so, for the worker to ask.
    first = Counter(one.id for one in sent if not one.marks.redelivered)
    assert max(first.values()) == 1
