"""Short ways to say what the broker's tests say often."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from jobs.broker.base import Broker, Outgoing

LEASE = 60.0


class Since:
    """Equal to any moment so many milliseconds after one between ``began`` and now: however long a
    busy machine takes for the test."""

    def __init__(self, began: int, later: int = 0) -> None:
        """``began``: what the clock said then, in milliseconds."""
        self._began = began
        self._later = later

    def __eq__(self, moment: object) -> bool:
        assert isinstance(moment, int | float)
        return self._began <= moment - self._later <= time.time() * 1000

    def __repr__(self) -> str:
        return f"{self._later} ms after a moment since {self._began}"


def push(broker: Broker, *raws: bytes, queue: str = "mail", priority: int = 0) -> None:
    broker.push([Outgoing(queue, raw, priority) for raw in raws])


def claim(broker: Broker, limit: int = 10, *, by: str = "w1", first: int = 1) -> list[bytes]:
    """The messages of one claim on the queue ``mail``."""
    return [raw for _, raw in broker.claim("mail", by, first, limit, LEASE).messages]


def of_tenant(tenant: str, n: int) -> bytes:
    """A message that names its tenant, as the wire form has it."""
    named = json.dumps(tenant, ensure_ascii=False)
    return b'{"headers":{"n":%d,"jobs_fair":%b},"body":"x"}' % (n, named.encode())


def expire(broker: Broker, consumer: str, queue: str = "mail") -> None:
    """End a consumer's lease now; it becomes known by that."""
    broker.renew(queue, [consumer], -1)


def numbered(count: int) -> list[bytes]:
    return [b"message %d" % n for n in range(count)]


def waiting(broker: Broker) -> list[bytes]:
    """What waits on the queue ``mail``, the next first; takes it, and gives it to nobody."""
    return claim(broker, 1000, by="the end of the test", first=1_000_000)


def dead(broker: Broker, raws: Iterable[bytes], reason: str = "no such task") -> None:
    """Make dead letters of new messages, the last one the newest."""
    for number, raw in enumerate(raws, 500_000):
        push(broker, raw)
        broker.claim("mail", "undertaker", number, 1, LEASE)
        assert broker.dead_letter("mail", "undertaker", number, reason, "worker-1")
