"""From a failed attempt to the delay before the next, or to none. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds before the next attempt for this exception and the number of attempts that came before
#: this one, or None: no other attempt.
Policy = Callable[[BaseException, int], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and when a task is tried again; the names are those of Celery's options."""

    #: Attempts after the first; None: no limit.
    max_retries: int | None = 3
    #: Seconds, where nothing else gives a delay.
    default_retry_delay: float = 180.0
    #: Exceptions after which the task is tried again by itself…
    autoretry_for: tuple[type[BaseException], ...] = ()
    #: … but not after these.
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: True or a factor (seconds): wait factor × 2ⁿ before attempt n + 1.
    retry_backoff: bool | float = False
    #: Longest such wait, in seconds.
    retry_backoff_max: float = 600.0
    #: Spread such a wait evenly over its whole length, so that what failed together does not come
    #: back together.
    retry_jitter: bool = True
    #: Decides alone, for every exception.
    retry_when: Policy | None = None

    def exhausted(self, retries: int, max_retries: int | None = None) -> bool:
        """Whether an attempt after ``retries`` others was the last."""
        most = self.max_retries if max_retries is None else max_retries
        return most is not None and retries >= most

    def delay(self, error: BaseException, retries: int) -> float | None:
        """Seconds until the attempt that follows by itself, or None when none does."""
        if self.exhausted(retries):
            return None
        if self.retry_when is not None:
            return self.retry_when(error, retries)
        if not isinstance(error, self.autoretry_for) or isinstance(error, self.dont_autoretry_for):
            return None
        return self.pause(retries)

    def pause(self, retries: int, rand: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds before the attempt that follows ``retries`` others."""
        if not self.retry_backoff:
            return self.default_retry_delay
        factor = 1.0 if self.retry_backoff is True else float(self.retry_backoff)
        # Not 2 ** retries: with no limit on attempts that would become too large to compute.
        wait = min(self.retry_backoff_max, factor * 2.0 ** min(retries, 64))
        return rand(0.0, wait) if self.retry_jitter else wait
