"""`jobs.broker.celery` on Redis."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

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
from jobs.broker.connection import Connections, has_answer, said
from jobs.exceptions import BrokerUnavailable

#: What a client calls itself: kombu makes it with `uuid`. It becomes part of a key's name.
_CLIENT = re.compile(r"[0-9A-Za-z-]{1,64}")

#: Most answers that wait for one client, and seconds for which they are kept: a client waits for
#: about a second, but one that died may have left its list behind.
_ANSWERS, _KEPT = 10_000, 60

#: After so many seconds of silence the server is asked whether it is there, and after as many more
#: without an answer it isn't: firewalls forget idle connections.
_SILENCE = 20.0


class RedisCeleryChannels(CeleryChannels):
    def __init__(self, redis: Connections, prefix: str) -> None:
        """``prefix``: what all names begin with, Celery's ``global_keyprefix``."""
        self._redis = redis
        self._prefix = prefix
        self._fanout = f"{prefix}/{redis.database}."

    @contextlib.contextmanager
    def listen(self) -> Iterator[Commands]:
        connection = self._redis.subscribe([self._fanout + PIDBOX])
        try:
            yield Commands(connection, self._redis.address)
        finally:
            connection.disconnect()

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


class Commands:
    """A subscription to what clients send."""

    def __init__(self, connection: Any, address: str) -> None:
        self._connection = connection
        self._address = address
        #: When something last came, and whether an answer of the server is awaited (monotonic).
        self._heard_at = time.monotonic()
        self._asked = False

    def __call__(self, timeout: float) -> Broadcast | None:
        """The next one that comes within ``timeout`` seconds.

        Raises `ValueError` for one that can't be read, and `BrokerUnavailable`.
        """
        try:
            if not has_answer(self._connection, timeout):
                self._ask_if_silent()
                return None
            kind, *_, data = said(self._connection)
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis at {self._address}: {error}") from error
        self._heard_at, self._asked = time.monotonic(), False
        return unpacked(data) if kind == b"message" else None

    def _ask_if_silent(self) -> None:
        now = time.monotonic()
        if now - self._heard_at < _SILENCE:
            return
        if self._asked:
            raise BrokerUnavailable(f"Redis at {self._address} doesn't answer any more.")
        self._connection.send_command("PING", check_health=False)
        self._heard_at, self._asked = now, True
