"""Chords: joined in the ledger, once, whatever happens to their members."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    AsyncResult,
    broker,
    chain,
    chord,
    control,
    group,
    signature,
    task,
)
from jobs.exceptions import (
    BrokerUnavailable,
    ChordError,
    Ignore,
    NotSerializable,
    Reject,
    TaskRevoked,
    UnknownTask,
    WorkflowError,
)
from jobs.ledger import outcomes, pruning
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from tests.celery_client import celery_call, celery_message
from tests.models import Run
from tests.tasks import add, echo, fail, trace
from tests.workers import dead_letters, on_redis, put, rolled_back, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        echo.si(object()),
        echo.si(float("nan")),
        chain(echo.s(), echo.si({1, 2})),
        echo.s().set(headers={"a": object()}),
        echo.s().set(link=echo.si(object())),
    ],
)
def test_a_body_that_can_not_be_sent_is_refused_at_the_call(body: Any, committed: bool) -> None:
    with (
        pytest.raises(NotSerializable, match=r"tests\.tasks\.echo"),
        contextlib.nullcontext() if committed else transaction.atomic(),
    ):
        chord([echo.s(1), echo.s(2)], body).delay()
    assert not TaskGroup.objects.exists()
    work()
    assert not TaskResult.objects.exists()


@task
def total(numbers: list[int], more: int = 0) -> int:
    return sum(numbers) + more


@task
def note(*args: Any) -> None:
    Run.objects.create(label=json.dumps(args))


@task
def note_id(task_id: str, label: str) -> None:
    note.run(task_id, label)


@task
def fails_until_mended(value: int) -> int:
    if not Run.objects.filter(label="mended").exists():
        raise ValueError("not yet")
    return value


@task(ignore_result=True)
def quiet(value: int) -> int:
    return value


@task(atomic=True)
def atomic_echo(value: int) -> int:
    return value


@task
def raises(kind: str) -> None:
    raise Ignore if kind == "Ignore" else Reject("not mine")


def notes() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def state(result: AsyncResult[Any]) -> str:
    return AsyncResult(result.id).state  # a handle remembers an end that it has seen


# ------------------------------------------------------------------------------- what it is for


def test_the_body_gets_the_results_in_the_headers_order() -> None:
    result = chord([add.s(n, n) for n in range(20)], echo.s()).delay()
    work(threads=4)
    assert result.get(timeout=0) == [2 * n for n in range(20)]
    assert result.parent.get(timeout=0) == [2 * n for n in range(20)]
    assert TaskGroup.objects.count() == 0
    assert TaskResult.objects.count() == 21


def test_more_members_than_one_batch() -> None:
    result = (group(echo.s(n) for n in range(1203)) | total.s(1)).delay()
    work()
    assert result.get(timeout=0) == sum(range(1203)) + 1


@pytest.mark.parametrize("size", [0, 1])
def test_few_members(size: int) -> None:
    result = chord([add.s(1, 2)] * size, total.s(10)).delay()
    work()
    assert result.get(timeout=0) == 10 + 3 * size


def test_a_group_in_a_chain() -> None:
    """``call | group | call``: the group gets the call's result, and what follows it theirs."""
    result = (add.s(1, 2) | group(add.s(10), add.s(20)) | total.s() | add.s(100)).delay()
    work()
    assert result.get(timeout=0) == 136
    assert result.parent.get(timeout=0) == 36
    assert result.parent.parent.get(timeout=0) == [13, 23]
    assert result.parent.parent.parent.get(timeout=0) == 3


def test_nested_to_some_depth() -> None:
    inner = chord([add.s(1), add.s(2)], total.s())
    outer = chord([inner, add.s(5) | inner, group(add.s(7), add.s(8))], echo.s())
    result = (echo.s(0) | outer | echo.s()).delay()
    work()
    # 0+1 and 0+2; 5, then 5+1 and 5+2; two members of the group in the header.
    assert result.get(timeout=0) == [3, 13, 7, 8]
    assert TaskGroup.objects.count() == 0


def test_a_member_that_ends_in_a_group_gives_a_list() -> None:
    header = [add.s(1, 1) | group(add.s(1), add.s(2)), add.s(5, 5)]
    result = chord(header, echo.s()).delay()
    work()
    assert result.get(timeout=0) == [[3, 4], 10]


def test_a_body_that_is_a_group() -> None:
    result = chord([add.s(1, 1), add.s(2, 2)], group(total.s(), total.s(1))).delay()
    work()
    assert result.get(timeout=0) == [6, 7]


def test_immutable_calls_get_nothing() -> None:
    result = (echo.s(1) | group(echo.si(2), echo.si(3)) | echo.si("end")).delay()
    work()
    assert result.get(timeout=0) == "end"
    assert result.parent.get(timeout=0) == [2, 3]


