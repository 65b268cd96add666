"""Limits and unique locks on Redis: the part of `RedisBroker` that belongs to no queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from jobs.broker import scripts
from jobs.broker.connection import Connections, Run
from jobs.broker.limiting import (
    ASK_AGAIN,
    ASK_AGAIN_EACH,
    ASK_AGAIN_MOST,
    HANDED,
    SLOT,
    Limiting,
    Lock,
    Slot,
    Wish,
)
from jobs.broker.rates import Permit

#: Most holders in one call of a script.
_MOST = 300


class RedisLimits(Limiting):
    _prefix: str
    _redis: Connections

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        runs: list[Run] = [
            (scripts.PERMITS, (f"{self._limit(wish.limit)}:rate",), _wished(wish))
            for wish in wishes
        ]
        return [
            [Permit(max(0, at - now) / 1e6, at / 1e6) if at else Permit(0.0) for at in answers]
            for now, *answers in self._redis.run_all(runs)
        ]

    def set_rate(self, task: str, text: bytes | None) -> bool:
        key = f"{self._prefix}{{limits}}:rates"
        if text is None:
            return bool(self._redis.call("HDEL", key, task))
        return not self._redis.call("HSET", key, task, text)

    def rates(self) -> Mapping[str, bytes]:
        flat = self._redis.call("HGETALL", f"{self._prefix}{{limits}}:rates")
        return {name.decode(): text for name, text in zip(flat[::2], flat[1::2], strict=True)}

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        asked = [_ms(value) for value in (SLOT, ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST)]
        parts = _by_limit(slots)
        runs: list[Run] = []
        for (limit, most), places in parts:
            pairs = [value for n in places for value in (slots[n].queue, slots[n].holder)]
            runs.append((scripts.SLOTS, self._slots(limit), (most, *asked, *pairs)))
        times = [0.0] * len(slots)
        for (_, places), answers in zip(parts, self._redis.run_all(runs), strict=True):
            for place, at in zip(places, answers, strict=True):
                times[place] = at / 1000
        return times

    def keep_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, _), places in _by_limit(slots):
            args: list[int | str] = [_ms(SLOT), *(slots[n].holder for n in places)]
            runs.append((scripts.KEEP, self._slots(limit)[:1], args))
        self._redis.run_all(runs)

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _ms(HANDED)]
            for n in places:
                args += (_ms(slots[n].due), slots[n].queue, slots[n].holder)
            runs.append((scripts.WAIT, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def free_slots(self, slots: Sequence[Slot]) -> None:
        runs: list[Run] = []
        for (limit, most), places in _by_limit(slots):
            args: list[int | str] = [most, _ms(HANDED), *(slots[n].holder for n in places)]
            runs.append((scripts.FREE, self._slots(limit), args))
        self._wake(self._redis.run_all(runs))

    def _wake(self, answers: Sequence[Sequence[bytes]]) -> None:
        """Have those be due now for whom a slot is kept."""
        due: defaultdict[str, list[int]] = defaultdict(list)
        for flat in answers:
            for waiter, at in zip(flat[::2], flat[1::2], strict=True):
                due[waiter.partition(b"\x06")[0].decode()].append(int(float(at)))
        self._redis.run_all(
            [(scripts.WAKE, self._due_and_bell(queue), times) for queue, times in due.items()]
        )

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        runs: list[Run] = [
            (
                scripts.LOCK,
                (self._lock(lock.name),),
                (lock.task_id, max(1, _ms(lock.seconds)), lock.take.value),
            )
            for lock in locks
        ]
        return [answer.decode() for answer in self._redis.run_all(runs)]

    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        runs: list[Run] = [
            (scripts.UNLOCK, (self._lock(lock.name),), (lock.task_id, lock.take.value))
            for lock in locks
        ]
        return [answer.decode() for answer in self._redis.run_all(runs)]

    def locked(self, names: Sequence[str]) -> list[str]:
        found = self._redis.calls([("GET", self._lock(name)) for name in names]) if names else []
        return ["" if not value or value[:1] == b"-" else value.decode() for value in found]

    # ------------------------------------------------------------------ names

    def _due_and_bell(self, queue: str) -> tuple[str, str]:
        raise NotImplementedError  # the broker's, which names the keys of queues

    def _limit(self, name: str) -> str:
        return f"{self._prefix}{{limit:{name}}}"

    def _slots(self, name: str) -> tuple[str, str]:
        limit = self._limit(name)
        return f"{limit}:held", f"{limit}:waiting"

    def _lock(self, name: str) -> str:
        return f"{self._prefix}{{unique:{name}}}"


def _wished(wish: Wish) -> tuple[float, ...]:
    longest = -1 if wish.within is None else round(wish.within * 1e6)
    interval = wish.rate.interval * 1e6
    times = (round(at * 1e6) for at in wish.before)
    return interval, wish.rate.burst, longest, wish.unused, *times


def _by_limit(slots: Sequence[Slot]) -> list[tuple[tuple[str, int], list[int]]]:
    """The places in the sequence of each limit's slots, as many as one call takes."""
    places: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for n, slot in enumerate(slots):
        places[slot.limit, slot.most].append(n)
    return [
        (limit, all_[i : i + _MOST])
        for limit, all_ in places.items()
        for i in range(0, len(all_), _MOST)
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
