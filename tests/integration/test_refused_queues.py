"""A broker that takes nothing for one queue, and one that doesn't answer."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.db import connection, transaction
from pytest_django import Settings

from jobs import (
    broker,
    chain,
    chord,
    control,
    group,
)
from jobs.exceptions import BrokerUnavailable, QueueRefused
from jobs.ledger import publish
from jobs.models import Schedule, TaskResult
from jobs.worker.supervisor.upkeep import Relay
from tests.services import Valkey
from tests.tasks import add, light_trace, once, trace
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)

#: Longest, in seconds, that a commit may take while the broker does not answer. On an idle machine
#: it is 3, on a busy one up to 7; without the limit on waiting it was 20 on an idle one.
MOST = 12.0


def _wrong_type(client: redis.Redis, key: str) -> None:
    client.delete(key)
    client.set(key, "no list")


def _rights(client: redis.Redis, *more: str) -> None:
    names = ("default", "low", *more)
    keys = [key for name in names for key in (f"~{name}*", f"~{{{name}}}:*")]
    client.acl_setuser("default", enabled=True, nopass=True, reset_keys=True)
    client.execute_command("ACL", "SETUSER", "default", *keys)


#: How the queue "high" comes to be refused, and how it is taken again.
REFUSALS: dict[str, tuple[Callable[[redis.Redis], Any], Callable[[redis.Redis], Any]]] = {
    "rights": (_rights, lambda client: client.execute_command("ACL", "SETUSER", "default", "~*")),
    "type": (lambda client: _wrong_type(client, "high"), lambda client: client.delete("high")),
    "type of the bell": (
        lambda client: _wrong_type(client, "{high}:bell"),
        lambda client: client.delete("{high}:bell"),
    ),
}


@pytest.fixture
def client(own_valkey: Valkey, settings: Settings) -> Iterator[redis.Redis]:
    settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0}
    with own_valkey.client() as client:
        yield client


@pytest.fixture(params=REFUSALS)
def taken_again(request: pytest.FixtureRequest, client: redis.Redis) -> Callable[[], Any]:
    """The queue "high" is refused from now on, until this is called."""
    begin, end = REFUSALS[request.param]
    begin(client)
    return lambda: end(client)


def unpublished() -> set[str]:
    return set(TaskResult.objects.filter(published_at=None).values_list("queue", flat=True))


# ------------------------------------------------------------------------------ a refused queue


def test_the_other_queues_get_theirs_once(
    taken_again: Callable[[], Any], client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with transaction.atomic():
        for n in range(20):
            add.delay(n, 1)
            if n == 10:
                add.apply_async((1, 1), queue="high")
                add.apply_async((2, 2), queue="high")
    for _ in range(3):
        assert (client.llen("default"), unpublished()) == (20, {"high"})
        assert publish.relay() == 0
    said = [record.getMessage() for record in caplog.records if record.name == "jobs.publish"]
    assert len(said) == 1
    assert "2 messages wait in the ledger until they may be sent (high: 2)" in said[0]
    taken_again()
    assert publish.relay() == 2
    assert (client.llen("default"), client.llen("high")) == (20, 2)
    assert "queue high takes messages again, after 8 refusals" in caplog.text
    assert unpublished() == set()


def test_it_holds_up_no_later_ones(taken_again: Callable[[], Any], client: redis.Redis) -> None:
    with transaction.atomic():
        add.enqueue_many([(n, n) for n in range(1100)], queue="high")
        add.enqueue_many([(n, n) for n in range(700)], queue="low")
        connection.run_on_commit.clear()
    assert publish.relay() == 700
    assert publish.relay() == 0
    assert client.llen("low") == 700
    taken_again()
    assert publish.relay() == 1100


def test_a_call_says_which_queue_it_is(taken_again: Callable[[], Any]) -> None:
    start = time.monotonic()
    policy = {"max_retries": 3, "interval_start": 30, "interval_max": 30}
    with pytest.raises(QueueRefused, match="'high': ") as caught:
        add.apply_async((1, 1), queue="high", retry_policy=policy)
    assert caught.value.queues == ("high",)
    assert time.monotonic() - start < 25  # not tried again: its rights don't come within seconds


def test_calls_for_several_queues_are_all_sent_or_none(
    taken_again: Callable[[], Any], client: redis.Redis
) -> None:
    calls = [add.s(1, 1), add.s(2, 2).set(queue="high"), add.s(3, 3).set(queue="low")]
    with pytest.raises(QueueRefused, match="'high': "):
        group(calls).apply_async()
    assert client.llen("default") == client.llen("low") == 0


def test_what_was_sent_is_not_sent_again_by_the_retry_policy(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gets full in the midst of it."""
    real = broker.get().push
    counts: list[int] = []

    def push(messages: Any) -> None:
        every = list(messages)
        counts.append(len(every))
        if len(counts) == 1:
            real(every[:2])
            error = BrokerUnavailable("OOM")
            error.unsent = frozenset(range(2, len(every)))
            raise error
        real(every)

    monkeypatch.setattr(broker.get(), "push", push)
    add.enqueue_many([(n, n) for n in range(5)])
    assert counts == [5, 3]
    assert client.llen("default") == 5