def test_the_idioms_of_celery() -> None:
    assert chord(add.s(n, n) for n in range(3))(total.s()).id
    group([add.s(1, 1)])()
    work()
    assert TaskResult.objects.get(task=total.name).result == "6"


def test_callbacks_and_options() -> None:
    call = chord([add.s(1, 2)], total.s())
    result = call.apply_async(task_id="the-body", queue="low", link=note.s("linked"))
    assert on_redis("low") == (1, 0)
    work()
    assert (result.id, result.get(timeout=0)) == ("the-body", 3)
    assert TaskResult.objects.get(id="the-body").queue == "low"
    assert notes() == ['[3, "linked"]']


def test_as_a_callback() -> None:
    """A workflow in ``link`` and ``link_error``."""
    add.apply_async((1, 2), link=chord([add.s(1), add.s(2)], note.s()))
    failed = fail.apply_async(("boom",), link_error=chain(echo.s(), note.s("told")))
    work()
    assert sorted(notes()) == sorted(["[[4, 5]]", json.dumps([failed.id, "told"])])


def test_atomic_members_and_body() -> None:
    result = chord([atomic_echo.s(1), atomic_echo.s(2)], echo.s()).delay()
    work()
    assert result.get(timeout=0) == [1, 2]


def test_on_databases_without_an_upsert_that_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_WRITERS", {})
    result = chord([echo.s(n) for n in range(30)], total.s()).delay()
    raw = next(iter(broker.get().scan("default")))
    work()
    put(raw)
    work()
    assert result.get(timeout=0) == sum(range(30))
    assert TaskResult.objects.filter(task=total.name).count() == 1


def test_sent_by_its_json_form() -> None:
    call = chord([add.s(1, 2), add.s(3, 4) | add.s(5)], total.s() | add.s(1))
    form = json.loads(json.dumps(call.as_dict()))
    assert signature(form).as_dict() == form
    result = signature(form).delay()
    work()
    assert result.get(timeout=0) == 16


# --------------------------------------------------------------------------------- transactions


def test_it_is_part_of_the_transaction() -> None:
    with rolled_back():
        chord([trace.s("never")], trace.si("never")).delay()
    assert (TaskGroup.objects.count(), on_redis()) == (0, (0, 0))
    with transaction.atomic():
        result = chord([add.s(1, 2), add.s(3, 4)], total.s()).delay()
        assert on_redis() == (0, 0)
    work()
    assert result.get(timeout=0) == 10


def test_what_cannot_be_sent_leaves_nothing(settings: Settings) -> None:
    with pytest.raises(TypeError):
        chord([echo.s({1})], total.s()).delay()
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "redis://127.0.0.1:1/0"}
    with pytest.raises(BrokerUnavailable):
        chord([echo.s(1)], total.s()).apply_async(retry=False)
    assert TaskGroup.objects.count() == 0


# -------------------------------------------------------------------------------------- once


def test_a_member_that_is_delivered_twice_counts_once() -> None:
    result = chord([echo.s(1), echo.s(2)], note.s()).delay()
    first, second = broker.get().scan("default")
    for raw in (first, second):
        put(raw)
    work()
    assert notes() == ["[[1, 2]]"]
    put(first)
    put(second)
    work()
    assert notes() == ["[[1, 2]]"]
    assert result.successful()


def test_one_delivered_twice_does_not_stand_for_another() -> None:
    result = chord([echo.s(1), echo.s(2).set(countdown=1000)], note.s()).delay()
    (waiting,) = (raw for raw in broker.get().scan("default") if b'"eta":null' in raw)
    put(waiting)
    work()
    put(waiting)
    work()
    assert notes() == []
    assert state(result) == State.PENDING
    assert TaskGroup.objects.get().remaining == 1


# ------------------------------------------------------------------------------------ failures


def test_a_failed_member_fails_the_body() -> None:
    call = chord([echo.s(1), fail.s("boom"), echo.s(3)], trace.si("never") | trace.si("never"))
    result = call.apply_async(link_error=note_id.s("told"))
    work()
    failed = TaskResult.objects.get(task=fail.name)
    with pytest.raises(
        ChordError, match=rf"tests\.tasks\.fail\[{failed.id}\].*failed: ValueError\('boom'\)"
    ):
        result.get(timeout=0)
    assert state(result.parent) == State.FAILURE
    assert notes() == [json.dumps([result.parent.id, "told"])]


def test_a_revoked_member_fails_the_body() -> None:
    call = chord([echo.s(1), echo.s(2).set(expires=-1)], trace.si("never"))
    result = call.delay()
    work()
    with pytest.raises(ChordError, match="was revoked"):
        result.get(timeout=0)
    with pytest.raises(TaskRevoked):
        result.parent.get(timeout=0)


