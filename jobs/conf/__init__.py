"""``settings.JOBS``, typed: every key, its default and its meaning.

``conf.get()`` is the only way by which the rest of the app reads a setting.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from jobs.conf import address
from jobs.conf.values import (
    check_text,
    nearest,
    options_of,
    seconds_or_none,
    yes_or_no,
)
from jobs.exceptions import ConfigurationError

#: Celery's priority steps on Redis.
STEPS = (0, 3, 6, 9)

#: What an exchange compares with the keys of its queues: `jobs.routing.exchanges`.
EXCHANGE_KINDS = ("direct", "topic", "fanout")


@dataclass(frozen=True, slots=True)
class Queue:
    """Options of one entry of ``JOBS["QUEUES"]``."""

    #: Whether unsigned messages are run: for queues that programs without this project's
    #: SECRET_KEY (Celery clients) send to. Anyone who can write to Redis can then call any task.
    open: bool = False
    #: Exchange that it is bound to; empty: JOBS["DEFAULT_EXCHANGE"], if it has a routing key.
    exchange: str = ""
    #: Routing key (for a topic exchange, pattern) that it is bound with, or several; empty: its
    #: own name.
    routing_key: str | tuple[str, ...] = ""


def queues(value: Any) -> Mapping[str, Queue]:
    if not isinstance(value, Mapping) or not value:
        raise TypeError("must be a dict of queue name → options, with at least one queue")
    for name in value:
        if not is_queue_name(name):
            raise ValueError(f"has {name!r}: a queue's name is text without braces")
        check_text(f"has {name[:100]!r}: a queue's name", name)
    return {name: options_of(Queue, _with_keys(options)) for name, options in value.items()}


def is_queue_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and not set(name) & set("{}\x06\x16")


def _with_keys(options: Any) -> Any:
    """Options of a queue whose routing keys, if there are several, are a tuple."""
    keys = options.get("routing_key") if isinstance(options, Mapping) else None
    if keys is None or isinstance(keys, str):
        return options
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"option 'routing_key' must be text or a list of texts, not {keys!r}")
    return {**options, "routing_key": tuple(keys)}


def exchanges(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict of exchange name → kind, not {value!r}")
    for name, kind in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"has {name!r}: an exchange's name is text")
        if kind not in EXCHANGE_KINDS:
            raise ValueError(
                f"has {kind!r} for {name!r}: a kind is {', '.join(map(repr, EXCHANGE_KINDS))}."
                f"{nearest(str(kind), EXCHANGE_KINDS)}"
            )
    return dict(value)


def priority_steps(value: Any) -> tuple[int, ...]:
    told = "must be whole numbers from 0 to 9, ascending, the first of them 0"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{told}, not {value!r}")
    if any(isinstance(step, bool) or step not in range(10) for step in value):
        raise ValueError(f"{told}, not {value!r}")
    if not value or value[0] != 0 or sorted(set(value)) != list(value):
        raise ValueError(f"{told}, not {value!r}")
    return tuple(value)


__all__ = [
    "STEPS",
    "Conf",
    "Queue",
    "RetryPolicy",
    "get",
    "nearest",
    "options_of",
    "parse",
    "peek",
    "seconds_or_none",
    "signing_keys",
]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how far apart (seconds), a send is tried when Redis is away; kombu's keys."""

    #: None: for ever.
    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 0.2
    #: For which errors of the broker's client; None: for all of them.
    retry_errors: tuple[type[BaseException], ...] | None = None

    def __post_init__(self) -> None:
        """Raises `TypeError` for what can't be in ``retry_errors``."""
        if self.retry_errors is None:
            return
        given: Any = self.retry_errors
        classes = tuple(given) if isinstance(given, list | tuple | set | frozenset) else (given,)
        for one in classes:
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(f"option 'retry_errors' must be exception classes, not {one!r}")
            if one.__module__.partition(".")[0] in ("kombu", "amqp", "celery"):
                raise TypeError(
                    f"option 'retry_errors' has {one.__module__}.{one.__qualname__}, which nothing "
                    "here raises; write ConnectionError, TimeoutError or OSError, a class of "
                    "redis.exceptions, or leave it out for all of them"
                )
        object.__setattr__(self, "retry_errors", classes)

    def pauses(self) -> Iterator[float]:
        """Before each retry, as kombu counts them: the last step is not cut at ``interval_max``."""
        pause = self.interval_start
        tries = itertools.count() if self.max_retries is None else range(self.max_retries)
        for _ in tries:
            yield min(pause, self.interval_max)
            if pause + self.interval_step <= self.interval_start + self.interval_max:
                pause += self.interval_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """One field a key of ``JOBS``, in lower case."""

    #: ``redis://``, ``rediss://`` or ``unix://`` address of Redis or Valkey. Empty: the embedded
    #: Valkey server of a development machine, for which DEBUG must be on.
    broker_url: str = field(default="", repr=False)  # a password may be in it
    #: Where the embedded server keeps its socket and data. Default: ``.jobs`` in ``BASE_DIR``.
    embedded_dir: str | Path = ""
    #: Put in front of every key, for several projects on one Redis database.
    key_prefix: str = ""
    #: Queue name → its options (see `Queue`).
    queues: Mapping[str, Queue] = field(default_factory=lambda: {"default": Queue()})
    #: Where a task goes whose decorator and call name no queue.
    default_queue: str = "default"
    #: Whether queues that are not in QUEUES may be named all the same, with a queue's defaults.
    create_missing_queues: bool = False
    #: Name of an exchange → its kind: "direct", "topic" or "fanout".
    exchanges: Mapping[str, str] = field(default_factory=dict)
    #: Exchange of routing keys that come without one. Empty: a key is the name of a queue.
    default_exchange: str = ""
    #: Where tasks go, by name, pattern or function: see `jobs.routing`.
    task_routes: Any = field(default_factory=dict)
    #: The lists of a queue: each is for the priorities from its own to below the next one.
    priority_steps: tuple[int, ...] = STEPS
    #: Module looked for in each installed app to find its tasks.
    task_module: str = "tasks"
    #: How long, in seconds, the messages of a vanished machine stay with it before others may
    #: claim them. Not related to how long tasks run.
    lease_seconds: float = 15.0
    #: How long, in seconds, a stopping worker lets running tasks finish.
    grace_seconds: float = 30.0
    #: Longest wait, in seconds, of an idle worker between two looks at its queues. Senders of this
    #: program wake it at once; for queues that are open to others, who don't, it is at most 1.
    poll_seconds: float = 5.0
    #: How long, in seconds, a committed message may stay unpublished before the relay sends it.
    relay_after_seconds: float = 5.0
    #: Largest message, in bytes.
    message_max_bytes: int = 1_048_576
    #: Largest stored result, in bytes.
    result_max_bytes: int = 1_048_576
    #: Time-out, in seconds, for connecting to Redis and for the answer to one command.
    socket_timeout: float = 5.0
    #: For sends outside a transaction when Redis is away: see `RetryPolicy`.
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    #: How often the process of a worker may die while it runs a message, before that message is
    #: a dead letter.
    max_crashes: int = 3
    #: How long, in seconds, a message whose task no worker here knows is offered again, for
    #: others that may have newer code, before it is a dead letter.
    unknown_task_seconds: float = 60.0
    #: How late, in seconds, a schedule's due time may be sent without being a missed one, which
    #: the schedule's policy decides about.
    misfire_grace_seconds: float = 30.0
    #: A child process is replaced after this many tasks; 0: never.
    max_tasks_per_child: int = 0
    #: Schedules in the shape that Celery's ``beat_schedule`` has: name → ``task``, ``schedule``,
    #: ``args``, ``kwargs``, ``options``. None instead of these: not declared, whoever else says so.
    beat_schedule: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    #: End → how long, in seconds, its results are kept; None: for ever.
    result_expires: Mapping[str, float | None] = field(
        default_factory=lambda: {
            "SUCCESS": 604_800.0,
            "FAILURE": 2_592_000.0,
            "REVOKED": 604_800.0,
        }
    )
    #: How long, in seconds, the history of schedules is kept; None: for ever. The last runs of
    #: each schedule stay.
    schedule_runs_expire: float | None = 2_592_000.0

    def queue(self, name: str) -> Queue:
        """Options of a queue; raises `KeyError` when it isn't declared and has to be."""
        if name not in self.queues and self.knows(name):
            return Queue()
        return self.queues[name]

    def knows(self, queue: str) -> bool:
        """Whether a queue may be used: it is declared, or needs not to be."""
        return queue in self.queues or (self.create_missing_queues and is_queue_name(queue))


