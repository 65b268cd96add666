"""The options of a task, as its decorator takes them."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from jobs import registry
from jobs.broker.limiting import Rate, parse
from jobs.conf.values import (
    check_label,
    check_place,
    check_priority,
    check_text,
    check_time_limit,
    check_whole,
    check_yes_or_no,
    is_number,
    moment,
    nearest,
    seconds_ahead,
    seconds_or_none,
    sentence,
)
from jobs.exceptions import MaxRetriesExceeded, shown
from jobs.ledger.unique import (
    OnConflict,
    Uniqueness,
    Until,
    uniqueness,
)
from jobs.message.call import Send
from jobs.timing.clock import growing_pause
from jobs.timing.periodic import (
    Periodic,
    Rule,
    read_rule,
)

#: Given an exception and the number of earlier attempts: the seconds before the next attempt, or
#: None for no further one.
Policy = Callable[[BaseException, int], float | None]

#: What `autoretry_for` takes; it is kept as a tuple.
Kinds = type[BaseException] | Collection[type[BaseException]]

#: No task is tried more often: a message can't hold a larger count.
MOST_RETRIES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and when a task is tried again, by Celery's names."""

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
    #: True or a factor (seconds): wait factor × 2ⁿ after n retries.
    retry_backoff: bool | float = False
    #: Longest such wait, in seconds.
    retry_backoff_max: float = 600.0
    #: Spread such a wait evenly over its whole length, so that what failed together does not come
    #: back together.
    retry_jitter: bool = True
    #: Decides alone, for every exception.
    retry_when: Policy | None = None

    def check_retries(self) -> None:
        """Check the options, and give them their final form: what passes here can't fail later,
        while a worker handles a task's failure. Raises `TypeError` or `ValueError`."""
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
        """Whether no attempt may follow one that came after ``retries`` others."""
        most = self.max_retries if max_retries is None else max_retries
        return retries >= (MOST_RETRIES if most is None else most)

    def delay(self, error: BaseException, retries: int) -> float | None:
        """Seconds until the automatic retry after this error; None: there is none.

        Raises what ``retry_when`` raises, and `TypeError` or `ValueError` if it returns anything
        but seconds or None.
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
        """Seconds to wait after an attempt that came after ``retries`` others."""
        if not self.retry_backoff:
            return self.default_retry_delay
        factor = 1.0 if self.retry_backoff is True else float(self.retry_backoff)
        wait = growing_pause(retries, factor, self.retry_backoff_max)
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
    """When `Task.retry` asks for the next attempt (Unix seconds); None: after the task's own delay.

    ``countdown`` and ``eta`` are unchecked. Raises `TypeError` or `ValueError`.
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
) -> None:
    """Raise `TypeError` or `ValueError` for wrong arguments of `Task.retry`."""
    due(0.0, countdown, eta)
    exception_of(exc)
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


#: What the next attempt can be given besides arguments and a time, as in `jobs.message.call.Send`.
AGAIN = frozenset(
    {"expires", "queue", "priority", "headers", "ignore_result", "time_limit", "soft_time_limit"}
)


