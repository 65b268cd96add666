"""Limits and unique locks in dicts: the part of `MemoryBroker` that belongs to no queue."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from jobs import rates
from jobs.broker.limiting import (
    ASK_AGAIN,
    ASK_AGAIN_EACH,
    ASK_AGAIN_MOST,
    HANDED,
    SLOT,
    Limiting,
    Lock,
    Slot,
    Take,
    Wish,
)
from jobs.rates import Bucket, Permit


class MemoryLimits(Limiting):
    _clock: Callable[[], float]
    _changed: threading.Condition

    def __init__(self) -> None:
        self._buckets: defaultdict[str, Bucket] = defaultdict(Bucket)
        self._places: defaultdict[str, _Places] = defaultdict(_Places)
        #: Name → the call, whether it has given the lock up, and until when that is kept.
        self._locks: dict[str, tuple[str, bool, float]] = {}
        #: Task → what is said of its rate.
        self._rates: dict[str, bytes] = {}

    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        with self._changed:
            return [self._permits(wish) for wish in wishes]

    def _permits(self, wish: Wish) -> list[Permit]:
        bucket, now, answers = self._buckets[wish.limit], self._clock(), []
        bucket = rates.at_rate(bucket, wish.rate, now)
        bucket = rates.give_back(bucket, wish.rate, wish.unused)
        for before in wish.before:
            bucket, answer = rates.ask(bucket, wish.rate, before, now, wish.within)
            answers.append(answer)
        self._buckets[wish.limit] = bucket
        return answers

    def set_rate(self, task: str, text: bytes | None) -> bool:
        with self._changed:
            was = self._rates.pop(task, None)
            if text is not None:
                self._rates[task] = text
            return was is not None

    def rates(self) -> Mapping[str, bytes]:
        with self._changed:
            return dict(self._rates)

    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        with self._changed:
            return [self._places[slot.limit].take(slot, self._clock()) for slot in slots]

    def keep_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                held = self._places[slot.limit].held
                if slot.holder in held:
                    held[slot.holder] = self._clock() + SLOT

    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                self._places[slot.limit].waiting[slot.queue, slot.holder] = slot.due
                self._hand_over(slot)

    def free_slots(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                self._places[slot.limit].held.pop(slot.holder, None)
                self._hand_over(slot)

    def _hand_over(self, slot: Slot) -> None:
        for queue, due in self._places[slot.limit].hand_over(slot.most, self._clock()):
            self._wake(queue, due)

    def _wake(self, queue: str, at: float) -> None:
        """Have what is due at this time be due now."""
        raise NotImplementedError  # the broker's, which has the queues

    def lock(self, locks: Sequence[Lock]) -> list[str]:
        with self._changed:
            return [self._take(lock) for lock in locks]

    def _take(self, lock: Lock) -> str:
        holder, given_up = self._known(lock.name)
        if holder != lock.task_id or given_up:
            if lock.take is Take.KEEP:
                return holder if holder and not given_up else "-"
            if lock.take is Take.FREE and holder and not given_up:
                return holder
        self._locks[lock.name] = (lock.task_id, False, self._clock() + lock.seconds)
        return ""

    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        with self._changed:
            return [self._unlock(lock) for lock in locks]

    def _unlock(self, lock: Lock) -> str:
        holder, given_up = self._known(lock.name)
        if holder != lock.task_id:
            return holder
        if not given_up:
            _, _, ends = self._locks.pop(lock.name)
            if lock.take is Take.REPLACE:
                self._locks[lock.name] = (holder, True, ends)
        return ""

    def locked(self, names: Sequence[str]) -> list[str]:
        with self._changed:
            known = map(self._known, names)
            return ["" if given_up else holder for holder, given_up in known]

    def _known(self, name: str) -> tuple[str, bool]:
        holder, given_up, ends = self._locks.get(name, ("", False, 0.0))
        return (holder, given_up) if ends > self._clock() else ("", False)


class _Places:
    """The slots of one limit."""

    def __init__(self) -> None:
        #: Holder → until when.
        self.held: dict[str, float] = {}
        #: Queue and holder → when its message is due.
        self.waiting: dict[tuple[str, str], float] = {}

    def take(self, slot: Slot, now: float) -> float:
        self._forget(now)
        self.waiting.pop((slot.queue, slot.holder), None)
        if slot.holder in self.held or len(self.held) < slot.most:
            self.held[slot.holder] = now + SLOT
            return 0.0
        return now + min(ASK_AGAIN_MOST, ASK_AGAIN + ASK_AGAIN_EACH * len(self.waiting))

    def hand_over(self, most: int, now: float) -> list[tuple[str, float]]:
        """Keep what is free for those who wait; their queues and due times."""
        self._forget(now)
        first = sorted(self.waiting, key=self.waiting.__getitem__)
        woken = []
        for queue, holder in first[: max(0, most - len(self.held))]:
            self.held[holder] = now + HANDED
            woken.append((queue, self.waiting.pop((queue, holder))))
        return woken

    def _forget(self, now: float) -> None:
        self.held = {holder: ends for holder, ends in self.held.items() if ends > now}
        self.waiting = {who: due for who, due in self.waiting.items() if due > now - 60}
