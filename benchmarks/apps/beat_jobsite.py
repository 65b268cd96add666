"""This program's schedules."""

import datetime as dt

from django.utils import timezone

from benchmarks.apps.jobsite import prepare  # noqa: F401 - sets Django up; an action of the agent
from benchmarks.beats import EDITED, name_of, tick_name
from jobs.models import Schedule

TASK = "benchmarks.tasks.noop"
DAY = dt.timedelta(days=1)
SECOND = dt.timedelta(seconds=1)


def _schedule(name: str, interval: dt.timedelta) -> Schedule:
    return Schedule(name=name, task=TASK, args=[name], interval=interval)


def make_schedules(count: int, ticking: int) -> None:
    rows = [_schedule(name_of(number), DAY) for number in range(count)]
    rows += [_schedule(tick_name(number), SECOND) for number in range(ticking)]
    rows.append(_schedule(EDITED, DAY))
    now = timezone.now()
    for row in rows:
        row.plan(now)
    Schedule.objects.bulk_create(rows, batch_size=1000)


def edit() -> None:
    schedule = Schedule.objects.get(name=EDITED)
    schedule.interval = SECOND
    schedule.save()


def calm() -> None:
    Schedule.objects.filter(interval=SECOND).update(enabled=False)


def gather(count: int, at: float) -> None:
    due = dt.datetime.fromtimestamp(at, dt.UTC)
    names = [name_of(number) for number in range(count)]
    Schedule.objects.filter(name__in=names).update(start_at=due, next_run_at=due)
