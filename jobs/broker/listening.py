"""What comes in of one channel of Redis."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from jobs.broker.base import Subscription
from jobs.exceptions import BrokerUnavailable


class RedisSubscription(Subscription):
    def __init__(self, connection: Any, address: str) -> None:
        self._connection = connection
        self._address = address

    def __call__(self, timeout: float) -> bool:
        try:
            if not self._connection.can_read(timeout=max(timeout, 0)):
                return False
            self._connection.read_response()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis at {self._address}: {error}") from error
        return True

    def fileno(self) -> int:
        # redis-py keeps it to itself.
        return int(self._connection._sock.fileno())
