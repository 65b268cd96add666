"""Queues, exchanges and priorities as ``settings.JOBS`` declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.values import check_text, nearest, options_of

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
