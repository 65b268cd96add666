"""A subscription that a thread has for as long as it lives, and whose server may go silently."""

from __future__ import annotations

import time
from typing import Any, Self

from redis.exceptions import RedisError

from jobs.broker.connection import Connections, has_answer, said
from jobs.exceptions import BrokerUnavailable

#: After so many seconds of silence the server is asked whether it is there, and after as many more
#: without an answer it isn't: firewalls forget idle connections.
_SILENCE = 20.0


class WatchedSubscription:
    """A subscription from the moment the context is entered, on a connection of its own."""

    def __init__(self, redis: Connections, channel: str, *, pattern: bool = False) -> None:
        """``pattern``: whether the channel's name is one, for all channels that match it."""
        self._redis = redis
        self._channel = channel
        self._pattern = pattern
        self._connection: Any = None
        #: When something last came, and whether an answer of the server is awaited (monotonic).
        self._heard_at = 0.0
        self._asked = False

    def __enter__(self) -> Self:
        self._connection = self._redis.subscribe([self._channel], pattern=self._pattern)
        self._heard_at, self._asked = time.monotonic(), False
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.disconnect()

    def receive(self, timeout: float) -> list[Any] | None:
        """What comes next from the server: its kind, such as ``b"message"``, and what belongs to
        that. None if nothing comes within ``timeout`` seconds.

        Raises `BrokerUnavailable`: what is published from then on is missed.
        """
        try:
            if not has_answer(self._connection, timeout):
                self._ask_if_silent()
                return None
            found: list[Any] = said(self._connection)
        except BrokerUnavailable:
            raise
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis at {self._redis.address}: {error}") from error
        self._heard_at, self._asked = time.monotonic(), False
        return found

    def _ask_if_silent(self) -> None:
        now = time.monotonic()
        if now - self._heard_at < _SILENCE:
            return
        if self._asked:
            raise BrokerUnavailable(f"Redis at {self._redis.address} doesn't answer any more.")
        self._connection.send_command("PING", check_health=False)
        self._heard_at, self._asked = now, True
