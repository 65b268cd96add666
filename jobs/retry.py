"""From a failed attempt to the delay before the next, or to none. Pure."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from jobs.exceptions import MaxRetriesExceeded
from jobs.values import (
    check_whole,
    check_yes_or_no,
    is_number,
    moment,
    nearest,
    seconds_ahead,
    shown,
)

#: Seconds before the next attempt for this exception and the number of attempts that came before
#: this one, or None: no other attempt.
Policy = Callable[[BaseException, int], float | None]

#: What `autoretry_for` takes, and makes a tuple.
Kinds = type[BaseException] | Collection[type[BaseException]]

#: No task is tried more often: its message has no room for a larger number.
MOST_RETRIES = 1_000_000


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
    #: Celery's: ``max_retries`` and ``countdown`` (our default_retry_delay) in a dict.
    retry_kwargs: Mapping[str, Any] | None = None
    #: True or a factor (seconds): wait factor × 2ⁿ before attempt n + 1.
    retry_backoff: bool | float = False
    #: Longest such wait, in seconds.
    retry_backoff_max: float = 600.0
    #: Spread such a wait evenly over its whole length, so that what failed together does not come
    #: back together.
    retry_jitter: bool = True
    #: Decides alone, for every exception.
    retry_when: Policy | None = None

    def check_retries(self) -> None:
        """Raise `TypeError` or `ValueError` for what can't be, and give the rest its own form:
        what is accepted here can't fail when a task has."""
        put = object.__setattr__
        for name, value in _of_celery(self.retry_kwargs).items():
            if getattr(self, name) != _DEFAULTS[name]:
                raise ValueError(f"retry_kwargs says {name}, which is given besides; give it once")
            put(self, name, value)
        put(self, "retry_kwargs", None)
        if self.max_retries is not None:
            check_whole("max_retries", self.max_retries, 0, MOST_RETRIES, ", or None for no limit")
        for name in ("autoretry_for", "dont_autoretry_for"):
            put(self, name, _kinds(name, getattr(self, name)))
        for name in ("default_retry_delay", "retry_backoff_max"):
            put(self, name, _seconds(name, getattr(self, name)))
        if not isinstance(self.retry_backoff, bool):
            put(self, "retry_backoff", _seconds("retry_backoff", self.retry_backoff))
        check_yes_or_no("retry_jitter", self.retry_jitter)
        if self.retry_when is not None and not callable(self.retry_when):
            raise TypeError(f"retry_when must be a function, not {shown(self.retry_when)}")

    def exhausted(self, retries: int, max_retries: int | None = None) -> bool:
        """Whether an attempt after ``retries`` others was the last."""
        most = self.max_retries if max_retries is None else max_retries
        return retries >= (MOST_RETRIES if most is None else most)

    def delay(self, error: BaseException, retries: int) -> float | None:
        """Seconds until the attempt that follows by itself, or None when none does.

        Raises what ``retry_when`` raises, and `TypeError` or `ValueError` for an answer of it that
        is no delay.
        """
        if self.exhausted(retries):
            return None
        if self.retry_when is not None:
            answer = self.retry_when(error, retries)
            return None if answer is None else _seconds("What retry_when returns", answer)
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


_DEFAULTS = {field.name: field.default for field in fields(Retries)}

#: Celery's names in ``retry_kwargs``, and ours.
_RETRY_KWARGS = {"max_retries": "max_retries", "countdown": "default_retry_delay"}


def _of_celery(given: Any) -> dict[str, Any]:
    """The options that ``retry_kwargs`` stands for."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"retry_kwargs must be a dict, not {shown(given)}")
    for name in given:
        if name not in _RETRY_KWARGS:
            raise ValueError(
                f"retry_kwargs has {shown(name)}; it takes max_retries and countdown."
                f"{nearest(str(name), _RETRY_KWARGS)}"
            )
    return {_RETRY_KWARGS[name]: value for name, value in given.items()}


def _kinds(name: str, given: Any) -> tuple[type[BaseException], ...]:
    """One exception class, or several, as a tuple."""
    told = f"{name} must be an exception class, or a tuple, list or set of them"
    if isinstance(given, type):
        given = (given,)
    if not isinstance(given, tuple | list | set | frozenset):
        raise TypeError(f"{told}, not {shown(given)}")
    for kind in given:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{told}; {shown(kind)} is none")
    return tuple(given)


def _seconds(name: str, value: Any) -> float:
    """Seconds as a number, which is all that Celery takes as well."""
    if isinstance(value, dt.timedelta):
        raise TypeError(f"{name} must be a number of seconds, like {value.total_seconds():g}")
    if is_number(value) and value < 0:
        raise ValueError(f"{name} must be at least 0 seconds, not {shown(value)}")
    return seconds_ahead(name, value)


def due(now: float, countdown: Any, eta: Any) -> float | None:
    """When the next attempt is asked for (Unix seconds); None: the task's own delay decides.

    ``countdown`` and ``eta``: what a task gave to `Task.retry`, anything at all. Raises
    `TypeError` or `ValueError`.
    """
    if eta is not None:
        return max(0.0, moment("eta of retry()", eta).timestamp())
    if countdown is None:
        return None
    return now + seconds_ahead("countdown of retry()", countdown)


def check_asked(
    *,
    exc: Any,
    countdown: Any,
    eta: Any,
    max_retries: Any,
    args: Any,
    kwargs: Any,
    expires: Any,
) -> None:
    """Raise `TypeError` or `ValueError` for what a task can't ask for by `Task.retry`."""
    due(0.0, countdown, eta)
    exception_of(exc)
    if isinstance(expires, dt.datetime):
        moment("expires of retry()", expires)
    elif expires is not None:
        seconds_ahead("expires of retry()", expires)
    if max_retries is not None:
        check_whole("max_retries of retry()", max_retries, 0, MOST_RETRIES)
    if args is not None and not isinstance(args, list | tuple):
        raise TypeError(f"args of retry() must be a tuple or a list, not {shown(args)}")
    if kwargs is not None:
        if not isinstance(kwargs, Mapping):
            raise TypeError(f"kwargs of retry() must be a dict, not {shown(kwargs)}")
        for name in kwargs:
            if not isinstance(name, str):
                raise TypeError(f"kwargs of retry() has {shown(name)}; names are text")


def no_attempt_left(task: str, task_id: str, retries: int) -> MaxRetriesExceeded:
    return MaxRetriesExceeded(f"Task {task!r}[{task_id}] has had {retries + 1} attempts.")


def exception_of(exc: Any) -> BaseException | None:
    """An exception class is as good as an exception without arguments. Raises `TypeError`."""
    if isinstance(exc, type) and issubclass(exc, BaseException):
        exc = exc()
    if exc is None or isinstance(exc, BaseException):
        return exc
    raise TypeError(f"exc of retry() must be an exception, not {shown(exc)}")
