"""`jobs.broker.celery_ends` on Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import RedisError

from jobs.broker.celery_ends import PREFIX, CeleryEnds, Hear
from jobs.broker.connection import Connections, has_answer, said
from jobs.exceptions import BrokerUnavailable

#: After so many seconds of silence the server is asked whether it is there, and after as many more
#: without an answer it isn't: firewalls forget idle connections.
_SILENCE = 20.0


class RedisCeleryEnds(CeleryEnds):
    def __init__(self, redis: Connections) -> None:
        self._redis = redis

    @contextlib.contextmanager
    def listen(self) -> Iterator[Hear]:
        connection = self._redis.subscribe([])
        try:
            try:
                connection.send_command("PSUBSCRIBE", f"{PREFIX}*")
                said(connection)
            except (RedisError, OSError) as error:
                raise self._redis.translated(error) from error
            yield _Heard(connection, self._redis.address)
        finally:
            connection.disconnect()

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        if not ids:
            return {}
        found = self._redis.call("MGET", *(PREFIX + task_id for task_id in ids))
        return {task_id: text for task_id, text in zip(ids, found, strict=True) if text}

    def forget(self, task_id: str) -> None:
        self._redis.call("DEL", PREFIX + task_id)

    def close(self) -> None:
        self._redis.close()


class _Heard:
    """A subscription to all results."""

    def __init__(self, connection: Any, address: str) -> None:
        self._connection = connection
        self._address = address
        #: When something last came, and whether an answer of the server is awaited (monotonic).
        self._heard_at = time.monotonic()
        self._asked = False

    def __call__(self, timeout: float) -> str:
        try:
            if not has_answer(self._connection, timeout):
                self._ask_if_silent()
                return ""
            kind, *names = said(self._connection)
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis at {self._address}: {error}") from error
        self._heard_at, self._asked = time.monotonic(), False
        if kind != b"pmessage":
            return ""
        channel: bytes = names[1]
        return channel.decode("utf-8", "replace").removeprefix(PREFIX)

    def _ask_if_silent(self) -> None:
        now = time.monotonic()
        if now - self._heard_at < _SILENCE:
            return
        if self._asked:
            raise BrokerUnavailable(f"Redis at {self._address} doesn't answer any more.")
        self._connection.send_command("PING", check_health=False)
        self._heard_at, self._asked = now, True
