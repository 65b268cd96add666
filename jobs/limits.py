"""Limits of the whole fleet, also for code outside of tasks::

    from jobs import limits

    with limits.concurrency("imports", 3):
        ...
    limits.rate("mail", "100/m").acquire(timeout=5)

Redis keeps them, by its clock. All who use the same name share a limit; `name_of` names the limits
of a task.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from jobs import broker
from jobs.api import options
from jobs.broker import limiting
from jobs.broker.limiting import SLOT, Rate, Slot, Wish
from jobs.exceptions import BrokerUnavailable, LimitReached
from jobs.message import new_id

log = logging.getLogger("jobs.limits")

#: Longest pause, in seconds, between two attempts to take a slot in `concurrency`.
_LOOK = 0.5
#: Seconds between two renewals of the slots held here.
_KEEP_EVERY = SLOT / 4


def name_of(task: str, key: str | None = None) -> str:
    """The name of a task's limits, or of its limits for one key."""
    return task if key is None else f"{task}:{key}"


class RateLimit(NamedTuple):
    """`rate` makes these."""

    name: str
    rate: Rate
    #: For the ``with`` statement.
    timeout: float | None = 0.0

    def acquire(self, timeout: float | None = 0.0) -> None:
        """Take a permit, waiting for it up to ``timeout`` seconds (None: without limit).

        Raises `LimitReached`, at once if no permit is due within the timeout, and
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
    """A rate that all users of this name share: "100/s", "100/m", "100/h" or a number a second.

    ``burst``: as for a task. ``timeout``: for the ``with`` statement, as in `RateLimit.acquire`.
    Raises `TypeError` or `ValueError` for a wrong rate.
    """
    return RateLimit(name, limiting.parse(rate, burst), timeout)


@contextlib.contextmanager
def concurrency(name: str, most: int, *, timeout: float | None = 0.0) -> Iterator[None]:
    """Let at most ``most`` users of this name be inside such a block at once.

    ``timeout``: seconds to wait for a slot; None: without limit. The slot of a process that dies is
    free within a minute. Raises `LimitReached`, `BrokerUnavailable`, and `TypeError` or
    `ValueError` for a wrong number.
    """
    options.check_concurrency(most)
    slot = Slot(name, most, new_id())
    ends = None if timeout is None else time.monotonic() + timeout
    pause = 0.01
    while broker.get().take_slots([slot])[0]:
        left = pause if ends is None else ends - time.monotonic()
        if left <= 0:
            raise LimitReached(
                f"All {most} slots of the limit {name!r} are held, and none was freed within "
                f"{timeout:g} s."
            )
        time.sleep(min(left, random.uniform(pause / 2, pause)))  # noqa: S311  no secret
        pause = min(_LOOK, pause * 1.5)
    keeper.keep([slot])
    try:
        yield
    finally:
        keeper.forget([slot])
        with contextlib.suppress(BrokerUnavailable):  # it is free within a minute
            broker.get().free_slots([slot])


class Keeper:
    """Keeps slots while they are in use, in a thread that starts with the first one. A process that
    dies stops doing so."""

    def __init__(self) -> None:
        self.start_afresh()
        os.register_at_fork(after_in_child=self.start_afresh)

    def start_afresh(self) -> None:
        """Hold nothing. After a fork, slots and thread are the parent's, and the thread may have
        had the lock."""
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
        """Hold these no longer: another process may have them under the same names."""
        with self._changed:
            for slot in slots:
                self._slots.pop((slot.limit, slot.holder), None)

    def free(self, slots: Sequence[Slot]) -> None:
        """Forget slots that are no longer used, and let others have them."""
        self.forget(slots)
        broker.get().free_slots(slots)

    def _loop(self) -> None:
        while True:
            time.sleep(_KEEP_EVERY)
            with self._changed:
                if not self._slots:
                    self._running = False  # the next one starts another thread
                    return
            self.step()

    def held(self) -> list[Slot]:
        """The slots in use in this process."""
        with self._changed:
            return list(self._slots.values())

    def step(self) -> None:
        """Keep all slots for longer. What fails is tried again the next time, so no error must end
        this thread."""
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
