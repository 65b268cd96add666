"""Stamps of a call, as revocations name them.

A stamp is revoked on the broker like the id of a call, under a text of its own, its mark. That
begins with a character that no id has.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import uuid
from typing import Any

from django.utils.functional import Promise

from jobs import serialization
from jobs.exceptions import shown
from jobs.message.call import LONGEST, Message, is_name

_BETWEEN = "\0"


def mark_of(name: object, value: object) -> str:
    """The text under which a stamp with this value is revoked. A value that is no text is written
    as a person types it, so that 5 and ``"5"`` are the same, and so are a date, a UUID or a Decimal
    and their texts. Raises `ValueError` if it is no name, too long, or has no form in JSON.
    """
    text = _text(value)
    if text is None or not is_name(name) or len(text) > LONGEST:
        raise ValueError(
            f"A stamp has a name and a value of up to {LONGEST} characters each, "
            f"not {shown(name, 60)} and {shown(value, 60)}."
        )
    return f"{_BETWEEN}{name}{_BETWEEN}{text}"


def _text(value: object) -> str | None:
    """None for what has no form in JSON or UTF-8."""
    match value:
        case str() | Promise() | uuid.UUID() | decimal.Decimal():
            text = str(value)
        case dt.date() | dt.time():  # datetimes are dates
            text = value.isoformat()
        case _:
            try:
                text = serialization.dumps(value)
            except (TypeError, ValueError, RecursionError):
                return None
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return text


def marks_of(sent: Message) -> list[str]:
    """The marks of all stamps of a call. Anybody may have sent it, so malformed stamps are left
    out."""
    if b'"stamped_headers"' not in sent.wire_headers and sent.own_headers is None:
        return []
    names, stamps = sent.headers.get("stamped_headers"), sent.headers.get("stamps")
    if not isinstance(names, list) or not isinstance(stamps, dict):
        return []
    found = []
    for name in names:
        value = stamps.get(name) if isinstance(name, str) else None
        for one in value if isinstance(value, list) else [value]:
            with contextlib.suppress(ValueError):  # nobody can revoke it either
                if one is not None:
                    found.append(mark_of(name, one))
    return found


def read_mark(text: str) -> tuple[str, str] | None:
    """Name and value of the stamp with this mark; None for the id of a call."""
    if not text.startswith(_BETWEEN):
        return None
    name, _, value = text[1:].partition(_BETWEEN)
    return name, value


def listed(stamps: Any) -> list[tuple[str, Any]]:
    """Each stamp with one of its values, from what Celery takes: a dict of values or lists of them,
    or a list of texts ``name=value``. Raises `ValueError` for anything else, for None, which no
    call is stamped with, and for no stamps."""
    if isinstance(stamps, dict):
        found = [
            (name, one)
            for name, value in stamps.items()
            for one in (value if isinstance(value, list | tuple | set | frozenset) else [value])
        ]
    elif isinstance(stamps, list | tuple) and all(
        isinstance(one, str) and one.partition("=")[1] for one in stamps
    ):
        found = [(name, value) for name, _, value in (one.partition("=") for one in stamps)]
    else:
        found = []
    if not found or any(value is None for _, value in found):
        raise ValueError(
            "Name stamps and their values, such as {'customer': 'acme'} or ['customer=acme']."
        )
    return found
