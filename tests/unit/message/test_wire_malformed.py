"""Whatever is found on a queue is a message or a `MessageError`; nothing else is ever raised."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jobs import message
from jobs.exceptions import MalformedMessage, MessageError
from jobs.message import decode
from tests.unit.message.wire import changed, json_values

MANY = settings(max_examples=200, deadline=None, database=None)


def body(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def without(name: str, part: str = "") -> dict[str, Any]:
    copy = changed()
    del (copy[part] if part else copy)[name]
    return copy


CASES: dict[str, tuple[Any, str]] = {
    # what stops a Celery worker, or is discarded by it without a trace
    "not JSON": (b"no json", "Celery's format"),
    "not an object": ([1, 2], "Celery's format"),
    "a number": (17, "Celery's format"),
    "not UTF-8": (b'{"body": "\xff", "headers": {}}', "Celery's format"),
    "nothing": (b"", "Celery's format"),
    "no body": (without("body"), "body"),
    "body not text": (changed(body=5), "Celery's format"),
    "headers not an object": (changed(headers=[1]), "Celery's format"),
    "no headers": (without("headers"), "headers"),
    "properties not an object": (changed(properties=None), "Celery's format"),
    "body not base64": (changed(body="%%%"), "base64"),
    "body not JSON": (changed(body=body("[[1, 2")), "delimiter"),
    "body not UTF-8": (changed(body=body(b"[['\xff'], {}, {}]")), "utf-8"),
    "body of two elements": (changed(body=body("[[1], {}]")), "expected 3"),
    "body of four elements": (changed(body=body("[[1], {}, {}, 1]")), "expected 3"),
    "body a text of three": (changed(body=body('"abc"')), "body"),
    "body an object of three": (changed(body=body('{"a": 1, "b": 2, "c": 3}')), "body"),
    "body a number": (changed(body=body("5")), "body"),
    "args null": (changed(body=body("[null, {}, {}]")), "body"),
    "kwargs not an object": (changed(body=body("[[1], [2], {}]")), "body"),
    "an unknown tag": (
        changed(body=body('[[{"__type__": "x", "__value__": 1}], {}, {}]')),
        "not a known tagged value",
    ),
    "a wrong value of a tag": (
        changed(body=body('[[{"__type__": "uuid", "__value__": {"hex": 5}}], {}, {}]')),
        "not a known tagged value",
    ),
    "protocol 1 without an id": (
        changed(headers={}, body=body('{"task": "a", "args": [], "kwargs": {}}')),
        "id",
    ),
    "protocol 1 with an id that is a number": (
        changed(headers={}, body=body('{"task": "a", "id": 5, "args": [], "kwargs": {}}')),
        "id",
    ),
    "protocol 1 with arguments that are none": (
        changed(headers={}, body=body('{"task": "a", "id": "b", "args": 5, "kwargs": {}}')),
        "body",
    ),
    "another serializer": (changed(**{"content-type": "application/x-yaml"}), "x-yaml"),
    "pickle": (
        changed(**{"content-type": "application/x-python-serialize", "content-encoding": "binary"}),
        "x-python-serialize",
    ),
    "an unknown content type": (changed(**{"content-type": "no/such"}), "no/such"),
    "said to be compressed": (changed("headers", compression="application/x-gzip"), "ompress"),
    "compressed by what is not read": (changed("headers", compression="application/zstd"), "zstd"),
    "compression a number": (changed("headers", compression=5), "ompress"),
    "no task": (without("task", "headers"), "task"),
    "no id": (without("id", "headers"), "id"),
    "task a number": (changed("headers", task=5), "task"),
    "task empty": (changed("headers", task=""), "task"),
    "id a number": (changed("headers", id=5), "id"),
    "id null": (changed("headers", id=None), "id"),
    "id empty": (changed("headers", id=""), "id"),
    "id longer than a column": (changed("headers", id="x" * 300), "id"),
    "eta not ISO": (changed("headers", eta="tomorrow"), "tomorrow"),
    "eta a number": (changed("headers", eta=1_700_000_000), "eta"),
    "expires not ISO": (changed("headers", expires="soon"), "soon"),
    "timelimit of one": (changed("headers", timelimit=[5]), "timelimit"),
    "timelimit of three": (changed("headers", timelimit=[5, 4, 3]), "timelimit"),
    "timelimit a number": (changed("headers", timelimit=5), "timelimit"),
    "timelimit of texts": (changed("headers", timelimit=["long", None]), "timelimit"),
    "retries a word": (changed("headers", retries="many"), "retries"),
    "retries a list": (changed("headers", retries=[1]), "retries"),
    "priority a word": (changed("properties", priority="high"), "priority"),
    "group a number": (changed("headers", group=5), "group"),
    "group_index a word": (changed("headers", group_index="first"), "group_index"),
    "root_id a list": (changed("headers", root_id=["x"]), "root_id"),
    "parent_id a number": (changed("headers", parent_id=5), "parent_id"),
    "ignore_result a word": (changed("headers", ignore_result="no"), "ignore_result"),
    "origin a number": (changed("headers", origin=5), "origin"),
    "nested too deep": (b'{"body": "", "headers": {"a": ' + b"[" * 100_000, "Celery's format"),
    "a body nested too deep": (changed(body=body("[" * 100_000)), "body"),
    "a tagged body nested too deep": (changed(body=body('["__type__",' + "[" * 100_000)), "body"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_what_is_wrong(case: str) -> None:
    sent, said = CASES[case]
    raw = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    with pytest.raises(MalformedMessage) as caught:
        decode(raw, "celery", trusted=True)
    text = str(caught.value)
    assert said in text
    assert text.endswith(".")


@pytest.mark.parametrize("name", ["root_id", "parent_id", "group", "task", "origin"])
def test_a_lone_surrogate_leaves_the_id_readable(name: str) -> None:
    """So that the call has an end."""
    sent = changed("headers", **{name: "a\ud800"})
    with pytest.raises(MalformedMessage) as caught:
        decode(json.dumps(sent).encode(), "celery", trusted=True)
    assert caught.value.call is not None
    assert caught.value.call.id == sent["headers"]["id"]


def only_message_errors(read: Callable[[], object]) -> None:
    with contextlib.suppress(MessageError):
        read()


@MANY
@given(raw=st.binary(), trusted=st.booleans())
def test_any_bytes(raw: bytes, trusted: bool) -> None:
    only_message_errors(lambda: decode(raw, "mail", trusted=trusted))
    only_message_errors(lambda: message.mark_redelivered(raw, crashed=True))
    only_message_errors(lambda: message.mark(raw, jobs_due=True))


FIELDS = [
    *[("", name) for name in changed()],
    *[(part, name) for part in ("headers", "properties") for name in changed()[part]],
    *[("headers", name) for name in ("jobs_ledger", "jobs_unique")],
    *[("properties", name) for name in ("jobs_sig", "jobs_crashes", "jobs_due", "jobs_permit")],
]


@MANY
@given(field=st.sampled_from(FIELDS), value=json_values, trusted=st.booleans())
def test_any_value_in_any_field(field: tuple[str, str], value: Any, trusted: bool) -> None:
    part, name = field
    raw = json.dumps(changed(part, **{name: value})).encode()
    only_message_errors(lambda: decode(raw, "mail", trusted=trusted))
    only_message_errors(lambda: message.mark_redelivered(raw, crashed=True))
    only_message_errors(lambda: message.mark(raw, jobs_due=True))


@MANY
@given(content=json_values)
def test_any_body(content: Any) -> None:
    raw = json.dumps(changed(body=body(json.dumps(content)))).encode()
    only_message_errors(lambda: decode(raw, "mail", trusted=True))


@MANY
@given(
    kind=st.sampled_from(["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "x"])
    | json_values,
    value=json_values | st.dictionaries(st.just("hex"), json_values),
)
def test_any_tagged_value(kind: Any, value: Any) -> None:
    tagged = {"__type__": kind, "__value__": value}
    raw = json.dumps(changed(body=body(json.dumps([[tagged], {}, {}])))).encode()
    only_message_errors(lambda: decode(raw, "mail", trusted=True))


@MANY
@given(raw=st.sampled_from([json.dumps(changed()).encode()]), data=st.data())
def test_any_damage(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw)))
    cut = data.draw(st.integers(0, 5))
    damaged = raw[:at] + data.draw(st.binary(max_size=5)) + raw[at + cut :]
    only_message_errors(lambda: decode(damaged, "mail", trusted=True))
    only_message_errors(lambda: message.mark_redelivered(damaged, crashed=True))
