"""Messages that Celery's clients can write otherwise than this program does: with compressed
bodies, and in version 1 of Celery's protocol.

https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

#: kombu's name of what it calls both zlib and gzip.
_ZLIB = "application/x-gzip"
#: Recognise the heads of zlib and of gzip.
_ANY_HEAD = zlib.MAX_WBITS | 32

_encode = msgspec.json.Encoder().encode


def uncompressed(body: bytes, method: object, limit: int) -> bytes:
    """The body that was compressed. Raises `ValueError`, also if it has more than ``limit`` bytes:
    a small body can be compressed from a huge one."""
    if method != _ZLIB:
        raise ValueError(f"it is compressed by {str(method)[:60]!r}; zlib and gzip are read")
    reader = zlib.decompressobj(_ANY_HEAD)
    try:
        found = reader.decompress(body, limit)
    except zlib.error as error:
        raise ValueError(f"it can't be uncompressed: {error}") from error
    if not reader.eof:
        raise ValueError(f"it is cut off, or has more than {limit:,} bytes when uncompressed")
    return found


class _Version1(msgspec.Struct):
    """What a body of version 1 can say. Each part is checked where the same part of version 2
    is."""

    task: Any
    id: Any
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    retries: Any = None
    eta: Any = None
    expires: Any = None
    timelimit: Any = None
    taskset: Any = None
    group_index: Any = None
    chord: msgspec.Raw = msgspec.Raw(b"null")
    callbacks: msgspec.Raw = msgspec.Raw(b"null")
    errbacks: msgspec.Raw = msgspec.Raw(b"null")


def to_version_2(headers: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Headers and body in version 2 of a message of version 1, which has everything in its body.
    Raises `ValueError`."""
    found = msgspec.json.decode(body, type=_Version1)
    names = ("task", "id", "retries", "eta", "expires", "timelimit", "group_index")
    told = {name: getattr(found, name) for name in names}
    embed = {name: getattr(found, name) for name in ("callbacks", "errbacks", "chord")}
    text = _encode((found.args, found.kwargs, {**embed, "chain": None}))
    return {**headers, **told, "group": found.taskset}, text
