"""Addresses of Sentinels: what is wrong with one is said in a line."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
import trustme

from jobs.broker.base import Outgoing
from jobs.broker.redis import RedisBroker
from jobs.exceptions import BrokerUnavailable, NotReplicated
from tests.faults.tls import TlsFront
from tests.integration.broker.helpers import claim, push
from tests.services import Sentinel, SentinelTrio, Valkey, free_port


def refusal(url: str) -> str:
    broker = RedisBroker(url, timeout=2)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.ping()
    assert str(caught.value).startswith(f"Redis at {broker.address} can't be used: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).partition("used: ")[2]


def test_a_service_that_they_do_not_know(sentinel_trio: SentinelTrio) -> None:
    said = refusal(sentinel_trio.url.replace("/jobs/", "/other/"))
    assert said.startswith("no Sentinel names the master: 127.0.0.1:")
    assert said.count("doesn't know the service 'other'") == 3


def test_none_can_be_reached() -> None:
    said = refusal(f"redis+sentinel://127.0.0.1:{free_port()},[::1]:{free_port()}/jobs/0")
    assert said.startswith("no Sentinel names the master: 127.0.0.1:")
    assert said.count("Error") == 2


def test_servers_that_are_no_sentinels(valkey_server: Valkey) -> None:
    said = refusal(f"redis+sentinel://127.0.0.1:{valkey_server.port}/jobs/0")
    assert said == f"no Sentinel names the master: 127.0.0.1:{valkey_server.port} is no Sentinel"


def test_one_that_is_away_is_passed_over(sentinel_trio: SentinelTrio, sentinel_url: str) -> None:
    broker = RedisBroker(sentinel_url.replace("//", f"//127.0.0.1:{free_port()},"))
    push(broker, b"a")
    assert claim(broker) == [b"a"]
    broker.close()


def test_a_master_that_has_become_a_replica_is_asked_no_more(
    sentinel_trio: SentinelTrio, sentinel_url: str
) -> None:
    """As between its demotion and the end of its connections."""
    broker = RedisBroker(sentinel_url)
    broker.ping()
    with sentinel_trio.client() as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable, match="Name the master"):
            push(broker, b"a")
        client.replicaof("NO", "ONE")
    push(broker, b"a")
    broker.close()


@pytest.fixture
def secured(own_valkey: Valkey, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Hosts and options of a Sentinel that wants TLS, a user and a password, as its master does."""
    authority = trustme.CA()
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(certificate)
    with own_valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">pass/word", "~*", "&*", "+@all")
    master = TlsFront(own_valkey.port, certificate)
    rights = "+sentinel|get-master-addr-by-name +client|setinfo"
    sentinel = Sentinel(
        *(tmp_path / "sentinel", master.port, 1),
        *("user default off", f"user asks on >se:cret {rights} &*"),
    )
    sentinel.start()
    front = TlsFront(sentinel.port, certificate)
    yield f"127.0.0.1:{front.port}", f"ssl_ca_certs={quote(str(file))}"
    front.close()
    sentinel.stop()
    master.close()


def test_tls_and_users_of_both(secured: tuple[str, str]) -> None:
    hosts, options = secured
    url = f"rediss+sentinel://shop:pass%2Fword@{hosts}/jobs/0?{options}"
    user = "&sentinel_username=asks&sentinel_password=se%3Acret"
    broker = RedisBroker(url + user)
    push(broker, b"a")
    assert claim(broker) == [b"a"]
    broker.close()
    said = refusal(url)
    assert "its user and password are sentinel_username and sentinel_password" in said
    said = refusal(url + user.replace("cret", "cond"))
    assert "sentinel_username" in said
    assert "cond" not in said
    said = refusal(url.replace("pass%2F", "wrong") + user)
    assert "Check user and password in JOBS['BROKER_URL']" in said


def test_a_replica_says_that_it_is_one(redis_broker: RedisBroker, client: redis.Redis) -> None:
    assert not redis_broker.keeping().read_only
    client.replicaof("127.0.0.1", "1")
    try:
        assert redis_broker.keeping().read_only
    finally:
        client.replicaof("NO", "ONE")


# ------------------------------------------------------------------------- replicas


def test_a_push_waits_for_a_replica(
    sentinel_trio: SentinelTrio, sentinel_broker: RedisBroker
) -> None:
    messages = [Outgoing("mail", b"%d" % n) for n in range(500)]
    sentinel_broker.push(messages, replicas=1)
    with sentinel_trio.master.client() as client:
        client.script_flush()
    sentinel_broker.push((Outgoing("mail", b"one", 0, 4e9),), replicas=1)
    replica = next(one for one in sentinel_trio.servers if one is not sentinel_trio.master)
    with replica.client() as client:
        assert client.llen("mail") == 500
        assert client.zcard("{mail}:due") == 1


def test_too_few_replicas(sentinel_url: str) -> None:
    broker = RedisBroker(sentinel_url, timeout=3)  # for the one, on a busy machine
    with pytest.raises(NotReplicated, match=r"of 2 replicas .* in time: 1$") as caught:
        broker.push([Outgoing("mail", b"a"), Outgoing("other", b"b")], replicas=2)
    assert caught.value.unsent == frozenset()
    assert broker.stats("mail").waiting == 1
    broker.close()