def check_again(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The further options of `Task.retry` that say something. Raises `TypeError` or `ValueError`
    for others, and for wrong values."""
    found = {name: value for name, value in given.items() if value is not None}
    if not found:
        return found
    if unknown := [name for name in found if name not in AGAIN]:
        raise TypeError(
            f"retry() of task {task!r} has no option {unknown[0]!r}.{nearest(unknown[0], AGAIN)} "
            "The next attempt keeps what its call was sent with, but for args, kwargs, "
            f"{', '.join(sorted(AGAIN))}."
        )
    try:
        Send(**found).checked()
        if found.get("queue"):
            registry.queue(found["queue"])
    except (TypeError, ValueError) as error:
        raise type(error)(f"retry() of task {task!r}: {sentence(error)}") from None
    return found


def no_attempt_left(task: str, task_id: str, retries: int) -> MaxRetriesExceeded:
    return MaxRetriesExceeded(f"Task {task!r}[{task_id}] has had {retries + 1} attempts.")


def exception_of(exc: Any) -> BaseException | None:
    """The exception; a class stands for an instance without arguments. Raises `TypeError`."""
    if isinstance(exc, type) and issubclass(exc, BaseException):
        exc = exc()
    if exc is None or isinstance(exc, BaseException):
        return exc
    raise TypeError(f"exc of retry() must be an exception, not {shown(exc)}")


Acks = Literal["late", "early"]


class CelerysOptions(TypedDict, total=False):
    """Celery's options of the decorator that are no `Options`."""

    acks_late: bool | None
    reject_on_worker_lost: bool | None
    base: None  # any other has signatures of its own, since a class may know further options
    serializer: str | None
    trail: bool
    send_events: bool
    before_start: Callable[..., Any] | None
    on_success: Callable[..., Any] | None
    on_retry: Callable[..., Any] | None
    on_failure: Callable[..., Any] | None
    after_return: Callable[..., Any] | None
    on_replace: Callable[..., Any] | None


class CommonOptions(CelerysOptions, total=False):
    """What ``@task(…)`` takes for any function; `Options` has the meanings."""

    name: str
    queue: str
    exchange: str
    routing_key: str
    priority: int | None
    label: str
    fair_by: Callable[..., Any] | str | None
    ignore_result: bool
    track_started: bool | None
    durable: bool
    expires: float | dt.timedelta | None
    atomic: bool
    acks: Acks
    throws: Kinds
    typing: bool
    store_errors_even_if_ignored: bool
    pydantic: bool
    pydantic_strict: bool
    pydantic_context: Mapping[str, Any] | None
    pydantic_dump_kwargs: Mapping[str, Any] | None
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
    shard_by: Callable[..., Any] | None
    on_conflict: OnConflict
    debounce: float | dt.timedelta | None
    throttle: float | dt.timedelta | None


class SingleOptions(CommonOptions, total=False):
    """What it takes for a function that runs one call and gets its arguments alone."""

    bind: Literal[False]


class TaskOptions(CommonOptions, total=False):
    """What it takes."""

    bind: bool
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
    #: The label of its calls that name none; see `jobs.message.call.Send`.
    label: str = ""
    #: Whose a call is: the name of a parameter, or a function of the task's arguments, which it
    #: takes by name. Tenants with calls on a queue take turns; see `jobs.message.call.Send`.
    fair_by: Callable[..., Any] | str | None = None
    #: The function gets the `Task` as its first argument; its ``request`` describes the call.
    bind: bool = False
    #: Nothing is recorded of a success.
    ignore_result: bool = False
    #: A worker writes STARTED into the ledger before it runs it; None: as JOBS["TRACK_STARTED"]
    #: says.
    track_started: bool | None = None
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
    #: Expected errors: a call that fails with one of these is logged in one line at the level INFO,
    #: and not reported to Sentry. It is FAILURE all the same.
    throws: Kinds = ()
    #: Whether arguments are checked at the call. If not, wrong ones fail in the worker.
    typing: bool = True
    #: Failures are recorded although ``ignore_result`` is set.
    store_errors_even_if_ignored: bool = False
    #: Arguments are turned into the pydantic models that the function's annotations name, and
    #: models that it returns into JSON; see `jobs.api.validation`.
    pydantic: bool = False
    #: Arguments of ``model_validate`` and ``model_dump``.
    pydantic_strict: bool = False
    pydantic_context: Mapping[str, Any] | None = None
    pydantic_dump_kwargs: Mapping[str, Any] | None = None
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
    #: A function of the task's arguments, which it takes by name: calls for which it returns the
    #: same go to the same shard of a queue, and are claimed in their order.
    shard_by: Callable[..., Any] | None = None
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
            object.__setattr__(self, "schedule", read_rule(self.schedule))
        if self.result_expires != "settings":
            try:
                seconds_or_none(self.result_expires)
            except (TypeError, ValueError) as error:
                raise type(error)(f"result_expires {error}") from None
        self._check_limits()

    def _check_kinds(self) -> None:
        """What the decorator accepts can fail neither at a call nor in a worker."""
        for name in ("name", "queue", "exchange", "routing_key"):
            value = getattr(self, name)
            if value is None:  # as in Celery: none is named
                object.__setattr__(self, name, "")
            elif value != "":
                check_text(name, value)
        put = object.__setattr__
        for name in ("ignore_result", "store_errors_even_if_ignored"):  # None: as in Celery
            put(self, name, getattr(self, name) or False)
        put(self, "typing", True if self.typing is None else self.typing)
        for name in _YES_OR_NO:
            check_yes_or_no(name, getattr(self, name))
        put(self, "throws", () if self.throws is None else _kinds("throws", self.throws))
        if self.track_started is not None:
            check_yes_or_no("track_started", self.track_started)
        for name in ("pydantic_context", "pydantic_dump_kwargs"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise TypeError(f"{name} must be a dict, not {shown(getattr(self, name))}")
        check_priority(self.priority)
        check_label(self.label)
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
        if self.atomic or self.sensitive or self.pydantic:
            raise ValueError(
                "a task with batch= can be neither atomic nor have sensitive= or pydantic="
            )

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


_YES_OR_NO = (
    *("bind", "durable", "atomic", "ignore_result", "typing", "store_errors_even_if_ignored"),
    *("pydantic", "pydantic_strict"),
)


def check_concurrency(most: object) -> None:
    """Raise `TypeError` or `ValueError` for anything but a number of slots."""
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"concurrency must be a whole number, not {most!r}")
    if most < 1:
        raise ValueError(f"concurrency must be at least 1, not {most!r}; None is no limit")


# ------------------------------------------------------------------------- Celery's options

_ANY = (True, False, None)

#: Celery's options of the decorator which aren't ours → the values that change nothing here, and
#: what to write for others.
_CELERYS: dict[str, tuple[tuple[object, ...], str]] = {
    "acks_on_failure_or_timeout": (
        (True, None),
        "a call that fails has ended; raise Reject to put it among the dead letters",
    ),
    "acks_on_failure": (
        (True, None),
        "a call that fails has ended; raise Reject to put it among the dead letters",
    ),
    "acks_on_timeout": (
        (True, None),
        "a call at its time limit has ended; raise Reject to put it among the dead letters",
    ),
    "retry_on_worker_lost": (_ANY, "it must be True or False"),
    "serializer": (("json", None), "messages and results are always JSON"),
    "compression": (
        (None, "", "none"),
        "messages are not compressed; store the data, send its key",
    ),
    "store_eager_result": ((False, None), "a task that is called directly leaves no row"),
    "trail": (_ANY, "it must be True or False"),
    "send_events": (_ANY, "it must be True or False"),
    "shared": (_ANY, "it must be True or False"),
    "lazy": (_ANY, "it must be True or False"),
    "annotations": ((None,), "write the options themselves: @task(rate_limit=…)"),
    "backend": ((None,), "results are kept in the database; see JOBS['RESULT_EXPIRES']"),
    "retry_policy": ((None,), "give it to apply_async, or set JOBS['RETRY_POLICY']"),
    "countdown": ((None,), "give it to apply_async"),
    "eta": ((None,), "give it to apply_async"),
}

_HOOKS = ("before_start", "on_success", "on_retry", "on_failure", "after_return", "on_replace")

_PAGE = "docs/reference/tasks.md has all options, docs/coming-from-celery.md those of Celery"


def understood(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `Options` that are meant by these, some of which may be Celery's.

    Raises `TypeError` or `ValueError` for options that don't exist, or can't be followed here.
    """
    options = dict(given)
    if "acks_late" in options:
        late = options.pop("acks_late")
        if late is not None:
            check_yes_or_no("acks_late", late)
            acks = "late" if late else "early"
            if options.setdefault("acks", acks) != acks:
                raise ValueError(f"acks_late={late} and acks={options['acks']!r} contradict")
    if (again := options.pop("reject_on_worker_lost", None)) is not None:
        check_yes_or_no("reject_on_worker_lost", again)
        if again and options.get("max_crashes") == 0:
            raise ValueError("reject_on_worker_lost=True and max_crashes=0 contradict")
        if not again:
            options.setdefault("max_crashes", 0)
    for name in [name for name in options if name not in _NAMES]:
        value = options.pop(name)
        if name not in _CELERYS:
            known = (*KNOWN, "base", *_HOOKS)
            raise TypeError(f"{name!r} is no option of a task.{nearest(name, known)} {_PAGE}")
        harmless, instead = _CELERYS[name]
        if not any(value is one or (type(value) is type(one) and value == one) for one in harmless):
            raise ValueError(f"{name}={shown(value)} can't be followed here: {instead}. {_PAGE}")
    return options


_NAMES = frozenset(field.name for field in fields(Options))

#: All options that the decorator knows, hooks and ``base`` aside.
KNOWN = frozenset({*_NAMES, *_CELERYS, "acks_late", "reject_on_worker_lost"})
