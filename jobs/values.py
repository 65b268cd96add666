"""Values of settings and options: what kind they are of, and which word was meant."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import math
from collections.abc import Mapping
from typing import Any


def nearest(word: str, known: Any) -> str:
    """`` Did you mean 'x'?`` for the known word closest to this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not close and word.upper() in known:
        close = [word.upper()]
    return f" Did you mean {close[0]!r}?" if close else ""


def yes_or_no(value: Any) -> bool:
    """Raises `TypeError`."""
    if not isinstance(value, bool):
        raise TypeError(f"must be True or False, not {value!r}")
    return value


def seconds_or_none(value: Any) -> float | None:
    """A number of seconds or a timedelta, as seconds; raises `TypeError` or `ValueError`."""
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"must be seconds, a timedelta or None, not {value!r}")
    if value < 0:
        raise ValueError(f"must be at least 0 seconds, not {value!r}")
    return float(value)


def check_time_limit(name: str, limit: Any) -> None:
    """Raise `TypeError` or `ValueError` for what is neither seconds above 0 nor None."""
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"{name} must be seconds or None, not {limit!r}")
    if not 0 < limit < math.inf:
        raise ValueError(f"{name} must be more than 0 seconds, not {limit!r}")


#: Longest name of an exchange and longest routing key, in bytes, as AMQP has it.
LONGEST_KEY = 255


def check_place(name: str, value: Any) -> None:
    """Raise `TypeError` or `ValueError` for what is no name of a queue or an exchange, and no
    routing key. ``name``: of the option."""
    if value is None:
        return
    if not isinstance(value, str):
        known = getattr(value, "name", None)  # Celery takes kombu's objects here as well
        hint = f"; write its name, {known!r}" if isinstance(known, str) else ""
        raise TypeError(f"{name} must be text, not {value!r}{hint}")
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
        raise ValueError(f"{name} has more than {LONGEST_KEY} bytes: {value[:40]!r}…")


def options_of(kind: type[Any], value: Any) -> Any:
    """An options dataclass from a dict; raises naming the option that is unknown or wrong."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict, not {value!r}")
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    for key, option in value.items():
        if key not in known:
            raise ValueError(f"has the unknown option {key!r}.{nearest(str(key), known)}")
        if known[key] == "bool" and not isinstance(option, bool):
            raise TypeError(f"option {key!r} must be True or False, not {option!r}")
        if known[key] == "str" and not isinstance(option, str):
            raise TypeError(f"option {key!r} must be text, not {option!r}")
        if known[key] == "int | None":
            if option is None:
                continue
            if isinstance(option, bool) or not isinstance(option, int) or option < 0:
                raise TypeError(
                    f"option {key!r} must be a whole number from 0, or None, not {option!r}"
                )
        if known[key] in ("int", "float") and (
            isinstance(option, bool)
            or not isinstance(option, int | float)
            or not 0 <= option < math.inf
        ):
            raise TypeError(f"option {key!r} must be a number from 0, not {option!r}")
        if known[key] == "int" and not isinstance(option, int):
            raise TypeError(f"option {key!r} must be a whole number, not {option!r}")
    return kind(**value)
