"""Limits of the whole fleet, for code that is no task as well::

    from jobs import limits

    with limits.concurrency("imports", 3):
        ...
    limits.rate("mail", "100/m").acquire(timeout=5)

They are kept on Redis, by its clock. A limit has a name: whoever names the same one shares it, and
a task's limits are named by `name_of`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from jobs import broker
from jobs.api import options
from jobs.broker import limiting
from jobs.broker.limiting import SLOT, Rate, Slot, Wish
from jobs.exceptions import BrokerUnavailable, LimitReached
from jobs.message import new_id

log = logging.getLogger("jobs.limits")

#: Longest pause, in seconds, of code that waits for a slot and is no task.
_LOOK = 0.5
#: Seconds between two times at which what is held is held on.
_KEEP_EVERY = SLOT / 4


def name_of(task: str, key: str | None = None) -> str:
    """The name of a task's limits, or of those of one key."""
    return task if key is None else f"{task}:{key}"


class RateLimit(NamedTuple):
    """`rate` makes these."""

    name: str
    rate: Rate
    #: For the ``with`` statement.
    timeout: float | None = 0.0

    def acquire(self, timeout: float | None = 0.0) -> None:
        """Wait for a permit up to ``timeout`` seconds (None: however long) and take it.

        Raises `LimitReached`, at once where none is due within the timeout, and
        `BrokerUnavailable`.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        kept = 0.0
        while True:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            ((answer,),) = broker.get().permits([Wish(self.name, self.rate, [kept], left)])
            if not answer.wait:
                return
            if left is not None and answer.wait > left:
                raise LimitReached(
                    f"The rate {self.name!r} has no permit within {timeout:g} s; the next is due "
                    f"in {answer.wait:.3g} s."
                )
            time.sleep(answer.wait)
            kept = answer.at

    def __enter__(self) -> Self:
        self.acquire(self.timeout)
        return self

    def __exit__(self, *error: object) -> None:
        pass


def rate(
    name: str, rate: str | float, *, burst: int | None = None, timeout: float | None = 0.0
) -> RateLimit:
    """A rate that all share who name it: "100/s", "100/m", "100/h" or a number a second.

    ``burst``: as of a task. ``timeout``: for the ``with`` statement, as of `RateLimit.acquire`.
    Raises `TypeError` or `ValueError` for a rate that can't be.
    """
    return RateLimit(name, limiting.parse(rate, burst), timeout)


@contextlib.contextmanager
def concurrency(name: str, most: int, *, timeout: float | None = 0.0) -> Iterator[None]:
    """Be one of ``most`` at once in this block, all that name this limit taken together.

    ``timeout``: seconds to wait for that; None: however long. A process that dies leaves its slot
    within a minute. Raises `LimitReached`, `BrokerUnavailable`, and `TypeError` or `ValueError`
    for a number that can't be.
    """
    options.check_concurrency(most)
    slot = Slot(name, most, new_id())
    _wait_for(slot, timeout)
    keeper.keep([slot])
    try:
        yield
    finally:
        keeper.forget([slot])
        with contextlib.suppress(BrokerUnavailable):  # it is free within a minute
            broker.get().free_slots([slot])


def _wait_for(slot: Slot, timeout: float | None) -> None:
    ends = None if timeout is None else time.monotonic() + timeout
    pause = 0.01
    while broker.get().take_slots([slot])[0]:
        left = pause if ends is None else ends - time.monotonic()
        if left <= 0:
            raise LimitReached(
                f"All {slot.most} slots of the limit {slot.limit!r} are held, and none was freed "
                f"within {timeout:g} s."
            )
        time.sleep(min(left, random.uniform(pause / 2, pause)))  # noqa: S311  no secret
        pause = min(_LOOK, pause * 1.5)


class Keeper:
    """Holds on to slots for as long as they are in use, from a thread that starts with the first
    one: a process that dies stops doing so."""

    def __init__(self) -> None:
        self.start_afresh()
        os.register_at_fork(after_in_child=self.start_afresh)

    def start_afresh(self) -> None:
        """Hold nothing: what a process held that forked this one is its own, and its thread, which
        a fork doesn't take along, may have held the lock."""
        self._changed = threading.Condition()
        self._slots: dict[tuple[str, str], Slot] = {}
        self._running = False
        self._failing = False

    def keep(self, slots: Iterable[Slot]) -> None:
        with self._changed:
            self._slots.update({(slot.limit, slot.holder): slot for slot in slots})
            if self._slots and not self._running:
                self._running = True
                threading.Thread(target=self._loop, name="jobs-slots", daemon=True).start()

    def forget(self, slots: Iterable[Slot]) -> None:
        with self._changed:
            for slot in slots:
                self._slots.pop((slot.limit, slot.holder), None)

    def _loop(self) -> None:
        while True:
            time.sleep(_KEEP_EVERY)
            with self._changed:
                if not self._slots:
                    self._running = False  # the next one starts another thread
                    return
            self.step()

    def held(self) -> list[Slot]:
        """What is in use in this process."""
        with self._changed:
            return list(self._slots.values())

    def step(self) -> None:
        """Hold on to all of it once. What fails is tried again at the next time: this thread is
        the only one that does so."""
        slots = self.held()
        try:
            broker.get().keep_slots(slots)
        except BrokerUnavailable as error:
            log.warning("%d slots of limits can't be held on to: %s", len(slots), error)
        except Exception as error:
            log.error(
                "%d slots of limits can't be held on to: %s",
                len(slots),
                error,
                exc_info=None if self._failing else error,
            )
            self._failing = True
        else:
            self._failing = False


keeper = Keeper()