def test_a_message_that_breaks_the_connection_keeps_no_other(
    client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 5_000_000}
    with transaction.atomic():
        for n in range(10):
            trace.delay("x" * (3_000_000 if n == 4 else 10))
        connection.run_on_commit.clear()
    client.config_set("proto-max-bulk-len", 1_048_576)
    assert publish.relay() == 9
    before = client.llen("default")
    assert before <= 18  # whatever was doubtful was sent a second time
    assert publish.relay() == publish.relay() == 0
    assert client.llen("default") == before
    assert caplog.text.count("bytes, waits in the ledger") == 1
    client.config_set("proto-max-bulk-len", 512_000_000)
    assert publish.relay() == 1


def test_a_message_that_always_breaks_the_connection_ends(
    client: redis.Redis, settings: Settings
) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 5_000_000}
    client.config_set("proto-max-bulk-len", 1_048_576)
    with transaction.atomic():
        result = chain(trace.si("x" * 3_000_000), add.si(1, 1)).delay()
        joined = chord([trace.si("y" * 3_000_000), add.si(1, 1)], add.si(2, 2)).delay()
        trace.delay("good")
        connection.run_on_commit.clear()
    relay = Relay()
    relay.step()
    assert set(TaskResult.objects.values_list("state", flat=True)) == {"PENDING"}
    relay.step()
    relay.step()
    work()
    for one in (result.parent, result, joined):
        assert one is not None
        assert one.state == "FAILURE"
    assert "can't be put on its queue" in TaskResult.objects.get(id=result.parent.id).error
    assert TaskResult.objects.get(args='["good"]').state == "SUCCESS"
    assert not TaskResult.objects.filter(state="PENDING").exists()


# -------------------------------------------------------------------- a broker that is frozen


def commit() -> float:
    """Commit a durable call; how long that took."""
    with transaction.atomic():
        add.delay(1, 2)
        start = time.monotonic()
    return time.monotonic() - start


def test_commits_do_not_wait_for_a_frozen_broker(
    client: redis.Redis, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.broker.connection._SILENT", 600.0)
    commit()
    ran: list[int] = []
    with own_valkey.frozen():
        assert commit() < MOST
        silent = broker.by_shard()._redis._silent_until
        assert silent > time.monotonic()
        for _ in range(20):
            commit()
        with transaction.atomic():
            Schedule.objects.create(name="x", task="tests.tasks.add", crontab="* * * * *")
            transaction.on_commit(lambda: ran.append(1))
        # It did not answer a moment ago, so nobody has asked it again: that would have renewed it.
        assert broker.by_shard()._redis._silent_until == silent
    assert ran == [1]
    assert TaskResult.objects.filter(published_at=None).count() == 21
    assert publish.relay() == 21
    commit()
    assert unpublished() == set()  # it has answered again, so commits publish again


def test_connecting_to_one_that_is_frozen(client: redis.Redis, own_valkey: Valkey) -> None:
    with own_valkey.frozen():
        assert commit() < MOST


def test_an_address_that_nobody_answers_at(settings: Settings) -> None:
    # Its backlog is full: connecting is not even refused.
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(3):
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        for scheme in ("redis", "rediss"):
            settings.JOBS = {**settings.JOBS, "BROKER_URL": f"{scheme}://127.0.0.1:{port}/0"}
            assert commit() < MOST


def test_a_tls_handshake_without_an_answer(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"rediss://127.0.0.1:{listening.getsockname()[1]}/0"
        settings.JOBS = {**settings.JOBS, "BROKER_URL": url}
        assert commit() < MOST


def test_many_megabytes_to_a_frozen_broker(client: redis.Redis, own_valkey: Valkey) -> None:
    commit()
    with own_valkey.frozen():
        with transaction.atomic():
            trace.enqueue_many([("x" * 500_000,) for _ in range(60)])
            start = time.monotonic()
        assert time.monotonic() - start < MOST


def test_the_short_time_out_is_that_of_commits_alone(
    client: redis.Redis, own_valkey: Valkey, settings: Settings
) -> None:
    settings.JOBS = {**settings.JOBS, "SOCKET_TIMEOUT": 2.0}
    commit()
    with own_valkey.frozen():
        start = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            add.apply_async((1, 2), retry=False)
        assert time.monotonic() - start > 1.9


def test_what_is_not_durable_is_tried_in_any_case(client: redis.Redis, own_valkey: Valkey) -> None:
    commit()
    with own_valkey.frozen():
        commit()
    with transaction.atomic():
        light_trace.delay("sent")
    assert b"light_trace" in client.lindex("default", 0)


def test_unique_calls_and_retries_by_hand_as_well(client: redis.Redis, own_valkey: Valkey) -> None:
    commit()
    row = TaskResult.objects.get()
    TaskResult.objects.update(state="FAILURE")
    with own_valkey.frozen():
        commit()
        with transaction.atomic():
            start = time.monotonic()
            once.delay("x")
        assert time.monotonic() - start < MOST
    assert control.retry(row.id)
