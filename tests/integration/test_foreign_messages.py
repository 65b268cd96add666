"""Whatever decodes is recorded: messages of any kind from outside, down to their rows."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from pytest_django import Settings

from jobs import broker, message
from jobs.broker.base import Outgoing
from jobs.exceptions import MalformedMessage
from jobs.message import wire
from jobs.models import TaskResult
from jobs.states import TERMINAL, State
from jobs.worker.claim import admission
from jobs.worker.record.outcome import Dead, Later, Outcome
from jobs.worker.record.recorder import Recorder
from jobs.worker.run import executor
from jobs.worker.run.executor import Limits, ThreadTimer
from tests.tasks import add, echo
from tests.workers import dead_letters, on_redis, put, work

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("broker_url", "_open"),
]

SOME = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def _open(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}}}


def raw_of(headers: dict[str, Any], embed: Any = None, **properties: Any) -> bytes:
    """As a client writes it that can't sign."""
    text = json.dumps([[1, 2], {}, {} if embed is None else embed])
    return with_body(text.encode(), headers, **properties)


def with_body(text: bytes, headers: dict[str, Any], **properties: Any) -> bytes:
    return json.dumps(
        {
            "body": base64.b64encode(text).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": add.name, **headers},
            "properties": {"body_encoding": "base64", **properties},
        }
    ).encode()


def signed(raw: bytes) -> bytes:
    """As it would be if a process with the project's key had sent it."""
    found = json.loads(raw)
    headers = json.dumps(found["headers"], separators=(",", ":"), ensure_ascii=False).encode()
    return message.mark(raw, jobs_sig=wire.sign(headers, found["body"]))


odd_texts = st.sampled_from(
    [
        "",
        "a",
        "x" * 255,
        "x" * 256,
        "x" * 5000,
        "a\0b",
        "\0",
        "é" * 255,
        "\U0001f600" * 255,
        " ",
        "'",
    ]
) | st.text(max_size=40)
odd_numbers = st.sampled_from(
    [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**63, 2**70, -(2**70), 10**6, 10**6 + 1, 0.5, 1e300]
) | st.integers(-5, 5)
odd_values = (
    st.none() | st.booleans() | odd_texts | odd_numbers | st.lists(odd_numbers, max_size=3)
    | st.dictionaries(odd_texts, odd_numbers, max_size=2)
)  # fmt: skip
odd_times = st.sampled_from(
    [
        *("0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999"),
        *("9999-12-31T23:59:59-14:00", "1970-01-01", "2999-01-01T00:00:00Z", "no time", "NaN"),
    ]
)
limits = st.lists(odd_numbers | st.none(), min_size=2, max_size=2)


def header(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return sound | sound | odd_values


headers = st.fixed_dictionaries(
    {},
    optional={
        "task": header(st.sampled_from([add.name, echo.name, "nobody's"])),
        "root_id": header(odd_texts),
        "parent_id": header(odd_texts),
        "group": header(odd_texts),
        "group_index": header(odd_numbers),
        "retries": header(st.integers(0, 3)),
        "eta": header(odd_times),
        "expires": header(odd_times),
        "timelimit": header(limits),
        "ignore_result": header(st.booleans()),
        "origin": header(odd_texts),
        "redelivered": header(st.booleans()),
        "jobs_ledger": header(st.booleans()),
        "jobs_unique": header(odd_texts),
        "own": odd_values,
    },
)
options = st.dictionaries(
    st.sampled_from(
        ["task_id", "group_id", "group_index", "queue", "priority", "eta", "countdown", "expires",
         "time_limit", "link", "link_error", "chain", "chord", "ignore_result", "headers"]
    ),
    odd_values | odd_times,
    max_size=4,
)  # fmt: skip
calls = st.fixed_dictionaries(
    {
        "task": header(st.sampled_from([add.name, "nobody's"])),
        "args": st.just([]) | odd_values,
        "kwargs": st.just({}) | odd_values,
        "options": options | odd_values,
        "subtask_type": st.none() | st.sampled_from(["group", "chord", "chain", "x"]),
        "immutable": st.booleans(),
    }
)
embeds = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(calls, max_size=2) | odd_values
        for name in ("callbacks", "errbacks", "chain")
    }
    | {"chord": calls | odd_values, "more": st.just("x" * 5000)},  # long ones are read otherwise
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "priority": odd_numbers,
        "jobs_crashes": odd_numbers,
        "jobs_killed": st.sampled_from(["time limit", "revoked", "purged", "x"]),
        "jobs_unknown_since": odd_numbers,
        "jobs_permit": odd_numbers,
        "jobs_due": st.booleans(),
    },
)


