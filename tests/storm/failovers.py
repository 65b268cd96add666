"""Failovers of a storm: when a replica took over, what may be lost by that, and how soon work went
on."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Sequence
from typing import NamedTuple

import redis
from django.db.models import Min

from jobs import conf
from jobs.models import TaskResult
from tests.services import SentinelTrio, Valkey, ValkeyCluster, role

#: Servers of which one can stand in for another.
Servers = SentinelTrio | ValkeyCluster

#: Seconds before a master's end within which a replica may not have received what it was sent. On a
#: machine of its own that takes a millisecond.
LAG = 1.0


class Failover(NamedTuple):
    """Times are seconds since 1970."""

    began: float
    #: When the replica was a master, as it said itself.
    elected: float
    #: From when the old master took no more writes.
    over: float
    #: Those that were on the old master.
    queues: frozenset[str]

    def may_lose(self, id_: str) -> bool:
        """Whether a call of this id, sent outside a transaction, may be lost by it if the send
        didn't wait for a replica."""
        return self.began - LAG <= sent_at(id_) <= self.over


def sent_at(id_: str) -> float:
    """When a call's id was made, which is just before it is sent."""
    return int(id_.replace("-", "")[:12], 16) / 1000


def first_starts(failover: Failover) -> tuple[float | None, float | None]:
    """Seconds from the election to the first start of any call on these queues, and to that of one
    that was sent after the election; None if there is none yet."""
    elected = dt.datetime.fromtimestamp(failover.elected, dt.UTC)
    rows = TaskResult.objects.filter(started_at__gt=elected, queue__in=failover.queues)
    digits = f"{int(failover.elected * 1000) + 1:012x}"
    after = rows.filter(id__gte=f"{digits[:8]}-{digits[8:]}")
    found = [some.aggregate(first=Min("started_at"))["first"] for some in (rows, after)]
    any_, new = [one and (one - elected).total_seconds() for one in found]
    return any_, new


def key_of(queue: str) -> str:
    """A key with the slot of a queue."""
    return f"{{{queue}}}"


def queues_of(servers: Servers, node: Valkey) -> frozenset[str]:
    """Those that one node has, without the ones that have shards."""
    declared = conf.get().queues.items()
    whole = [name for name, queue in declared if queue.shards == 1]
    return frozenset(name for name in whole if servers.owner(key_of(name)) is node)


def replicas(servers: Servers) -> list[Valkey]:
    """Those that may take over."""
    return [node for node in servers.nodes if node.running and role(node) == "slave"]


def wait_for_election(candidates: Sequence[Valkey], seconds: float) -> float:
    """When one of these has become a master (seconds since 1970); 0.0 if none has."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for node in candidates:
            with contextlib.suppress(redis.RedisError):
                if role(node) == "master":
                    return time.time()
        time.sleep(0.005)
    return 0.0
