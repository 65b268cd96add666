"""``settings.JOBS``, typed: every key with its meaning, its check and its default.

The rest of the app reads its settings through ``conf.get()`` only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from jobs.conf import address, celery, values
from jobs.conf.values import (
    EXCHANGE_KINDS,
    SHARDS_MOST,
    STEPS,
    Queue,
    nearest,
    number,
    options_of,
    seconds_or_none,
    text,
)
from jobs.exceptions import ConfigurationError

__all__ = [
    "EXCHANGE_KINDS",
    "SHARDS_MOST",
    "STEPS",
    "Conf",
    "Queue",
    "RetryPolicy",
    "celery_notes",
    "foreign_queues",
    "get",
    "nearest",
    "options_of",
    "options_of_task",
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
    #: The client's errors for which a send is tried again; None: all of them.
    retry_errors: tuple[type[BaseException], ...] | None = None

    def __post_init__(self) -> None:
        """Raises `TypeError` for a wrong ``retry_errors``."""
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
        """Seconds before each retry, as kombu counts: the last may exceed ``interval_max``."""
        pause = self.interval_start
        tries = itertools.count() if self.max_retries is None else range(self.max_retries)
        for _ in tries:
            yield min(pause, self.interval_max)
            if pause + self.interval_step <= self.interval_start + self.interval_max:
                pause += self.interval_step


def _setting(read: Callable[[Any], Any], default: Any, *, shown: bool = True) -> Any:
    """A field of `Conf`. ``read`` returns the typed value of what the settings have, or raises
    `TypeError` or `ValueError` with what is wrong, to be put after the name of the setting."""
    metadata = {"read": read}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, repr=shown, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """One field a key of ``JOBS``, in lower case."""

    #: Address of Redis or Valkey: ``redis://``, ``rediss://`` or ``unix://``, of its Sentinels
    #: (``redis+sentinel://``) or of a Cluster (``redis+cluster://``). Empty: the embedded Valkey
    #: server of a development machine, for which DEBUG must be on.
    broker_url: str = _setting(address.read, "", shown=False)  # a password may be in it
    #: Where the embedded server keeps its socket and data. Default: ``.jobs`` in ``BASE_DIR``.
    embedded_dir: str | Path = _setting(values.path, "")  # noqa: RUF009  a field
    #: Put in front of every key, for several projects on one Redis database.
    key_prefix: str = _setting(text, "")
    #: Queue name → its options (see `Queue`).
    queues: Mapping[str, Queue] = _setting(values.queues, {"default": Queue()})
    #: The queue of a task when neither its decorator nor the call names one.
    default_queue: str = _setting(values.filled, "default")
    #: Whether queues that QUEUES doesn't list may be used, with a queue's defaults.
    create_missing_queues: bool = _setting(values.yes_or_no, False)
    #: Name of an exchange → its kind: "direct", "topic" or "fanout".
    exchanges: Mapping[str, str] = _setting(values.exchanges, {})
    #: Exchange for routing keys given without one. Empty: a key is the name of a queue.
    default_exchange: str = _setting(text, "")
    #: Where tasks go, by name, pattern or function: see `jobs.routing`.
    task_routes: Any = _setting(values.anything, {})  # noqa: RUF009  a field
    #: The lists of a queue: each has the priorities from its own up to below the next one.
    priority_steps: tuple[int, ...] = _setting(values.priority_steps, STEPS)
    #: Module looked for in each installed app to find its tasks.
    task_module: str = _setting(values.filled, "tasks")
    #: How long, in seconds, a vanished machine keeps its messages before others may claim them.
    #: It has nothing to do with how long tasks run.
    lease_seconds: float = _setting(number(1.0), 15.0)
    #: How long, in seconds, a stopping worker lets running tasks finish.
    grace_seconds: float = _setting(number(0.0), 30.0)
    #: Longest wait, in seconds, before an idle worker looks at its queues again. Senders of this
    #: program wake it at once; other senders don't, so workers listen at open queues, and look
    #: there at least once a second.
    poll_seconds: float = _setting(number(0.05), 5.0)
    #: How long, in seconds, a committed message may stay unpublished before the relay sends it.
    relay_after_seconds: float = _setting(number(0.0), 5.0)
    #: How many replicas must have a call that is sent outside a transaction before the send
    #: returns.
    broker_wait_replicas: int = _setting(number(0, whole=True), 0)
    #: Whether workers send again, by themselves, committed calls that Redis has lost.
    recover: bool = _setting(values.yes_or_no, True)
    #: Of which calls the ends are also written where Celery's clients read results: "clients", of
    #: those that such a client has sent, and of what follows them; "all"; or "none".
    celery_results: str = _setting(values.celery_results, "clients")
    #: How long, in seconds, they stay there; None: for ever.
    celery_result_expires: float | None = _setting(seconds_or_none, 86_400.0)
    #: Address of the Redis where Celery's workers leave the results of calls on queues with
    #: ``foreign_workers``, their ``result_backend``. Empty: that of BROKER_URL.
    celery_result_backend: str = _setting(address.read_server, "", shown=False)
    #: Whether workers answer Celery's clients: "none"; "inspect", the commands that change nothing;
    #: or "all".
    celery_control: str = _setting(values.celery_control, "none")
    #: Whether workers send Celery's events while somebody listens, such as Flower.
    celery_events: bool = _setting(values.yes_or_no, False)
    #: Largest message, in bytes.
    message_max_bytes: int = _setting(number(1024, whole=True), 1_048_576)
    #: Largest stored result, in bytes.
    result_max_bytes: int = _setting(number(64, whole=True), 1_048_576)
    #: Time-out, in seconds, for connecting to Redis and for the answer to one command.
    socket_timeout: float = _setting(number(0.1), 5.0)
    #: For sends outside a transaction when Redis is away: see `RetryPolicy`.
    retry_policy: RetryPolicy = _setting(  # noqa: RUF009  a field
        functools.partial(options_of, RetryPolicy), RetryPolicy()
    )
    #: How often the process of a worker may die while it runs a message, before that message is
    #: a dead letter.
    max_crashes: int = _setting(number(0, whole=True), 3)
    #: Whether a worker writes STARTED into a call's row before it runs it: one statement a call.
    track_started: bool = _setting(values.yes_or_no, False)
    #: How long, in seconds, a message whose task no worker here knows is offered again, for
    #: others that may have newer code, before it is a dead letter.
    unknown_task_seconds: float = _setting(number(0.0), 60.0)
    #: How late, in seconds, a schedule's due time may be sent without being a missed one, which
    #: the schedule's policy decides about.
    misfire_grace_seconds: float = _setting(number(1.0), 30.0)
    #: Options of tasks, as the decorator takes them, by the task's name: these count more than what
    #: the decorator says. Under "*": those of all tasks whose decorator doesn't say otherwise.
    task_options: Mapping[str, Mapping[str, Any]] = _setting(values.task_options, {})
    #: A child process is replaced after this many tasks; 0: never.
    max_tasks_per_child: int = _setting(number(0, whole=True), 0)
    #: A child process is replaced when it has more kilobytes than this in memory after a task; 0:
    #: never.
    max_memory_per_child: int = _setting(number(0, whole=True), 0)
    #: Whether a worker's children are forks of a process that has loaded the project once. Off, or
    #: where the system can't do it: each child loads the project itself.
    preload: bool = _setting(values.yes_or_no, True)
    #: Whether calls run where they are sent, with all that follows them, and no broker is used: for
    #: tests and development.
    always_eager: bool = _setting(values.yes_or_no, False)
    #: Whether sending such a call raises the error with which it fails.
    eager_propagates: bool = _setting(values.yes_or_no, False)
    #: Schedules in the form of Celery's ``beat_schedule``: name → ``task``, ``schedule``, ``args``,
    #: ``kwargs``, ``options``. None instead of these: no such schedule, even if others declare it.
    beat_schedule: Mapping[str, Mapping[str, Any] | None] = _setting(values.beat_schedule, {})
    #: Final state → how long, in seconds, its results are kept; None: for ever.
    result_expires: Mapping[str, float | None] = _setting(
        values.result_expires, values.RESULT_EXPIRES
    )
    #: How long, in seconds, the history of schedules is kept; None: for ever. The last runs of
    #: each schedule stay.
    schedule_runs_expire: float | None = _setting(seconds_or_none, 2_592_000.0)
    #: Dotted path of a function that takes a request and a queryset of results, and returns those
    #: that the person of the request may see in the admin. Empty: everybody sees all.
    admin_queryset: str = _setting(values.dotted, "")
    #: Whether the admin's list of results, its export and its page of errors are read where routers
    #: say, from a replica. All that is decided or acted on is read where it is written.
    lists_from_replica: bool = _setting(values.yes_or_no, False)
    #: The revision of the project's code, such as a commit, which workers report.
    revision: str = _setting(text, "")

    #: Whether numbers are kept of what is sent and how it ends.
    metrics: bool = _setting(values.yes_or_no, True)
    #: The bearer token with which Prometheus may read them; empty: none.
    metrics_token: str = _setting(text, "", shown=False)
    #: Whether anybody who reaches the page for Prometheus may read it.
    metrics_public: bool = _setting(values.yes_or_no, False)

    def queue(self, name: str) -> Queue:
        """Options of a queue; raises `KeyError` when it must be declared and isn't."""
        if name not in self.queues and self.knows(name):
            return Queue()
        return self.queues[name]

    def knows(self, queue: str) -> bool:
        """Whether a queue may be used: it is declared, or needn't be."""
        return queue in self.queues or (self.create_missing_queues and values.is_queue_name(queue))


