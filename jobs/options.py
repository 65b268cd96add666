"""The options of a task, as its decorator takes them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from jobs.conf import seconds_or_none
from jobs.declaring import Periodic, Rule, check_rule
from jobs.rates import Rate, parse
from jobs.retry import Kinds, Policy, Retries
from jobs.uniqueness import OnConflict, Uniqueness, Until, uniqueness
from jobs.values import (
    check_place,
    check_priority,
    check_text,
    check_time_limit,
    check_whole,
    check_yes_or_no,
    is_number,
    nearest,
    seconds_ahead,
    shown,
)

Acks = Literal["late", "early"]


class SingleOptions(TypedDict, total=False):
    """What ``@task(…)`` takes for a function that runs one call; `Options` has the meanings."""

    name: str
    queue: str
    exchange: str
    routing_key: str
    priority: int | None
    bind: bool
    ignore_result: bool
    durable: bool
    expires: float | dt.timedelta | None
    atomic: bool
    acks: Acks
    time_limit: float | None
    soft_time_limit: float | None
    max_crashes: int | None
    sensitive: list[str] | tuple[str, ...]
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: Kinds
    dont_autoretry_for: Kinds
    retry_kwargs: Mapping[str, Any] | None
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_when: Policy | None
    schedule: Rule | Periodic | None
    result_expires: float | dt.timedelta | Literal["settings"] | None
    rate_limit: str | float | None
    burst: int | None
    concurrency: int | None
    key: Callable[..., Any] | None
    unique: Until | float | dt.timedelta | None
    unique_key: Callable[..., Any] | None
    on_conflict: OnConflict
    debounce: float | dt.timedelta | None
    throttle: float | dt.timedelta | None


class TaskOptions(SingleOptions, total=False):
    """What ``@task(…)`` takes."""

    batch: int | None
    batch_wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Retries):
    """How a task is sent, run and tried again."""

    #: Default: ``module.function``.
    name: str = ""
    #: Default: JOBS["DEFAULT_QUEUE"].
    queue: str = ""
    #: Without a queue: to the queues that JOBS["QUEUES"] binds to it with this key. With one, that
    #: decides, and they go along in ``delivery_info``.
    exchange: str = ""
    routing_key: str = ""
    #: 0 (first) to 9; None: as JOBS["TASK_ROUTES"] says, else 0.
    priority: int | None = None
    #: The function gets the `Task` as its first argument, whose ``request`` tells of the call.
    bind: bool = False
    #: Nothing is recorded of a success.
    ignore_result: bool = False
    #: False: inside a transaction no ledger row is written; the task may be lost if the process
    #: dies right after the commit.
    durable: bool = True
    #: Seconds (or a timedelta) after the sending beyond which it isn't run any more.
    expires: float | dt.timedelta | None = None
    #: Run it, and record its result, in one transaction of the ledger's database: its effects
    #: there happen exactly once.
    atomic: bool = False
    #: "late": acknowledged when its outcome is recorded, so run again if its process dies.
    #: "early": acknowledged before it runs, so run at most once.
    acks: Acks = "late"
    #: Seconds after which the process that runs it is killed; None: the worker's own.
    time_limit: float | None = None
    #: Seconds after which `SoftTimeLimitExceeded` is raised in it; None: the worker's own.
    soft_time_limit: float | None = None
    #: How often processes may die while they run one call; None: JOBS["MAX_CRASHES"].
    max_crashes: int | None = None
    #: Names of parameters whose values are shown nowhere: logs, ledger, admin.
    sensitive: list[str] | tuple[str, ...] = ()
    #: Beat sends it by this rule: seconds, a timedelta or `jobs.crontab`; `jobs.Periodic` for
    #: arguments and more.
    schedule: Rule | Periodic | None = None
    #: Seconds (or a timedelta) for which its results are kept, however they ended; None: for ever.
    #: "settings": as JOBS["RESULT_EXPIRES"] says.
    result_expires: float | dt.timedelta | Literal["settings"] | None = "settings"
    #: The function takes a list of so many calls at most (as `jobs.Request`); None: it is called
    #: for each.
    batch: int | None = None
    #: Seconds for which a call waits for others to be run with.
    batch_wait: float = 0.5
    #: "100/s", "100/m", "100/h" or a number a second: so many starts, of the whole fleet.
    rate_limit: str | float | None = None
    #: How many starts at once after a pause; None: those of a tenth of a second, at least one.
    burst: int | None = None
    #: How many calls run at once, in the whole fleet.
    concurrency: int | None = None
    #: A function of the task's arguments, which it takes by name: each key has limits of its own.
    key: Callable[..., Any] | None = None
    #: "until_start", "until_end", or seconds (a timedelta): one call of a key until then.
    unique: Until | float | dt.timedelta | None = None
    #: A function of the task's arguments, which it takes by name; None: all arguments are the key.
    unique_key: Callable[..., Any] | None = None
    #: What another call of the key does: "drop" it and return the first one's result, "replace"
    #: the first one, "raise" `AlreadyQueued`.
    on_conflict: OnConflict = "drop"
    #: Seconds (or a timedelta) without another call of the key, after which the last one is run.
    debounce: float | dt.timedelta | None = None
    #: Seconds (or a timedelta) after a call in which others of the key are dropped.
    throttle: float | dt.timedelta | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        self.check_retries()
        if isinstance(self.priority, bool) or self.priority not in (None, *range(10)):
            raise ValueError(f"priority must be 0 (first) to 9, not {self.priority!r}")
        for name in ("queue", "exchange", "routing_key"):
            check_place(name, getattr(self, name))
        if self.acks not in ("late", "early"):
            raise ValueError(f"acks must be 'late' or 'early', not {self.acks!r}")
        self._check_batch()
        if self.atomic and (self.ignore_result or self.acks == "early"):
            raise ValueError("an atomic task keeps a result and is acknowledged late")
        for name in ("time_limit", "soft_time_limit"):
            check_time_limit(name, getattr(self, name))
        if self.schedule is not None and not isinstance(self.schedule, Periodic):
            check_rule(self.schedule)
        if self.result_expires != "settings":
            _check_age(self.result_expires)
        self._check_limits()

    def _check_kinds(self) -> None:
        """What the decorator lets through can't fail at a call, nor in a worker."""
        for name in ("name", "queue", "exchange", "routing_key"):
            value = getattr(self, name)
            if value is None:  # as in Celery: none is named
                object.__setattr__(self, name, "")
            elif value != "":
                check_text(name, value)
        for name in ("bind", "durable", "atomic"):
            check_yes_or_no(name, getattr(self, name))
        object.__setattr__(self, "ignore_result", self.ignore_result or False)
        check_yes_or_no("ignore_result", self.ignore_result)
        check_priority(self.priority)
        if self.expires is not None:
            seconds_ahead("expires", self.expires)
        if self.max_crashes is not None:
            check_whole("max_crashes", self.max_crashes, 0, 1_000_000, ", or None")
        if isinstance(self.sensitive, str) or not isinstance(self.sensitive, Collection):
            raise TypeError(f"sensitive must be a list of names, not {shown(self.sensitive)}")
        for name in self.sensitive:
            check_text("a name in sensitive", name)

    def _check_batch(self) -> None:
        if not is_number(self.batch_wait):
            raise TypeError(f"batch_wait must be a number of seconds, not {shown(self.batch_wait)}")
        if self.batch is None:
            return
        if type(self.batch) is not int or self.batch not in range(1, 1001):
            raise ValueError(f"batch must be 1 to 1000 calls, not {shown(self.batch)}")
        if not 0 <= self.batch_wait <= 60:
            raise ValueError(f"batch_wait must be 0 to 60 seconds, not {self.batch_wait!r}")
        if self.atomic or self.sensitive:
            raise ValueError("a task with batch= can be neither atomic nor have sensitive=")

    def _check_limits(self) -> None:
        self.rate()
        if self.rate_limit is None and self.burst is not None:
            raise ValueError("burst is for a task with rate_limit=")
        if self.concurrency is not None:
            check_concurrency(self.concurrency)
        elif self.rate_limit is None and self.key is not None:
            raise ValueError("key is for a task with rate_limit= or concurrency=; see unique_key")
        if self.uniqueness() is None and self.unique_key is not None:
            raise ValueError("unique_key is for a task with unique=, debounce= or throttle=")

    def rate(self) -> Rate | None:
        return None if self.rate_limit is None else parse(self.rate_limit, self.burst)

    def uniqueness(self) -> Uniqueness | None:
        return uniqueness(self.unique, self.on_conflict, self.debounce, self.throttle)


