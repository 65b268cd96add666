"""What Celery's workers say, as outcomes. Anybody who reaches Redis can have written it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from jobs import message
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock
from jobs.worker.record import celery_ends
from jobs.worker.record.outcome import Outcome

NEXT = {"task": "next", "args": [], "kwargs": {}, "options": {"task_id": "n", "queue": "default"}}


def row(**fields: Any) -> TaskResult:
    sent = Message(task="theirs", id=message.new_id(), queue="default", ledger=True, **fields)
    return TaskResult(
        id=sent.id,
        task=sent.task,
        queue=sent.queue,
        state=State.PENDING,
        message=message.encode(sent),
    )


def outcome(told: Any, **fields: Any) -> Outcome:
    text = told if isinstance(told, str) else json.dumps(told)
    found = celery_ends.outcome_of(row(**fields), text.encode())
    assert found is not None
    return found


def ended(told: Any, **fields: Any) -> tuple[str, str | None, str]:
    record = outcome(told, **fields).record
    assert record is not None
    return record.state, record.result, record.error


def test_a_success():
    found = outcome({"status": "SUCCESS", "result": [1]}, embed={"chain": [NEXT]})
    assert found.record is not None
    assert (found.record.state, found.record.result) == (State.SUCCESS, "[1]")
    assert [one.args for one in found.following.messages] == [[[1]]]
    assert found.ended == found.record.id
    assert not found.held


def test_a_result_that_nobody_wants_is_not_kept():
    assert ended({"status": "SUCCESS", "result": 1}, ignore_result=True)[1] is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "1", "null", "[]", "{}", '{"status": "SUCCESS", "result": Infinity}'),
        '{"status": "SUCCESS", "result": {"__type__": "datetime", "__value__": 5}}',
        '{"status": "SUCCESS", "result": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_what_can_t_be_read_ends_the_call_and_what_waits_for_it(text: str):
    found = outcome(text, embed={"chain": [NEXT]})
    assert found.record is not None
    assert found.record.state == State.FAILURE
    assert found.record.error.startswith("What Celery's worker says of its end can't be used: ")
    assert [end.id for end in found.following.ends] == ["n"]


@pytest.mark.parametrize(
    "more",
    [
        *({"children": junk} for junk in (5, {"a": 1}, "x")),
        *({"retries": junk} for junk in (-5, 2**70, "x", True, 1.5)),
        *({"worker": junk} for junk in (5, "\0", "x" * 1000, ["a"])),
        *(
            {"date_done": junk}
            for junk in (5, "x", "0001-01-01T00:00:00+14:00", "9999-12-31", None)
        ),
        *({"traceback": junk} for junk in (5, "\0", "x" * 100_000)),
    ],
)
@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED", "RETRY", "STARTED", "\0"])
def test_junk_beside_it(status: str, more: dict[str, Any]):
    record = outcome({"status": status, "result": {"exc_type": "E"}, **more}).record
    assert record is not None
    assert record.attempts in range(1, 2**31)
    assert len(record.worker) <= 255
    assert "\0" not in f"{record.worker}{record.traceback}"
    assert record.finished_at is None or abs(clock.now() - record.finished_at) < dt.timedelta(1)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        ({"exc_type": "E", "exc_message": ["a"], "exc_module": "m"}, "m.E", "a"),
        ({"exc_type": "E", "exc_message": ["a", 2], "exc_module": "m"}, "m.E", "('a', 2)"),
        ({"exc_type": "E", "exc_message": "a", "exc_module": None}, "builtins.E", "a"),
        ({"exc_type": "E", "exc_message": []}, "builtins.E", ""),
        ({"exc_type": ["E"], "exc_message": {}}, "builtins.['E']", "{}"),
        ("broken", "builtins.Exception", "broken"),
        (None, "builtins.Exception", "None"),
    ],
)
def test_errors(error: Any, kind: str, text: str):
    record = outcome({"status": "FAILURE", "result": error, "traceback": "T"}).record
    assert record is not None
    assert (record.error_type, record.error, record.traceback) == (kind, text, "T")


def test_states_on_the_way():
    assert celery_ends.outcome_of(row(), b'{"status": "PENDING"}') is None
    assert celery_ends.outcome_of(row(), b'{"status": "RECEIVED"}') is None
    found = outcome({"status": "STARTED", "result": {"hostname": "celery@there", "pid": 1}})
    assert found.record is not None
    assert (found.record.state, found.record.worker) == (State.STARTED, "celery@there")
    assert (found.record.started_at is None, found.record.finished_at) == (False, None)
    assert found.ended == ""


def test_what_the_row_says_already_is_not_written_again():
    started, retried = row(), row()
    started.state, retried.state, retried.error = State.STARTED, State.RETRY, "again"
    assert celery_ends.outcome_of(started, b'{"status": "PROGRESS", "result": 1}') is None
    told = {"status": "RETRY", "result": {"exc_type": "E", "exc_message": ["again"]}}
    assert celery_ends.outcome_of(retried, json.dumps(told).encode()) is None


def test_a_call_whose_message_is_not_kept():
    one = row()
    one.message = b""
    found = celery_ends.outcome_of(one, b'{"status": "SUCCESS", "result": 1}')
    assert found is not None
    assert found.record is not None
    assert (found.record.id, found.record.result) == (one.id, "1")


def test_one_that_was_revoked():
    found = celery_ends.revoked(row(embed={"chain": [NEXT]}))
    assert found.record is not None
    assert found.record.state == State.REVOKED
    assert [end.state for end in found.following.ends] == [State.REVOKED]
