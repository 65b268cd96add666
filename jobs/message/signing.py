"""HMAC-SHA256 (RFC 2104) over the headers and the body of a message, as they are written."""

from __future__ import annotations

import functools
import hashlib
import hmac
from typing import Any

import msgspec

from jobs import conf


def sign(headers: bytes, body: str, key: bytes | None = None) -> str:
    """The signature, in hex, under ``key`` or the project's present one."""
    inner, outer = _contexts(key or conf.signing_keys()[0])
    inner, outer = inner.copy(), outer.copy()
    inner.update(headers + b"\n" + body.encode())
    outer.update(inner.digest())
    return outer.hexdigest()


@functools.cache
def _contexts(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC (RFC 2104) with the key already in them.

    `hmac.digest` prepares the key anew at every call, which is two thirds of its time for a
    message of ordinary size.
    """
    padded = key.ljust(64, b"\0")
    return (
        hashlib.sha256(bytes(byte ^ 0x36 for byte in padded)),
        hashlib.sha256(bytes(byte ^ 0x5C for byte in padded)),
    )


def verify(signature: str, headers: bytes, body: str) -> bool:
    """Whether this project signed them, or them without what a Celery worker adds that puts a
    message back."""
    if not signature.isascii():
        return False
    if _is_signed(signature, headers, body):
        return True
    # Written anew by somebody who put it back: as it was at first.
    original = msgspec.json.decode(headers, type=dict[str, Any])
    original.pop("redelivered", None)
    return _is_signed(signature, msgspec.json.encode(original), body)


def _is_signed(signature: str, headers: bytes, body: str) -> bool:
    # A loop: a generator costs as much as the comparison.
    for key in conf.signing_keys():
        if hmac.compare_digest(sign(headers, body, key), signature):
            return True
    return False
