"""Celery's beat with RedBeat's entries in Redis."""

import datetime as dt
import os

from celery import Celery
from celery.schedules import schedule as interval_schedule
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis

from benchmarks.beats import EDITED, name_of, tick_name

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    task_default_queue="bench",
    task_ignore_result=True,
    redbeat_redis_url=os.environ["BENCH_REDIS_URL"],
    beat_scheduler="redbeat.RedBeatScheduler",
    # Its usual five minutes would only make it see edits later.
    beat_max_loop_interval=1,
    # Its usual five loops are over before it has sent all that is due, and then it ends.
    redbeat_lock_timeout=60,
)

DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)


@app.task(name="noop")
def noop(number: object) -> None:
    """Never run: there is no worker."""


def _entry(name: str, interval: dt.timedelta) -> RedBeatSchedulerEntry:
    rule = interval_schedule(interval, app=app)
    return RedBeatSchedulerEntry(name, "noop", rule, args=[name], app=app)


def make_schedules(count: int, ticking: int) -> None:
    for number in range(count):
        _entry(name_of(number), DAY).save()
    for number in range(ticking):
        _entry(tick_name(number), SECOND).save()
    _entry(EDITED, DAY).save()


def edit() -> None:
    _entry(EDITED, SECOND).save()


def calm() -> None:
    for key in get_redis(app).zrange("redbeat::schedule", 0, -1):
        if "tick" in str(key) or EDITED in str(key):
            RedBeatSchedulerEntry.from_key(key, app=app).delete()


def gather(count: int, at: float) -> None:
    for number in range(count):
        entry = _entry(name_of(number), DAY)
        # Due a day after it ran last.
        entry.last_run_at = dt.datetime.fromtimestamp(at, dt.UTC) - DAY
        entry.save()
        entry.reschedule(last_run_at=entry.last_run_at)
