"""A project with USE_TZ off, on whichever database this run is."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import pytest
from django.utils import timezone
from pytest_django import Settings

from jobs.models import Schedule, TaskResult
from jobs.models.moments import MomentField
from jobs.timing import clock
from tests.project import ROOT, Project
from tests.starter import Starter

#: By which its clocks are read; not that of the tests.
ZONE = "America/New_York"

#: What the project does in a process of its own, since the setting counts when Django starts.
ACTS = """
import datetime as dt, json
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from jobs.timing import clock
from jobs.models import Schedule, TaskResult
from tests.tasks import add, fail

said = {}
ids = {
    "expires": add.apply_async((1, 1), expires=60),
    "countdown": add.apply_async((1, 2), countdown=1),
    "expired": add.apply_async((1, 3), expires=clock.now() - dt.timedelta(seconds=5)),
    "failed": fail.delay("no"),
}
for name, result in ids.items():
    try:
        said[name] = result.get(timeout=60)
    except Exception as error:
        said[name] = type(error).__name__
schedule = Schedule.objects.create(
    name="each second", task="tests.tasks.add", args=[4, 4], interval=dt.timedelta(seconds=1)
)
naive = Schedule(name="at", task="tests.tasks.add", args=[5, 5])
naive.at = dt.datetime.now() + dt.timedelta(hours=1)
naive.full_clean()
naive.save()
naive.refresh_from_db()
said["at"] = (naive.next_run_at - clock.now()).total_seconds()
client = Client()
client.force_login(User.objects.create_superuser("no zones", password="a"))
pages = [reverse("admin:jobs_taskresult_changelist") + "?sent=today"]
pages += [reverse("admin:jobs_taskresult_change", args=[r.id]) for r in ids.values()]
pages += [reverse("admin:jobs_schedule_changelist"), reverse("admin:jobs_queues_changelist")]
pages += [reverse("admin:jobs_schedule_change", args=[s.pk]) for s in (schedule, naive)]
pages += [reverse("admin:jobs_schedule_add")]
said["pages"] = {page: client.get(page, SERVER_NAME="localhost").status_code for page in pages}
print(json.dumps(said))
"""


@pytest.fixture
def without(project: Project) -> Iterator[Project]:
    text = f"from tests.settings import *\nUSE_TZ = False\nTIME_ZONE = {ZONE!r}\n"
    (project.folder / "without_zones.py").write_text(text)
    (project.folder / "acts.py").write_text(ACTS)
    with Starter({**project.env, **environment(project)}) as project.starter:
        yield project


def environment(project: Project) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "without_zones",
        "PYTHONPATH": f"{project.folder}:{ROOT}",
        "PYTHONWARNINGS": "error::RuntimeWarning",
    }


def test_calls_schedules_and_pages(without: Project) -> None:
    env = environment(without)
    worker = without.manage("runworker", "--processes", "1", **env)
    worker.wait_for_output("ready")
    acts = without.start(str(without.folder / "acts.py"), **env)
    assert acts.wait(timeout=90) == 0, acts.output()
    said = json.loads(acts.output().splitlines()[-1])
    assert said["expires"] == 2
    assert said["countdown"] == 3
    assert said["expired"] == "TaskRevoked"
    assert said["failed"] == "ValueError"
    assert 3500 < said["at"] <= 3600
    assert set(said["pages"].values()) == {200}, said["pages"]
    # The tests' own setting is another one, and finds the same moments.
    row = TaskResult.objects.get(args="[1,2]")
    assert row.started_at is not None
    assert row.finished_at is not None
    assert abs(clock.now() - row.finished_at) < dt.timedelta(minutes=2)
    beat = without.manage("runbeat", **env)
    without.wait_for(lambda: TaskResult.objects.filter(args="[4,4]", state="SUCCESS").count() > 1)
    for command in ("jobs_status", "jobs_inspect revoked", "jobs_prune", "jobs_recover", "check"):
        without.run(*command.split(), **env)
    assert worker.stop() == 0
    assert beat.stop() == 0
    for process in (worker, beat):
        assert "offset-naive" not in process.output()


@pytest.mark.django_db
@pytest.mark.parametrize("fold", [0, 1])
def test_a_moment_stays_what_it_is(settings: Settings, fold: int) -> None:
    """Also one of the hour that clocks show twice."""
    settings.USE_TZ, settings.TIME_ZONE = False, ZONE
    twice = dt.datetime(2026, 11, 1, 5 + fold, 30, 0, 123456, tzinfo=dt.UTC)
    row = TaskResult.objects.create(id=f"{fold}", task="x", queue="default", eta=twice)
    row.refresh_from_db()
    assert row.eta == twice
    assert TaskResult.objects.get(eta=twice) == row
    assert TaskResult.objects.filter(eta__lt=twice).count() == 0
    # What is naive is meant by the project's clocks.
    midnight = dt.datetime(2026, 11, 1)  # noqa: DTZ001
    assert TaskResult.objects.filter(eta__gt=midnight, eta__lte=midnight.replace(hour=2)).exists()
    assert not TaskResult.objects.filter(eta__lt=midnight).exists()
    settings.USE_TZ, settings.TIME_ZONE = True, "UTC"
    assert TaskResult.objects.get(eta=twice) == row


@pytest.mark.django_db
def test_naive_moments_ask_for_the_next_runs(settings: Settings) -> None:
    """As Django's own `now` is, with USE_TZ off."""
    settings.USE_TZ, settings.TIME_ZONE = False, ZONE
    tick = Schedule.objects.create(name="tick", task="jobs.prune", interval=dt.timedelta(hours=1))
    first, second = tick.next_runs(timezone.now(), 2)
    assert (first, second - first) == (tick.next_run_at, tick.interval)
    assert tick.skip_next(timezone.now()) == first
    assert tick.next_runs(timezone.now(), 1) == [second]
    morning = Schedule(name="morning", task="jobs.prune", crontab="0 8 * * *", timezone=ZONE)
    seven = dt.datetime(2026, 7, 1, 7)  # noqa: DTZ001
    assert morning.following(seven) == dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


def test_every_moment_is_stored_by_that_field() -> None:
    from django.apps import apps
    from django.db.models import DateTimeField

    for model in apps.get_app_config("jobs").get_models():
        for field in model._meta.get_fields():
            assert not isinstance(field, DateTimeField) or isinstance(field, MomentField), field


def test_nothing_asks_django_for_the_time() -> None:
    """Its `now` is naive with USE_TZ off. Django's own tasks have Django's time."""
    djangos = ROOT / "jobs" / "contrib" / "django_tasks.py"
    found = [
        path
        for path in (ROOT / "jobs").rglob("*.py")
        if path != djangos
        if "timezone.now()" in (text := path.read_text("utf-8")) or "localtime()" in text
    ]
    assert found == []