_NUMBERS = {
    "lease_seconds": 1.0,
    "grace_seconds": 0.0,
    "poll_seconds": 0.05,
    "relay_after_seconds": 0.0,
    "message_max_bytes": 1024,
    "result_max_bytes": 64,
    "socket_timeout": 0.1,
    "max_tasks_per_child": 0,
    "max_crashes": 0,
    "unknown_task_seconds": 0.0,
    "misfire_grace_seconds": 1.0,
}


_WHOLE = {"message_max_bytes", "result_max_bytes", "max_tasks_per_child", "max_crashes"}


@functools.cache
def signing_keys() -> tuple[bytes, ...]:
    """Keys for HMAC-SHA256, the first to sign with, all of them to verify with.

    Derived from SECRET_KEY and SECRET_KEY_FALLBACKS, so that rotating those rotates these and
    a signature says nothing about the secret's other uses.
    """
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return tuple(hashlib.sha256(b"jobs.message" + str(s).encode()).digest() for s in secrets)


def get() -> Conf:
    """The settings in force; raises `ConfigurationError` naming the first wrong one."""
    return _load()


def peek() -> Conf:
    """The settings with defaults in place of wrong ones, for what runs before they are checked."""
    return parse(getattr(settings, "JOBS", {}))[0]


@functools.cache
def _load() -> Conf:
    conf, problems = parse(getattr(settings, "JOBS", {}))
    if problems:
        raise ConfigurationError(" ".join(problems))
    return conf


