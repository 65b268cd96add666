"""The command of a single send is packed in two parts, which together are the whole."""

import pytest
from hiredis import pack_command

from jobs.broker.connection import Ready
from jobs.broker.scripts import PUSH


@pytest.mark.parametrize("raw", [b"", b"message", b"$0\r\n\r\n", b"\0\xff" * 5_000])
def test_a_ready_script_is_packed_as_any_other(raw: bytes) -> None:
    keys = ("mail\x06\x163", "{mäil}:bell")
    whole = pack_command((b"EVALSHA", PUSH.sha, len(keys), *keys, raw))  # type: ignore[arg-type]
    assert Ready(PUSH, keys).packed(raw) == whole
