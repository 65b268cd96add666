"""Dead letters on Redis, a stream a queue: `jobs.broker.letters`."""

from __future__ import annotations

import datetime as dt
import re

from jobs.broker import scripts
from jobs.broker.connection import Connections
from jobs.broker.letters import DeadLetter, Letters
from jobs.broker.redis_keys import Keys

#: What the key of a dead letter, a stream's entry id, looks like; others are nobody's.
_ENTRY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


class RedisLetters(Letters):
    _redis: Connections

    def _keys(self, queue: str) -> Keys:
        raise NotImplementedError

    def dead_letter(self, queue: str, consumer: str, number: int, reason: str, worker: str) -> bool:
        keys = self._keys(queue)
        where = (keys.inflight(consumer), keys.dead)
        text = reason.encode("utf-8", "backslashreplace")
        return bool(self._redis.run(scripts.DEAD_LETTER, where, number, text, worker))

    def bury(self, queue: str, raw: bytes, reason: str, worker: str) -> None:
        text = reason.encode("utf-8", "backslashreplace")
        fields = ("reason", text, "worker", worker, "message", raw)
        self._redis.call("XADD", self._keys(queue).dead, "*", *fields)

    def dead_letters(self, queue: str, count: int, before: str | None = None) -> list[DeadLetter]:
        if before is not None and not _ENTRY.fullmatch(before):
            return []
        newest = f"({before}" if before else "+"
        found = self._redis.call("XREVRANGE", self._keys(queue).dead, newest, "-", "COUNT", count)
        return [_dead_letter(key.decode(), fields) for key, fields in found]

    def dead_letter_at(self, queue: str, key: str) -> DeadLetter | None:
        if not _ENTRY.fullmatch(key):
            return None
        found = self._redis.call("XRANGE", self._keys(queue).dead, key, key)
        return _dead_letter(found[0][0].decode(), found[0][1]) if found else None

    def requeue(self, queue: str, key: str, priority: int = 0, raw: bytes | None = None) -> bool:
        keys = self._keys(queue)
        where = (keys.dead, *keys.push[priority])
        return bool(_ENTRY.fullmatch(key)) and bool(
            self._redis.run(scripts.REQUEUE, where, key, raw or b"")
        )

    def discard(self, queue: str, key: str) -> bool:
        return bool(_ENTRY.fullmatch(key)) and bool(
            self._redis.call("XDEL", self._keys(queue).dead, key)
        )


def _dead_letter(key: str, flat: list[bytes]) -> DeadLetter:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    at = dt.datetime.fromtimestamp(int(key.partition("-")[0]) / 1000, dt.UTC)
    return DeadLetter(
        key, fields[b"message"], fields[b"reason"].decode(), at, fields[b"worker"].decode()
    )
