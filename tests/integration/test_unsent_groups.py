"""Groups that are never sent, since what stood before them has not succeeded: they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs import (
    AsyncResult,
    GroupResult,
    Signature,
    Task,
    broker,
    chain,
    chord,
    control,
    group,
    task,
)
from jobs.exceptions import Ignore, Reject, TaskRevoked
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from tests.models import Run
from tests.tasks import add, echo, fail
from tests.workers import dead_letters, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task
def ignores() -> None:
    raise Ignore


@task
def rejects() -> None:
    raise Reject("no")


@task
def fails_until_mended(value: int) -> int:
    if not Run.objects.filter(label="mended").exists():
        raise ValueError("not yet")
    return value


@task(bind=True)
def is_replaced_by_failure(self: Task[..., Any]) -> None:
    self.replace(chain(fail.s("no"), add.si(1, 1)))


def two(*more: Signature) -> Any:
    return group(add.si(1, 1), add.si(2, 2), *more)


WAYS: dict[str, Callable[[], Signature]] = {
    "call | group": lambda: chain(fail.s("no"), two()),
    "call | call | group": lambda: chain(fail.s("no"), echo.s(), two()),
    "call | failing call | group": lambda: chain(echo.s(1), fail.si("no"), two()),
    "group | group": lambda: chain(group(fail.s("no"), add.s(1, 1)), two()),
    "body": lambda: chord([fail.s("no"), add.s(1, 1)], two()),
    "body is a chain that ends in one": lambda: chord([fail.s("no")], chain(echo.si(1), two())),
    "body is a chord with one for its body": lambda: chord([fail.s("no")], chord([two()], two())),
    "call | chord | group": lambda: chain(fail.s("no"), chord([two()], echo.s()), two()),
    "of groups": lambda: chain(fail.s("no"), group(two(), two())),
    "of chains and chords": lambda: chain(
        fail.s("no"), two(chain(echo.si(1), two()), chord([add.si(1, 1)], two()))
    ),
    "call | group of one chord": lambda: chain(fail.s("no"), two(chord([add.si(1, 1)], echo.s()))),
    "ignored": lambda: chain(ignores.s(), two()),
    "rejected": lambda: chain(rejects.s(), two()),
    "replaced": lambda: chain(is_replaced_by_failure.s(), two()),
    "expired": lambda: chain(add.s(1, 1).set(expires=-1), two()),
}


def check_ended(result: Any) -> None:
    assert isinstance(result, GroupResult)
    assert (result.ready(), result.waiting(), result.failed()) == (True, False, True)
    assert (result.successful(), result.completed_count()) == (False, 0)
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever stood before it
        result.get(timeout=1)
    assert "have not ended" not in str(caught.value)
    found = result.get(timeout=1, propagate=False)
    assert len(found) == len(result)
    assert all(isinstance(one, Exception) for one in found)
    again = GroupResult(result.id)
    assert [one.id for one in again] == [one.id for one in result]


@pytest.mark.parametrize("way", WAYS)
def test_it_ends(way: str) -> None:
    result = WAYS[way]().delay()
    work()
    check_ended(result)
    for before in parents(result):
        assert before.ready() or before.id == result.id or way == "ignored"


def parents(result: Any) -> list[Any]:
    found = []
    while (result := result.parent) is not None:
        found.append(result)
    return found


def test_after_a_revoked_call() -> None:
    result = chain(add.s(1, 1), two()).delay()
    result.parent.revoke()
    work()
    check_ended(result)
    with pytest.raises(TaskRevoked):
        result.get(timeout=1)


def test_after_a_purge() -> None:
    result = chain(add.s(1, 1), two()).delay()
    control.purge("default")
    work()
    check_ended(result)


def test_after_a_message_that_cannot_be_run() -> None:
    whole = chain(add.s(1, 1), two())
    whole.freeze()
    (first, behind) = whole.as_dict()["kwargs"]["tasks"]
    put_message(task="tests.nowhere", embed={"chain": [behind]})
    ids = [part["options"]["task_id"] for part in behind["kwargs"]["tasks"]]
    members = GroupResult(behind["options"]["task_id"], [AsyncResult[Any](one) for one in ids])
    assert first
    work()
    assert len(dead_letters()) <= 1
    if not members.ready():
        (letter,) = broker.get().browse("default", due=True)
        pytest.fail(f"still offered: {letter}")
    check_ended(members)


def test_mended_the_group_is_sent() -> None:
    result = chain(fails_until_mended.s(1), group(echo.s(), add.s(1)), echo.s()).delay()
    header = result.parent
    work()
    assert (header.ready(), header.failed()) == (True, True)
    Run.objects.create(label="mended")
    assert control.retry(header.parent.id)
    assert not header.ready()
    work()
    assert AsyncResult[Any](result.id).get(timeout=0) == [1, 2]
    again = GroupResult(header.id)
    assert (again.get(timeout=0), again.successful()) == ([1, 2], True)
    assert not TaskGroup.objects.exists()


def test_the_members_are_no_chords_that_wait(caplog: pytest.LogCaptureFixture) -> None:
    chain(fail.s("no"), chord([two()], echo.s())).delay()
    work()
    assert "not counted here" not in caplog.text
    assert not TaskGroup.objects.exists()
    assert set(TaskResult.objects.values_list("state", flat=True)) == {State.FAILURE}


@pytest.mark.parametrize(
    "made",
    [
        lambda: chain(add.s(1, 1), group()),
        lambda: chain(fail.s("no"), group()),
        lambda: chord([fail.s("no")], group()),
        lambda: chord([add.s(1, 1)], group()),
        lambda: chord([], group()),
        lambda: group(group(), group()),
        lambda: group() | group(),
    ],
)
def test_a_group_of_nothing_has_ended(made: Callable[[], Signature]) -> None:
    result = made().delay()
    work()
    assert (result.ready(), result.get(timeout=0)) == (True, [])


def test_nothing_before_a_call() -> None:
    results = [
        chord([], echo.s()).delay(),
        chain(group(), echo.s()).delay(),
        chain(add.s(1, 1), group(), echo.s()).delay(),
        group(chain(add.s(1, 1), group())).delay(),
    ]
    work()
    assert [one.get(timeout=0) for one in results] == [[], [], [], [[]]]


def test_calls_behind_that_no_row_could_have() -> None:
    behind = [
        {"task": "x" * 300, "options": {"task_id": "named-too-long"}},
        {"task": echo.name, "options": {"task_id": "i" * 300}},
        {"task": echo.name, "options": {"task_id": "in\0valid"}},
        {"task": echo.name, "options": {"task_id": "a", "group_id": 5, "group_index": 2**40}},
        {"task": echo.name, "options": {"task_id": "b", "group_id": "g" * 300, "group_index": -1}},
        {"task": echo.name, "options": {"task_id": ["c"]}},
    ]
    first = put_message(task=fail.name, args=["no"], embed={"chain": behind})
    work()
    ended = set(TaskResult.objects.filter(state=State.FAILURE).values_list("id", flat=True))
    assert ended == {first, "named-too-long", "a", "b"}