@functools.cache
def signing_keys() -> tuple[bytes, ...]:
    """Keys for HMAC-SHA256: the first signs, all of them verify.

    They are derived from SECRET_KEY and SECRET_KEY_FALLBACKS, so that they rotate together, and a
    signature reveals nothing about the secret's other uses.
    """
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return tuple(hashlib.sha256(b"jobs.message" + str(s).encode()).digest() for s in secrets)


@functools.cache
def foreign_queues() -> frozenset[str]:
    """The queues that Celery's workers work. Raises as `get` does."""
    return frozenset(name for name, queue in get().queues.items() if queue.foreign_workers)


@functools.cache
def get() -> Conf:
    """The settings in force; raises `ConfigurationError` with all that is wrong in them."""
    conf, problems = parse(getattr(settings, "JOBS", {}))
    if problems:
        raise ConfigurationError(" ".join(problems))
    return conf


def peek() -> Conf:
    """The settings with defaults in place of wrong values, for code that runs before the checks."""
    return parse(getattr(settings, "JOBS", {}))[0]


def parse(raw: object) -> tuple[Conf, list[str]]:
    """The typed settings, and a sentence for each wrong key or value; its default is used."""
    if not isinstance(raw, Mapping):
        return Conf(), [f"JOBS must be a dict, not {type(raw).__name__}."]
    known = {f.name.upper(): f for f in dataclasses.fields(Conf)}
    found: dict[str, Any] = {}
    problems: list[str] = []
    try:
        raw = _with_celery(raw)
    except (TypeError, ValueError) as error:
        problems.append(values.sentence(f"JOBS['CELERY'] {error}"))
        raw = {key: value for key, value in raw.items() if key != "CELERY"}
    try:
        raw = values.with_plain_queues(raw)
    except (TypeError, ValueError) as error:
        problems.append(values.sentence(f"JOBS['QUEUES'] {error}"))
        raw = {key: value for key, value in raw.items() if key != "QUEUES"}
    for key, value in raw.items():
        if key not in known:
            problems.append(f"JOBS[{key!r}] is not a setting.{nearest(str(key), known)}")
            continue
        try:
            found[key.lower()] = known[key].metadata["read"](value)
        except (TypeError, ValueError) as error:
            problems.append(values.sentence(f"JOBS[{key!r}] {error}"))
    conf = Conf(**found)
    if not conf.knows(conf.default_queue):
        problems.append(
            f"JOBS['DEFAULT_QUEUE'] is {conf.default_queue!r}, which JOBS['QUEUES'] does not "
            f"declare.{nearest(conf.default_queue, conf.queues)}"
        )
    foreign = sorted(name for name, queue in conf.queues.items() if queue.foreign_workers)
    if conf.default_queue in foreign:
        problems.append(
            f"JOBS['DEFAULT_QUEUE'] is {conf.default_queue!r}, which Celery's workers work: tasks "
            "of this app itself would go there. Name another one."
        )
    where = conf.broker_url
    if foreign and where.startswith(("redis+cluster:", "rediss+cluster:")):
        problems.append(
            f"JOBS['QUEUES'] has 'foreign_workers' for {', '.join(map(repr, foreign))}: Celery's "
            "workers can't use the Cluster of JOBS['BROKER_URL']."
        )
    if where.startswith(("redis+cluster:", "rediss+cluster:")) and (
        conf.celery_control != "none" or conf.celery_events
    ):
        problems.append(
            "JOBS['CELERY_CONTROL'] and JOBS['CELERY_EVENTS'] are for one Redis server, with or "
            "without Sentinels: Celery's clients can't use the Cluster of JOBS['BROKER_URL']."
        )
    return conf, problems


