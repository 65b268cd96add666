"""Only what this project signed is run, whoever wrote it anew on its way."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hmac
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pytest_django import Settings

from jobs import message
from jobs.exceptions import BadSignature, MessageError, NotSerializable
from jobs.message import NO_MARKS, decode, encode
from jobs.message.wire import sign
from tests.unit.message.wire import (
    FROM_CELERY,
    SOME,
    a_message,
    json_values,
    received,
    there_and_back,
    wire,
)


def test_a_foreign_message_runs_only_where_it_may() -> None:
    with pytest.raises(BadSignature, match=r"queue 'celery'.*JOBS\['QUEUES'\]\['celery'\]"):
        received(FROM_CELERY, trusted=False)
    assert received(FROM_CELERY, trusted=True)


def test_every_header_and_the_body_are_signed() -> None:
    sent = wire(a_message(own_headers={"own": 1}, ledger=True))
    headers = sent["headers"]
    assert len(headers) > 15
    for name, value in headers.items():
        forged = [
            {**headers, name: other} for other in ("forged", 17, True, None) if other != value
        ]
        forged += [{key: value for key, value in headers.items() if key != name}]
        for changed_headers in forged:
            with pytest.raises(MessageError):
                received({**sent, "headers": changed_headers}, trusted=False)
    for changed_part in (
        {"headers": {**headers, "another": 1}},
        {"body": base64.b64encode(b'[["forged"], {}, {}]').decode()},
    ):
        with pytest.raises(BadSignature):
            received({**sent, **changed_part}, trusted=False)


@pytest.mark.parametrize("key", [b"k", b"k" * 32, b"k" * 64])
def test_the_signature_is_the_hmac_of_the_standard_library(key: bytes) -> None:
    signed = b'{"task": "add"}\nbody'
    assert sign(b'{"task": "add"}', "body", key) == hmac.new(key, signed, "sha256").hexdigest()
    # Again: what is kept of a key is not used up.
    assert sign(b'{"task": "add"}', "body", key) == hmac.new(key, signed, "sha256").hexdigest()


@pytest.mark.parametrize("twice", ['"task": "evil", %s', '%s, "task": "evil"'])
def test_a_header_named_twice_is_not_what_was_signed(twice: str) -> None:
    sent = wire(a_message())
    headers = "{" + twice % json.dumps(sent["headers"])[1:-1] + "}"
    raw = json.dumps({**sent, "headers": 0}).replace('"headers": 0', f'"headers": {headers}')
    with pytest.raises(BadSignature):
        decode(raw.encode(), "mail")


@pytest.mark.parametrize("signature", ["", "ab", "é", "0" * 64, None, 17, ["x"], {"x": 1}])
def test_what_is_no_signature(signature: Any) -> None:
    sent = wire(a_message())
    sent["properties"]["jobs_sig"] = signature
    with pytest.raises(BadSignature if isinstance(signature, str) else MessageError):
        received(sent, trusted=False)


def test_written_anew_by_others_it_is_still_valid() -> None:
    sent = wire(a_message(own_headers={"z": 1, "a": {"č": 1e16, "b": 2**70, "c": -0.0}}))
    raw = json.dumps(sent, indent=1, sort_keys=False).encode()
    assert decode(raw, "mail").headers == {"z": 1, "a": {"č": 1e16, "b": 2**70, "c": -0.0}}


@SOME
@given(headers=st.dictionaries(st.text("xyz"), json_values))
def test_put_back_with_any_headers_it_is_still_valid(headers: dict[str, Any]) -> None:
    raw, _ = message.mark_redelivered(encode(a_message(own_headers=headers)), crashed=False)
    assert decode(raw, "mail").headers == headers
    assert decode(json.dumps(json.loads(raw)).encode(), "mail").headers == headers


def test_a_celery_worker_that_puts_it_back_leaves_it_valid() -> None:
    sent = wire(a_message())
    sent["headers"]["redelivered"] = True
    sent["properties"]["delivery_info"]["redelivered"] = True
    assert received(sent, trusted=False).marks.redelivered is True


def test_the_secret_may_be_rotated(settings: Settings) -> None:
    raw = encode(a_message())
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the-next-key"
    assert decode(raw, "mail")
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(BadSignature):
        decode(raw, "mail")


def test_the_new_secret_signs(settings: Settings) -> None:
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the-next-key"
    raw = encode(a_message())
    settings.SECRET_KEY_FALLBACKS = []
    assert decode(raw, "mail")


@pytest.mark.parametrize(
    "headers",
    [
        {"redelivered": True},
        {"redelivered": "often"},
        {"compression": "application/x-gzip"},
        {"jobs_ledger": True},
        {"jobs_ledger": "x"},
        {"shadow": "x"},
        {"task": "another"},
        {1: "a number for a name", "10": "x", "9": "y"},
    ],
)
def test_no_header_of_the_caller_s_spoils_the_message(headers: dict[Any, Any]) -> None:
    sent = a_message(own_headers=headers)
    back = there_and_back(sent)
    assert (back.task, back.marks) == (sent.task, NO_MARKS)
    assert (back.held, back.ledger) == (False, False)
    raw, _ = message.mark_redelivered(encode(sent), crashed=False)
    assert decode(raw, "mail").task == sent.task


@pytest.mark.parametrize(
    "value", [{"b", "a", "c"}, object(), "\ud800", dt.datetime(2031, 1, 1, tzinfo=dt.UTC)]
)
def test_a_header_that_json_lacks_is_refused_or_understood(value: Any) -> None:
    sent = a_message(own_headers={"own": value})
    with contextlib.suppress(NotSerializable):
        assert there_and_back(sent)
