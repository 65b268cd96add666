"""The contract of every broker: all that operators want to see at once."""

from __future__ import annotations

import datetime as dt

import redis

from jobs.broker.base import (
    QUEUES_KNOWN,
    READABLE,
    SCHEDULES,
    Broker,
    Outgoing,
    Pause,
)
from jobs.broker.redis import RedisBroker
from tests.integration.broker.helpers import LEASE, claim, dead, push

AT = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def test_a_survey_says_what_the_single_verbs_say(broker: Broker) -> None:
    dead(broker, [b"gone"])
    push(broker, b"first", b"second", b"third")
    push(broker, b"urgent", priority=9)
    broker.push([Outgoing("mail", b"later", due=4e9)])
    assert claim(broker, 1) == [b"first"]
    broker.renew("post", ["w1"], LEASE)
    broker.pause("post", Pause("", "ada", "why", AT))
    broker.pause("post", Pause("a.task", "ada", "", AT))
    broker.report("mail", "worker", b"{}")
    mail, post, empty = broker.survey(["mail", "post", "nothing"])
    assert mail.stats == broker.stats("mail")
    assert [one.name for one in mail.consumers] == [c.name for c in broker.consumers("mail")]
    assert mail.reports == {"worker": b"{}"}
    assert mail.next_ones == [b"second", b"urgent"]
    assert post.stats.consumers == 1
    assert post.pauses == broker.paused("post")
    assert len(post.pauses) == 2
    assert broker.paused_of(["mail", "post"]) == [[], post.pauses]
    assert (tuple(empty.stats), *empty[1:]) == ((0, 0, 0, 0, 0), [], [], {}, [], "")
    assert broker.survey([]) == []


def test_a_survey_brings_no_large_message_along(broker: Broker) -> None:
    push(broker, b"x" * (READABLE + 1))
    push(broker, b"x" * READABLE, priority=9)
    (mail,) = broker.survey(["mail"])
    assert [len(raw) for raw in mail.next_ones] == [READABLE]


def test_a_refused_queue_hides_no_other(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, b"x", queue="post")
    client.set("{mail}:due", "of another type")
    mail, post = redis_broker.survey(["mail", "post"])
    assert "WRONGTYPE" in mail.problem
    assert mail.stats.waiting == 0
    assert (post.stats.waiting, post.problem) == (1, "")


def test_what_is_only_looked_at_hides_nothing_of_its_queue(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    push(redis_broker, b"x")
    redis_broker.report("mail", "w", b"{}")
    client.set("{mail}:paused", "of another type")
    (mail,) = redis_broker.survey(["mail"])
    assert (mail.stats.waiting, mail.pauses, mail.problem) == (1, [], "")
    assert mail.reports == {"w": b"{}"}
    assert redis_broker.damaged() == ["{mail}:paused"]
    client.delete("{mail}:paused")
    assert redis_broker.damaged() == []
    assert redis_broker.survey(["mail"])[0].problem == ""


def test_no_key_is_damaged(broker: Broker) -> None:
    broker.survey(["mail"])
    assert broker.damaged() == []


def test_a_survey_changes_nothing_and_is_one_round_trip(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    queues = [f"queue{n}" for n in range(20)]
    for queue in queues:
        push(redis_broker, b"x", queue=queue)
        redis_broker.renew(queue, ["w"], LEASE)
        redis_broker.report(queue, "gone", b'{"consumers": ["x"]}')
    redis_broker.survey(queues)  # the scripts are known from now on
    keys = sorted(client.keys())
    before = [client.dump(key) for key in keys]
    reads = client.info("stats")["total_reads_processed"]
    surveyed = redis_broker.survey(queues)
    # One of them is that of INFO itself; a pipeline of 20 queues may come in several pieces.
    assert client.info("stats")["total_reads_processed"] - reads <= 4
    assert [survey.stats.waiting for survey in surveyed] == [1] * 20
    assert sorted(client.keys()) == keys
    assert [client.dump(key) for key in keys] == before


def test_held_by_many(broker: Broker) -> None:
    push(broker, b"a", b"b")
    push(broker, b"c", queue="post")
    claim(broker, 2)
    broker.claim("post", "w2", 7, 1, LEASE)
    asked = [("mail", "w1", [2, 3, 1]), ("mail", "w1", []), ("post", "w2", [7])]
    assert broker.held_by(asked) == [b"b", None, b"a", b"c"]
    assert broker.held_by([]) == []


def test_undeclared_queues_are_remembered_the_latest_first(broker: Broker) -> None:
    assert broker.remembered_queues(10) == []
    broker.remember_queues([])
    broker.remember_queues(["one"])
    broker.remember_queues(["two", "straße"])
    assert set(broker.remembered_queues(10)) == {"one", "two", "straße"}
    broker.remember_queues([f"q{n}" for n in range(QUEUES_KNOWN)])
    found = broker.remembered_queues(10_000)
    assert len(found) == QUEUES_KNOWN
    assert "one" not in found
    assert len(broker.remembered_queues(3)) == 3


def test_a_name_is_not_sent_again_and_again(redis_broker: RedisBroker, client: redis.Redis) -> None:
    redis_broker.remember_queues(["one"])
    client.config_resetstat()
    redis_broker.remember_queues(["one"])
    assert "cmdstat_evalsha" not in client.info("commandstats")


def test_listeners_are_counted(broker: Broker) -> None:
    assert broker.listeners(SCHEDULES) == 0
    with broker.subscribe(SCHEDULES), broker.subscribe(SCHEDULES, "other"):
        assert broker.listeners(SCHEDULES) == 2


def test_a_server_that_does_not_say_who_listens(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-pubsub")
    try:
        assert redis_broker.listeners(SCHEDULES) is None
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+pubsub")


def test_how_the_server_keeps_its_data(redis_broker: RedisBroker, client: redis.Redis) -> None:
    keeping = redis_broker.keeping()
    assert keeping.used > 100_000
    assert (keeping.limit, keeping.failing) == (0, False)
    client.config_set("maxmemory", "500mb")
    try:
        assert redis_broker.keeping().limit == 500 * 1024 * 1024
    finally:
        client.config_set("maxmemory", "0")