def _with_celery(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, with this app's own in place of ``CELERY``. Where both say something, the own
    ones count; of queues, exchanges and tasks they may add options to what Celery's say."""
    if "CELERY" not in raw:
        return raw
    found = celery.read(raw["CELERY"]).jobs
    own = {key: value for key, value in raw.items() if key != "CELERY"}
    if "QUEUES" in own:
        own = dict(values.with_plain_queues(own))
    for key in ("QUEUES", "EXCHANGES", "TASK_OPTIONS"):
        theirs, ours = found.get(key), own.get(key)
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            own[key] = {
                **theirs,
                **{name: _over(one, theirs.get(name)) for name, one in ours.items()},
            }
    return {**found, **own}


def _over(own: Any, other: Any) -> Any:
    both = isinstance(own, Mapping) and isinstance(other, Mapping)
    return {**other, **own} if both else own


def celery_notes() -> list[str]:
    """A sentence for each of Celery's settings in ``JOBS["CELERY"]`` that has no equal here."""
    raw = getattr(settings, "JOBS", {})
    try:
        return celery.read(raw["CELERY"]).notes if "CELERY" in raw else []
    except (TypeError, ValueError):
        return []  # `parse` says so


def options_of_task(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What ``TASK_OPTIONS`` says of all tasks, and of the one of this name."""
    if not settings.configured:  # a task that the settings themselves import
        return {}, {}
    try:
        found = get().task_options
    except ConfigurationError:  # `manage.py check` is to say so, once
        found = peek().task_options
    return found.get("*", {}), found.get(name, {})


@receiver(setting_changed, dispatch_uid="jobs.conf")
def _forget(*, setting: str, **_: Any) -> None:
    if setting == "JOBS":
        get.cache_clear()
        foreign_queues.cache_clear()
    elif setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        signing_keys.cache_clear()
