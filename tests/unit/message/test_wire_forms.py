"""Most messages are filled into a form: what is written is what would be written without it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from jobs.exceptions import NotSerializable
from jobs.message import (
    Calls,
    EncodedCalls,
    Marks,
    Message,
    are_plain,
    encode,
    new_id,
    wire,
)
from tests.unit.message.wire import SOME, a_message, json_values

names = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["%b", "%%s", '"', "\\"]
)

#: Field → a value that no usual message has.
OTHERS: dict[str, Any] = {
    "task": "shop.tasks.other",
    "id": "another id",
    "queue": "other",
    "args": ["other"],
    "kwargs": {"other": 1},
    "embed": {"callbacks": [{"task": "x"}], "errbacks": None, "chain": None, "chord": None},
    "priority": 9,
    "eta": dt.datetime(2031, 1, 2, tzinfo=dt.UTC),
    "expires": dt.datetime(2031, 1, 2, tzinfo=dt.UTC),
    "retries": 1,
    "attempts_before": 1,
    "ignore_result": True,
    "root_id": "root",
    "parent_id": "parent",
    "group": "group",
    "group_index": 0,
    "timelimit": (1.0, None),
    "own_headers": {"trace": "1"},
    "marks": Marks(crashes=1),
    "ledger": True,
    "exchange": "exchange",
    "routing_key": "key",
    "copies": ("another",),
    "held": True,
    "unique": "unique",
    "label": "label",
    "celery": True,
    "errback": True,
    "replaced": 2,
    "fair": "tenant",
    "shard_key": "key",
    "sensitive": frozenset({"0", "a"}),
    "shadow": "sum",
    "argsrepr": "(<secret>)",
    "kwargsrepr": "{}",
    "origin": "web@host",
    "body": "W1tdLHt9LHt9XQ==",
    "wire_headers": b"{}",
    "wire": b"{}",
}


def common_of(one: Message) -> tuple[Any, ...]:
    return msgspec.structs.astuple(one)[: wire._OWN]


@SOME
@given(
    names=st.fixed_dictionaries(
        dict.fromkeys(["task", "id", "queue", "exchange", "routing_key", "label"], names)
    ),
    others=st.fixed_dictionaries(
        {
            "args": st.lists(json_values, max_size=3),
            "kwargs": st.dictionaries(names, json_values, max_size=2),
            "priority": st.integers(0, 9),
            "ignore_result": st.none() | st.booleans(),
            "ledger": st.booleans(),
            "sensitive": st.frozensets(st.sampled_from("01ab")),
            "body": st.none() | names,  # a foreign one is kept as it was
        }
    ),
)
def test_a_usual_message(names: dict[str, Any], others: dict[str, Any]) -> None:
    one = a_message(**names, **others)
    written = encode(one)
    assert one.body is not None
    assert written == wire._filled_in(one, one.body, common_of(one)) == wire._written(one, one.body)


@pytest.mark.parametrize("field", msgspec.structs.fields(wire.Message), ids=lambda f: f.name)
def test_each_field(field: msgspec.structs.FieldInfo) -> None:
    encode(a_message(args=[1], kwargs={"a": 2}))  # its form is there
    one = a_message(args=[1], kwargs={"a": 2})
    setattr(one, field.name, OTHERS[field.name])
    written = encode(one)
    assert one.body is not None
    assert written == wire._written(one, one.body)


def test_equal_values_of_other_types() -> None:
    for ignored in (True, 1, False, 0):
        one = a_message(args=[], ignore_result=ignored)
        written = encode(one)
        assert one.body is not None
        assert written == wire._written(one, one.body)


#: What `EncodedCalls` leaves to the messages themselves.
LOOKED_AT = {"own_headers", "sensitive", "argsrepr", "kwargsrepr", "copies"}


@SOME
@given(
    names=st.fixed_dictionaries(
        dict.fromkeys(["task", "queue", "exchange", "routing_key", "label", "fair"], names)
    ),
    own=st.lists(
        st.tuples(
            st.lists(json_values | st.dates() | st.just("long" * 300), max_size=3).map(tuple),
            st.dictionaries(names, json_values, max_size=2),
        ),
        max_size=4,
    ),
)
def test_calls_are_written_as_their_messages_are(names: dict[str, Any], own: list[Any]) -> None:
    calls = Calls(a_message(**names, id=""), [(new_id(), *arguments) for arguments in own])
    encoded = EncodedCalls(calls)
    assert list(encoded) == [encode(one) for one in calls.messages()] == list(encoded)


@pytest.mark.parametrize(
    "field", sorted(OTHERS.keys() - LOOKED_AT - {"id", "args", "kwargs", "body"})
)
def test_what_calls_have_in_common(field: str) -> None:
    common = a_message(id="", **{field: OTHERS[field]})
    calls = Calls(common, [(new_id(), (1,), {}), (new_id(), (), {"a": 2})])
    assert are_plain(calls)
    assert list(EncodedCalls(calls)) == [encode(one) for one in calls.messages()]
    assert common.id == ""


@pytest.mark.parametrize("field", sorted(LOOKED_AT))
def test_calls_that_are_not_plain(field: str) -> None:
    assert not are_plain(Calls(a_message(**{field: OTHERS[field]}), []))


@pytest.mark.parametrize("field", ["task", "queue", "label", "parent_id", "root_id"])
def test_calls_with_a_lone_surrogate_are_refused(field: str) -> None:
    with pytest.raises(NotSerializable, match="can't be sent"):
        EncodedCalls(Calls(a_message(**{field: "\ud800"}), []))


@pytest.mark.parametrize("field", ["task", "id", "queue", "label", "exchange"])
def test_a_lone_surrogate_is_refused(field: str) -> None:
    with pytest.raises(NotSerializable, match="can't be sent"):
        encode(a_message(**{field: "\ud800"}))