def test_a_failure_in_a_members_chain_fails_the_body() -> None:
    result = chord([echo.s(1), fail.s("boom") | echo.si(1) | echo.si(2)], trace.si("never")).delay()
    work()
    with pytest.raises(ChordError, match="boom"):
        result.get(timeout=0)


def test_a_failure_goes_through_chords_in_chords() -> None:
    inner = chord([fail.s("boom"), echo.s(1)], trace.si("never"))
    result = (chord([inner, echo.s(2)], trace.si("never")) | trace.si("never")).delay()
    work()
    assert state(result) == State.FAILURE
    assert state(result.parent) == State.FAILURE
    assert notes() == []


def test_what_would_follow_a_failed_call_ends_too() -> None:
    result = (fail.s("boom") | group(echo.si(1), echo.si(2)) | total.s()).delay()
    work()
    assert state(result) == State.FAILURE
    assert [one.state for one in result.parent] == [State.FAILURE] * 2


@pytest.mark.parametrize("kind", ["Ignore", "Reject"])
def test_a_member_that_wants_no_end_has_one(kind: str) -> None:
    result = chord([raises.s(kind), echo.s(1)], trace.si("never")).delay()
    work()
    assert state(result) == State.FAILURE


def test_results_that_are_too_large_for_a_message(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 4500}
    result = chord([echo.s("x" * 1600) for _ in range(3)], trace.si("never")).delay()
    work()
    with pytest.raises(ChordError, match=r"MESSAGE_MAX_BYTES.* allows 4,500"):
        result.get(timeout=0)


def test_results_that_are_gone() -> None:
    result = chord([echo.s(1), echo.s(2).set(queue="low")], trace.si("never")).delay()
    work(["default"])
    TaskResult.objects.filter(task=echo.name).delete()
    work()
    with pytest.raises(ChordError, match="1 of the 2 results"):
        result.get(timeout=0)


# ---------------------------------------------------------------------------------- tried again


def test_mended_and_tried_again_it_goes_on() -> None:
    header = [echo.s(1), fails_until_mended.s(2), add.s(1, 1) | fails_until_mended.s()]
    inner = chord(header, total.s() | add.s(10))
    result = chord([inner, echo.s(1)], total.s()).delay()
    work()
    assert state(result) == State.FAILURE
    Run.objects.create(label="mended")
    failed = TaskResult.objects.filter(task=fails_until_mended.name)
    one, other = [row.id for row in failed]
    assert control.retry(one)
    assert state(result) == State.PENDING
    work()
    assert state(result) == State.FAILURE  # the other has still failed
    assert control.retry(other)
    work()
    assert AsyncResult(result.id).get(timeout=0) == 16
    assert TaskGroup.objects.count() == 0


def test_a_dead_letter_put_back_lets_it_go_on() -> None:
    result = chord([fragile.s(), echo.s(1)], echo.s()).delay()
    work()
    assert state(result) == State.FAILURE
    Run.objects.create(label="mended")
    (letter,) = dead_letters()
    control.requeue("default", letter.key)
    work()
    assert AsyncResult(result.id).get(timeout=0) == ["mended", 1]


@task
def fragile() -> str:
    if not Run.objects.exists():
        raise Reject("not yet")
    return "mended"


def test_a_failed_chord_is_kept_as_long_as_failures() -> None:
    chord([fail.s("boom")], echo.s()).delay()
    chord([echo.s(1).set(countdown=1000)], echo.s()).delay()
    work()
    kept = TaskGroup.objects.get(remaining=1)
    TaskGroup.objects.update(created_at=timezone.now() - dt.timedelta(days=29))
    pruning.prune(timezone.now())
    assert TaskGroup.objects.count() == 2
    pruning.prune(timezone.now() + dt.timedelta(days=2))
    assert TaskGroup.objects.get() == kept


# --------------------------------------------------------------------------- mistakes at the call


def test_mistakes_are_told_at_the_call() -> None:
    with pytest.raises(WorkflowError, match=r"ignores its result.*ignore_result=False"):
        chord([quiet.s(1)], total.s()).delay()
    with pytest.raises(WorkflowError, match="ignores its result"):
        chord([echo.s(1) | quiet.s()], total.s()).delay()
    with pytest.raises(UnknownTask, match=r"No task 'tests\.nowhere'"):
        chord([echo.s(1)], signature("tests.nowhere")).delay()
    with pytest.raises(UnknownTask):
        chord([signature("tests.nowhere")], total.s()).delay()
    with pytest.raises(TypeError, match="list of the results of its chord's header"):
        chord([echo.s(1)], total.s(1, 2)).delay()
    with pytest.raises(WorkflowError, match=r"no body; write chord\(header, body\)"):
        chord([echo.s(1)]).delay()
    assert (TaskGroup.objects.count(), on_redis()) == (0, (0, 0))


