"""Reading and checking the values of settings and options."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.utils import timezone

from jobs.exceptions import shown

#: Celery's priority steps on Redis.
STEPS = (0, 3, 6, 9)

#: How an exchange matches routing keys with those of its queues: `jobs.routing.exchanges`.
EXCHANGE_KINDS = ("direct", "topic", "fanout")

#: Final state → how long, in seconds, its results are kept.
RESULT_EXPIRES = {"SUCCESS": 604_800.0, "FAILURE": 2_592_000.0, "REVOKED": 604_800.0}

#: Longest name of an exchange and longest routing key, in bytes, as AMQP has it.
LONGEST_KEY = 255

#: Most shards of one queue: an idle worker waits on all of them.
SHARDS_MOST = 64

#: Seconds of 1,000 years: a time further ahead can't be shown in every time zone.
MOST_AHEAD = 1000 * 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Queue:
    """Options of one entry of ``JOBS["QUEUES"]``."""

    #: Whether unsigned messages are run: for queues to which programs send that don't have this
    #: project's SECRET_KEY (Celery clients). Anyone who can write to Redis can then call any task.
    open: bool = False
    #: Exchange that it is bound to; empty: JOBS["DEFAULT_EXCHANGE"], if it has a routing key.
    exchange: str = ""
    #: Routing key (for a topic exchange, pattern) that it is bound with, or several; empty: its
    #: own name.
    routing_key: str | tuple[str, ...] = ""
    #: Over how many lists it is spread, 1 to `SHARDS_MOST`: see `jobs.broker.sharding`.
    shards: int = 1
    #: Whether Celery's workers take its calls, and this program's workers don't.
    foreign_workers: bool = False


def nearest(word: object, known: Any) -> str:
    """`` Did you mean 'x'?`` for the known word closest to this one, or nothing."""
    if not isinstance(word, str):
        return ""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not close and word.upper() in known:
        close = [word.upper()]
    return f" Did you mean {close[0]!r}?" if close else ""


def sentence(told: object) -> str:
    """The text of an error, with a full stop if it has none."""
    said = str(told)
    return said if said.endswith((".", "?")) else f"{said}."


def is_number(value: object) -> bool:
    """Whether it is a number; True and False aren't."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def seconds_ahead(name: str, value: Any) -> float:
    """Seconds or a timedelta, as seconds from now; 0 for the past.

    Raises `TypeError` or `ValueError` with the name.
    """
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if not is_number(seconds):
        raise TypeError(f"{name} must be seconds or a timedelta, not {shown(value)}")
    if not seconds <= MOST_AHEAD:  # NaN isn't, either
        raise ValueError(f"{name} must be at most 1000 years, not {shown(value)}")
    return max(0.0, float(seconds)) if seconds > 0 else 0.0


def moment(name: str, value: Any) -> dt.datetime:
    """An aware datetime; the project's time zone is used for one that has none.

    Raises `TypeError` or `ValueError` with the name.
    """
    if not isinstance(value, dt.datetime):
        raise TypeError(f"{name} must be a datetime, not {shown(value)}")
    try:
        if value.tzinfo is None or value.utcoffset() is None:
            value = value.replace(tzinfo=timezone.get_default_timezone())
        ahead = value.timestamp() - time.time()
    except (ValueError, OverflowError):
        ahead = math.inf
    if not ahead <= MOST_AHEAD:
        raise ValueError(f"{name} must be at most 1000 years from now, not {shown(value)}")
    found: dt.datetime = value
    return found