def check_concurrency(most: object) -> None:
    """Raises `TypeError` or `ValueError` for what is no number of slots."""
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"concurrency must be a whole number, not {most!r}")
    if most < 1:
        raise ValueError(f"concurrency must be at least 1, not {most!r}; None is no limit")


def _check_age(age: object) -> None:
    try:
        seconds_or_none(age)
    except (TypeError, ValueError) as error:
        raise type(error)(f"result_expires {error}") from None


# ------------------------------------------------------------------------- Celery's options

_ANY = (True, False, None)

#: Celery's options of the decorator which aren't ours → the values that change nothing here, and
#: what to write for others.
_CELERYS: dict[str, tuple[tuple[object, ...], str]] = {
    "acks_on_failure_or_timeout": (
        (True, None),
        "a call that fails has ended; raise Reject to put it among the dead letters",
    ),
    "reject_on_worker_lost": (
        (True, None),
        "a call whose process dies is run again; max_crashes=0 ends it at once",
    ),
    "serializer": (("json", None), "messages and results are always JSON"),
    "compression": (
        (None, "", "none"),
        "messages are not compressed; store the data, send its key",
    ),
    "track_started": (
        (False, None),
        "STARTED is not recorded; a task that calls self.progress() is seen as STARTED",
    ),
    "store_errors_even_if_ignored": (
        (False, None),
        "leave out ignore_result, and say by result_expires how long the rows are kept",
    ),
    "store_eager_result": ((False, None), "a task that is called directly leaves no row"),
    "trail": (_ANY, "it must be True or False"),
    "send_events": (_ANY, "it must be True or False"),
    "shared": (_ANY, "it must be True or False"),
    "lazy": (_ANY, "it must be True or False"),
    "typing": (
        (True, None),
        "arguments are always checked at the call; a function of *args and **kwargs takes any",
    ),
    "pydantic": ((False, None), "build the model in the task: Model.model_validate(argument)"),
    "base": ((None,), "a task is a function; use bind=True, or the signals in jobs.signals"),
    "throws": (((), [], None), "all errors are logged alike; filter them in Django's LOGGING"),
    **dict.fromkeys(
        ("before_start", "on_success", "on_failure", "on_retry", "after_return"),
        ((None,), "a task is a function; connect to the signals of jobs.signals"),
    ),
    "backend": ((None,), "results are kept in the database; see JOBS['RESULT_EXPIRES']"),
    "retry_policy": ((None,), "give it to apply_async, or set JOBS['RETRY_POLICY']"),
    "countdown": ((None,), "give it to apply_async"),
    "eta": ((None,), "give it to apply_async"),
}

_PAGE = "docs/reference/tasks.md has all options, docs/coming-from-celery.md those of Celery"


def understood(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `Options` that were meant by these, of which some may be Celery's.

    Raises `TypeError` or `ValueError` for those that are nobody's, or can't be followed here.
    """
    options = dict(given)
    if "acks_late" in options:
        late = options.pop("acks_late")
        if late is not None:
            check_yes_or_no("acks_late", late)
            acks = "late" if late else "early"
            if options.setdefault("acks", acks) != acks:
                raise ValueError(f"acks_late={late} and acks={options['acks']!r} contradict")
    for name in [name for name in options if name not in _NAMES]:
        value = options.pop(name)
        if name not in _CELERYS:
            known = (*_NAMES, *_CELERYS, "acks_late")
            raise TypeError(f"{name!r} is no option of a task.{nearest(name, known)} {_PAGE}")
        harmless, instead = _CELERYS[name]
        if not any(value is one or (type(value) is type(one) and value == one) for one in harmless):
            raise ValueError(f"{name}={shown(value)} can't be followed here: {instead}. {_PAGE}")
    return options


_NAMES = frozenset(field.name for field in fields(Options))
