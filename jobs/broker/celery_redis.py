"""`jobs.broker.celery` on Redis."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobs.broker import scripts
from jobs.broker.celery import (
    EVENTS,
    OURS,
    PIDBOX,
    REPLIES,
    Broadcast,
    CeleryChannels,
    packed,
    unpacked,
)
from jobs.broker.connection import Connections
from jobs.broker.watched import WatchedSubscription

#: What a client calls itself: kombu makes it with `uuid`. It becomes part of a key's name.
_CLIENT = re.compile(r"[0-9A-Za-z-]{1,64}")

#: Most answers that wait for one client, and seconds for which they are kept: a client waits for
#: about a second, but one that died may have left its list behind.
_ANSWERS, _KEPT = 10_000, 60


class RedisCeleryChannels(CeleryChannels):
    def __init__(self, redis: Connections, prefix: str) -> None:
        """``prefix``: what all names begin with, Celery's ``global_keyprefix``."""
        self._redis = redis
        self._prefix = prefix
        self._fanout = f"{prefix}/{redis.database}."

    def listen(self) -> Commands:
        return Commands(self._redis, self._fanout + PIDBOX)

    def order(self, method: str, arguments: Mapping[str, Any]) -> None:
        body = {"method": method, "arguments": dict(arguments), "destination": None}
        body |= {"pattern": None, "matcher": None}
        text = packed(body, {OURS: True}, PIDBOX, "")
        self._redis.call("PUBLISH", self._fanout + PIDBOX, text)

    def answer(self, client: str, answer: Any, headers: Mapping[str, Any]) -> None:
        if not _CLIENT.fullmatch(client):
            raise ValueError(f"no client is called {client!r}")
        text = packed(answer, headers, REPLIES, client)
        key = f"{self._prefix}{client}.{REPLIES}"
        self._redis.run(scripts.REPLY, [key], text, _ANSWERS, _KEPT)

    def tell(self, kind: str, events: Any, hostname: str) -> int:
        text = packed(events, {"hostname": hostname}, EVENTS, kind)
        return int(self._redis.call("PUBLISH", f"{self._fanout}{EVENTS}/{kind}", text))


class Commands(WatchedSubscription):
    """A subscription to what clients send."""

    def __call__(self, timeout: float) -> Broadcast | None:
        """The next one that comes within ``timeout`` seconds.

        Raises `ValueError` for one that can't be read, and `BrokerUnavailable`.
        """
        found = self.receive(timeout)
        return unpacked(found[-1]) if found and found[0] == b"message" else None
