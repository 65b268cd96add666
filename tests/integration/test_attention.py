"""What needs a person: each matter made real, and none where all is well."""

from __future__ import annotations

import datetime as dt
import json

import pytest
import redis
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, control
from jobs.broker.base import SCHEDULES, Outgoing
from jobs.control import attention, snapshot
from jobs.control.attention import Kind, Matter
from jobs.models import Schedule
from tests.integration.admin.conftest import letter, row
from tests.integration.beats import no_other_schedules, scheduled  # noqa: F401
from tests.services import Valkey
from tests.tasks import add, fail
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def matters(*kinds: Kind) -> list[Matter]:
    """What needs a person, of these kinds; of all kinds if none is given."""
    found = attention.matters(snapshot.take(), attention.look())
    return [matter for matter in found if not kinds or matter.kind in kinds]


def abouts(kind: Kind) -> list[str]:
    return [matter.about for matter in matters(kind)]


def test_all_is_well() -> None:
    add.delay(1, 2)
    work()
    assert matters() == []


def test_dead_letters() -> None:
    letter(queue="low")
    letter(queue="low")
    (found,) = matters(Kind.DEAD)
    assert found == (Kind.DEAD, "2 dead letters in queue “low”.", "low")


def test_paused_queues_and_tasks() -> None:
    control.pause("high", by="ada", why="mail is away")
    control.pause_task(add.name, by="grace")
    assert matters() == [
        (Kind.PAUSED_QUEUE, "Queue “high” is paused by ada. “mail is away”", "high"),
        (Kind.PAUSED_TASK, f"Task “{add.name}” is paused by grace.", add.name),
    ]
    control.resume("high")
    control.resume_task(add.name)
    assert matters() == []


def test_a_queue_that_nobody_serves() -> None:
    broker.get().push([Outgoing("low", b"x")])
    assert abouts(Kind.DESERTED) == ["low"]
    broker.get().renew("low", ["w"], 60.0)
    assert matters() == []


@pytest.fixture(autouse=True)
def no_beat_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tests before have had running."""
    monkeypatch.setattr(attention, "_beat_seen", float("-inf"))


def test_a_beat_that_restarts_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled(due=timezone.now() + dt.timedelta(days=1))
    with broker.get().subscribe(SCHEDULES):
        assert matters() == []
    assert matters() == []  # it has been away for a moment
    monkeypatch.setattr(attention, "BEAT_AWAY", 0.0)
    assert [matter.kind for matter in matters()] == [Kind.BEAT]


def test_schedules_that_no_beat_has_ever_seen(settings: Settings) -> None:
    declared = {"nightly": {"task": add.name, "schedule": 60.0, "args": (1, 2)}}
    assert matters() == []  # a project without schedules
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": {"jobs: prune results": None}}
    assert matters() == []
    settings.JOBS = {**settings.JOBS, "BEAT_SCHEDULE": declared}
    assert [matter.kind for matter in matters()] == [Kind.BEAT]
    # A beat has made rows of them, and somebody has switched them off.
    scheduled(due=timezone.now() + dt.timedelta(days=1))
    Schedule.objects.update(enabled=False)
    assert matters() == []


def test_no_beat_runs_though_a_schedule_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BEAT_AWAY", 0.0)
    schedule = scheduled(due=timezone.now() + dt.timedelta(days=1))
    assert [matter.kind for matter in matters()] == [Kind.BEAT]
    with broker.get().subscribe(SCHEDULES):  # as each beat is
        assert matters() == []
    Schedule.objects.filter(pk=schedule.pk).update(enabled=False)
    assert matters() == []


def test_late_schedules(settings: Settings) -> None:
    late = timezone.now() - dt.timedelta(minutes=10)
    with broker.get().subscribe(SCHEDULES):
        scheduled("a", due=late)
        (found,) = matters()
        assert found.kind is Kind.LATE
        assert found.text.startswith("1 schedule is late, by 60")
        settings.JOBS = {**settings.JOBS, "MISFIRE_GRACE_SECONDS": 3600}
    with broker.get().subscribe(SCHEDULES):
        assert matters() == []


def test_what_nobody_publishes(settings: Settings) -> None:
    sent = timezone.now() - dt.timedelta(seconds=30)
    row(state="PENDING", created_at=sent, published_at=None, started_at=None, finished_at=None)
    (found,) = matters()
    assert found.kind is Kind.BACKLOG
    assert found.text.startswith("1 call is committed and not on its queue yet, for 3")
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 100}
    assert matters() == []


def test_a_failing_task() -> None:
    for n in range(attention.FAILED - 1):
        fail.delay(str(n))
    add.delay(1, 2)
    work()
    assert matters(Kind.FAILING) == []
    fail.delay("once more")
    work()
    (found,) = matters(Kind.FAILING)
    assert found.about == fail.name
    assert "5 of 5 calls in the last hour" in found.text


def test_a_task_of_which_few_fail() -> None:
    numbers = attention.Numbers(timezone.now(), 3600, succeeded=96, failed=24)
    assert len(list(attention._of_the_tasks({"a": numbers}))) == 1
    numbers = numbers._replace(succeeded=97)
    assert list(attention._of_the_tasks({"a": numbers})) == []


def test_memory_policy_and_disk(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        assert matters() == []
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", int(used * 1.1))
        assert [matter.kind for matter in matters()] == [Kind.MEMORY]
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "messages are lost" in matters(Kind.EVICTION)[0].text
        client.config_set("maxmemory-policy", "volatile-lru")
        assert "locks, limits and revocations" in matters(Kind.EVICTION)[0].text
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "no")
        client.config_set("save", "")
        assert "keeps nothing on disk" in matters(Kind.DISK)[0].text


def report(name: str, **values: object) -> None:
    broker.get().renew("default", [f"{name}/1"], 60.0)
    said = {"consumers": [f"{name}/1"], **values}
    broker.get().report("default", name, json.dumps(said).encode())


def test_workers_of_different_revisions_and_versions() -> None:
    report("a", revision="abc", versions={"jobs": "1.0"})
    report("b", revision="abc", versions={"jobs": "1.0"})
    assert matters() == []
    report("c", revision="def", versions={"jobs": "1.1"})
    revisions, versions = matters()
    assert revisions.kind is versions.kind is Kind.VERSIONS
    assert revisions.text == "Workers run different revisions of the code: abc, def."
    assert versions.text == "Workers run different versions of Jobsite: 1.0, 1.1."
    report("c", revision="abc", versions="nonsense")
    assert [matter.text for matter in matters()] == [
        "Workers run different versions of Jobsite: 1.0, ?."
    ]
    broker.get().renew("default", ["c/1"], -1.0)  # it is gone; its report is still there
    assert matters() == []


def test_with_redis_away(own_valkey: Valkey) -> None:
    own_valkey.kill()
    assert snapshot.take().problem
    assert attention.look() == attention.Surroundings()


def test_a_user_without_the_right_to_ask_about_the_server(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-pubsub", "-info", "-config")
        try:
            scheduled(due=timezone.now() + dt.timedelta(days=1))
            assert matters() == []
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+@all")
