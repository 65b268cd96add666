from __future__ import annotations

import base64
import collections
import datetime as dt
import decimal
import json
import uuid
import zoneinfo
from typing import Any

import hypothesis.strategies as st
import pytest
from django.db import models
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings

from jobs.message import Message, encode
from jobs.serialization import dumps, loads

#: Each value with its JSON as kombu writes it.
TAGGED = [
    (
        dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        {"__type__": "datetime", "__value__": "2020-01-02T03:04:05.000006+00:00"},
    ),
    (dt.datetime(2020, 1, 2), {"__type__": "datetime", "__value__": "2020-01-02T00:00:00"}),  # noqa: DTZ001
    (dt.date(2020, 1, 2), {"__type__": "date", "__value__": "2020-01-02"}),
    (dt.time(1, 2), {"__type__": "time", "__value__": "01:02:00"}),
    (decimal.Decimal("1.5"), {"__type__": "decimal", "__value__": "1.5"}),
    (
        uuid.UUID(int=5),
        {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}},
    ),
    (b"abc", {"__type__": "bytes", "__value__": "abc"}),
    (b"\xff\x00", {"__type__": "base64", "__value__": "/wA="}),
]


@pytest.mark.parametrize(("value", "wire"), TAGGED)
def test_tagged_as_kombu_does(value: Any, wire: Any) -> None:
    assert json.loads(dumps(value)) == wire
    assert loads(json.dumps(wire)) == value
    assert loads(json.dumps(wire).encode()) == value


def test_tags_anywhere_inside() -> None:
    value = {"a": [{"b": uuid.UUID(int=1)}, [dt.date(2020, 1, 2)]], "c": decimal.Decimal("0.10")}
    assert loads(dumps(value)) == value
    assert str(loads(dumps(value))["c"]) == "0.10"


def test_lazy_text_becomes_text() -> None:
    assert loads(dumps([gettext_lazy("Yes")])) == ["Yes"]


class Size(models.IntegerChoices):
    SMALL = 1


class Kind(models.TextChoices):
    BIG = "big"


def test_choices_become_their_values() -> None:
    assert loads(dumps([Size.SMALL, Kind.BIG])) == [1, "big"]


@pytest.mark.parametrize("value", [bytearray(b"ab"), memoryview(b"ab")])
def test_other_bytes_become_bytes(value: Any) -> None:
    assert loads(dumps(value)) == b"ab"


def test_tuples_become_lists_and_keys_become_text() -> None:
    assert loads(dumps({1: (2, 3)})) == {"1": [2, 3]}


@pytest.mark.parametrize("value", [2**63, 2**64, 2**200, -(2**70), 0.1, 1e300, -0.0])
def test_numbers_keep_their_value(value: float) -> None:
    assert repr(loads(dumps(value))) == repr(value)


def test_lone_surrogates_survive() -> None:
    assert loads(dumps(["\ud800", "🙂"])) == ["\ud800", "🙂"]


def test_empty_containers_stay_what_they_are() -> None:
    assert dumps([[], {}, ""]) == '[[],{},""]'
    assert loads("[[],{}]") == [[], {}]


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), float("nan"), float("inf"), {(1,): 2}, 1j, dt.timedelta(1), max]
)
def test_what_has_no_form(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        dumps([value])


def test_the_type_without_a_form_is_named() -> None:
    with pytest.raises(TypeError, match="set has no form in JSON"):
        dumps([{1}])


@pytest.mark.parametrize(
    "like_a_tag",
    [
        {"__type__": "datetime"},
        {"__type__": "datetime", "__value__": "x", "more": 1},
        {"__type__": "x", "value": 1},
        {"note": "__type__"},
    ],
)
def test_what_only_looks_like_a_tag(like_a_tag: Any) -> None:
    assert loads(json.dumps([like_a_tag])) == [like_a_tag]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("unknown", 1),
        ("", ""),
        (None, None),
        (["datetime"], "2020-01-02"),
        ("datetime", "tomorrow"),
        ("datetime", 5),
        ("date", None),
        ("time", "25:00"),
        ("decimal", "one"),
        ("decimal", {}),
        ("uuid", "00000000000000000000000000000005"),
        ("uuid", {}),
        ("uuid", {"hex": "zz"}),
        ("uuid", {"hex": 5}),
        ("bytes", 5),
        ("bytes", "\ud800"),
        ("base64", "a"),
        ("base64", {}),
    ],
)
def test_wrong_tags_are_value_errors(kind: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="is not a known tagged value"):
        loads(json.dumps([{"__type__": kind, "__value__": value}]))


