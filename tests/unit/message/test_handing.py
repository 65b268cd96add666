"""Messages for Celery's workers: what these find, and what comes back from them."""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from jobs import message
from jobs.exceptions import MalformedMessage
from jobs.message import Message

NEXT = {"task": "next", "args": [1], "kwargs": {}, "options": {"task_id": "n"}}
BODY = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "b"}}


def sent(**fields: Any) -> Message:
    fields = {"task": "t", "id": message.new_id(), "queue": "theirs", **fields}
    return Message(**fields)


def read(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw)
    return found | {"body": json.loads(base64.b64decode(found["body"]))}


def test_celery_runs_the_call_alone():
    embed = {"callbacks": [NEXT], "errbacks": [NEXT], "chain": [NEXT], "chord": BODY}
    raw = message.encode(sent(args=[1], kwargs={"a": 2}, embed=embed))
    handed = read(message.for_celery(raw).raw)
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert handed["body"] == [[1], {"a": 2}, nothing]


def test_what_follows_comes_back_with_it():
    before = sent(args=[1], embed={"chain": [NEXT], "chord": BODY})
    handed = message.for_celery(message.encode(before))
    after = message.decode(handed.raw, "ours")
    assert (after.args, after.embed) == ([1], before.embed)
    # And goes on from attempt to attempt.
    again = message.next_attempt(after, eta=datetime(2026, 1, 2, tzinfo=UTC))
    assert message.decode(message.encode(again), "ours").embed == before.embed


def test_celery_stores_the_end_of_every_call():
    for ignored in (True, None, False):
        handed = message.for_celery(message.encode(sent(ignore_result=ignored)))
        assert read(handed.raw)["headers"]["ignore_result"] is False


def test_the_rest_is_as_it_was():
    eta = datetime(2026, 1, 2, tzinfo=UTC)
    raw = message.encode(sent(eta=eta, priority=7, timelimit=(9, 8), group="g", group_index=1))
    before, handed = read(raw), message.for_celery(raw)
    after = read(handed.raw)
    assert after["headers"] == before["headers"] | {"ignore_result": False}
    assert handed.priority == 7
    for properties in (before["properties"], after["properties"]):
        del properties["jobs_sig"]
    assert before["properties"].pop("jobs_due") is True  # Celery's workers wait for it
    assert after["properties"] == before["properties"]
    assert message.decode(handed.raw, "ours").held is False


def test_each_time_that_somebody_has_it_run_it_has_another_tag():
    one = sent()
    tags = {message.for_celery(message.encode(one)).tag for _ in range(2)}
    tags.add(message.for_celery(message.encode(message.first_attempt(one, 3))).tag)
    assert tags == {f"{one.id}.0", f"{one.id}.3"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        10**30,
        "é😀\0",
        "\ud800",
        {"a": [{}]},
        {"__type__": "x", "__value__": 1},
        UUID(int=1),
    ],
)
def test_any_arguments(value: Any):
    one = sent(args=[value], embed={"chain": [{**NEXT, "args": [value]}]})
    whole = message.decode(message.encode(one), "ours")
    after = message.decode(message.for_celery(message.encode(one)).raw, "ours")
    assert after.args == whole.args
    assert list(after.embed["chain"]) == list(whole.embed["chain"])


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"body": "x", "headers": {}}'])
def test_what_is_no_message(raw: bytes):
    with pytest.raises(MalformedMessage):
        message.for_celery(raw)


def test_what_says_to_follow_and_is_no_list_of_calls():
    raw = json.loads(message.encode(sent()))
    raw["headers"]["jobs_after"] = base64.b64encode(b'{"chain": [1]}').decode()
    with pytest.raises(MalformedMessage, match="chain"):
        message.decode(json.dumps(raw).encode(), "ours", trusted=True)