@SOME
@given(headers, embeds | st.none(), properties, st.booleans())
def test_whatever_decodes_is_recorded(
    headers: dict[str, Any], embed: Any, properties: dict[str, Any], sign: bool
) -> None:
    task_id = message.new_id()
    raw = raw_of({**headers, "id": task_id}, embed, **properties)
    if sign:
        raw = signed(raw)
    outcome = outcome_of(raw)
    recorder = Recorder("w")
    recorder.add(outcome)
    # What stands beside it in its batch.
    beside = message.new_id()
    recorder.add(outcome_of(raw_of({"id": beside})))
    dead = isinstance(outcome, Dead)
    record = outcome.record
    recorder.step()
    assert recorder.idle
    assert TaskResult.objects.get(id=beside).state == State.SUCCESS
    if dead or record is not None:
        row = TaskResult.objects.get(id=task_id)
        assert dead is False or row.state in TERMINAL
        assert not row.error.startswith("The outcome (")
    if record is not None:
        # As it is: nothing had to be left out for the database.
        assert (row.group_index, row.root_id) == (record.group_index, record.root_id)


def outcome_of(raw: bytes) -> Outcome:
    prepared = admission.prepare("default", 1, raw, worker="w", now=time.time())
    if not isinstance(prepared, Outcome):
        return executor.run(prepared, "w", Limits(ThreadTimer()))
    return prepared


OUT_OF_BOUNDS: dict[str, dict[str, Any]] = {
    "place in the group": {"group": "g", "group_index": -1},
    "place of 70 bits": {"group": "g", "group_index": 2**70},
    "root": {"root_id": "x" * 300},
    "parent": {"parent_id": "x" * 300},
    "group": {"group": "x" * 300, "group_index": 0},
    "NUL in the root": {"root_id": "a\0"},
    "NUL in the group": {"group": "a\0"},
    "attempts": {"retries": -1},
    "many attempts": {"retries": 2**40},
    "a negative time limit": {"timelimit": [-1, None]},
    "a huge time limit": {"timelimit": [None, 1e300]},
    "no moment": {"eta": "yesterday"},
    "compressed": {"compression": "zlib"},
    "no such flag": {"ignore_result": "yes"},
}


@pytest.mark.parametrize("fields", [pytest.param(v, id=k) for k, v in OUT_OF_BOUNDS.items()])
def test_out_of_bounds_is_a_dead_letter_whose_call_ends(fields: dict[str, Any]) -> None:
    put(raw_of({"id": "foreign-1", **fields}))
    put(raw_of({"id": "foreign-2"}))
    work()
    row = TaskResult.objects.get(id="foreign-1")
    assert (row.state, row.error_type) == (State.FAILURE, "jobs.exceptions.MalformedMessage")
    assert TaskResult.objects.get(id="foreign-2").state == State.SUCCESS
    assert len(dead_letters()) == 1
    assert on_redis() == (0, 0)


def test_an_id_that_can_not_be_touches_no_row() -> None:
    for task_id in ("x" * 300, "a\0", "", 5, None):
        put(raw_of({"id": task_id}))
    work()
    assert TaskResult.objects.count() == 0
    assert len(dead_letters()) == 5


def test_of_what_nobody_has_signed_no_row_is_touched(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "low": {}}}
    put(raw_of({"id": "foreign-1", "group_index": -1}))
    put(raw_of({"id": "foreign-2"}))
    work()
    assert TaskResult.objects.count() == 0
    assert len(dead_letters()) == 2


