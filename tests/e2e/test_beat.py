"""Real `runbeat` processes."""

from __future__ import annotations

import datetime as dt
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from jobs import broker, message
from jobs.beat import run_id
from jobs.models import Schedule, ScheduleRun, TaskResult
from tests.project import Project
from tests.workers import own_jobs

SECOND = dt.timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _no_other_schedules(transactional_db: None) -> None:
    """The demonstration site brings some of its own."""
    Schedule.objects.all().delete()


def every_second(name: str = "tick") -> Schedule:
    return Schedule.objects.create(name=name, task="tests.no_such_task", interval=SECOND)


def sent() -> int:
    return TaskResult.objects.count()


def runs(schedule: Schedule) -> list[tuple[dt.datetime, dt.datetime]]:
    """Due time and moment of sending of each row, by due time; ids must be those of the due times.

    Ids hold milliseconds, the schedule's grid tells the rest.
    """
    assert schedule.last_run_at is not None
    found = []
    for row in TaskResult.objects.filter(task=schedule.task).order_by("id"):
        stamp = message.id_time(row.id)
        assert stamp is not None
        second = dt.datetime.fromtimestamp(int(stamp), dt.UTC)
        due = second.replace(microsecond=schedule.last_run_at.microsecond)
        assert row.id == run_id(schedule.pk, due)
        found.append((due, row.created_at))
    return found


def test_kill_9_neither_loses_nor_doubles_a_due_time(project: Project) -> None:
    schedule = every_second()
    # On a busy machine its start takes longer than the grace that misfires usually have.
    patient = own_jobs(project, {"MISFIRE_GRACE_SECONDS": 600.0})
    for _ in range(3):
        before = sent()
        process = project.manage("runbeat", **patient)
        project.wait_for(lambda before=before: sent() >= before + 2, what="two more runs")
        process.kill_group()
    before = sent()
    process = project.manage("runbeat", **patient)
    project.wait_for(lambda: sent() >= before + 2, what="runs after the last restart")
    assert process.stop() == 0

    schedule.refresh_from_db()
    found = runs(schedule)
    assert len({due for due, _ in found}) == len(found) == schedule.runs
    assert found[-1][0] == schedule.last_run_at
    # Dead for less than the grace that misfires have, it was late and missed nothing.
    assert {following - due for (due, _), (following, _) in pairwise(found)} == {SECOND}
    assert schedule.skipped == 0


def test_two_beats_share_the_schedules(project: Project) -> None:
    schedules = [every_second(f"s{n}") for n in range(5)]
    beats = [project.manage("runbeat") for _ in range(2)]
    for process in beats:
        process.wait_for_output("Beat is running")
    project.wait_for(lambda: sent() >= 15, what="three runs each")
    beats[0].kill_group()
    before = sent()
    project.wait_for(lambda: sent() >= before + 10, what="two more runs each")
    assert beats[1].stop() == 0
    for schedule in schedules:
        schedule.refresh_from_db()
    assert sum(schedule.runs for schedule in schedules) == sent()
    published = set(TaskResult.objects.exclude(published_at=None).values_list("id", flat=True))
    claimed = broker.get().claim("default", "reader", 1, 500, 60).messages
    waiting = Counter(message.decode(raw, "default").id for _, raw in claimed)
    assert published <= waiting.keys()
    # A kill between publishing and saying so leaves the last ones, those of one transaction, to be
    # published again.
    twice = [task_id for task_id, count in waiting.items() if count > 1]
    assert set(waiting.values()) <= {1, 2}
    assert len(set(ScheduleRun.objects.filter(result__in=twice).values_list("at"))) <= 1
    unsaid = set(TaskResult.objects.values_list("id", flat=True)) - published
    assert len(set(ScheduleRun.objects.filter(result__in=unsaid).values_list("at"))) <= 1


#: `runbeat` that looks once a minute when nobody wakes it, and is held after its first look.
SELDOM = """
import sys, time
from pathlib import Path
import django
django.setup()
from django.core.management import call_command
from jobs.beat import Beat

class Seldom(Beat):
    look_seconds = 60.0
    looked = False

    def step(self):
        pause = super().step()
        if not self.looked:
            self.looked = True
            print("has looked", flush=True)
            while not Path(sys.argv[1]).exists():
                time.sleep(0.005)
        return pause

from jobs.management.commands import runbeat
runbeat.Beat = Seldom
call_command("runbeat")
"""


@pytest.mark.parametrize("first_pause", [True, False])
def test_an_edit_counts_within_a_second(
    project: Project, tmp_path: Path, *, first_pause: bool
) -> None:
    """Also one between beat's first look and the pause that it can be woken from."""
    schedule = Schedule.objects.create(
        name="slow", task="tests.no_such_task", interval=dt.timedelta(days=1)
    )
    (tmp_path / "seldom.py").write_text(SELDOM)
    gate = tmp_path / "gate"
    process = project.start(str(tmp_path / "seldom.py"), str(gate))
    process.wait_for_output("has looked")
    if not first_pause:
        gate.touch()
        with project.valkey.client() as client:
            project.wait_for(client.pubsub_channels, what="beat to listen")
    schedule.interval = SECOND
    schedule.save()
    edited = dt.datetime.now(dt.UTC)
    gate.touch()
    project.wait_for(lambda: sent() >= 1)
    first = ScheduleRun.objects.earliest("due_at")
    # Due at the grid's first second, and sent then, not when beat looks next.
    assert first.due_at <= edited + SECOND


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ends_at_once_and_cleanly(project: Project, signum: signal.Signals) -> None:
    process = project.manage("runbeat")
    process.wait_for_output("Beat is running")
    assert process.stop(signum) == 0
    first, *_, last = process.output().splitlines()
    assert (first, last) == ("Beat is running. Ctrl-C ends it.", "Beat has ended.")


def test_a_second_signal_forces_the_end(project: Project) -> None:
    every_second()
    process = project.manage("runbeat")
    unpublished = TaskResult.objects.filter(published_at=None)
    project.wait_for(lambda: sent() >= 1 and not unpublished.exists())
    with project.valkey.client() as client:
        project.wait_for(client.pubsub_channels, what="beat to listen")
    with project.valkey.frozen():
        before = sent()
        # Committed; now it publishes, and waits for an answer that doesn't come.
        project.wait_for(lambda: sent() > before, 60, what="one more run")
        process.send_signal(signal.SIGTERM)
        assert process.poll() is None

        def forced() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        project.wait_for(forced, what="the forced end")
    assert process.returncode == -signal.SIGTERM


def test_help_explains(project: Project) -> None:
    assert "each due time is sent once" in " ".join(project.run("runbeat", "--help").split())


def test_a_wrong_address_is_said_at_the_start(project: Project) -> None:
    output = project.run("runbeat", status=1, REDIS_URL="nonsense://")
    assert "JOBS['BROKER_URL'] must begin with redis://" in output
    assert "Traceback" not in output
