"""Brokers: `get()` gives this process's one; the contract is in `jobs.broker.base`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed

from jobs import conf
from jobs.broker.base import Broker
from jobs.exceptions import ConfigurationError


@functools.cache
def get() -> Broker:
    """The broker of ``JOBS["BROKER_URL"]``; starts the embedded server when it has to."""
    current = conf.get()
    if current.broker_url == "memory://":
        from jobs.broker.memory import MemoryBroker

        return MemoryBroker(steps=current.priority_steps)
    from jobs.broker.redis import RedisBroker

    if current.broker_url:
        url, revive = current.broker_url, None
    else:
        url, revive = _embedded(current.embedded_dir)
    return RedisBroker(
        url,
        prefix=current.key_prefix,
        timeout=current.socket_timeout,
        steps=current.priority_steps,
        revive=revive,
    )


def embedded_folder(configured: str | Path) -> Path:
    """Where the embedded server of this project keeps its data."""
    base = getattr(settings, "BASE_DIR", None) or Path.cwd()
    return Path(configured) if configured else Path(base) / ".jobs"


def _embedded(configured: str | Path) -> tuple[str, Callable[[], object]]:
    """The embedded server's URL, and what starts it again should it be gone."""
    if not settings.DEBUG:
        raise ConfigurationError(
            "JOBS['BROKER_URL'] is empty and DEBUG is off. Set it to the address of a Redis or "
            "Valkey server, such as redis://localhost:6379/0."
        )
    from jobs.broker import embedded

    start = functools.partial(embedded.ensure, embedded_folder(configured))
    return start(), start


def _forget(*, setting: str, **_: object) -> None:
    if setting == "JOBS":
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="jobs.broker")