LIKE_TAGS: list[Any] = [
    {"__type__": "decimal", "__value__": "x"},
    {"__type__": "decimal", "__value__": "1.5"},
    {"__type__": "nothing", "__value__": None},
    {"__value__": 1, "__type__": ["datetime"]},
    {"__type__": "jobs.dict", "__value__": [["a", 1]]},
    {"__type__": "x", "__value__": {"__type__": "y", "__value__": decimal.Decimal("0.1")}},
    [[{"a": [{"__type__": "uuid", "__value__": {}}]}], dt.date(2020, 1, 1)],
]


@pytest.mark.parametrize("value", LIKE_TAGS)
def test_values_that_look_like_tags_come_back(value: Any) -> None:
    assert loads(dumps(value)) == value
    sent = Message(task="t", id="i", queue="q", args=[value], kwargs={"a": value})
    sent.embed = {"chain": [value]}
    body = json.loads(encode(sent))["body"]
    assert loads(base64.b64decode(body)) == [[value], {"a": value}, {"chain": [value]}]


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, {True: 1, "true": 2}, {None: 1, "null": 2}])
def test_keys_that_would_become_one_are_refused(value: Any) -> None:
    for inside in (value, [value], {"a": (value,)}, collections.OrderedDict(a=value)):
        with pytest.raises(ValueError, match=r"two keys that are .* in JSON"):
            dumps(inside)


def test_what_raises_when_it_is_looked_at_has_no_form() -> None:
    class Raises(dict[str, Any]):
        def items(self) -> Any:
            raise KeyError("no items")

    class NoClass:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no class")

    for value in (Raises(a=1), NoClass()):
        with pytest.raises(TypeError, match="looking at it raises"):
            dumps([value])


def test_times_with_an_offset_keep_it_and_others_are_refused() -> None:
    value = dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))
    assert loads(dumps(value)) == value
    assert loads(dumps(value)).utcoffset() == value.utcoffset()
    with pytest.raises(ValueError, match="has no offset without a day"):
        dumps(dt.time(1, 2, tzinfo=zoneinfo.ZoneInfo("Asia/Kathmandu")))


def test_moments_in_named_zones_keep_their_moment() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    for fold in (0, 1):  # the hour that is there twice
        value = dt.datetime(2025, 10, 26, 2, 30, tzinfo=zone, fold=fold)
        back = loads(dumps(value))
        assert (back, back.utcoffset()) == (value.astimezone(dt.UTC), value.utcoffset())


def test_subclasses_become_what_they_are_of() -> None:
    class Text(str):
        def __str__(self) -> str:
            raise RuntimeError

    class Number(int):
        def __repr__(self) -> str:
            return "none"

    class Moment(dt.datetime):
        pass

    assert loads(dumps([Text("a"), Number(5), mark_safe("b")])) == ["a", 5, "b"]
    assert loads(dumps(Moment(2020, 1, 1, tzinfo=dt.UTC))) == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert str(loads(dumps(decimal.Decimal("NaN")))) == "NaN"


@pytest.mark.parametrize("text", ["", "[", "{'a': 1}", b"\xff", "[1] 2", "nul"])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the JSON reader's own words)
        loads(text)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.sampled_from([None, dt.UTC]))
    | st.decimals(allow_nan=False, places=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=50, deadline=None, database=None)
@given(value=values)
def test_any_value_comes_back(value: Any) -> None:
    text = dumps(value)
    assert text.isascii()
    assert loads(text) == value
    assert loads(text.encode()) == value
