"""A message as Celery's workers take it, of a call on a queue with ``foreign_workers``.

Celery's workers only run the call. What follows it is in the ledger's message, and is sent from
there when the end is recorded: Celery would send it without a signature, and count chords in Redis
alone. So the message has what follows in a header that Celery ignores, and not where Celery looks.
The message is signed all the same: when it is moved to another queue, a worker of this program runs
it with all that follows.
"""

from __future__ import annotations

import binascii
import json
from typing import Any, NamedTuple

import msgspec

from jobs.message.wire import NO_EMBED, editing, sign

_plain = msgspec.json.Encoder().encode


class Handed(NamedTuple):
    raw: bytes
    #: From 0, the most urgent, to 9.
    priority: int
    #: Names the attempt: the call's id, and how many attempts came before.
    tag: str


#: Positional and keyword arguments, and what follows the call.
_Parts = tuple[msgspec.Raw, msgspec.Raw, dict[str, msgspec.Raw] | None]
_read_body = msgspec.json.Decoder(_Parts)


def for_celery(raw: bytes) -> Handed:
    """The form for Celery's workers of a message that this program has encoded.

    They wait for its eta themselves. They store its end even if the task's result is ignored here.
    Raises `MalformedMessage`.
    """
    with editing(raw) as envelope:
        headers, properties = envelope["headers"], envelope["properties"]
        args, kwargs, after = _parts(binascii.a2b_base64(envelope["body"]))
        headers["ignore_result"] = False
        if after and any(bytes(value) != b"null" for value in after.values()):
            headers["jobs_after"] = _base64(after)
        body, written = _base64((args, kwargs, NO_EMBED)), _plain(headers)
        properties.pop("jobs_due", None)
        properties["jobs_sig"] = sign(written, body)
        whole = {**envelope, "headers": msgspec.Raw(written), "body": body}
        return Handed(_plain(whole), properties["priority"], properties["delivery_tag"])


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
