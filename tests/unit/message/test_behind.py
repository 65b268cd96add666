"""The rest of a long chain travels as it came."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from jobs import message
from jobs.message import Message, wire, workflow
from jobs.message.behind import Behind
from jobs.message.workflow import Call
from jobs.worker.record.following import after_end, after_success
from jobs.worker.record.outcome import Run

LONG = 100


def step(number: int, **options: Any) -> dict[str, Any]:
    return workflow.task("tests.step", [number], {}, {"task_id": f"id-{number}", **options})


def first(behind: list[Any], **others: Any) -> Message:
    embed = {"callbacks": None, "errbacks": None, "chain": behind[::-1], "chord": None, **others}
    return Message(task="tests.first", id="id-0", queue="default", embed=embed)


def received(sent: Message) -> Message:
    return message.decode(message.encode(sent), "default")


def at_once(sent: Message) -> Message:
    """The same with all of its chain read."""
    found = received(sent)
    found.embed["chain"] = list(found.embed["chain"])
    return found


def follower(found: Message) -> Message:
    (one,) = after_success(found, "result").messages
    return received(one)


def test_short_chains_are_read_at_once() -> None:
    assert type(received(first([step(1), step(2)])).embed["chain"]) is list


def test_it_is_a_sequence_of_calls() -> None:
    calls = [step(n) for n in range(1, LONG)]
    behind = received(first(calls)).embed["chain"]
    assert isinstance(behind, Behind)
    assert behind.plain
    assert list(behind) == calls[::-1]
    assert list(reversed(behind)) == calls
    assert behind[-1] == calls[0]
    assert behind[:2] == calls[::-1][:2]
    assert len(behind) == LONG - 1


def test_each_message_is_what_it_would_be_otherwise() -> None:
    """Byte by byte, from the first to the last, with tagged values and options on the way."""
    calls = [step(n) for n in range(1, LONG)]
    calls[3] = step(4, countdown=5, link=[step(400)])
    calls[5] = workflow.task("tests.step", [dt.date(2026, 1, 2)], {"x": 1.5}, {"task_id": "id-6"})
    found = first(calls, callbacks=[step(500)])
    steps = 0
    while found.embed.get("chain"):
        lazily = after_success(received(found), "result").messages
        fully = after_success(at_once(found), "result").messages
        assert [one.id for one in lazily] == [one.id for one in fully]
        for one, other in zip(lazily, fully, strict=True):
            body, expected = wire._body_of(one), wire._body_of(other)
            read, wanted = (received(m) for m in (one, other))
            assert (read.task, read.args, read.kwargs) == (wanted.task, wanted.args, wanted.kwargs)
            assert {**read.embed, "chain": list(read.embed.get("chain") or ())} == {
                **wanted.embed,
                "chain": list(wanted.embed.get("chain") or ()),
            }
            assert len(body) == len(expected)
        found, steps = lazily[-1], steps + 1
    assert steps == LONG - 1


@pytest.mark.parametrize(
    "other",
    [
        workflow.chord(workflow.group([step(801)], {"task_id": "g"}), step(802)),
        workflow.group([step(801), step(802)], {"task_id": "g"}),
        workflow.chain([step(801), step(802)]),
    ],
)
def test_what_takes_the_rest_into_itself_is_read_at_once(other: Call) -> None:
    calls = [*(step(n) for n in range(1, LONG)), other, step(900)]
    found = received(first(calls))
    behind = found.embed["chain"]
    assert not (isinstance(behind, Behind) and behind.plain)
    (lazily,) = after_success(found, None).messages
    (fully,) = after_success(at_once(first(calls)), None).messages
    assert list(lazily.embed["chain"]) == list(fully.embed["chain"])


def test_calls_without_an_id_are_read_at_once() -> None:
    calls: list[Any] = [step(n) for n in range(1, LONG)]
    del calls[7]["options"]["task_id"]
    assert type(received(first(calls)).embed["chain"]) is list


def test_a_chain_within_the_next_call_comes_first() -> None:
    calls = [step(1, chain=[step(12), step(11)]), *(step(n) for n in range(2, LONG))]
    following = follower(received(first(calls)))
    assert [one["options"]["task_id"] for one in reversed(following.embed["chain"])][:3] == [
        "id-11",
        "id-12",
        "id-2",
    ]


def test_a_failure_reads_all_of_them() -> None:
    sent = received(first([step(n) for n in range(1, LONG)]))
    following = after_end(sent, b"", Run("w", 0.0), ValueError("no"))
    assert [end.id for end in following.ends] == [f"id-{n}" for n in range(1, LONG)]
