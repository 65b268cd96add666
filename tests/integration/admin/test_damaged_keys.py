"""A key of another type costs only itself: the rest is shown, and somebody is told of the key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from django.core.management import CommandError
from django.test import Client
from prometheus_client import CollectorRegistry, generate_latest

from jobs import broker, control
from jobs.broker.counting import Resolution, span_at
from jobs.contrib import prometheus
from jobs.control import attention, metrics, snapshot
from jobs.control.attention import Kind
from jobs.control.metrics import Range
from tests.integration.admin.conftest import letter
from tests.integration.admin.test_junk import PAGES
from tests.integration.commands.helpers import run
from tests.tasks import add, fail
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("short_lists")]


def span(resolution: Resolution, ending: str = "") -> str:
    number = span_at("", resolution, time.time()).number
    return f"{{default}}:metrics:{resolution}:{number}{ending}"


#: What pages read, without which the queue works → the key.
KEYS: dict[str, Callable[[], str]] = {
    **{f"{one}": lambda one=one: span(one) for one in Resolution},
    **{f"tasks of {one}": lambda one=one: span(one, ":tasks") for one in Resolution},
    "sent": lambda: "{default}:metrics:sent",
    "reports": lambda: "{default}:workers",
    "ages of reports": lambda: "{default}:reported",
    "the ends of workers": lambda: "{default}:gone",
}

#: Whether these are read depends on the time of day: a longer span may have their numbers.
SPARED = {"hour", "ten", "tasks of minute", "tasks of ten", "tasks of hour"}


def as_text(client: redis.Redis, key: str) -> None:
    client.set(key, b"\xff\x00 somebody else's")


def as_set(client: redis.Redis, key: str) -> None:
    client.sadd(key, "somebody else's")


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def worked(client: redis.Redis) -> None:
    """Calls that have ended, in two queues."""
    add.delay(1, 2)
    add.apply_async((1, 2), queue="low")
    fail.delay("no")
    work()
    letter(queue="low")
    for queue in ("default", "low"):
        broker.get().report(queue, "w", json.dumps({"host": "here"}).encode())


#: Each key as a text; as a set, of the spans of time, which the same code reads, a day alone.
SPOILED = [(name, as_text) for name in KEYS]
SPOILED += [(n, as_set) for n in KEYS if n.split()[-1] not in {*Resolution} - {Resolution.DAY}]


@pytest.mark.parametrize(("name", "spoil"), SPOILED)
def test_the_rest_is_shown(
    worked: None,
    client: redis.Redis,
    root: Client,
    caplog: pytest.LogCaptureFixture,
    name: str,
    spoil: Callable[[redis.Redis, str], None],
) -> None:
    key = KEYS[name]()
    client.delete(key)
    spoil(client, key)
    for url in PAGES:
        page = root.get(url)
        # The worker of the list's last address doesn't exist.
        assert page.status_code in (200, 302), url
        assert "can’t be asked" not in page.content.decode(), url
        assert "WRONGTYPE" not in page.content.decode(), url
    for period in Range:
        found = root.get("/admin/jobs/dashboard/metrics.json", {"range": period}).json()
        assert found["total"]["sent"] >= 1  # those of the other queue at least
        assert add.name in found["tasks"]
    _prometheus()
    abouts = {m.about for m in matters() if m.kind is Kind.DAMAGED}
    said = [record.getMessage() for record in caplog.records if record.name == "jobs.broker"]
    if name not in SPARED:
        assert abouts == {key}
        assert len(said) == 1
        assert repr(key) in said[0]
    client.delete(key)
    assert [m for m in matters() if m.kind is Kind.DAMAGED] == []


def matters() -> list[attention.Matter]:
    return attention.matters(snapshot.take(), attention.look())


@pytest.mark.parametrize("name", KEYS)
def test_status_and_prometheus_go_on(worked: None, client: redis.Redis, name: str) -> None:
    key = KEYS[name]()
    client.delete(key)
    as_text(client, key)
    text = _prometheus()
    assert 'jobs_dead_letters{queue="low"} 1.0' in text
    assert 'jobs_sent_total{queue="low"} 1.0' in text
    try:
        said = json.loads(run("jobs_status", "--json"))
    except CommandError:  # it names the key
        return
    assert said["queues"]["low"]["dead"] == 1


def _prometheus() -> str:
    registry = CollectorRegistry()
    registry.register(prometheus.Collector())
    return generate_latest(registry).decode()


def test_status_says_what_to_do(worked: None, client: redis.Redis) -> None:
    key = span(Resolution.HOUR)
    client.delete(key)
    as_text(client, key)
    with pytest.raises(CommandError, match=r"metrics:hour:.*rename or delete it") as caught:
        run("jobs_status", "--json")
    assert caught.value.returncode == 1


def test_pauses_of_other_queues_are_seen(
    client: redis.Redis, root: Client, broker_url: str
) -> None:
    control.pause("low", by="ada")
    client.set("{default}:paused", "somebody else's")
    assert list(control.paused()) == ["low"]
    assert "{default}:paused" in root.get("/admin/jobs/dashboard/").content.decode()


@pytest.mark.parametrize("resolution", Resolution)
def test_counting_goes_on_beside_it(client: redis.Redis, resolution: Resolution) -> None:
    key = f"{{default}}:metrics:{resolution}:{span_at('', resolution, time.time()).number}"
    client.set(key, "somebody else's")
    client.set(f"{key}:tasks", "somebody else's")
    for _ in range(2):
        broker.get().count("default", {metrics.SUCCEEDED: 1}, {add.name: {metrics.SUCCEEDED: 1}})
    for other in Resolution:
        number = span_at("", other, time.time()).number
        wanted = None if other is resolution else b"2"
        found = f"{{default}}:metrics:{other}:{number}"
        if wanted:
            assert client.hget(found, metrics.SUCCEEDED) == wanted
            assert client.hget(f"{found}:tasks", f"1:{metrics.SUCCEEDED}") == wanted


def test_a_field_that_is_no_number_costs_only_itself(client: redis.Redis) -> None:
    number = span_at("", Resolution.DAY, time.time()).number
    client.hset(f"{{default}}:metrics:day:{number}", metrics.SUCCEEDED, "x")
    client.hset("{default}:metrics:ever:0:tasks", "#", "x")
    broker.get().count("default", {metrics.SUCCEEDED: 1, metrics.FAILED: 1}, {add.name: {"w1": 1}})
    assert client.hget(f"{{default}}:metrics:day:{number}", metrics.FAILED) == b"1"
    assert client.hget("{default}:metrics:ever:0", metrics.SUCCEEDED) == b"1"
    assert client.hget("{default}:metrics:ever:0:tasks", "0:w1") == b"1"