def test_a_member_may_be_told_to_keep_its_result() -> None:
    result = chord([quiet.s(1).set(ignore_result=False)], total.s()).delay()
    work()
    assert result.get(timeout=0) == 1


# ------------------------------------------------------------------------------------- Celery's


def test_a_chord_in_a_chain_of_celery(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}, "high": {}}}
    header = {
        "task": "celery.group",
        "args": [],
        "kwargs": {"tasks": [celery_call(add.name, "m0", 10), celery_call(add.name, "m1", 20)]},
        "options": {"task_id": "G"},
        "subtask_type": "group",
        "immutable": False,
    }
    body = celery_call(total.name, "b")
    call = {
        "task": "celery.chord",
        "args": [],
        "kwargs": {"header": header, "body": body, "kwargs": {}},
        "options": {},
        "subtask_type": "chord",
        "immutable": False,
    }
    put(celery_message("first", add.name, [1, 2], embed={"chain": [call]}))
    work()
    assert AsyncResult("m1").get(timeout=0) == 23
    assert AsyncResult("b").get(timeout=0) == 36


@pytest.fixture
def _open(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}, "high": {}}}


def set_size(size: int) -> None:
    """As a Celery client does, just before it sends the last member."""
    key = "celery-taskset-meta-G.s"
    broker.by_shard()._redis.call("SET", key, size, "EX", 86400)  # type: ignore[attr-defined]


def put_member(index: int, task: str = add.name, body: Any = None) -> None:
    embed = {"chord": body or celery_call(total.name, "b")}
    args = [index, 1] if task == add.name else ["boom"]
    fields = {"group": "G", "group_index": index, "embed": embed}
    put(celery_message(f"m{index}", task, args, **fields))


@pytest.mark.usefixtures("_open")
@pytest.mark.parametrize("known_after", [0, 1, 2])
def test_a_chord_of_a_celery_client(known_after: int) -> None:
    """Its size comes when some of its members may have ended already."""
    for index in range(3):
        if index == known_after:
            set_size(3)
        put_member(index)
        work()
    assert AsyncResult("b").get(timeout=0) == 1 + 2 + 3
    assert TaskGroup.objects.count() == 0


@pytest.mark.usefixtures("_open")
def test_a_chord_of_a_celery_client_in_one_batch() -> None:
    set_size(40)
    for index in range(40):
        put_member(index)
        put_member(index)  # delivered twice
    work()
    assert AsyncResult("b").get(timeout=0) == sum(range(1, 41))
    assert TaskResult.objects.filter(task=total.name).count() == 1
    assert TaskGroup.objects.count() == 0


@pytest.mark.usefixtures("_open")
def test_a_failed_member_of_a_celery_clients_chord() -> None:
    set_size(2)
    put_member(0)
    put_member(1, fail.name)
    work()
    with pytest.raises(ChordError, match=r"fail\[m1\], a member of its chord, failed"):
        AsyncResult("b").get(timeout=0)


@pytest.mark.usefixtures("_open")
def test_the_body_of_a_celery_clients_chord_may_be_composed() -> None:
    set_size(1)
    steps = [celery_call(total.name, "b1"), celery_call(add.name, "b2", 10)]
    put_member(
        0,
        body={
            "task": "celery.chain",
            "args": [],
            "kwargs": {"tasks": steps},
            "options": {},
            "subtask_type": "chain",
            "immutable": False,
        },
    )
    work()
    assert AsyncResult("b2").get(timeout=0) == 11


@pytest.mark.usefixtures("_open")
@pytest.mark.parametrize("body", [7, {"task": "celery.chain", "subtask_type": "chain"}, ["x"]])
def test_a_body_that_is_none(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    set_size(1)
    put_member(0, body=body)
    work()
    assert AsyncResult("m0").get(timeout=0) == 1
    assert "whose body can't be sent" in caplog.text
    assert TaskGroup.objects.count() == 0


@pytest.mark.usefixtures("_open")
def test_a_chord_whose_size_nobody_tells_waits_and_goes() -> None:
    put_member(0)
    work()
    assert AsyncResult("m0").get(timeout=0) == 1
    counter = TaskGroup.objects.get()
    assert (counter.size, counter.remaining) == (0, -1)
    pruning.prune(timezone.now() + dt.timedelta(days=365))
    assert TaskGroup.objects.count() == 0


def test_members_on_a_closed_queue_open_no_counter(caplog: pytest.LogCaptureFixture) -> None:
    """Ours are counted since they were sent: one that isn't has been joined."""
    result = chord([echo.s(1)], total.s()).delay()
    TaskGroup.objects.all().delete()
    work()
    assert "belongs to a chord that is not counted here" in caplog.text
    assert (result.state, TaskGroup.objects.count()) == (State.PENDING, 0)