def check_text(name: str, value: Any, *, most: int = 255) -> None:
    """Raise `TypeError` or `ValueError` for text that the broker or a database can't store."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {shown(value)}")
    if not 0 < len(value) <= most:
        raise ValueError(f"{name} must have 1 to {most} characters, not {len(value):,}")
    if "\0" in value:
        raise ValueError(f"{name} must not contain NUL: {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has no form in UTF-8: {value[:100]!a}") from None


#: Most characters of a call's label.
LONGEST_LABEL = 200


def check_label(value: Any) -> None:
    """Raise `TypeError` or `ValueError` for what can't be a call's label. "" means no label."""
    if value == "" and isinstance(value, str):
        return
    check_text("label", value, most=LONGEST_LABEL)
    # Nobody could type such a label into the field that finds calls by it.
    if value != value.strip() or len(value.splitlines()) > 1:
        raise ValueError(
            f"label must be one line without white space at its ends, not {shown(value)}"
        )


#: Most characters of a call's tenant.
LONGEST_TENANT = 200


def tenant(name: str, value: Any) -> str:
    """The tenant of a call as text; "" for none, which None is as well.

    Raises `TypeError` or `ValueError` for anything but text, a whole number or a UUID.
    """
    if value is None or value == "":
        return ""
    if _is_whole(value) or isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        hint = "; take its primary key" if hasattr(value, "pk") else ""
        raise TypeError(
            f"{name} must be text, a whole number, a UUID or None, not {shown(value)}{hint}"
        )
    check_text(name, value, most=LONGEST_TENANT)
    return str.__str__(value)  # safe text, a member of an enum: JSON takes str alone


def check_whole(name: str, value: Any, least: int, most: int, otherwise: str = "") -> None:
    """Raise `TypeError` or `ValueError` for anything but a whole number in this range.
    ``otherwise``: what the message allows besides."""
    if not _is_whole(value):
        raise TypeError(f"{name} must be a whole number{otherwise}, not {shown(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least:,} to {most:,}{otherwise}, not {shown(value)}")


def seconds_or_none(value: Any) -> float | None:
    """Seconds or a timedelta, as seconds; raises `TypeError` or `ValueError`."""
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    if value is None:
        return None
    if not is_number(value) or not math.isfinite(value):
        raise TypeError(f"must be seconds, a timedelta or None, not {value!r}")
    if value < 0:
        raise ValueError(f"must be at least 0 seconds, not {value!r}")
    return float(value)


def check_time_limit(name: str, limit: Any) -> None:
    """Raise `TypeError` or `ValueError` for anything but None and seconds above 0."""
    if limit is None:
        return
    if not is_number(limit):
        raise TypeError(f"{name} must be seconds or None, not {shown(limit)}")
    if not limit > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {shown(limit)}")
    if not limit <= MOST_AHEAD:
        raise ValueError(f"{name} must be at most 1000 years, not {shown(limit)}; None: no limit")


def check_priority(priority: Any) -> None:
    """Raise `ValueError` for anything but None and 0 to 9."""
    if priority is not None and not (_is_whole(priority) and priority in range(10)):
        raise ValueError(f"priority must be 0 (first) to 9, not {shown(priority)}")


def check_yes_or_no(name: str, value: Any) -> None:
    """Raise `TypeError` for anything but True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def check_place(name: str, value: Any) -> None:
    """Raise `TypeError` or `ValueError` for anything that can't be the name of a queue or an
    exchange, or a routing key. ``name``: that of the option."""
    if value is None:
        return
    if not isinstance(value, str):
        known = getattr(value, "name", None)  # Celery takes kombu's objects here as well
        hint = f"; write its name, {known!r}" if isinstance(known, str) else ""
        raise TypeError(f"{name} must be text, not {value!r}{hint}")
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
        raise ValueError(f"{name} has more than {LONGEST_KEY} bytes: {value[:40]!r}…")


