"""The contract of every broker: what an operator changes about messages that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.broker.base import Broker, Outgoing, Revocation
from tests.integration.broker.helpers import claim, dead, waiting
from tests.services import wait_for


@pytest.mark.parametrize("priority", [0, 3, 9])
def test_a_message_that_waits_for_its_time_is_due_now(broker: Broker, priority: int) -> None:
    later = time.time() + 600
    broker.push([Outgoing("mail", b"a", priority, later), Outgoing("mail", b"b", priority, later)])
    assert claim(broker) == []
    assert broker.hasten("mail", b"a", priority) is True
    assert claim(broker) == [b"a"]
    assert broker.hasten("mail", b"a", priority) is False
    assert broker.stats("mail").due == 1


def test_only_what_waits_is_hastened(broker: Broker) -> None:
    broker.push([Outgoing("mail", b"a"), Outgoing("mail", b"b", 3, time.time() + 600)])
    assert broker.hasten("mail", b"a", 0) is False
    assert broker.hasten("mail", b"b", 0) is False
    assert broker.hasten("other", b"b", 3) is False
    assert waiting(broker) == [b"a"]


def test_hastening_wakes_a_consumer(
    broker: Broker, asleep: Callable[[], int], threads: ThreadPoolExecutor
) -> None:
    broker.push([Outgoing("mail", b"a", 0, time.time() + 600)])
    claim(broker)  # finds nothing to claim, so that no bell rings any more
    waiter = threads.submit(broker.wait, ["mail"], 20)
    wait_for(lambda: asleep() == 1)
    broker.hasten("mail", b"a", 0)
    waiter.result(timeout=10)


def test_a_revocation_is_taken_back(broker: Broker) -> None:
    broker.revoke("mail", "id-1", 60, terminate=True)
    broker.revoke("mail", "id-2", 60, terminate=False)
    broker.unrevoke("mail", "id-1")
    broker.unrevoke("mail", "id-3")
    said = broker.revoked("mail", ["id-1", "id-2", "id-3"])
    assert said == [Revocation.NONE, Revocation.REVOKED, Revocation.NONE]
    broker.revoke("mail", "id-1", 60, terminate=False)
    assert broker.revoked("mail", ["id-1"]) == [Revocation.REVOKED]


def test_a_dead_letter_goes_back_in_another_form(broker: Broker) -> None:
    dead(broker, [b"a", b"b"])
    for letter in broker.dead_letters("mail", 2):
        raw = b"cleaned" if letter.raw == b"a" else None
        assert broker.requeue("mail", letter.key, 0, raw)
    assert sorted(waiting(broker)) == [b"b", b"cleaned"]
