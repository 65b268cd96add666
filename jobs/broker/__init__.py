"""Brokers: `get()` returns this process's broker; the contract is in `jobs.broker.base`.

`by_shard()` is the same broker as workers use it: for them, each shard of a queue is one of its own
(`jobs.broker.sharding`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from jobs import conf
from jobs.broker.base import Broker
from jobs.broker.celery_ends import CeleryEnds
from jobs.broker.sharding import Sharded
from jobs.exceptions import ConfigurationError

#: What `get` returns inside of `instead`.
_instead: Broker | None = None


@functools.cache
def get() -> Sharded:
    """The broker of ``JOBS["BROKER_URL"]``; starts the embedded server if needed."""
    if _instead is not None:
        return Sharded(_instead, {})  # tests see what they send in its order
    current = conf.get()
    shards = {} if current.always_eager else current.queues
    return Sharded(_made(), {n: queue.shards for n, queue in shards.items() if queue.shards > 1})


def by_shard() -> Broker:
    """The same broker, for which a shard is a queue."""
    return get().by_shard


@functools.cache
def celery_ends() -> CeleryEnds:
    """Where Celery's workers leave the results of calls: ``JOBS["CELERY_RESULT_BACKEND"]``, or the
    Redis of the broker. Raises `ConfigurationError` on a broker that Celery doesn't know."""
    current = conf.get()
    if not current.celery_result_backend:
        return get().celery_ends()
    from jobs.broker.celery_ends_redis import RedisCeleryEnds
    from jobs.broker.connection import Connections

    return RedisCeleryEnds(Connections(current.celery_result_backend, current.socket_timeout))


def _made() -> Broker:
    current = conf.get()
    if current.broker_url == "memory://" or current.always_eager:
        from jobs.broker.memory import MemoryBroker

        return MemoryBroker(steps=current.priority_steps, metrics=current.metrics)
    from jobs.broker.redis import RedisBroker

    revive: Callable[[], str] | None = None
    if not current.broker_url:
        if not settings.DEBUG:
            raise ConfigurationError(
                "JOBS['BROKER_URL'] is empty and DEBUG is off. Set it to the address of a Redis or "
                "Valkey server, such as redis://localhost:6379/0. A test gets a broker in memory "
                "from jobs.testing.JobsMixin or jobs.testing.in_memory()."
            )
        from jobs.broker import embedded

        revive = functools.partial(embedded.ensure, embedded_folder(current.embedded_dir))
    return RedisBroker(
        revive() if revive else current.broker_url,
        prefix=current.key_prefix,
        timeout=current.socket_timeout,
        steps=current.priority_steps,
        metrics=current.metrics,
        revive=revive,
    )


@contextlib.contextmanager
def instead(other: Broker) -> Iterator[None]:
    """Have this process use another broker than that of the settings: for tests."""
    global _instead
    before, _instead = _instead, other
    get.cache_clear()
    celery_ends.cache_clear()
    try:
        yield
    finally:
        _instead = before
        get.cache_clear()
        celery_ends.cache_clear()


def embedded_folder(configured: str | Path) -> Path:
    """The folder in which this project's embedded server keeps its data."""
    base = getattr(settings, "BASE_DIR", None) or Path.cwd()
    return Path(configured) if configured else Path(base) / ".jobs"


@receiver(setting_changed, dispatch_uid="jobs.broker")
def _forget(*, setting: str, **_: object) -> None:
    if setting == "JOBS":
        get.cache_clear()
        celery_ends.cache_clear()
