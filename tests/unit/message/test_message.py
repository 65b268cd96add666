from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pytest_django import Settings

from jobs import message
from jobs.exceptions import MessageTooLarge, NotSerializable
from jobs.message import NO_MARKS, Marks, decode, encode, workflow
from tests.unit.message.wire import (
    SOME,
    a_message,
    changed,
    json_values,
    received,
    there_and_back,
    without_wire,
)


def test_every_field_comes_back() -> None:
    sent = a_message(
        args=[1, "two", [3.5, None, True]],
        kwargs={"a": {"b": "č"}},
        embed={"callbacks": [{"task": "x"}], "errbacks": None, "chain": None, "chord": None},
        priority=7,
        eta=dt.datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        expires=dt.datetime(2031, 1, 3, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        retries=3,
        ignore_result=True,
        root_id="root",
        parent_id="parent",
        group="group",
        group_index=4,
        timelimit=(60.0, 50.5),
        own_headers={"trace": "00-ab-cd-01", "nested": {"list": [1, 2.5, None]}},
        ledger=True,
        marks=Marks(crashes=2),
        origin="web@host",
        label="import 2026-11",
    )
    back = there_and_back(sent)
    sent.held = True  # the broker holds a message that has an eta
    assert without_wire(back) == without_wire(sent)


def test_the_least_comes_back_as_defaults() -> None:
    sent = a_message()
    back = there_and_back(sent)
    assert back.root_id == sent.id
    assert back.origin
    assert (back.args, back.kwargs, back.headers) == ([], {}, {})
    assert (back.eta, back.expires, back.timelimit) == (None, None, (None, None))
    assert (back.held, back.ledger) == (False, False)
    assert back.marks is NO_MARKS  # no object is made for them


@SOME
@given(args=st.lists(json_values, max_size=4), headers=st.dictionaries(st.text("xyz"), json_values))
def test_any_json_comes_back(args: list[Any], headers: dict[str, Any]) -> None:
    back = there_and_back(a_message(args=args, own_headers=headers))
    assert (back.args, back.headers) == (args, headers)


def test_tuples_become_lists() -> None:
    assert there_and_back(a_message(args=(1, (2, 3)))).args == [1, [2, 3]]


def test_a_zone_becomes_an_offset_of_the_same_moment() -> None:
    eta = dt.datetime(2031, 7, 1, 12, tzinfo=ZoneInfo("Europe/Prague"))
    back = there_and_back(a_message(eta=eta, expires=eta))
    assert back.eta == back.expires == eta
    assert back.eta is not None
    assert back.eta.tzinfo is not None


def test_what_is_sent_again_keeps_its_body_and_its_headers() -> None:
    first = there_and_back(a_message(args=[uuid.UUID(int=5)], own_headers={"trace": "x"}))
    first.retries += 1
    second = there_and_back(first)
    assert second.body == first.body
    assert (second.args, second.retries) == ([uuid.UUID(int=5)], 1)
    assert second.headers == {"trace": "x"}


def test_marked_redelivered() -> None:
    sent = a_message(priority=6, args=[2**70, 1.5])
    raw, priority = message.mark_redelivered(encode(sent), crashed=False)
    assert priority == 6
    found = decode(raw, "mail")
    assert found.marks == Marks(redelivered=True)
    assert found.args == [2**70, 1.5]
    assert json.loads(raw)["properties"]["delivery_info"]["redelivered"] is True


def test_crashes_are_counted() -> None:
    raw = encode(a_message())
    for _ in range(3):
        raw, _ = message.mark_redelivered(raw, crashed=True)
    assert decode(raw, "mail").marks.crashes == 3
    assert there_and_back(decode(raw, "mail")).marks.crashes == 3


def test_marked_held_until_its_eta() -> None:
    eta = "2031-01-02T03:04:05+00:00"
    foreign = changed("headers", eta=eta)
    assert received(foreign).held is False
    raw = message.mark(json.dumps(foreign).encode(), jobs_due=True)
    assert decode(raw, "celery", trusted=True).held is True
    assert there_and_back(a_message(eta=dt.datetime(2031, 1, 1, tzinfo=dt.UTC))).held is True


class WithKey:
    pk = 5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"args": [1, {2}]}, "argument 2 of task 'shop.tasks.pay', a set, can't be sent"),
        (
            {"kwargs": {"a": 1, "who": object()}},
            "argument 'who' of task 'shop.tasks.pay', a object",
        ),
        ({"args": [float("nan")]}, "argument 1"),
        ({"args": [WithKey()]}, "Pass its primary key instead."),
        ({"args": [{"deep": [object()]}]}, "argument 1 of task 'shop.tasks.pay', a dict"),
        ({"args": [{(1, 2): 3}]}, "argument 1"),
        ({"embed": {"callbacks": object()}}, "task 'shop.tasks.pay' can't be sent"),
        (
            {"embed": {"chain": [workflow.chain([workflow.task("shop.tasks.tell", [1, {2}])])]}},
            "argument 2 of task 'shop.tasks.tell', a set, can't be sent",
        ),
    ],
)
def test_an_argument_that_has_no_form_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(NotSerializable) as caught:
        encode(a_message(**fields))
    assert named in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_an_argument_that_holds_itself_is_named() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(NotSerializable, match="argument 1"):
        encode(a_message(args=[ring]))


def test_a_message_too_large(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 10_000}
    assert encode(a_message(args=["x" * 5_000]))
    with pytest.raises(MessageTooLarge, match=r"'shop.tasks.pay' has 1\d,\d{3} bytes.*10,000"):
        encode(a_message(args=["x" * 10_000]))


def test_an_id_is_a_version_7_uuid() -> None:
    for _ in range(200):
        parsed = uuid.UUID(message.new_id())
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_differ_and_carry_their_time() -> None:
    before = time.time()
    ids = [message.new_id() for _ in range(1_000)]
    after = time.time()
    assert len(set(ids)) == 1_000
    for task_id in ids:
        made = message.id_time(task_id)
        assert made is not None
        # A millisecond ahead where the counter in the ids begins anew.
        assert before - 0.001 <= made <= after + 0.001


def test_ids_sort_in_the_order_in_which_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.message.call._stamp", (-1, ""))
    moments = [10_000] * 9_000 + [9_990] * 9_000 + [10_020]  # the clock is set back a little
    ids = []
    for ms in moments:
        monkeypatch.setattr("jobs.message.call.time.time_ns", lambda ms=ms: ms * 1_000_000)
        ids += [message.new_id()]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert message.id_time(ids[-1]) == pytest.approx(10.02, abs=0.0011)
    monkeypatch.setattr("jobs.message.call.time.time_ns", lambda: 1_000 * 1_000_000)
    assert message.id_time(message.new_id()) == pytest.approx(1.0, abs=0.0011)  # by much: followed


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.message.call._stamp", (-1, ""))
    ids = []
    for ms in (1, 1_000, 1_700_000_000_000, 1_700_000_000_001, 2**47):
        monkeypatch.setattr(
            "jobs.message.call.time.time_ns", lambda ms=ms: ms * 1_000_000 + 999_999
        )
        ids += [message.new_id()]
        assert message.id_time(ids[-1]) in (ms / 1000, (ms + 1) / 1000)
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "other",
    [
        "",
        "x",
        "c61240e4-cd06-4a3a-b309-2f8b903a1c54",
        "zzzzzzzz-zzzz-7zzz-zzzz-zzzzzzzzzzzz",
        "7" * 32,
    ],
)
def test_another_kind_of_id_carries_no_time(other: str) -> None:
    assert message.id_time(other) is None
