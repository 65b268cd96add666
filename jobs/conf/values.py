"""Values of settings and options: what kind they are of, and which word was meant."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import math
import time
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from jobs.exceptions import shown


def nearest(word: str, known: Any) -> str:
    """`` Did you mean 'x'?`` for the known word closest to this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if not close and word.upper() in known:
        close = [word.upper()]
    return f" Did you mean {close[0]!r}?" if close else ""


def sentence(told: object) -> str:
    """What an error says, with the stop at its end that it may lack."""
    text = str(told)
    return text if text.endswith((".", "?")) else f"{text}."


def yes_or_no(value: Any) -> bool:
    """Raises `TypeError`."""
    if not isinstance(value, bool):
        raise TypeError(f"must be True or False, not {value!r}")
    return value


#: Seconds, of 1,000 years: a moment that lies further ahead can't be shown in every time zone.
MOST_AHEAD = 1000 * 365.25 * 86_400


def is_number(value: object) -> bool:
    """Whether it is one that can be counted with: True and False are none here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def seconds_ahead(name: str, value: Any) -> float:
    """A number of seconds from now or a timedelta, as seconds; 0 for what is past.

    Raises `TypeError` or `ValueError` with the name.
    """
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if not is_number(seconds):
        raise TypeError(f"{name} must be seconds or a timedelta, not {shown(value)}")
    if not seconds <= MOST_AHEAD:  # NaN isn't, either
        raise ValueError(f"{name} must be at most 1000 years, not {shown(value)}")
    return max(0.0, float(seconds)) if seconds > 0 else 0.0


def moment(name: str, value: Any) -> dt.datetime:
    """An aware datetime; one without a time zone is taken in the project's.

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
    """Raise `TypeError` or `ValueError` for what is no text that each part of the way can store."""
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


def check_whole(name: str, value: Any, least: int, most: int, otherwise: str = "") -> None:
    """Raise `TypeError` or `ValueError` for what is no whole number of these; ``otherwise``: what
    else it may be."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number{otherwise}, not {shown(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least:,} to {most:,}{otherwise}, not {shown(value)}")


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
        raise TypeError(f"{name} must be seconds or None, not {shown(limit)}")
    if not limit > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {shown(limit)}")
    if not limit <= MOST_AHEAD:
        raise ValueError(f"{name} must be at most 1000 years, not {shown(limit)}; None: no limit")


def check_priority(priority: Any) -> None:
    """Raise `ValueError` for what is neither 0 to 9 nor None."""
    if priority is None:
        return
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in range(10):
        raise ValueError(f"priority must be 0 (first) to 9, not {shown(priority)}")


def check_yes_or_no(name: str, value: Any) -> None:
    """Raise `TypeError` for what is neither True nor False, with the name."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


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