def parse(raw: object) -> tuple[Conf, list[str]]:
    """The typed settings, and a sentence for each wrong key or value (whose default is used)."""
    if not isinstance(raw, Mapping):
        return Conf(), [f"JOBS must be a dict, not {type(raw).__name__}."]
    known = {f.name.upper(): f for f in dataclasses.fields(Conf)}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in raw.items():
        if key not in known:
            problems.append(f"JOBS[{key!r}] is not a setting.{nearest(str(key), known)}")
            continue
        try:
            values[key.lower()] = _typed(key.lower(), value)
        except (TypeError, ValueError) as error:
            stop = "" if str(error).endswith(("?", ".")) else "."
            problems.append(f"JOBS[{key!r}] {error}{stop}")
    conf = Conf(**values)
    if not conf.knows(conf.default_queue):
        problems.append(
            f"JOBS['DEFAULT_QUEUE'] is {conf.default_queue!r}, which JOBS['QUEUES'] does not "
            f"declare.{nearest(conf.default_queue, conf.queues)}"
        )
    return conf, problems


def _typed(name: str, value: Any) -> Any:
    if name == "queues":
        return queues(value)
    if name == "priority_steps":
        return priority_steps(value)
    if name == "task_routes":
        return value  # `jobs.routing` reads it
    if name == "exchanges":
        return exchanges(value)
    if name == "create_missing_queues":
        return yes_or_no(value)
    if name == "retry_policy":
        return options_of(RetryPolicy, value)
    if name == "beat_schedule":
        return _beat_schedule(value)
    if name == "result_expires":
        return _result_expires(value)
    if name == "schedule_runs_expire":
        return seconds_or_none(value)
    if name in _NUMBERS:
        return _number(name, value)
    if name == "broker_url":
        return _broker_url(value)
    if name == "embedded_dir" and isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise TypeError(f"must be text, not {value!r}")
    if name in ("default_queue", "task_module") and not value:
        raise ValueError("must not be empty")
    return value


def _broker_url(value: Any) -> str:
    if not isinstance(value, str):
        harmless = value is None or isinstance(value, int | float)
        raise TypeError(f"must be text, not {value if harmless else type(value).__name__}")
    if value not in ("", "memory://"):
        address.parse(value)
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"must be a number, not {value!r}")
    if name in _WHOLE and not isinstance(value, int):
        raise TypeError(f"must be a whole number, not {value!r}")
    if value < _NUMBERS[name]:
        raise ValueError(f"must be at least {_NUMBERS[name]:g}, not {value!r}")
    return value


def _beat_schedule(value: Any) -> Mapping[str, Mapping[str, Any] | None]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict of name → schedule, not {value!r}")
    for name, entry in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"has {name!r}: the name of a schedule is text")
        if entry is not None and not isinstance(entry, Mapping):
            raise TypeError(f"has {entry!r} for {name!r}, which must be a dict")
    return dict(value)


def _result_expires(value: Any) -> Mapping[str, float | None]:
    """One age for all ends, or one for some of them."""
    usual = Conf().result_expires
    if not isinstance(value, Mapping):
        return dict.fromkeys(usual, seconds_or_none(value))
    for state in value:
        if state not in usual:
            raise ValueError(f"has {state!r}, which is no end of a task.{nearest(state, usual)}")
    return {**usual, **{state: seconds_or_none(age) for state, age in value.items()}}


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "JOBS":
        _load.cache_clear()
    elif setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        signing_keys.cache_clear()


setting_changed.connect(_forget, dispatch_uid="jobs.conf")
