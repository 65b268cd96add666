"""The contract of every broker: when its queues are to be compared with the ledger, and what is put
back into flight."""

from __future__ import annotations

import pytest
import redis

from jobs.broker.base import Broker, Compare, Outgoing, Returned
from jobs.broker.redis import RedisBroker
from jobs.exceptions import NotReplicated
from tests.integration.broker.helpers import LEASE, claim, push, waiting
from tests.services import Valkey, ValkeyCluster


def test_a_queue_that_was_never_compared_is_doubtful(broker: Broker) -> None:
    assert broker.doubtful(["mail", "other"]) == ["mail", "other"]
    assert broker.doubtful([]) == []
    assert broker.compare("mail", "w1", Compare.BEGIN)
    assert broker.doubtful(["mail", "other"]) == ["mail", "other"]
    assert broker.compare("mail", "w1", Compare.CONTINUE)
    assert broker.compare("mail", "w1", Compare.END)
    assert broker.doubtful(["mail", "other"]) == ["other"]
    assert not broker.compare("mail", "w1", Compare.BEGIN)


def test_one_compares_at_a_time(broker: Broker) -> None:
    assert broker.compare("mail", "w1", Compare.BEGIN)
    assert not broker.compare("mail", "w2", Compare.BEGIN)
    assert not broker.compare("mail", "w2", Compare.CONTINUE)
    assert not broker.compare("mail", "w2", Compare.END)
    assert broker.compare("mail", "w1", Compare.BEGIN)  # after an interruption
    assert broker.compare("mail", "w1", Compare.END)
    assert not broker.compare("mail", "w1", Compare.END)


def test_what_was_not_begun_does_not_go_on(broker: Broker) -> None:
    assert not broker.compare("mail", "w1", Compare.CONTINUE)
    assert not broker.compare("mail", "w1", Compare.END)
    assert broker.doubtful(["mail"]) == ["mail"]


def compared(broker: Broker) -> None:
    assert broker.compare("mail", "w1", Compare.BEGIN)
    assert broker.compare("mail", "w1", Compare.END)
    assert broker.doubtful(["mail"]) == []


def test_an_emptied_server_is_doubtful(redis_broker: RedisBroker, client: redis.Redis) -> None:
    compared(redis_broker)
    client.flushall()
    assert redis_broker.doubtful(["mail"]) == ["mail"]
    compared(redis_broker)


def test_emptied_meanwhile_it_stays_doubtful(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    assert redis_broker.compare("mail", "w1", Compare.BEGIN)
    client.flushall()
    assert not redis_broker.compare("mail", "w1", Compare.CONTINUE)
    assert not redis_broker.compare("mail", "w1", Compare.END)
    assert redis_broker.doubtful(["mail"]) == ["mail"]


def test_a_restarted_server_is_doubtful(lone_broker: RedisBroker, own_valkey: Valkey) -> None:
    compared(lone_broker)
    assert lone_broker.compare("other", "w2", Compare.BEGIN)
    own_valkey.restart()
    lone_broker.ping()
    assert lone_broker.doubtful(["mail", "other"]) == ["mail", "other"]
    assert not lone_broker.compare("other", "w2", Compare.END)
    assert lone_broker.compare("other", "w1", Compare.BEGIN)  # whoever compared it before


def test_one_that_takes_over_is_doubtful(redis_broker: RedisBroker, client: redis.Redis) -> None:
    compared(redis_broker)
    client.replicaof("127.0.0.1", "1")
    client.replicaof("NO", "ONE")
    assert redis_broker.doubtful(["mail"]) == ["mail"]


def test_without_the_right_to_ask_who_the_server_is(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        compared(redis_broker)
        client.flushall()
        assert redis_broker.doubtful(["mail"]) == ["mail"]
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+info")


# ------------------------------------------------------------------------- held again


def test_what_was_lost_is_in_flight_again(broker: Broker) -> None:
    lost = {3: b"c", 4: b"d"}
    assert broker.hold_again("mail", "w1", lost, 5, LEASE) == 2
    assert broker.hold_again("mail", "w1", lost, 5, LEASE) == 0
    assert [(c.name, c.in_flight, c.lease > 0) for c in broker.consumers("mail")] == [
        ("w1", 2, True)
    ]
    assert broker.ack("mail", "w1", [3]) == 1
    assert broker.reclaim("mail", "w1", lambda number, raw: Returned(number)) == 1
    assert waiting(broker) == [b"d"]


def test_the_numbers_that_a_consumer_holds(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker, 2)
    assert broker.numbers_held(["mail", "other"], "w1") == {"mail": {1, 2}, "other": set()}
    assert broker.numbers_held(["mail"], "w2") == {"mail": set()}
    assert broker.numbers_held([], "w1") == {}


def test_what_is_there_stays_as_it_is(broker: Broker) -> None:
    push(broker, b"a", b"b")
    claim(broker, 2)
    assert broker.hold_again("mail", "w1", {1: b"a", 2: b"b"}, 3, LEASE) == 0
    assert broker.stats("mail").in_flight == 2


def test_nothing_is_held_again_once_others_have_it(broker: Broker) -> None:
    push(broker, b"a")
    claim(broker)
    broker.reclaim("mail", "w1", lambda number, raw: Returned(number))
    assert broker.hold_again("mail", "w1", {1: b"a"}, 2, LEASE) == 0
    assert broker.stats("mail")[:2] == (1, 0)


def test_the_numbers_of_a_consumer_go_on(broker: Broker) -> None:
    broker.hold_again("mail", "w1", {3: b"c"}, 5, LEASE)
    push(broker, b"new")
    late = broker.claim("mail", "w1", 4, 1, LEASE)
    assert (late.messages, late.resume) == ([], 5)
    assert claim(broker, first=5) == [b"new"]


def test_more_than_one_script_takes(broker: Broker) -> None:
    many = {number: b"%d" % number for number in range(1, 1000)}
    assert broker.hold_again("mail", "w1", many, 1000, LEASE) == 999
    assert broker.hold_again("mail", "w1", {}, 1000, LEASE) == 0


# ------------------------------------------------------------------------- of a Cluster


def test_what_one_node_has_lost_is_told_of_its_queues(
    cluster_broker: RedisBroker, valkey_cluster: ValkeyCluster
) -> None:
    queues = ["mail", *(f"q{n}" for n in range(20))]
    for queue in queues:
        assert cluster_broker.compare(queue, "w1", Compare.BEGIN)
        assert cluster_broker.compare(queue, "w1", Compare.END)
    assert cluster_broker.doubtful(queues) == []
    emptied = valkey_cluster.owner("{mail}")
    with emptied.client() as client:
        client.flushall()
    there = [queue for queue in queues if valkey_cluster.owner(f"{{{queue}}}") is emptied]
    assert 0 < len(there) < len(queues)
    assert cluster_broker.doubtful(queues) == there


def test_each_node_waits_for_its_replica(
    cluster_broker: RedisBroker, valkey_cluster: ValkeyCluster
) -> None:
    messages = [Outgoing(f"q{n % 20}", b"%d" % n) for n in range(500)]
    cluster_broker.push(messages, replicas=1)
    cluster_broker.push((Outgoing("mail", b"one"),), replicas=1)
    with pytest.raises(NotReplicated, match=r"in time: 1$"):
        RedisBroker(valkey_cluster.url, timeout=3).push(messages, replicas=2)
    assert cluster_broker.stats("mail").waiting == 1
