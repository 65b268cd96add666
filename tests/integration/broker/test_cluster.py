"""What is special about a Cluster: keys on several nodes, and slots that move between them.

The contract that it shares with the other brokers is in the files beside this one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis
from pytest_django import Settings

from jobs import checks
from jobs.broker.base import Broker, Outgoing, ended
from jobs.broker.cluster import Cluster
from jobs.broker.connection import Connections
from jobs.broker.redis import RedisBroker
from jobs.exceptions import BrokerUnavailable, QueueRefused
from tests.integration.broker.helpers import LEASE, claim, numbered, push
from tests.services import Valkey, ValkeyCluster, ask, wait_for

#: One queue of each node.
QUEUES = ["mail", "default", "other"]


@pytest.fixture
def moved(valkey_cluster: ValkeyCluster) -> Iterator[Callable[..., None]]:
    """Move the slot of the queue ``mail`` to another node; it is moved back afterwards."""
    home = valkey_cluster.owner("mail")
    away = next(node for node in valkey_cluster.masters if node is not home)

    def move(**options: Any) -> None:
        valkey_cluster.move("mail", away, **options)

    yield move
    if valkey_cluster.owner("mail") is not home:
        valkey_cluster.move("mail", home)
    wait_for(valkey_cluster.whole)


def commands_of(cluster: ValkeyCluster) -> dict[str, int]:
    """How often clients have sent each command to any of the nodes."""
    counts: dict[str, int] = {}
    for node in cluster.masters:
        with node.client() as client:
            for name, told in client.info("commandstats").items():
                counts[name] = counts.get(name, 0) + told["calls"]
    return counts


def test_the_queues_are_on_three_nodes(valkey_cluster: ValkeyCluster) -> None:
    assert len({valkey_cluster.owner(f"{{{queue}}}").port for queue in QUEUES}) == 3


def life(broker: Broker, number: int) -> None:
    """A call from the send to its end, as an idle worker has it."""
    push(broker, b"a")
    found = broker.wait_and_claim("mail", "w1", number, 10, LEASE, 5)
    assert found.messages == [(number, b"a")]
    assert broker.ack("mail", "w1", [number], ["id-1"]) == 1


def test_a_call_takes_the_commands_that_it_takes_on_one_server(
    cluster_broker: RedisBroker,
    redis_broker: RedisBroker,
    valkey_cluster: ValkeyCluster,
    client: redis.Redis,
) -> None:
    life(redis_broker, 1)  # the scripts are known from then on
    life(cluster_broker, 1)
    client.config_resetstat()
    for node in valkey_cluster.masters:
        ask(node, "CONFIG", "RESETSTAT")
    for number in range(2, 12):
        life(redis_broker, number)
        life(cluster_broker, number)
    one = client.info("commandstats")
    many = commands_of(valkey_cluster)
    for command in ("cmdstat_evalsha", "cmdstat_blpop"):
        assert many[command] == one[command]["calls"]
    assert "cmdstat_client|unblock" not in many


def test_a_call_to_many_nodes_is_answered_in_order(cluster_broker: RedisBroker) -> None:
    queues = [f"q{n}" for n in range(50)]
    cluster_broker.push([Outgoing(queue, b"%d" % n) for n in range(3) for queue in queues])
    assert [stats.stats.waiting for stats in cluster_broker.survey(queues)] == [3] * 50
    cluster_broker.push(Outgoing(queues[n % 50], b"x") for n in range(1_000))
    assert [stats.stats.waiting for stats in cluster_broker.survey(queues)] == [23] * 50


@pytest.mark.parametrize("queue", QUEUES)
def test_waiting_on_all_nodes_at_once(
    cluster_broker: RedisBroker, threads: ThreadPoolExecutor, queue: str
) -> None:
    waiter = threads.submit(cluster_broker.wait, QUEUES, 20)
    push(cluster_broker, b"a", queue=queue)
    assert waiter.result(timeout=10) == queue
    assert cluster_broker.wait(QUEUES, 0.01) is None


def test_bells_that_ring_in_the_same_moment_are_all_heard(cluster_broker: RedisBroker) -> None:
    for _ in range(5):
        cluster_broker.push([Outgoing(queue, b"a") for queue in QUEUES])
        left = set(QUEUES)
        while left:
            rang = cluster_broker.wait(QUEUES, 5)
            assert rang in left
            found = cluster_broker.claim(rang, "w1", 1, 10, LEASE)
            cluster_broker.ack(rang, "w1", [number for number, _ in found.messages])
            cluster_broker.leave(rang, "w1")
            left.remove(rang)


def test_a_wait_for_more_queues_than_connections(
    cluster_broker: RedisBroker, threads: ThreadPoolExecutor, valkey_cluster: ValkeyCluster
) -> None:
    queues = [f"q{n}" for n in range(40)]
    push(cluster_broker, b"a", queue=queues[-1])
    assert cluster_broker.wait(queues, 20) == queues[-1]
    for queue in (queues[-2], queues[0]):
        waiter = threads.submit(cluster_broker.wait, queues, 20)
        wait_for(lambda: blocked(valkey_cluster) == 32)
        push(cluster_broker, b"a", queue=queue)
        assert waiter.result(timeout=10) == queue
        wait_for(lambda: blocked(valkey_cluster) == 0)
    assert cluster_broker.wait(queues, 0.01) is None


def blocked(cluster: ValkeyCluster) -> int:
    """How many connections wait for a list."""
    count = 0
    for node in cluster.masters:
        with node.client() as client:
            count += client.info("clients")["blocked_clients"]
    return count


def test_an_end_is_heard_whichever_node_has_the_queue(cluster_broker: RedisBroker) -> None:
    ids = [f"id-{n}" for n in range(30)]
    with cluster_broker.subscribe(*[ended(one) for one in ids]) as heard:
        for n, one in enumerate(ids):
            cluster_broker.ack(QUEUES[n % 3], "w1", [], [one])
        found: list[str] = []
        while len(found) < len(ids):
            assert heard(10)  # takes one
            found.append("")
    assert cluster_broker.listeners(ended("id-1")) == 0


def test_of_many_ends_those_are_told_that_somebody_waits_for(
    cluster_broker: RedisBroker, valkey_cluster: ValkeyCluster
) -> None:
    ids = [f"id-{n}" for n in range(100)]
    with cluster_broker.subscribe(ended("id-7")) as heard:
        for node in valkey_cluster.masters:
            ask(node, "CONFIG", "RESETSTAT")
        for queue in QUEUES:
            cluster_broker.ack(queue, "w1", [], ids)
            assert heard(10)
    assert commands_of(valkey_cluster)["cmdstat_publish"] == 3


def test_all_ends_are_told_where_a_node_can_t_be_asked(
    cluster_broker: RedisBroker, valkey_cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_broker.ping()
    monkeypatch.setattr(cluster_broker._redis, "everywhere", _refuse)
    for node in valkey_cluster.masters:
        ask(node, "CONFIG", "RESETSTAT")
    cluster_broker.ack("mail", "w1", [], [f"id-{n}" for n in range(100)])
    assert commands_of(valkey_cluster)["cmdstat_publish"] == 100


# ------------------------------------------------------------------------ slots that move


def test_a_slot_that_has_moved(
    cluster_broker: RedisBroker, moved: Callable[..., None], valkey_cluster: ValkeyCluster
) -> None:
    push(cluster_broker, b"a", b"b")
    assert claim(cluster_broker, 1) == [b"a"]
    before = valkey_cluster.owner("mail")
    moved()
    assert valkey_cluster.owner("mail") is not before
    assert cluster_broker.ack("mail", "w1", [1]) == 1
    assert claim(cluster_broker, 1, first=2) == [b"b"]
    push(cluster_broker, b"c")
    assert cluster_broker.wait_and_claim("mail", "w1", 3, 1, LEASE, 5).messages == [(3, b"c")]
    assert cluster_broker.stats("mail").in_flight == 2


def test_it_moves_while_it_is_waited_for(
    cluster_broker: RedisBroker, moved: Callable[..., None], threads: ThreadPoolExecutor
) -> None:
    def wait_and_claim() -> list[tuple[int, bytes]]:
        found = None
        while not (found and found.messages):
            with suppress(BrokerUnavailable):  # while its keys are on two nodes
                found = cluster_broker.wait_and_claim("mail", "w1", 1, 1, LEASE, 20)
        return found.messages

    def wait_for_all() -> str:
        rang = None
        while not rang:
            rang = cluster_broker.wait(QUEUES, 20)
        return rang

    waiters = threads.submit(wait_and_claim), threads.submit(wait_for_all)
    moved()
    push(cluster_broker, b"a", b"b")
    assert waiters[0].result(timeout=10) == [(1, b"a")]
    assert waiters[1].result(timeout=10) == "mail"


def test_its_keys_are_on_two_nodes_for_a_moment(
    cluster_broker: RedisBroker, moved: Callable[..., None]
) -> None:
    """The server does what needs keys of one node alone; all else has to wait."""
    push(cluster_broker, *numbered(5))
    claim(cluster_broker, 2)
    cluster_broker.count("mail", {"succeeded": 1}, {})
    verbs: dict[str, Callable[[], object]] = {
        "push": lambda: push(cluster_broker, b"late"),
        "claim": lambda: claim(cluster_broker, 2, first=3),
        "count": lambda: cluster_broker.count("mail", {"succeeded": 1}, {}),
    }
    refused = set()

    def between() -> None:
        for name, verb in verbs.items():
            try:
                verb()
            except QueueRefused:
                raise  # that would be for good
            except BrokerUnavailable:
                refused.add(name)
        assert cluster_broker.ack("mail", "w1", [1]) == 1

    moved(between=between)
    assert refused in ({"push", "claim", "count"}, {"claim", "count"})
    late = [] if "push" in refused else [b"late"]
    stats = cluster_broker.stats("mail")
    assert (stats.waiting, stats.in_flight) == (3 + len(late), 1)
    assert claim(cluster_broker, 9, first=3) == [*numbered(5)[2:], *late]


def test_nothing_is_lost_or_doubled_while_slots_move(
    cluster_broker: RedisBroker, moved: Callable[..., None], threads: ThreadPoolExecutor
) -> None:
    raws, got = numbered(300), []
    sent = threading.Event()

    def patiently(verb: Callable[[], Any]) -> Any:
        while True:
            with suppress(BrokerUnavailable):
                return verb()

    def send() -> None:
        for raw in raws:
            patiently(lambda raw=raw: push(cluster_broker, raw))
        sent.set()

    def work() -> None:
        number = 1
        while True:
            over = sent.is_set()
            found = patiently(lambda: cluster_broker.claim("mail", "w1", number, 7, LEASE))  # noqa: B023
            if found.resume:
                number = found.resume
                continue
            got.extend(raw for _, raw in found.messages)
            numbers = [n for n, _ in found.messages]
            patiently(lambda: cluster_broker.ack("mail", "w1", numbers))  # noqa: B023
            number += len(numbers)
            if over and not numbers:
                return

    sender, worker = threads.submit(send), threads.submit(work)
    moved()
    sender.result(timeout=30)
    worker.result(timeout=30)
    assert got == raws
    assert cluster_broker.stats("mail")[:3] == (0, 0, 0)


# ------------------------------------------------------------------------ the wrong kind of address


def test_a_clusters_address_of_a_single_server(broker_url: str) -> None:
    alone = RedisBroker(broker_url.replace("redis://", "redis+cluster://"))
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match=r"it is no Cluster.*write redis://"):
            alone.ping()
    with pytest.raises(BrokerUnavailable, match="it is no Cluster"):
        push(alone, b"a")


def test_no_node_answers() -> None:
    away = RedisBroker("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        away.ping()


def test_an_address_of_one_node_of_a_cluster(
    cluster_url: str, valkey_cluster: ValkeyCluster, settings: Settings
) -> None:
    for node in valkey_cluster.nodes:
        plain = RedisBroker(node.url)
        with pytest.raises(BrokerUnavailable, match=r"write redis\+cluster://"):
            plain.push([Outgoing(queue, b"a") for queue in QUEUES])
    settings.JOBS = {**settings.JOBS, "BROKER_URL": valkey_cluster.masters[0].url}
    [doubt] = checks.check_server()
    assert "write redis+cluster://" in doubt.msg
    settings.JOBS = {**settings.JOBS, "BROKER_URL": cluster_url}
    assert checks.check_server() == []


def test_both_kinds_of_connections_do_the_same() -> None:
    """The broker calls them without knowing which it has."""
    of_nodes = {"waiting", "forget_waiting", "unblock", "post", "collect", "abandon", "read"}
    of_nodes |= {"try_block", "current", "give_sign"}
    public = [
        {name for name in dir(kind) if not name.startswith("_")} for kind in (Connections, Cluster)
    ]
    assert public[0] - of_nodes == public[1]


def test_one_node_that_is_away_holds_up_its_own_messages_alone(
    cluster_broker: RedisBroker, valkey_cluster: ValkeyCluster
) -> None:
    cluster_broker.ping()
    away: Valkey = valkey_cluster.owner("{mail}")
    node = cluster_broker._redis._node("{mail}")  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "post", _refuse)
        with pytest.raises(BrokerUnavailable) as caught:
            cluster_broker.push([Outgoing(queue, b"a") for queue in QUEUES])
    assert caught.value.unsent == {0}
    assert [cluster_broker.stats(queue).waiting for queue in QUEUES] == [0, 1, 1]
    assert away.running


def _refuse(*_args: Any, **_options: Any) -> None:
    raise BrokerUnavailable("away")
