"""A message as Celery's workers take it, of a call on a queue with ``foreign_workers``.

Celery's workers only run the call. What follows it is in the ledger's message, and is sent from
there when the end is recorded: Celery's would send it without a signature, and count chords in
Redis alone. So it stands in a header, which they pass by, and not where they look. The message is
signed all the same: put on another queue, it is run by workers of this program with all that
follows.
"""

from __future__ import annotations

import binascii
import json
from typing import Any, NamedTuple

import msgspec

from jobs.exceptions import MalformedMessage
from jobs.message.wire import sign

_plain = msgspec.json.Encoder().encode
_NOTHING: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Handed(NamedTuple):
    raw: bytes
    #: From 0, the most urgent, to 9.
    priority: int
    #: Names this attempt at the call: the id, and how many attempts a person's wish has ended.
    tag: str


#: Positional and keyword arguments, and what follows the call.
_Parts = tuple[msgspec.Raw, msgspec.Raw, dict[str, msgspec.Raw] | None]


class _Envelope(msgspec.Struct):
    body: str
    content_encoding: str = msgspec.field(name="content-encoding")
    content_type: str = msgspec.field(name="content-type")
    headers: dict[str, msgspec.Raw]
    properties: dict[str, Any]


_read = msgspec.json.Decoder(_Envelope)
_read_body = msgspec.json.Decoder(_Parts)


def for_celery(raw: bytes) -> Handed:
    """The form for Celery's workers of a message that this program has encoded.

    Its eta is for them to wait for. They are to store its end, whether or not the task's result is
    wanted here. Raises `MalformedMessage`.
    """
    try:
        envelope = _read.decode(raw)
        args, kwargs, after = _parts(binascii.a2b_base64(envelope.body))
        headers, properties = envelope.headers, envelope.properties
        headers["ignore_result"] = msgspec.Raw(b"false")
        if after and any(bytes(value) != b"null" for value in after.values()):
            headers["jobs_after"] = msgspec.Raw(_plain(_base64(after)))
        body = _base64((args, kwargs, _NOTHING))
        written = _plain(headers)
        properties.pop("jobs_due", None)
        properties["jobs_sig"] = sign(written, body)
        priority, tag = properties["priority"], properties["delivery_tag"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedMessage(f"Not a message in Celery's format: {error!r}.") from error
    whole = {
        "body": body,
        "content-encoding": envelope.content_encoding,
        "content-type": envelope.content_type,
        "headers": msgspec.Raw(written),
        "properties": properties,
    }
    return Handed(_plain(whole), priority, tag)


def _base64(value: Any) -> str:
    return binascii.b2a_base64(_plain(value), newline=False).decode()


def _parts(body: bytes) -> _Parts:
    try:
        found: _Parts = _read_body.decode(body)
        return found
    except msgspec.DecodeError:  # lone surrogates, which the standard library writes and reads
        args, kwargs, after = json.loads(body)
        follows = {name: _raw(value) for name, value in (after or {}).items()}
        return _raw(args), _raw(kwargs), follows


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())
