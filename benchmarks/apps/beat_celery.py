"""Celery's beat with django-celery-beat's rows."""

import datetime as dt
import json
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_beat"
import django

django.setup()

from celery import Celery  # noqa: E402 - needs the settings
from django.utils import timezone  # noqa: E402
from django_celery_beat.models import (  # noqa: E402
    ClockedSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
)

from benchmarks.beats import EDITED, name_of, tick_name  # noqa: E402

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    task_default_queue="bench",
    task_ignore_result=True,
    beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler",
    # Its usual five seconds would only make it see edits later.
    beat_max_loop_interval=1,
)


@app.task(name="noop")
def noop(number: object) -> None:
    """Never run: there is no worker."""


def prepare() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def make_schedules(count: int, ticking: int) -> None:
    day = IntervalSchedule.objects.create(every=1, period="days")
    second = IntervalSchedule.objects.create(every=1, period="seconds")
    now = timezone.now()
    named = [(name_of(number), day) for number in range(count)]
    named += [(tick_name(number), second) for number in range(ticking)]
    rows = [
        PeriodicTask(
            name=name, task="noop", args=json.dumps([name]), interval=interval, last_run_at=now
        )
        for name, interval in [*named, (EDITED, day)]
    ]
    PeriodicTask.objects.bulk_create(rows, batch_size=1000)
    PeriodicTasks.update_changed()


def edit() -> None:
    task = PeriodicTask.objects.get(name=EDITED)
    task.interval = IntervalSchedule.objects.get(period="seconds")
    task.save()


def calm() -> None:
    PeriodicTask.objects.filter(interval__period="seconds").update(enabled=False)
    PeriodicTasks.update_changed()


def gather(count: int, at: float) -> None:
    clocked = ClockedSchedule.objects.create(clocked_time=dt.datetime.fromtimestamp(at, dt.UTC))
    names = [name_of(number) for number in range(count)]
    PeriodicTask.objects.filter(name__in=names).update(
        interval=None, clocked=clocked, one_off=True, last_run_at=None
    )
    PeriodicTasks.update_changed()