def options_of(kind: type[Any], value: Any) -> Any:
    """An options dataclass from a dict; raises an error that names an unknown or wrong option."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict, not {value!r}")
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    for key, option in value.items():
        if key not in known:
            raise ValueError(f"has the unknown option {key!r}.{nearest(str(key), known)}")
        wanted = ""
        match known[key]:
            case "bool" if not isinstance(option, bool):
                wanted = "True or False"
            case "str" if not isinstance(option, str):
                wanted = "text"
            case "int | None" if not (option is None or (_is_whole(option) and option >= 0)):
                wanted = "a whole number from 0, or None"
            case "float" if not (is_number(option) and 0 <= option < math.inf):
                wanted = "a number from 0"
        if wanted:
            raise TypeError(f"option {key!r} must be {wanted}, not {option!r}")
    return kind(**value)


# ------------------------------------------------------------------------------ readers
# Each takes the value of one setting and returns it typed. Their errors are put after its name.


def anything(value: Any) -> Any:
    """For a setting that another module reads."""
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, not {value!r}")
    return value


def dotted(value: Any) -> str:
    """The path of a function in a module, or nothing."""
    path = text(value)
    parts = path.split(".")
    if path and (len(parts) < 2 or not all(part.isidentifier() for part in parts)):
        raise ValueError(f"must be the dotted path of a function, not {path!r}")
    return path


def filled(value: Any) -> str:
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def path(value: Any) -> str | Path:
    return value if isinstance(value, Path) else text(value)


def yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be True or False, not {value!r}")
    return value


def number(least: float, *, whole: bool = False) -> Callable[[Any], float]:
    """The reader of a number that is at least this."""

    def read(value: Any) -> float:
        if not is_number(value) or not math.isfinite(value):
            raise TypeError(f"must be a number, not {value!r}")
        if whole and not isinstance(value, int):
            raise TypeError(f"must be a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"must be at least {least:g}, not {value!r}")
        found: float = value
        return found

    return read


def is_queue_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and not set(name) & set("{}\x06\x16")


def queues(value: Any) -> Mapping[str, Queue]:
    if not isinstance(value, Mapping) or not value:
        raise TypeError("must be a dict of queue name → options, with at least one queue")
    found = {}
    for name, options in value.items():
        if not is_queue_name(name):
            raise ValueError(f"has {name!r}: a queue's name is text without braces")
        check_text(f"has {name[:100]!r}: a queue's name", name)
        keys = options.get("routing_key") if isinstance(options, Mapping) else None
        if keys is not None and not isinstance(keys, str):
            if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
                raise TypeError(
                    f"option 'routing_key' must be text or a list of texts, not {keys!r}"
                )
            # A tuple passes `options_of`, which checks only the plain types.
            options = {**options, "routing_key": tuple(keys)}
        found[name] = options_of(Queue, options)
        check_whole(f"has {name!r}: option 'shards'", found[name].shards, 1, SHARDS_MOST)
        if found[name].foreign_workers:
            _check_foreign(name, found[name])
    if all(queue.foreign_workers for queue in found.values()):
        raise ValueError(
            "must have a queue without 'foreign_workers': workers of this program bring the "
            "results of Celery's into the ledger, and need one of their own"
        )
    return found


def _check_foreign(name: str, queue: Queue) -> None:
    """Raise `ValueError` for options that only workers of this program can keep to."""
    said = f"has {name!r}: with 'foreign_workers', Celery's workers take what is sent there"
    if queue.open:
        raise ValueError(
            f"{said}, and 'open' is for queues of this program's workers; take one of them out"
        )
    if queue.shards > 1:
        raise ValueError(f"{said}, and they know one list alone; take 'shards' out")


def with_plain_queues(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, with a dict in place of Celery's ``task_queues``: a list of kombu's queues,
    whose exchanges are added to ``EXCHANGES``.

    Raises `TypeError` or `ValueError` for a queue that can't be declared so.
    """
    several = raw.get("QUEUES")
    if not isinstance(several, list | tuple):
        return raw
    queues, kinds = {}, dict(raw.get("EXCHANGES") or {})
    for queue in several:
        if not _is_kombus(queue):
            raise TypeError(f"must be a dict of queue name → options, not a list with {queue!r}")
        if type(queue).__name__ == "Broadcast":
            raise ValueError(
                f"has {queue!r}: a message belongs to one queue. Declare a queue for each machine, "
                "bound to an exchange of the kind fanout"
            )
        bound = list(queue.bindings) or [queue]
        names = {one.exchange.name: one.exchange.type for one in bound if one.exchange is not None}
        if len(names) > 1:
            raise ValueError(
                f"has {queue!r}, which is bound to several exchanges; a queue is bound to one"
            )
        keys = sorted(one.routing_key for one in bound if one.routing_key)
        queues[queue.name] = {"exchange": "".join(names), "routing_key": keys}
        kinds |= {name: kind for name, kind in names.items() if name and name not in kinds}
    return {**raw, "QUEUES": queues, "EXCHANGES": kinds}


def _is_kombus(value: Any) -> bool:
    """Whether it is an object of kombu's, such as a queue or an exchange."""
    return type(value).__module__.split(".")[0] == "kombu"


def place_name(value: Any) -> Any:
    """The name of a queue or an exchange of kombu's; anything else as it is."""
    return value.name if _is_kombus(value) and hasattr(value, "name") else value


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
    told = f"must be whole numbers from 0 to 9, ascending, the first of them 0, not {value!r}"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(told)
    if any(isinstance(step, bool) or step not in range(10) for step in value):
        raise ValueError(told)
    if not value or value[0] != 0 or sorted(set(value)) != list(value):
        raise ValueError(told)
    return tuple(value)


def beat_schedule(value: Any) -> Mapping[str, Mapping[str, Any] | None]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict of name → schedule, not {value!r}")
    for name, entry in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"has {name!r}: the name of a schedule is text")
        if entry is not None and not isinstance(entry, Mapping):
            raise TypeError(f"has {entry!r} for {name!r}, which must be a dict")
    return dict(value)


def task_options(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict of task name → options, not {value!r}")
    for name, options in value.items():
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise TypeError(f"has {options!r} for {name!r}, which must be a dict of options")
        if "name" in options:
            raise ValueError(f"has the option 'name' for {name!r}, which is the task's own")
    return dict(value)


#: Values of CELERY_RESULTS.
CELERY_RESULTS = ("clients", "all", "none")


def celery_results(value: Any) -> str:
    if value not in CELERY_RESULTS:
        raise ValueError(f'must be "clients", "all" or "none", not {value!r}')
    return str(value)


#: Values of CELERY_CONTROL.
CELERY_CONTROL = ("none", "inspect", "all")


def celery_control(value: Any) -> str:
    if value not in CELERY_CONTROL:
        raise ValueError(f'must be "none", "inspect" or "all", not {value!r}')
    return str(value)


def result_expires(value: Any) -> Mapping[str, float | None]:
    """One age for all final states, or one for some of them."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(RESULT_EXPIRES, seconds_or_none(value))
    for state in value:
        if state not in RESULT_EXPIRES:
            raise ValueError(
                f"has {state!r}, which is no end of a task.{nearest(state, RESULT_EXPIRES)}"
            )
    return {**RESULT_EXPIRES, **{state: seconds_or_none(age) for state, age in value.items()}}
