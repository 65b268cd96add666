"""`jobs.broker.celery_ends` on Redis."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.broker.celery_ends import PREFIX, CeleryEnds, Said
from jobs.broker.connection import Connections
from jobs.broker.watched import WatchedSubscription


class RedisCeleryEnds(CeleryEnds):
    def __init__(self, redis: Connections) -> None:
        self._redis = redis

    def listen(self) -> Results:
        return Results(self._redis, f"{PREFIX}*", pattern=True)

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        if not ids:
            return {}
        found = self._redis.call("MGET", *(PREFIX + task_id for task_id in ids))
        return {task_id: text for task_id, text in zip(ids, found, strict=True) if text}

    def forget(self, task_id: str) -> None:
        self._redis.call("DEL", PREFIX + task_id)

    def close(self) -> None:
        self._redis.close()


class Results(WatchedSubscription):
    """A subscription to all results."""

    def __call__(self, timeout: float) -> Said | None:
        found = self.receive(timeout)
        if found is None or found[0] != b"pmessage":
            return None
        _, _, channel, text = found
        return Said(channel.decode("utf-8", "replace").removeprefix(PREFIX), text)
