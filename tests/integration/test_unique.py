"""Unique tasks: one call of a key at a time, whoever sends and however it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    Task,
    broker,
    chain,
    control,
    message,
    registry,
    task,
)
from jobs.beat import tick
from jobs.beat.sending import send_now
from jobs.broker.limiting import Lock
from jobs.exceptions import AlreadyQueued, NotSerializable, TaskRevoked
from jobs.ledger.publish import relay
from jobs.ledger.unique import _UNSENT
from jobs.models import Schedule, ScheduleRun, TaskResult
from jobs.states import State
from tests.integration.beats import MINUTE, NOON, no_other_schedules, scheduled  # noqa: F401
from tests.models import Author, Run
from tests.services import Valkey, wait_for
from tests.tasks import add, alone, debounced, latest, once, once_an_hour, throttled, trace
from tests.workers import dead_letters, rolled_back, work

pytestmark = pytest.mark.django_db(transaction=True)
on_broker = pytest.mark.usefixtures("broker_url")


@pytest.fixture
def client(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as plain:
        yield plain


def ran() -> list[str]:
    return list(Run.objects.values_list("label", flat=True))


def locks(client: Any) -> list[str]:
    """Names of all locks that are held."""
    return [key.decode() for key in client.keys("{unique:*") if client.get(key)[:1] != b"-"]


def test_the_first_one_stands_for_all(client: Any) -> None:
    first, *others = [once.delay("a"), once.delay("a"), once.delay(label="a", text="")]
    assert others == [first, first]
    assert once.delay("b") != first
    work()
    assert sorted(ran()) == ["a", "b"]
    assert first.get(timeout=0) is None
    assert locks(client) == []
    assert once.delay("a") != first


def test_further_queues_get_the_same_call(client: Any, settings: Settings) -> None:
    queues = {"default": {"exchange": "news"}, "low": {"exchange": "news"}}
    settings.JOBS = {**settings.JOBS, "EXCHANGES": {"news": "fanout"}, "QUEUES": queues}
    first, second = (once.apply_async(("a",), exchange="news") for _ in range(2))
    assert first == second
    work()
    assert ran() == ["a", "a"]
    assert set(TaskResult.objects.values_list("state", flat=True)) == {State.SUCCESS}
    assert locks(client) == []


@on_broker
def test_keyword_arguments_in_any_order() -> None:
    assert once.delay("a", x=1, y=2) == once.delay("a", y=2, x=1)
    assert once.delay("a", x=1, y=2) != once.delay("a", y=1, x=2)


def test_it_is_held_through_a_retry_and_free_at_the_end(client: Any) -> None:
    first = once.delay("a", "no")
    work()
    if not first.ready():
        assert first.state == State.RETRY
        assert once.delay("a", "no") == first
    wait_for(lambda: [work()] and first.ready(), 20)
    assert first.state == State.FAILURE
    assert len(ran()) == 2
    assert locks(client) == []


@pytest.mark.parametrize("end", ["expires", "revoke", "arguments"])
def test_it_is_free_when_the_call_never_ran(end: str, client: Any) -> None:
    options = {"expires": 0} if end == "expires" else {}
    first = once.apply_async(("a",), **options)
    if end == "revoke":
        first.revoke()
    if end == "arguments":
        name = message.decode(client.rpop("default"), "default").unique
        sent = once.message(("a",), {}, task_id=first.id)
        sent.unique, sent.args = name, []
        client.lpush("default", message.encode(sent))
    work()
    assert first.state in (State.REVOKED, State.FAILURE)
    assert ran() == []
    assert locks(client) == []


def test_until_it_starts(client: Any) -> None:
    alone.delay("first")
    with pytest.raises(AlreadyQueued, match="of the same key is there already") as caught:
        alone.delay("again")
    assert caught.value.task_id
    work()
    work()
    assert sorted(ran()) == ["first", "second"]
    assert locks(client) == []


@on_broker
def test_what_waits_for_a_permit_has_not_started() -> None:
    once_an_hour.delay("a")
    work()
    waiting = once_an_hour.delay("a")
    work()
    assert once_an_hour.delay("a") == waiting
    assert ran() == ["a"]


def test_the_last_one_replaces_those_that_wait(client: Any) -> None:
    results = [latest.delay(7, label) for label in ("first", "second", "last")]
    other = latest.delay(8, "other")
    work()
    assert sorted(ran()) == ["last", "other"]
    assert [r.state for r in (*results, other)] == [State.REVOKED] * 2 + [State.SUCCESS] * 2
    with pytest.raises(TaskRevoked, match=f"call {results[2].id} of the same unique key"):
        results[0].get(timeout=0)
    assert locks(client) == []


@on_broker
def test_one_that_was_replaced_comes_when_the_other_has_run() -> None:
    late = latest.apply_async((7, "replaced"), countdown=0.05)
    latest.delay(7, "last")
    wait_for(lambda: [work()] and late.ready(), 20)
    assert (late.state, ran()) == (State.REVOKED, ["last"])


def test_a_window(client: Any) -> None:
    first = throttled.delay("a")
    work()
    assert throttled.delay("a") == first
    assert ran() == ["a"]
    (name,) = locks(client)
    assert 3500 < client.ttl(name) <= 3600


def test_the_last_call_after_a_quiet_time(client: Any) -> None:
    results = [debounced.delay(7, label) for label in ("first", "second", "last")]
    assert (client.zcard("{default}:due"), client.llen("default")) == (3, 0)
    wait_for(lambda: [work()] and results[2].ready(), 20)
    assert ran() == ["last"]


@on_broker
def test_many_in_one_bulk() -> None:
    sent = once.enqueue_many([("a",), ("b",), ("a",), {"label": "b"}])
    assert sent == [sent[0], sent[1], sent[0], sent[1]]
    with pytest.raises(AlreadyQueued):
        alone.enqueue_many([("a",), ("b",)])
    alone.delay("none of them was sent")
    work()
    assert sorted(ran()) == ["a", "b", "none of them was sent"]


def test_what_can_t_be_sent_leaves_nothing(client: Any) -> None:
    with pytest.raises(NotSerializable, match="argument 1 of task"):
        once.delay(object())
    with pytest.raises(TypeError):
        once.delay()
    with pytest.raises(NotSerializable):
        once.apply_async(("a",), headers={"x": object()})
    assert client.keys("*") == []


def test_a_sender_that_dies_keeps_others_away_for_a_minute(client: Any) -> None:
    """What it has taken before its message was there."""
    seen = []

    def push(messages: Any) -> None:
        seen.append([client.ttl(name) for name in locks(client)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker.get(), "push", push)
        once.delay("a")
    assert len(seen) == 1
    assert 0 < seen[0][0] <= _UNSENT
    (name,) = locks(client)
    assert client.ttl(name) > 80_000


@on_broker
def test_the_first_of_a_chain_is_not_unique() -> None:
    once.delay("a")
    last = chain(once.s("a"), add.si(1, 2)).delay()
    work()
    assert last.get(timeout=0) == 3
    assert ran() == ["a", "a"]


# -------------------------------------------------------------------------------- transactions


def test_a_rollback_leaves_nothing(client: Any) -> None:
    with rolled_back():
        once.delay("a")
        assert locks(client) == []
    once.delay("a")
    work()
    assert ran() == ["a"]


@on_broker
def test_a_savepoint_is_rolled_back() -> None:
    with transaction.atomic():
        with rolled_back():
            lost = once.delay("a")
        first = once.delay("a")
        assert first != lost
        assert once.delay("a") == first
    work()
    assert ran() == ["a"]
    assert first.state == State.SUCCESS


@on_broker
def test_one_that_waits_is_seen_inside_a_transaction() -> None:
    first = once.delay("a")
    alone.delay("x")
    with transaction.atomic():
        assert once.delay("a") == first
        with pytest.raises(AlreadyQueued):
            alone.delay("x")
    assert TaskResult.objects.count() == 0


def test_another_is_quicker_than_the_commit(client: Any) -> None:
    with transaction.atomic():
        late = once.delay("a")
        name = message.decode(bytes(TaskResult.objects.get(id=late.id).message), "default").unique
        assert broker.get().lock([Lock(name, "other", 60)]) == [""]  # as another process does it
    assert late.state == State.REVOKED
    with pytest.raises(TaskRevoked, match="call other of the same unique key"):
        late.get(timeout=0)
    assert client.llen("default") == 0


@on_broker
def test_replaced_within_the_transaction() -> None:
    with transaction.atomic():
        first, last = latest.delay(7, "first"), latest.delay(7, "last")
    work()
    assert ran() == ["last"]
    assert (first.state, last.state) == (State.REVOKED, State.SUCCESS)


def test_the_broker_is_away_at_the_commit(own_valkey: Valkey) -> None:
    own_valkey.kill()
    with transaction.atomic():
        once.delay("a")
    own_valkey.start()
    other = once.delay("a")
    TaskResult.objects.update(created_at="2020-01-01T00:00:00Z")
    assert relay() == 1
    work()
    # The relay doesn't ask, the worker does.
    assert ran() == ["a"]
    assert other.state == State.SUCCESS
    assert TaskResult.objects.filter(state=State.REVOKED).count() == 1


# ------------------------------------------------------------------------------------ operators


@on_broker
def test_run_again_by_an_operator() -> None:
    first = once.delay("a", "no")
    wait_for(lambda: [work()] and first.ready(), 20)
    assert control.retry(first.id)
    wait_for(lambda: [work()] and first.ready(), 20)
    assert len(ran()) == 4
    assert dead_letters() == []


# ------------------------------------------------------------------------- schedules, triggers


def due(task: Task[..., Any], *args: Any, **fields: Any) -> Schedule:
    return scheduled(f"s{Schedule.objects.count()}", task=task.name, args=list(args), **fields)


def ends() -> dict[str, str]:
    """State → error, of all calls."""
    return dict(TaskResult.objects.values_list("state", "error"))


def test_a_schedule_sends_nothing_beside_a_call_of_its_key(client: Any) -> None:
    first = once.delay("a")
    schedule = due(once, "a")
    tick(NOON)
    run = ScheduleRun.objects.get(schedule=schedule)
    result = TaskResult.objects.get(id=run.result)
    assert (result.state, result.finished_at is not None) == (State.REVOKED, True)
    assert f"call {first.id} of the same unique key" in result.error
    work()
    assert ran() == ["a"]
    assert locks(client) == []
    tick(NOON + MINUTE)
    assert once.delay("a").id == Schedule.objects.get().last_result
    work()
    assert ran() == ["a", "a"]
    assert locks(client) == []


def test_two_schedules_of_one_key_are_one_call(client: Any) -> None:
    due(once, "a"), due(once, "a"), due(once, "b")
    tick(NOON)
    work()
    assert sorted(ran()) == ["a", "b"]
    assert locks(client) == []


def test_due_times_that_are_made_up_for_are_one_call(client: Any) -> None:
    due(once, "a", misfire="all")
    tick(NOON + 5 * MINUTE)
    assert ScheduleRun.objects.count() == 6
    work()
    assert ran() == ["a"]
    assert locks(client) == []


def test_a_schedule_of_a_task_that_raises_is_recorded(client: Any) -> None:
    alone.delay("sent")
    due(alone, "scheduled")
    tick(NOON)
    assert "of the same unique key" in ends()[State.REVOKED]
    work()
    assert ran() == ["sent"]


def test_a_schedule_replaces_throttles_and_debounces(client: Any) -> None:
    waiting = latest.delay(7, "sent")
    due(latest, 7, "scheduled"), due(throttled, "a"), due(throttled, "a"), due(debounced, 7, "late")
    tick(NOON)
    assert TaskResult.objects.get(task=debounced.name).eta is not None
    wait_for(lambda: [work()] and "late" in ran(), 20)
    assert sorted(ran()) == ["a", "late", "scheduled"]
    assert waiting.state == State.REVOKED


@on_broker
def test_run_now_is_unique() -> None:
    schedule = due(once, "a")
    first, second = send_now(schedule), send_now(schedule)
    work()
    assert ran() == ["a"]
    states = dict(TaskResult.objects.values_list("id", "state"))
    assert states == {first: State.SUCCESS, second: State.REVOKED}


@on_broker
def test_a_key_that_can_not_be_made_stops_no_other_schedule() -> None:
    def broken(label: str) -> str:
        raise LookupError(label)

    @task(name="tests.broken_key", unique="until_end", unique_key=broken)
    def never(label: str) -> None: ...

    try:
        due(never, "a"), due(once, "a")
        tick(NOON)
    finally:
        del registry.tasks[never.name]
    assert "LookupError('a')" in ends()[State.FAILURE]
    work()
    assert ran() == ["a"]


def test_a_schedule_with_redis_away_runs_one_of_two(own_valkey: Valkey) -> None:
    once.delay("a")
    due(once, "a")
    own_valkey.kill()
    tick(NOON)
    assert TaskResult.objects.get().state == State.PENDING
    own_valkey.start()
    relay(timezone.now() + dt.timedelta(hours=1))
    once.delay("a")  # what was sent before has gone with its server
    work()
    assert len(ran()) == 1


@pytest.fixture
def trigger() -> Iterator[Callable[[Task[..., Any]], None]]:
    receivers, cache = list(post_save.receivers), post_save.sender_receivers_cache

    def connect(task: Task[..., Any], **options: Any) -> None:
        task.on(post_save, sender=Author, args=lambda instance, **_: (instance.name,), **options)

    yield connect
    post_save.receivers = receivers
    cache.clear()


@pytest.mark.parametrize("in_transaction", [True, False])
@pytest.mark.parametrize("unique_task", [once, alone, throttled])
def test_a_trigger_sends_nothing_beside_a_call_of_its_key(
    unique_task: Task[..., Any], in_transaction: bool, trigger: Any, client: Any
) -> None:
    trigger(unique_task)
    unique_task.delay("a")
    with transaction.atomic() if in_transaction else contextlib.nullcontext():
        Author.objects.create(name="a")
        Author.objects.create(name="a")
    work()
    assert ran() == ["a"]
    assert set(ends()) == {State.SUCCESS}


def test_a_trigger_takes_the_key_at_its_commit(trigger: Any, client: Any) -> None:
    trigger(once)
    with transaction.atomic():
        Author.objects.create(name="a")
        Author.objects.create(name="a")
        assert locks(client) == []
    assert len(locks(client)) == 1
    with rolled_back():
        Author.objects.create(name="b")
    work()
    assert ran() == ["a"]
    assert locks(client) == []


def test_a_trigger_replaces_and_debounces(trigger: Any, client: Any) -> None:
    debounced.on(post_save, sender=Author, args=lambda instance, **_: (instance.pk, instance.name))
    trigger(trace)
    author = Author.objects.create(name="first")
    author.name = "last"
    author.save()
    wait_for(lambda: [work()] and len(ran()) == 3, 20)
    assert sorted(ran()) == ["first", "last", "last"]
    assert TaskResult.objects.filter(task=debounced.name, state=State.REVOKED).exists()


@pytest.mark.usefixtures("broker_url")
def test_a_savepoint_that_is_rolled_back_by_hand_takes_its_call_with_it(trigger: Any) -> None:
    trigger(once)
    with transaction.atomic():
        # Django 6.1 has given it another name.
        savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint
        point = savepoint()
        once.delay("by hand")
        author = Author.objects.create(name="a")
        transaction.savepoint_rollback(point)
        kept = once.delay("by hand")
        Author(pk=author.pk, name="a").save()
    work()
    assert sorted(ran()) == ["a", "by hand"]
    assert kept.state == State.SUCCESS
