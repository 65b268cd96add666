"""One snapshot for all who look: what it has, and what it costs."""

from __future__ import annotations

import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import broker, conf
from jobs.broker.base import Outgoing
from jobs.control import snapshot, throughput
from jobs.control.snapshot import Shared
from jobs.worker.child import Options
from jobs.worker.supervisor.starting import Starter
from jobs.worker.supervisor.supervisor import Supervisor
from tests.tasks import add
from tests.workers import put

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def queue(name: str) -> snapshot.Queue:
    (found,) = [queue for queue in snapshot.take().queues if queue.name == name]
    return found


def test_twenty_queues_cost_one_round_trip(settings: Settings, broker_url: str) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {f"q{n}": {} for n in range(20)} | {"default": {}}}
    for n in range(20):
        broker.get().push([Outgoing(f"q{n}", b"x")])
        broker.get().renew(f"q{n}", [f"w{n}"], 60.0)
    snapshot.take()
    with redis.Redis.from_url(broker_url) as client:
        before = client.info("stats")["total_reads_processed"]
        taken = snapshot.take()
        # A pipeline of this length may come in two pieces; one more read is that of INFO.
        assert client.info("stats")["total_reads_processed"] - before <= 3
    assert len(taken.queues) == 21


def test_all_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def make() -> int:
        made.append(1)
        begun.set()
        go_on.wait(10)
        return len(made)

    shared = Shared(make, 60.0)
    with ThreadPoolExecutor(20) as pool:
        found = [pool.submit(shared.get) for _ in range(20)]
        assert begun.wait(10)
        go_on.set()
        assert {one.result() for one in found} == {1}
    assert shared.get() == 1
    assert shared.get(now=True) == 2
    assert shared.get() == 2


def test_it_gets_old(settings: Settings) -> None:
    shared = Shared(time.monotonic, 0.0)
    assert shared.get() < shared.get()
    shared = Shared(time.monotonic, 60.0)
    first = shared.get()
    settings.JOBS = {**settings.JOBS, "KEY_PREFIX": "other"}
    assert shared.get() > first, "another broker has other numbers"


def test_the_age_of_the_oldest() -> None:
    assert queue("default").oldest is None
    before = timezone.now() - dt.timedelta(milliseconds=1)
    add.apply_async((1, 2), priority=9)
    after = timezone.now()
    add.delay(3, 4)
    oldest = queue("default").oldest
    assert oldest is not None
    assert before <= oldest <= after


def test_a_message_that_was_due_counts_from_then() -> None:
    eta = timezone.now() + dt.timedelta(hours=1)
    add.apply_async((1, 2), eta=eta)
    (waiting,) = broker.get().browse("default", due=True)
    then = snapshot.runnable_since(waiting.raw, "default")
    assert then is not None
    assert then <= timezone.now(), "nothing waits since a time to come"


@pytest.mark.parametrize("raw", [b"garbage", b"{}", b"\xff" * 50])
def test_a_message_that_says_nothing(raw: bytes) -> None:
    put(raw)
    assert queue("default").oldest is None


@pytest.mark.parametrize(
    "said",
    [
        b"not json",
        b"[1, 2]",
        b"null",
        b"{}",
        b"[" * 10_000,
        b'{"consumers": 7, "running": "x"}',
        b'{"consumers": ["w/1"], "running": [[1], null, ["default", "w/1", "x", "y"]]}',
        b'{"consumers": [[], "w/1"], "running": {"new": "form"}, "queues": null}',
        b'{"consumers": ["w/1"], "running": [["default", "w/1", 1, 1.7e9, "a", "new", "field"]]}',
    ],
)
def test_another_version_s_report(said: bytes) -> None:
    broker.get().renew("default", ["w/1"], 60.0)
    broker.get().report("default", "w", said)
    taken = snapshot.take()
    assert taken.problem == ""
    assert [queue.stats.consumers for queue in taken.queues if queue.name == "default"] == [1]


def test_undeclared_queues_are_seen_as_long_as_they_hold_something(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    add.apply_async((1, 2), queue="made.up")
    with transaction.atomic():
        add.apply_async((1, 2), queue="another")
    found = {one.name: one for one in snapshot.take().queues if not one.declared}
    assert {name: one.stats.waiting for name, one in found.items()} == {"made.up": 1, "another": 1}
    assert not set(found) & set(conf.get().queues)
    broker.get().claim("another", "w", 1, 1, 60.0)
    broker.get().ack("another", "w", [1])
    broker.get().leave("another", "w")
    assert [one.name for one in snapshot.take().queues if not one.declared] == ["made.up"]


def test_a_worker_makes_its_undeclared_queues_known(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    options = Options(queues=("default", "made.up"), name="w")
    Supervisor(options, Starter())._renew()
    assert broker.get().remembered_queues(10) == ["made.up"]
    assert [one.name for one in snapshot.take().queues if not one.declared] == []
    put(b"x", "made.up")
    assert [one.name for one in snapshot.take().queues if not one.declared] == ["made.up"]


def test_the_rates_of_the_last_minutes() -> None:
    for n in range(6):
        add.delay(n, n)
    broker.get().count("default", {"succeeded": 4, "failed": 1, "revoked": 1, "retried": 9}, {})
    rates = throughput.rates(["default", "low"])
    assert rates["low"] == (0.0, 0.0)
    assert rates["default"].came == rates["default"].left
    # Four whole minutes, and what has passed of the fifth.
    assert 6 / 300 <= rates["default"].came <= 6 / 240
