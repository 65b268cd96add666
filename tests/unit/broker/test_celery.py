import json
from typing import Any

import pytest

from jobs.broker.celery import Broadcast, packed, unpacked


def test_what_is_packed_is_read_again():
    text = packed({"method": "ping"}, {"clock": 3}, "celery.pidbox", "")
    assert unpacked(text) == Broadcast({"method": "ping"}, {"clock": 3})


def test_a_body_need_not_be_in_base64():
    whole = json.loads(packed([], {}, "x", ""))
    whole["properties"].pop("body_encoding")
    whole["body"] = '{"method": "ping"}'
    assert unpacked(json.dumps(whole).encode()).body == {"method": "ping"}


@pytest.mark.parametrize(
    "changed",
    [
        {"content-type": "application/x-python-serialize"},
        {"body": "no base64, no JSON"},
        {"body": "WzFd"},  # [1]
        {"body": None},
        {"properties": None},
        {"headers": [1]},
    ],
)
def test_what_is_no_command_is_refused(changed: dict[str, Any]):
    whole = json.loads(packed({"method": "ping"}, {}, "x", ""))
    with pytest.raises(ValueError, match=r".+"):
        unpacked(json.dumps({**whole, **changed}).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_message_is_refused(text: bytes):
    with pytest.raises(ValueError, match=r".+"):
        unpacked(text)