def test_what_follows_a_malformed_call_ends_too() -> None:
    behind = {"task": add.name, "args": [1], "kwargs": {}, "options": {"task_id": "behind"}}
    told = {"task": echo.name, "args": [], "kwargs": {}, "options": {"task_id": "told"}}
    embed = {"callbacks": None, "errbacks": [told], "chain": [behind], "chord": None}
    put(raw_of({"id": "foreign-1", "retries": -1}, embed))
    work()
    states = dict(TaskResult.objects.values_list("id", "state"))
    assert states == {
        "foreign-1": State.FAILURE,
        "behind": State.FAILURE,
        "told": State.SUCCESS,
    }


def test_times_at_the_ends_of_the_calendar_are_kept_within_it() -> None:
    for eta in ("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"):
        sent = message.decode(raw_of({"id": "a", "expires": eta}), "default", trusted=True)
        assert sent.expires is not None
        assert 1 < sent.expires.year < 9999
    with pytest.raises(MalformedMessage):
        message.decode(raw_of({"id": "a", "eta": "x"}), "default", trusted=True)


def test_an_unknown_task_is_not_offered_for_ever() -> None:
    raw = raw_of({"id": "foreign-1", "task": "nobody's"}, jobs_unknown_since=1e300)
    broker.get().push([Outgoing("default", raw)])
    outcome = outcome_of(raw)
    assert type(outcome) in (Dead, Later)
    if isinstance(outcome, Later):
        assert json.loads(outcome.raw)["properties"]["jobs_unknown_since"] <= time.time()


@pytest.mark.parametrize("where", ["callbacks", "errbacks", "chain"])
@pytest.mark.parametrize(
    "odd",
    [
        {"eta": "no time"},
        {"countdown": 1e300},
        {"countdown": "x"},
        {"expires": 1e300},
        {"headers": 5},
        {"chain": 5},
        {"link": 7},
        {"group_id": "x" * 300},
        {"task_id": "x" * 300},
        {"group_id": "g", "group_index": -1},
    ],
)
def test_an_odd_call_behind_it_keeps_no_call_from_its_end(odd: dict[str, Any], where: str) -> None:
    behind = {"task": add.name, "args": [1], "kwargs": {}, "options": odd}
    put(raw_of({"id": "foreign-1", "task": "tests.tasks.add" if where != "errbacks" else "no"},
               {where: [behind]}, jobs_unknown_since=1.0))  # fmt: skip
    put(raw_of({"id": "foreign-2"}))
    work()
    wanted = State.FAILURE if where == "errbacks" else State.SUCCESS
    assert TaskResult.objects.get(id="foreign-1").state == wanted
    assert TaskResult.objects.get(id="foreign-2").state == State.SUCCESS


UNREADABLE = {
    "an unknown type": b'{"__type__":"money","__value__":"5 EUR"}',
    "a number that is too large": b"1e999",
    "not UTF-8": b'"\xff\xfe"',
}


@pytest.mark.parametrize("where", [1, 2], ids=["the next call", "a later call"])
@pytest.mark.parametrize("odd", [pytest.param(v, id=k) for k, v in UNREADABLE.items()])
def test_a_long_chain_with_what_can_not_be_read_is_a_dead_letter(odd: bytes, where: int) -> None:
    chain = [
        {"task": echo.name, "args": ["x" * 5000], "kwargs": {}, "options": {"task_id": f"step-{n}"}}
        for n in (3, 2, 1)
    ]
    chain[-where]["args"] = ["here"]
    text = json.dumps([[1, 2], {}, {"chain": chain}]).encode().replace(b'"here"', odd)
    put(with_body(text, {"id": "foreign-1"}))
    put(raw_of({"id": "foreign-2"}))
    work()
    states = dict(TaskResult.objects.values_list("id", "state"))
    assert states == {"foreign-1": State.FAILURE, "foreign-2": State.SUCCESS}
    assert len(dead_letters()) == 1
    assert on_redis() == (0, 0)
