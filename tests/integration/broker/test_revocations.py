"""The contract of every broker: what is revoked, and which deliveries are still held."""

from __future__ import annotations

from jobs.broker.base import Broker, Returned, Revocation
from tests.integration.broker.helpers import LEASE, claim, numbered, push
from tests.services import wait_for


def said(broker: Broker, *ids: str) -> list[Revocation]:
    return broker.revoked("mail", ids)


def test_a_claim_tells_that_something_is_revoked(broker: Broker) -> None:
    push(broker, b"a", b"b")
    assert broker.claim("mail", "w1", 1, 1, LEASE).revocations is False
    broker.revoke("mail", "id-1", 60, terminate=False)
    assert broker.claim("mail", "w1", 2, 1, LEASE).revocations is True
    assert broker.claim("mail", "w1", 2, 1, LEASE).revocations is True  # repeated


def test_what_is_said_of_each(broker: Broker) -> None:
    broker.revoke("mail", "stop", 60, terminate=False)
    broker.revoke("mail", "kill", 60, terminate=True)
    assert said(broker, "kill", "other", "stop") == [
        Revocation.TERMINATE,
        Revocation.NONE,
        Revocation.REVOKED,
    ]
    assert said(broker) == []
    assert broker.revoked("another queue", ["stop"]) == [Revocation.NONE]


def test_it_can_be_said_again(broker: Broker) -> None:
    broker.revoke("mail", "id-1", 60, terminate=False)
    broker.revoke("mail", "id-1", 60, terminate=True)
    broker.revoke("mail", "id-1", 60, terminate=False)  # doesn't take back the other
    assert said(broker, "id-1") == [Revocation.TERMINATE]


def test_it_is_remembered_for_so_long(broker: Broker) -> None:
    push(broker, b"a")
    broker.revoke("mail", "id-1", 0.05, terminate=True)
    wait_for(lambda: said(broker, "id-1") == [Revocation.NONE], 5)
    assert broker.claim("mail", "w1", 1, 1, LEASE).revocations is False


def test_thousands(broker: Broker) -> None:
    broker.revoke("mail", "id-2100", 60, terminate=False)
    answer = said(broker, *[f"id-{n}" for n in range(2_500)])
    assert [n for n, one in enumerate(answer) if one] == [2100]


def test_what_is_held(broker: Broker) -> None:
    push(broker, b"a", b"b", b"c", b"d")
    claim(broker, 3)
    claim(broker, 1, by="w2", first=4)
    broker.ack("mail", "w1", [2])
    broker.release("mail", "w1", [Returned(3)])
    assert broker.held("mail", "w1", [1, 2, 3, 4, 9]) == {1}
    assert broker.held("mail", "w1", []) == set()
    assert broker.held("mail", "w2", [1, 4]) == {4}
    assert broker.held("mail", "nobody", [1]) == set()


def test_what_was_reclaimed_is_not_held(broker: Broker) -> None:
    push(broker, *numbered(1_200))
    claim(broker, 1000)
    claim(broker, 1000, first=1001)
    assert broker.held("mail", "w1", range(1, 1_301)) == set(range(1, 1_201))
    broker.reclaim("mail", "w1", lambda number, raw: Returned(number))
    assert broker.held("mail", "w1", range(1, 1_301)) == set()
