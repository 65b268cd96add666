"""Tasks that take many calls at once: what comes together, and an outcome for each."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import AsyncResult, task
from jobs.api.task import Task
from jobs.exceptions import ConfigurationError, WrongResults
from jobs.models import TaskAttempt, TaskResult
from jobs.states import State
from jobs.worker.claim.consumer import Gathering
from jobs.worker.record.outcome import Delivery
from tests.models import Run
from tests.tasks import add, collect, collect_as
from tests.workers import dead_letters, on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def outcomes(results: list[AsyncResult[Any]]) -> list[tuple[str, Any]]:
    assert on_redis() == (0, 0)
    return [(r.state, r.result if r.successful() else repr(r.result)) for r in results]


def sizes() -> list[int]:
    return [len(label.split()) for label in Run.objects.values_list("label", flat=True)]


@pytest.mark.parametrize("options", [{}, {"threads": 3}])
def test_what_waits_comes_together_and_the_rest_after_a_while(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    due = Gathering.due

    def in_time(self: Gathering, now: float) -> list[Delivery]:
        # As by a worker that is quick: all is claimed before the first has waited enough.
        return due(self, now) if on_redis()[0] == 0 else []

    monkeypatch.setattr(Gathering, "due", in_time)
    results = collect.enqueue_many([(n,) for n in range(7)])
    plain = add.delay(1, 2)
    work(**options)
    assert sorted(sizes()) == [1, 3, 3]
    assert outcomes(results) == [(State.SUCCESS, f"{n} done") for n in range(7)]
    assert plain.result == 3
    assert TaskResult.objects.filter(task=collect.name, attempts=1).count() == 7


def test_an_outcome_for_each() -> None:
    sent = [("a",), ("fail",), ("retry",)]
    done, failed, again = collect.enqueue_many(sent)
    work()
    (rejected,) = collect.enqueue_many([("reject",)])
    work()
    assert outcomes([done, failed, again]) == [
        (State.SUCCESS, "a done"),
        (State.FAILURE, "ValueError('this one')"),
        (State.SUCCESS, "retry done"),
    ]
    assert TaskAttempt.objects.get().result_id == again.id
    assert TaskResult.objects.get(id=again.id).attempts == 2
    assert rejected.state == State.FAILURE
    assert [letter.reason for letter in dead_letters()] == ["Reject: no"]


def test_what_it_raises_is_the_end_of_all() -> None:
    results = collect.enqueue_many([("raise",), ("a",)])
    work()
    assert outcomes(results) == [(State.FAILURE, "ValueError('all of them')")] * 2


@pytest.mark.parametrize(
    ("shape", "ends"),
    [
        ("none", [None, None]),
        ("mapping", ["first", None]),
        ("number", "returned a int: return a list"),
        ("short", "returned 1 results for 2 calls"),
        ("strange", "a result for 'unknown', which is not the id of one of its 2 calls"),
    ],
)
def test_what_it_may_return(shape: str, ends: Any) -> None:
    results = collect_as.enqueue_many([(shape,), (shape,)])
    work()
    if isinstance(ends, list):
        assert [r.get(timeout=0) for r in results] == ends
        return
    for result in results:
        with pytest.raises(WrongResults, match=ends):
            result.get(timeout=0)


def test_a_result_that_cannot_be_stored_is_its_own_failure() -> None:
    first, second = collect_as.enqueue_many([("unstorable",), ("unstorable",)])
    work()
    assert (first.state, second.state, second.result) == (State.FAILURE, State.SUCCESS, "fine")


def test_called_it_is_the_function() -> None:
    assert collect([]) == []


def nothing(requests: list[Any]) -> None: ...


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": 0}, "batch must be 1 to 1000 calls, not 0"),
        ({"batch": True}, "batch must be 1 to 1000 calls, not True"),
        ({"batch": 9, "batch_wait": -1}, "batch_wait must be 0 to 60 seconds, not -1"),
        ({"batch": 9, "atomic": True}, "neither atomic"),
        ({"batch": 9, "sensitive": ["a"]}, "nor have sensitive="),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Task(nothing, name="made", **options)


def test_not_for_async_functions() -> None:
    async def later(requests: list[Any]) -> None: ...

    with pytest.raises(ConfigurationError, match="an ordinary function"):
        task(batch=9)(later)
