"""One queue on several shards, from the call to the pages."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from jobs import broker, chain, control, message, task
from jobs.broker.sharding import queue_of
from jobs.exceptions import ConfigurationError
from jobs.ledger import publish, recovery
from jobs.models import TaskResult
from jobs.states import State
from jobs.timing import clock
from tests.models import Run
from tests.tasks import add, fail_hourly, trace
from tests.workers import dead_letters, hasten, on_redis, put, work

pytestmark = pytest.mark.django_db(transaction=True)

QUEUES = {"default": {"shards": 4}, "high": {"shards": 2}, "low": {}}


def use(settings: Settings, **shards: int) -> None:
    """Have this process send to so many shards of these queues."""
    queues = {name: {"shards": count} for name, count in shards.items()}
    settings.JOBS = {**settings.JOBS, "QUEUES": {**QUEUES, **queues}}


@pytest.fixture(autouse=True)
def _shards(broker_url: str, settings: Settings) -> None:
    use(settings)


@task(shard_by=lambda order: order)
def ship(order: int, step: int) -> None:
    Run.objects.create(label=f"{order}:{step}")


def waiting() -> list[int]:
    """How many messages wait on each shard of the default queue."""
    names = broker.get().shards_of("default")
    return [broker.by_shard().stats(name).waiting for name in names]


def labels() -> list[str]:
    return list(Run.objects.order_by("pk").values_list("label", flat=True))


# ------------------------------------------------------------------------- run once, in order


def test_every_call_runs_once_and_the_ledger_names_the_queue() -> None:
    results = trace.enqueue_many([(f"{n}",) for n in range(10)])
    with transaction.atomic():
        results += [trace.delay(f"{n}") for n in range(10, 20)]
    assert waiting() == [5, 5, 5, 5]
    work()
    assert sorted(labels(), key=int) == [f"{n}" for n in range(20)]
    assert {result.state for result in results} == {State.SUCCESS}
    assert set(TaskResult.objects.values_list("queue", flat=True)) == {"default"}
    assert on_redis() == (0, 0)


def test_calls_with_one_key_run_in_their_order() -> None:
    ship.enqueue_many([(order, step) for step in range(5) for order in range(6)])
    work()
    for order in range(6):
        own = [label for label in labels() if label.startswith(f"{order}:")]
        assert own == [f"{order}:{step}" for step in range(5)]


def test_a_key_of_the_call_counts_before_that_of_the_task() -> None:
    for n in range(8):
        trace.apply_async((f"{n}",), shard_key="one")
        ship.apply_async((n, 0), shard_key="one")
    assert sorted(waiting()) == [0, 0, 0, 16]
    ship.apply_async((1, 0), shard_key="")
    ship.apply_async((1, 0), shard_key="")
    assert sum(count > 0 for count in waiting()) > 1


@pytest.mark.parametrize(("key", "told"), [(5, "must be text"), ("x" * 256, "1 to 255")])
def test_a_key_that_can_t_be_one(key: object, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        trace.apply_async(("a",), shard_key=key)  # type: ignore[arg-type]


def test_shard_by_takes_the_task_s_arguments() -> None:
    with pytest.raises(ConfigurationError, match=r"no parameter 'ordr', .* of shard_by="):

        @task(name="shards.wrong", shard_by=lambda ordr: ordr)
        def wrong(order: int) -> None: ...


@pytest.mark.parametrize("how", ["relay", "recover", "again", "move"])
def test_whoever_sends_a_message_again_keeps_its_key(how: str, settings: Settings) -> None:
    with transaction.atomic():
        ids = [ship.delay(7, step).id for step in range(6)]
        if how == "relay":
            connection.run_on_commit.clear()
    if how == "relay":
        settings.JOBS = {**settings.JOBS, "RELAY_AFTER_SECONDS": 0}
        assert publish.relay() == 6
    elif how == "recover":
        for name in broker.get().shards_of("default"):
            broker.by_shard().claim(name, "lost", 1, 100, 60)
            broker.by_shard().ack(name, "lost", list(range(1, 101)))
        now = clock.now()
        calls = [call for part in recovery.lost(now) for call in part]
        assert recovery.put_back(calls, now) == 6
    elif how == "again":
        TaskResult.objects.update(state=State.FAILURE)
        control.purge("default")
        TaskResult.objects.update(state=State.FAILURE)
        assert all(control.retry(task_id) for task_id in ids)
    else:
        assert control.move("default", "low") == 6
        assert on_redis("low") == (6, 0)
        assert control.move("low", "default") == 6
    assert sorted(waiting()) == [0, 0, 0, 6]


def test_what_follows_a_call_is_placed_by_its_own_key() -> None:
    result = chain(add.si(1, 2), ship.si(7, 0), ship.si(7, 1), trace.si("end"))()
    work()
    assert result.get(timeout=5) is None
    assert labels() == ["7:0", "7:1", "end"]


def test_a_retry_stays_on_its_shard() -> None:
    result = fail_hourly.apply_async(("no",), shard_key="one")
    (before,) = [n for n, count in enumerate(waiting()) if count]
    work()
    assert result.state == State.RETRY
    hasten()
    shard = broker.get().shards_of("default")[before]
    assert len(broker.by_shard().claim(shard, "reader", 1, 9, 60).messages) == 1


# ------------------------------------------------------------------------ raised and lowered


def test_the_number_is_raised_and_lowered_with_nothing_lost(settings: Settings) -> None:
    for n, shards in enumerate((1, 4, 6, 2, 1)):
        use(settings, default=shards)
        trace.enqueue_many([(f"{n}/{m}",) for m in range(12)])
    assert on_redis() == (60, 0)
    assert len(control.inspect.waiting("default")) == 60
    work()  # whose settings say 1
    assert len(labels()) == len(set(labels())) == 60
    assert on_redis() == (0, 0)


def test_a_queue_that_is_paused_stays_so_when_it_gets_more_shards(settings: Settings) -> None:
    use(settings, default=1)
    control.pause("default")
    control.revoke("the-fifth")
    use(settings, default=4)
    for n in range(8):
        trace.apply_async((f"{n}",), task_id="the-fifth" if n == 5 else None)
    work()
    assert labels() == []
    assert control.resume("default")
    work()
    assert sorted(labels()) == ["0", "1", "2", "3", "4", "6", "7"]


# ------------------------------------------------------------------------------ operators


def test_a_task_is_paused_on_all_shards() -> None:
    trace.enqueue_many([(f"{n}",) for n in range(8)])
    control.pause_task(trace.name)
    work()
    assert (labels(), on_redis()) == ([], (0, 0))
    assert len(control.inspect.due("default")) == 8
    control.resume_task(trace.name)
    work()
    assert len(labels()) == 8


def test_all_shards_are_purged() -> None:
    with transaction.atomic():
        for n in range(10):
            trace.delay(f"{n}")
            trace.apply_async((f"due {n}",), countdown=600)
    assert control.purge("default", due=True) == 20
    assert broker.get().stats("default") == (0, 0, 0, 0, 0)
    assert TaskResult.objects.filter(state=State.REVOKED).count() == 20


def test_one_call_is_found_and_changed_wherever_it_is() -> None:
    ids = [trace.delay(f"{n}").id for n in range(8)]
    for task_id in ids[:4]:
        assert control.change_priority("default", task_id, 9)
    assert [call.priority for call in control.inspect.waiting("default")].count(9) == 4
    for task_id in ids:
        assert control.move("default", "low", task_id=task_id) == 1
    assert on_redis("low") == (8, 0)


def test_dead_letters_of_all_shards_are_put_back(client: Client, admin_client: Client) -> None:
    for n in range(6):
        put(b"what is this? %d" % n)
    work()
    letters = dead_letters()
    assert len(letters) == 6
    page = admin_client.get(reverse("admin:jobs_deadletters_changelist"))
    assert page.status_code == 200
    for letter in letters:
        assert letter.key in page.content.decode()
        assert control.requeue("default", letter.key)
    assert on_redis() == (6, 0)


def test_pages_and_numbers_show_one_queue(admin_client: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS": True}
    for n in range(60):
        trace.delay(f"{n}")
    url = reverse("admin:jobs_queues_queue", args=["default"])
    first = admin_client.get(url).content.decode()
    second = admin_client.get(url, {"p": "50"}).content.decode()
    ids = [call.id for call in control.inspect.waiting("default")]
    assert all(task_id in first for task_id in ids[:50])
    assert all(task_id in second for task_id in ids[50:])
    overview = admin_client.get(reverse("admin:jobs_queues_changelist")).content.decode()
    assert "\x16" not in overview + first + second
    work()
    assert control.metrics.ever(["default"])["default"].sent == 60


def test_messages_that_come_back_are_marked_by_their_own_shard() -> None:
    from jobs.worker.board import key
    from jobs.worker.supervisor import upkeep

    trace.enqueue_many([(f"{n}",) for n in range(4)])
    names = broker.get().shards_of("default")
    for name in names:
        broker.get().claim(name, "gone", 1, 9, 60)
    assert upkeep.return_deliveries(names, "gone", blamed={key(names[2], 1)}) == 4
    found = [
        (queue_of(name), message.decode(raw, name).marks.crashes)
        for name in names
        for _, raw in broker.get().claim(name, "next", 1, 9, 60).messages
    ]
    assert found == [("default", 0), ("default", 0), ("default", 1), ("default", 0)]
