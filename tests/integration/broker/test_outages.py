"""Redis going away, coming back, refusing, and forgetting the scripts."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from jobs.broker.base import (
    About,
    Broker,
    CeleryResult,
    Compare,
    Note,
    Outgoing,
    Parking,
    Pause,
    Returned,
    Waiting,
)
from jobs.broker.counting import Resolution, Span
from jobs.broker.limiting import Lock, Rate, Slot, Wish
from jobs.broker.redis import RedisBroker
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from tests.integration.broker.helpers import LEASE, claim, numbered, push, waiting
from tests.services import Valkey, valkey, wait_for

VERBS: dict[str, Callable[[Broker], object]] = {
    "push": lambda b: b.push([Outgoing("mail", b"a")]),
    "push of due ones": lambda b: b.push([Outgoing("mail", b"a", 0, 1.0)]),
    "claim": lambda b: b.claim("mail", "w1", 9, 1, LEASE),
    "wait": lambda b: b.wait(["mail"], 0.01),
    "stirring": lambda b: b.stirring(["mail"], ["mail"]),
    "wait_and_claim": lambda b: b.wait_and_claim("mail", "w1", 9, 1, LEASE, 0.01),
    "ack": lambda b: b.ack("mail", "w1", [1], ["id-1"]),
    "retry": lambda b: b.retry("mail", "w1", 1, b"a", 0, 1.0),
    "release": lambda b: b.release("mail", "w1", [Returned(1)]),
    "dead_letter": lambda b: b.dead_letter("mail", "w1", 1, "why", "worker-1"),
    "bury": lambda b: b.bury("mail", b"a", "why", "worker-1"),
    "held": lambda b: b.held("mail", "w1", [1]),
    "numbers_held": lambda b: b.numbers_held(["mail"], "w1"),
    "taken": lambda b: b.taken("mail", "w1"),
    "hold_again": lambda b: b.hold_again("mail", "w1", {1: b"a"}, 2, LEASE),
    "doubtful": lambda b: b.doubtful(["mail"]),
    "compare": lambda b: b.compare("mail", "w1", Compare.BEGIN),
    "revoke": lambda b: b.revoke("mail", "id-1", 60, terminate=True),
    "revoked": lambda b: b.revoked("mail", ["id-1"]),
    "unrevoke": lambda b: b.unrevoke("mail", "id-1"),
    "note": lambda b: b.note("mail", [Note("id-1", About.PROGRESS, b"half")], 60),
    "noted": lambda b: b.noted("mail", "id-1", About.PROGRESS),
    "noted_of": lambda b: b.noted_of("mail", ["id-1"], About.PROGRESS),
    "forget_notes": lambda b: b.forget_notes("mail", ["id-1"], About.PROGRESS),
    "ring_for_foreign": lambda b: b.ring_for_foreign("mail", 0.01),
    "hasten": lambda b: b.hasten("mail", b"a", 0),
    "scan": lambda b: list(b.scan("mail")),
    "leave": lambda b: b.leave("mail", "w1"),
    "renew": lambda b: b.renew("mail", ["w1"], LEASE),
    "retain": lambda b: b.retain("mail", ["w1"], LEASE),
    "attended": lambda b: b.attended(["mail"]),
    "expired": lambda b: b.expired("mail"),
    "reclaim": lambda b: b.reclaim("mail", "w1", lambda number, raw: Returned(number)),
    "stats": lambda b: b.stats("mail"),
    "consumers": lambda b: b.consumers("mail"),
    "dead_letters": lambda b: b.dead_letters("mail", 10),
    "dead_letters_of": lambda b: b.dead_letters_of({"mail": None}, 10),
    "dead_letter_at": lambda b: b.dead_letter_at("mail", "1-0"),
    "requeue": lambda b: b.requeue("mail", "1-0"),
    "discard": lambda b: b.discard("mail", "1-0"),
    "pause": lambda b: b.pause("mail", Pause("shop.x", "ada", "", dt.datetime.now(dt.UTC))),
    "resume": lambda b: b.resume("mail", "shop.x"),
    "paused": lambda b: b.paused("mail"),
    "park": lambda b: b.park("mail", "w1", [Parking(1, 0, "shop.x")]),
    "take": lambda b: b.take("mail", "w1", 9, 1, LEASE),
    "pick": lambda b: b.pick("mail", "w1", 9, LEASE, Waiting(b"a", 0)),
    "withdraw": lambda b: b.withdraw("mail", [Waiting(b"a", 0)]),
    "browse": lambda b: list(b.browse("mail", due=False)),
    "browse of due ones": lambda b: list(b.browse("mail", due=True)),
    "peek": lambda b: b.peek("mail", 0, 1),
    "peek_due": lambda b: b.peek_due("mail", 1),
    "peek_in_flight": lambda b: b.peek_in_flight("mail", 0, 1),
    "revocations": lambda b: b.revocations("mail", 1),
    "report": lambda b: b.report("mail", "worker", b"busy"),
    "reports": lambda b: b.reports("mail"),
    "survey": lambda b: b.survey(["mail"]),
    "held_by": lambda b: b.held_by([("mail", "w1", [1])]),
    "remember_queues": lambda b: b.remember_queues(["mail"]),
    "remember_shards": lambda b: b.remember_shards({"mail": 2}),
    "remembered_shards": lambda b: b.remembered_shards(),
    "forget_shards": lambda b: b.forget_shards("mail", 1, 60),
    "remembered_queues": lambda b: b.remembered_queues(1),
    "listeners": lambda b: b.listeners("topic"),
    "reports_of": lambda b: b.reports_of(["mail"]),
    "report_ages": lambda b: b.report_ages("mail", 9),
    "report_ages_of": lambda b: b.report_ages_of(["mail"]),
    "note_gone": lambda b: b.note_gone("mail", b"ended", "worker"),
    "gone_of": lambda b: b.gone_of(["mail"]),
    "paused_of": lambda b: b.paused_of(["mail"]),
    "command": lambda b: b.command("mail", "worker", b"quiet", 60),
    "take_commands": lambda b: b.take_commands("mail", "worker"),
    "answer": lambda b: b.answer("mail", "c1", b"done", 60),
    "answered": lambda b: b.answered("mail", "c1"),
    "permits": lambda b: b.permits([Wish("mail", Rate(1.0), [0.0])]),
    "set_override": lambda b: b.set_override("shop.x", b"1/h"),
    "overrides": lambda b: b.overrides(),
    "take_slots": lambda b: b.take_slots([Slot("mail", 1, "a", "mail"), Slot("mail", 1, "b")]),
    "wait_for_slots": lambda b: b.wait_for_slots([Slot("mail", 1, "b", "mail", 1.0)]),
    "keep_slots": lambda b: b.keep_slots([Slot("mail", 1, "a")]),
    "free_slots": lambda b: b.free_slots([Slot("mail", 1, "a")]),
    "slots_in_use": lambda b: b.slots_in_use(["mail"]),
    "lock": lambda b: b.lock([Lock("mail", "a", 60)]),
    "unlock": lambda b: b.unlock([Lock("mail", "a")]),
    "locked": lambda b: b.locked(["mail"]),
    "count": lambda b: b.count("mail", {"failed": 1}, {"shop.x": {"failed": 1}}),
    "counts": lambda b: b.counts([Span("mail", Resolution.EVER, 0)]),
    "task_counts": lambda b: b.task_counts([Span("mail", Resolution.EVER, 0)]),
    "store_celery_results": lambda b: b.store_celery_results([CeleryResult("a", "{}", True)], 60),
    "store_celery_parts": lambda b: b.store_celery_parts("a", [(0, "[]")], None),
    "subscribe": lambda b: b.subscribe("topic").__enter__(),
    "notify": lambda b: b.notify("topic"),
    "check_queues": lambda b: b.check_queues(["mail"]),
    "ping": lambda b: b.ping(),
}


def test_no_verb_was_forgotten() -> None:
    verbs = {name.split()[0] for name in VERBS}
    assert verbs == Broker.__abstractmethods__ - {"close"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_scripts_may_be_forgotten_at_any_time(
    verb: str, redis_broker: RedisBroker, client: redis.Redis
) -> None:
    client.script_flush()
    VERBS[verb](redis_broker)
    client.script_flush()
    VERBS[verb](redis_broker)


def test_thousands_in_order_to_a_server_that_has_forgotten_the_scripts(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    client.script_flush()
    raws = numbered(2_500)
    push(redis_broker, *raws)
    client.script_flush()
    assert [raw for n in range(3) for raw in claim(redis_broker, 1000, first=n * 1000)] == raws


def test_every_verb_says_when_the_server_is_gone_and_works_when_it_is_back(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    lone_broker.ping()
    own_valkey.kill()
    for verb in VERBS.values():
        for _ in range(2):  # with the connection of before, and without one
            with pytest.raises(BrokerUnavailable, match=rf"^Redis at .*:{own_valkey.port}/0"):
                verb(lone_broker)
    own_valkey.start()
    for verb in VERBS.values():
        verb(lone_broker)


def test_who_has_seen_that_it_is_back_can_wait(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    """Waiting has a connection of its own, which is from before the outage still."""
    lone_broker.wait(["mail"], 0)
    own_valkey.kill()
    with pytest.raises(BrokerUnavailable):
        lone_broker.ping()
    own_valkey.start()
    lone_broker.ping()
    lone_broker.wait(["mail"], 0)


def test_what_was_pushed_outlives_the_server(lone_broker: RedisBroker, own_valkey: Valkey) -> None:
    push(lone_broker, b"a", b"b", b"c")
    assert claim(lone_broker, 1) == [b"a"]
    own_valkey.restart()
    assert claim(lone_broker, first=2) == [b"b", b"c"]
    assert lone_broker.ack("mail", "w1", [1, 2, 3]) == 3


def test_who_waits_learns_that_the_server_is_gone(
    lone_broker: RedisBroker, own_valkey: Valkey, threads: ThreadPoolExecutor
) -> None:
    waiter = threads.submit(lone_broker.wait, ["mail"], 60)
    with own_valkey.client() as plain:
        wait_for(lambda: plain.info("clients")["blocked_clients"] == 1)
    own_valkey.kill()
    with pytest.raises(BrokerUnavailable):
        waiter.result(timeout=10)


def test_who_listens_learns_that_the_server_is_gone(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    with lone_broker.listen("id-1") as heard:
        own_valkey.kill()
        with pytest.raises(BrokerUnavailable):
            heard(10)


def test_a_server_that_does_not_answer_is_given_up_in_time(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    push(lone_broker, b"a")
    with own_valkey.frozen():
        for verb in ("push", "wait", "stats"):
            start = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=r"[Tt]ime"):
                VERBS[verb](lone_broker)
            assert time.monotonic() - start < 20


def test_no_late_answer_is_taken_for_another_s(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    push(lone_broker, b"a", b"b")
    with own_valkey.frozen(), pytest.raises(BrokerUnavailable):
        lone_broker.stats("mail")
    assert lone_broker.expired("mail") == []
    assert claim(lone_broker) == [b"a", b"b"]


def test_a_claim_whose_answer_was_lost_is_safe_to_repeat(
    lone_broker: RedisBroker, own_valkey: Valkey
) -> None:
    push(lone_broker, *numbered(6))
    claim(lone_broker, 1)  # the script is known, the connection open
    with own_valkey.frozen(), pytest.raises(BrokerUnavailable):
        claim(lone_broker, 3, first=2)
    wait_for(lambda: lone_broker.stats("mail").in_flight == 4, 5)
    assert claim(lone_broker, 3, first=2) == numbered(6)[1:4]
    assert claim(lone_broker, 3, first=5) == numbered(6)[4:]
    assert lone_broker.ack("mail", "w1", range(1, 7)) == 6


@contextmanager
def configured(client: redis.Redis, name: str, value: object, after: object) -> Iterator[None]:
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, after)


def test_a_full_server(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, b"a", b"b", b"c", b"d", b"e")
    with configured(client, "maxmemory", 1, 0):
        for verb in ("push", "push of due ones"):
            with pytest.raises(BrokerUnavailable, match="memory"):
                VERBS[verb](redis_broker)
        # It can be worked off: nothing of what a worker does needs more memory in the end.
        assert claim(redis_broker, 4) == [b"a", b"b", b"c", b"d"]
        assert claim(redis_broker, 4) == [b"a", b"b", b"c", b"d"]  # whose answer was lost
        redis_broker.renew("mail", ["w1"], LEASE)
        assert redis_broker.ack("mail", "w1", [1]) == 1
        assert redis_broker.release("mail", "w1", [Returned(2)]) == 1
        assert redis_broker.dead_letter("mail", "w1", 3, "why", "worker-1")
        assert redis_broker.retry("mail", "w1", 4, b"d again", 0, time.time() + 3600)
        for verb in ("permits", "take_slots", "wait_for_slots", "free_slots", "lock", "unlock"):
            VERBS[verb](redis_broker)
    assert redis_broker.stats("mail")[:4] == (2, 0, 1, 1)
    assert waiting(redis_broker) == [b"b", b"e"]


def test_a_replica_refuses_to_write(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, b"a")
    client.replicaof("127.0.0.1", "1")
    try:
        for verb in ("push", "push of due ones", "claim"):
            with pytest.raises(BrokerUnavailable, match=r"read.?only|READONLY"):
                VERBS[verb](redis_broker)
    finally:
        client.replicaof("NO", "ONE")
    assert claim(redis_broker) == [b"a"]


def test_a_server_that_is_still_loading(
    lone_broker: RedisBroker, own_valkey: Valkey, client: redis.Redis, valkey_server: Valkey
) -> None:
    # For longer than it takes to see it, on the slowest machine; it is killed then.
    client.mset({f"key {n}": os.urandom(4096) for n in range(400)})
    client.config_set("repl-diskless-sync-delay", 0)
    with own_valkey.client() as plain:
        plain.config_set("key-load-delay", 50_000)  # µs a key
        plain.config_set("loading-process-events-interval-bytes", 1024)
        plain.replicaof("127.0.0.1", str(valkey_server.port))
    wait_for(lambda: "loading the dataset" in refusal(lone_broker), 20, what="LOADING")
    own_valkey.kill()


def refusal(broker: Broker) -> str:
    try:
        broker.ping()
    except BrokerUnavailable as error:
        return str(error)
    return ""


def test_a_connection_that_the_server_closed(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    redis_broker.ping()
    client.client_kill_filter(_type="normal", skipme=True)
    # One that was used just now is not looked at first.
    with suppress(BrokerUnavailable):
        redis_broker.ping()
    redis_broker.ping()


def test_the_password_is_not_told() -> None:
    broker = RedisBroker("redis://somebody:secret@127.0.0.1:1/0", timeout=0.5)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.ping()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/0" in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port/0"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"JOBS\['BROKER_URL'\] (must begin|has a port)"):
        RedisBroker(url)


def test_two_servers_are_two_brokers(tmp_path: Path, redis_broker: RedisBroker) -> None:
    with valkey(tmp_path / "second") as second:
        other = RedisBroker(second.url)
        push(other, b"a")
        assert claim(redis_broker) == []
        assert claim(other) == [b"a"]
        other.close()
