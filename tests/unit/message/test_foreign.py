"""What Celery's clients write otherwise than this program."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from jobs.exceptions import BadSignature, MalformedMessage
from jobs.message import decode, encode, mark_redelivered, task_of
from tests.unit.message.wire import BODY, FROM_CELERY, changed, received, without_wire

ZLIB = "application/x-gzip"


def compressed(body: bytes, by: Callable[[bytes], bytes] = zlib.compress) -> dict[str, Any]:
    sent = changed("headers", compression=ZLIB)
    return {**sent, "body": base64.b64encode(by(body)).decode()}


@pytest.mark.parametrize("by", [zlib.compress, gzip.compress])
def test_a_compressed_body_is_read(by: Callable[[bytes], bytes]) -> None:
    found = received(compressed(BODY.encode(), by))
    assert without_wire(found) == without_wire(received(FROM_CELERY))
    assert "compression" not in found.headers
    # The next attempt is sent without.
    assert decode(encode(found), "celery").args == [1, 2]


def test_a_body_that_is_compressed_from_a_huge_one_is_not_read(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 2000}
    fits = f'[["{"x" * 1900}"], {{}}, {{}}]'
    assert received(compressed(fits.encode())).args == ["x" * 1900]
    with pytest.raises(MalformedMessage, match=r"more than 2,000 bytes"):
        received(compressed(b"[" + b" " * 50_000_000))


def test_a_body_that_is_cut_off_is_not_read() -> None:
    with pytest.raises(MalformedMessage, match="cut off"):
        received(compressed(BODY.encode(), lambda body: zlib.compress(body)[:-3]))


VERSION_1: dict[str, Any] = {
    "task": "proj.add",
    "id": "11111111-1111-1111-1111-111111111111",
    "args": [1, 2],
    "kwargs": {"z": 3},
    "retries": 2,
    "eta": "2031-01-02T03:04:05",
    "expires": "2032-01-02T03:04:05+00:00",
    "utc": True,
    "callbacks": [{"task": "proj.next"}],
    "errbacks": None,
    "timelimit": [10.0, 3.0],
    "taskset": "g",
    "group_index": 4,
    "chord": {"task": "proj.total"},
}


def of_version_1(**fields: Any) -> dict[str, Any]:
    body = base64.b64encode(json.dumps({**VERSION_1, **fields}).encode()).decode()
    return changed(headers={}, body=body)


def test_version_1_of_the_protocol_is_read() -> None:
    found = received(of_version_1())
    assert (found.task, found.id, found.queue) == ("proj.add", VERSION_1["id"], "celery")
    assert (found.args, found.kwargs, found.retries) == ([1, 2], {"z": 3}, 2)
    assert found.eta == dt.datetime(2031, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert found.expires == dt.datetime(2032, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert (found.group, found.group_index, found.timelimit) == ("g", 4, (10.0, 3.0))
    assert found.embed["callbacks"] == [{"task": "proj.next"}]
    assert found.embed["chord"] == {"task": "proj.total"}
    assert found.celery
    raw = json.dumps(of_version_1()).encode()
    assert task_of(raw, "celery") == "proj.add"
    again, _ = mark_redelivered(raw, crashed=True)
    assert decode(again, "celery", trusted=True).marks.redelivered is True


def test_what_version_1_need_not_say() -> None:
    body = base64.b64encode(b'{"task": "proj.ping", "id": "a"}').decode()
    found = received(changed(headers={}, body=body))
    assert (found.task, found.args, found.kwargs, found.embed) == ("proj.ping", [], {}, {})


def test_only_open_queues_take_them() -> None:
    for sent in (of_version_1(), compressed(BODY.encode())):
        with pytest.raises((MalformedMessage, BadSignature)):
            received(sent, trusted=False)
