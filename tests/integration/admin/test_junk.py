"""What anybody may have written to Redis breaks no page, and none shows it as HTML."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client

from jobs import broker
from jobs.contrib import prometheus
from jobs.control import Pause, inspect, snapshot, workers
from jobs.control.metrics import Range, by_task, total
from jobs.timing import clock
from tests.integration.admin.conftest import row
from tests.tasks import trace

pytestmark = [
    pytest.mark.django_db,
    # What is read is no different, and other tests open these pages.
    pytest.mark.one_version,
    pytest.mark.usefixtures("short_lists"),
]

EVIL = "<script>alert(1)</script>"
PAGES = (
    "/admin/",
    "/admin/jobs/dashboard/",
    "/admin/jobs/dashboard/live/",
    "/admin/jobs/dashboard/numbers/",
    "/admin/jobs/dashboard/metrics.json",
    "/admin/jobs/queues/",
    "/admin/jobs/queues/live/",
    "/admin/jobs/queues/queue/default/",
    "/admin/jobs/queues/queue/default/?tab=running",
    "/admin/jobs/queues/queue/default/?tab=in-flight",
    "/admin/jobs/queues/queue/default/?tab=due",
    "/admin/jobs/deadletters/",
    "/admin/jobs/tasks/",
    f"/admin/jobs/tasks/task/{trace.name}/",
    "/admin/jobs/workers/",
    "/admin/jobs/workers/live/",
    "/admin/jobs/workers/worker/w/",
    "/admin/jobs/errors/",
    "/admin/jobs/taskresult/",
)

#: Parts of a report that no worker of this version would write.
ODD: list[Any] = [
    None,
    True,
    -1,
    1e308,
    10**300,
    float("nan"),
    float("inf"),
    "",
    EVIL,
    "\ud800",
    "x" * 100_000,
    [],
    [None],
    [[]],
    [["default", "w", 1, 1]],
    [["default", "\ud800", 10**300, 10**300]],
    [["default", "w", float("inf"), float("nan")]],
    [["w", 1, float("inf"), True]],
    {},
    {EVIL: EVIL},
    {"jobs": {}},
]
FIELDS = (
    *("host", "pid", "started", "queues", "processes", "processed", "running", "failed"),
    *("capacity", "state", "versions", "revision", "parts", "every", "consumers"),
)


@pytest.fixture
def server(broker_url: str) -> redis.Redis:
    row(state="PENDING", finished_at=None)
    return redis.Redis.from_url(broker_url)


@pytest.fixture
def looked(root: Client) -> Callable[[], None]:
    """Looks at all there is to be seen."""

    def look() -> None:
        for url in PAGES:
            response = root.get(url)
            assert response.status_code == 200, url
            assert b"<script>alert" not in response.content, url
        snapshot.take()
        inspect.workers(lost=True)
        inspect.active()
        workers.gone()
        for period in Range:
            total(period)
            by_task(period)
        list(prometheus.Collector().collect())

    return look


def report(**odd: Any) -> bytes:
    usual = {"consumers": ["w/1"], "running": [], "every": 20.0, "queues": ["default"]}
    return json.dumps({**usual, **odd}).encode()


@pytest.mark.parametrize("field", FIELDS)
def test_reports(server: redis.Redis, looked: Callable[[], None], field: str) -> None:
    broker.get().renew("default", ["w/1"], 60.0)
    for n, odd in enumerate(ODD):
        server.hset("{default}:workers", f"w{n or ''}", report(**{field: odd}))
        server.zadd("{default}:reported", {f"w{n or ''}": 1})
    looked()


def test_reports_that_are_none(server: redis.Redis, looked: Callable[[], None]) -> None:
    broker.get().renew("default", ["w/1"], 60.0)
    for n, text in enumerate(
        (b"", b"\xff\xfe", b"[" * 100_000, b"[]", b'"x"', b"9" * 5000, b'{"running": 1}', b"{}")
    ):
        server.hset("{default}:workers", f"w{n or ''}", text)
    for name in (EVIL, "a\nb", "", "..", "a/b", "\xff", b"\xff\xfe", "%0a", "x" * 10_000):
        server.hset("{default}:workers", name, report())
        server.zadd("{default}:consumers", {name: 2**53})
    looked()


def test_the_other_keys_of_a_queue(server: redis.Redis, looked: Callable[[], None]) -> None:
    for n, text in enumerate((b"", b"\xff", b"[" * 100_000, b"{}", b"[]", b'{"at": "x"}')):
        server.hset("{default}:paused", f"task-{n}", text)
        server.lpush("{default}:gone", text)
        server.hset("{limits}:rates", f"task-{n}", text)
    odd = {"by": EVIL, "why": "\ud800" + EVIL, "at": "2026-01-01T00:00:00"}
    server.hset("{default}:paused", "", json.dumps(odd))
    server.hset("{default}:paused", EVIL + "\n", json.dumps({**odd, "by": None, "why": [1]}))
    gone = {"name": EVIL, "how": "lost", "why": "\ud800", "at": 1.0, "host": EVIL, "pid": 1}
    for more in ({}, {"pid": float("inf")}, {"at": 1e308}, {"how": "?"}, {"pid": 10**300}):
        server.lpush("{default}:gone", json.dumps({**gone, **more}))
    minute, day = int(clock.now().timestamp()) // 60, int(clock.now().timestamp()) // 86_400
    for key in (f"minute:{minute}", f"day:{day}", "ever:0"):
        for field in (
            "sent",
            "w1",
            "w",
            "r999999999",
            "wx",
            EVIL,
            b"\xff",
            "failed",
            "",
            "wait_ms",
        ):
            for value in ("x", "-5", "1.5", "9" * 5000):
                server.hset(f"{{default}}:metrics:{key}", field, value)
                server.hset(f"{{default}}:metrics:{key}:tasks", field, value)
                server.hset(f"{{default}}:metrics:{key}:tasks", b"1:" + f"{field}".encode(), value)
        server.hset(f"{{default}}:metrics:{key}:tasks", f"={EVIL}", "1")
    server.hset("{default}:metrics:sent", "x", "y")
    for member, at in (("junk", "inf"), ("x|y", "-inf"), ("1|{}", "1e300"), (b"\xff|", 1)):
        server.zadd("{default}:due", {member: at})
    server.xadd("{default}:dead", {"x": "y"})
    server.xadd("{default}:dead", {"message": EVIL, "reason": b"\xff" + EVIL.encode()})
    server.xadd("{default}:dead", {"message": "x"}, id=f"{2**64 - 1}-1")
    server.hset("{default}:inflight:w/1", "x", EVIL)
    server.zadd("{default}:consumers", {"w/1": "inf"})
    looked()


def test_answers_of_workers(server: redis.Redis, root: Client) -> None:
    server.hset("{default}:workers", "w", report())
    broker.get().renew("default", ["w/1"], 60.0)
    for n, answer in enumerate(
        (
            b"[" * 100_000,
            b"\xff",
            b"{}",
            json.dumps([True, EVIL, [[EVIL, EVIL]]]).encode(),
            json.dumps([False, "\ud800", [["\ud800", "\udfff"]]]).encode(),
            json.dumps([True, "x", [1]]).encode(),
        )
    ):
        command = f"{n:016x}"
        server.set(f"{{default}}:answer:{command}", answer)
        for url in ("worker", "live-worker"):
            page = root.get(f"/admin/jobs/workers/{url}/w/?queue=default&command={command}")
            assert page.status_code == 200
            assert "<script>alert" not in page.content.decode()
            assert "hasn’t answered" not in page.content.decode()


def test_a_worker_that_never_takes_a_command(server: redis.Redis, root: Client) -> None:
    """Such as a suspended one."""
    server.hset("{default}:workers", "w", report())
    answer = root.post("/admin/jobs/workers/stop/w/", {"confirmed": "yes"})
    assert "hasn’t answered yet" in root.get(answer["Location"]).content.decode()
    command = answer["Location"].rpartition("command=")[2]
    late = f"{int(command[:8], 16) - 61:08x}{command[8:]}"
    page = root.get(answer["Location"].replace(command, late)).content.decode()
    assert "it never will" in page
    assert 0 < server.pttl("{default}:commands:w") <= 60_000


def test_commands_that_can_not_be_read() -> None:
    """The supervisor reads them."""
    for text in (b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"id": 1, "act": "format", "by": ""}'):
        assert workers.Command.loads(text) is None


@pytest.mark.parametrize("key", ["paused", "workers", "consumers", "due", "dead", "gone"])
def test_a_queue_that_is_refused_hides_no_other(
    server: redis.Redis, root: Client, key: str
) -> None:
    broker.get().pause("high", Pause("", "ann", "for the test", clock.now()))
    broker.get().report("high", "other", report(consumers=["o/1"]))
    broker.get().renew("high", ["o/1"], 60.0)
    server.delete(f"{{default}}:{key}")
    server.set(f"{{default}}:{key}", "of another type")
    dashboard = root.get("/admin/jobs/dashboard/").content.decode()
    queues = root.get("/admin/jobs/queues/").content.decode()
    if key in ("paused", "workers"):
        assert f"The key “{{default}}:{key}” on Redis holds something else" in dashboard
        assert "WRONGTYPE" not in dashboard + queues
    elif key != "gone":
        assert "WRONGTYPE" in dashboard
        assert "Queue “default” can’t be read" in dashboard
        assert "WRONGTYPE" in queues
    for page in (dashboard, queues):
        assert "for the test" in page
    assert "other" in root.get("/admin/jobs/workers/").content.decode()
    found = {metric.name: metric for metric in prometheus.Collector().collect()}
    assert "high" in {sample.labels["queue"] for sample in found["jobs_waiting"].samples}


def test_all_queues_are_refused(server: redis.Redis, settings: Any) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}}}
    server.set("{default}:due", "of another type")
    assert "WRONGTYPE" in snapshot.take().problem


def test_numbers_that_are_refused_hide_nothing_else(server: redis.Redis, root: Client) -> None:
    broker.get().pause("high", Pause("", "ann", "for the test", clock.now()))
    server.set("{default}:metrics:sent", "of another type")
    for url in ("dashboard/", "queues/", "tasks/"):
        assert root.get(f"/admin/jobs/{url}").status_code == 200
    assert "for the test" in root.get("/admin/jobs/dashboard/").content.decode()


def test_the_command_line(server: redis.Redis) -> None:
    server.hset("{default}:workers", "w", report(running=[["default", "\ud800", 1, 1e308]]))
    server.hset("{default}:paused", EVIL, b"[" * 100_000)
    out = io.StringIO()
    for what in ("active", "workers", "waiting"):
        call_command("jobs_inspect", what, stdout=out)
    with contextlib.suppress(CommandError):  # nothing consumes the queue
        call_command("jobs_status", "--json", stdout=out)
    assert EVIL in out.getvalue()


def test_odd_names_of_queues(server: redis.Redis, root: Client, settings: Any) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    names = ["a\nb", "..", "a/b", EVIL, " ", "?x=1#y", "é", "%", "x" * 255, "queue/", "{", "\x06"]
    server.zadd("{queues}:known", dict.fromkeys(names, 2**50))
    server.zadd("{queues}:known", {b"\xff": 2**50})
    for name in names:
        server.lpush(name, b"x")
    for url in PAGES:
        response = root.get(url)
        assert response.status_code == 200, url
        assert b"<script>alert" not in response.content, url
    page = root.get("/admin/jobs/dashboard/").content.decode()
    assert "a/b" in page
    assert root.get("/admin/jobs/queues/queue/a/b/").status_code == 200
