"""Python values to JSON and back, with the types Django users pass that JSON lacks.

The tagged objects are kombu's (``kombu.utils.json``), so that Celery on the other side reads
and writes the same: ``{"__type__": "decimal", "__value__": "1.5"}``.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
from django.utils.functional import Promise


def dumps(value: Any) -> str:
    """The value as JSON text. Raises `TypeError`, `ValueError` or `RecursionError` for a value that
    has no form in JSON."""
    try:
        text = _encode_json(value)
        if type(value) not in _LEAVES and _holds_tags(value):
            text = _encode_json(_escaped(value))
    except (TypeError, ValueError, RecursionError):
        raise
    except Exception as error:
        raise TypeError(f"looking at it raises {type(error).__name__}: {error}") from error
    return text


def plain(value: Any) -> Any:
    """The value in plain JSON types: other types as tagged dicts, tuples as lists. Raises what
    `dumps` raises."""
    return json.loads(dumps(value))


def revived(value: Any) -> Any:
    """The value of which `plain` made this form. Raises `ValueError`."""
    return loads(json.dumps(value))


def _holds_tags(value: Any) -> bool:
    """Whether it holds a dict that looks like a tagged value. Raises `ValueError` for a dict with
    two keys that are the same in JSON: one of their values would be lost."""
    found = False
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                texts = [k if isinstance(k, str) else _encode_json(k) for k in value]
                if len(set(texts)) < len(texts):
                    twice = next(text for text in texts if texts.count(text) > 1)
                    raise ValueError(
                        f"it has two keys that are {twice!r} in JSON, whose keys are text"
                    )
                break
        if len(value) == 2 and "__type__" in value and "__value__" in value:
            found = True
        value = value.values()
    elif not isinstance(value, list | tuple) or _LEAVES.issuperset(map(type, value)):
        return found
    for one in value:
        if type(one) not in _LEAVES and _holds_tags(one):
            found = True
    return found


def _escaped(value: Any) -> Any:
    """The same, with each dict that looks like a tagged value put into a tag of its own."""
    if isinstance(value, dict):
        inside = {key: _escaped(one) for key, one in value.items()}
        if inside.keys() == {"__type__", "__value__"}:
            return _tagged("jobs.dict", list(inside.items()))
        return inside
    if isinstance(value, list | tuple):
        return [_escaped(one) for one in value]
    return value


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; raises `ValueError`."""
    # In bytes with `find`: `in` first tries whether the mark is a number.
    tagged = text.find(b"__type__") >= 0 if isinstance(text, bytes) else "__type__" in text
    if not tagged:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass  # lone surrogates, which the standard library writes and reads
    return json.loads(text, object_hook=_untag, parse_constant=_refuse, parse_float=_finite)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


class Encoder(json.JSONEncoder):
    """Writes what `dumps` writes, for code that takes an encoder's class."""

    def default(self, value: Any) -> Any:
        return _tag(value)


def _tag(value: Any) -> Any:
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, dt.datetime):
        return _tagged("datetime", value.isoformat())
    if isinstance(value, dt.date):
        return _tagged("date", value.isoformat())
    if isinstance(value, dt.time):
        if value.tzinfo is not None and value.utcoffset() is None:
            raise ValueError(f"{value!r} has no offset without a day; send the zone's name besides")
        return _tagged("time", value.isoformat())
    if isinstance(value, decimal.Decimal):
        return _tagged("decimal", str(value))
    if isinstance(value, uuid.UUID):
        return _tagged("uuid", {"hex": value.hex})
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return _tagged("bytes", bytes(value).decode())
        except UnicodeDecodeError:
            return _tagged("base64", base64.b64encode(bytes(value)).decode())
    if callable(form := getattr(value, "__json__", None)):
        return form()  # kombu's protocol, which calls that are not sent yet have
    hint = "; send its total_seconds()" if isinstance(value, dt.timedelta) else ""
    raise TypeError(f"{type(value).__name__} has no form in JSON{hint}")


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {"__type__": kind, "__value__": value}


_UNTAG: dict[str, Callable[[Any], Any]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "decimal": decimal.Decimal,
    "uuid": lambda value: uuid.UUID(hex=value["hex"]),
    "bytes": str.encode,
    "base64": base64.b64decode,
    # No type of kombu's: a dict that looks like one, as a list of its keys and values.
    "jobs.dict": lambda value: dict(value) if isinstance(value, list) else _refuse(repr(value)),
}


def _untag(found: dict[str, Any]) -> Any:
    if len(found) != 2 or "__type__" not in found or "__value__" not in found:
        return found
    kind = found["__type__"]
    try:
        return _UNTAG[kind](found["__value__"])
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{found!r} is not a known tagged value") from error


#: Types whose values hold no dict.
_LEAVES = frozenset(
    {int, str, bool, float, type(None), dt.datetime, dt.date, dt.time, decimal.Decimal, uuid.UUID}
)
# One encoder for all calls: `json.dumps` with arguments builds a new one each time.
_encode_json = json.JSONEncoder(default=_tag, separators=(",", ":"), allow_nan=False).encode
