"""`jobs.testing`: what a project's own tests use, tried in each kind of test that they may be."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any
from unittest.mock import ANY

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from pytest_django import Settings

from jobs import AsyncResult, EagerResult, Task, broker, chain, chord, group, task
from jobs.broker.memory import MemoryBroker
from jobs.exceptions import JobsError, TooManyCalls
from jobs.management import processes
from jobs.models import Schedule, TaskResult
from jobs.testing import JobsMixin, arun_jobs, in_memory, run_jobs, worker
from tests.tasks import add, async_add, collect, echo, fail, fail_hourly, who

_seen: list[Any] = []


@task(name="testing.twice", bind=True, max_retries=3)
def twice(self: Task[..., Any], what: str) -> int:
    """Fails at its first attempt, and wants the second an hour later."""
    if self.request.retries == 0:
        raise self.retry(exc=ValueError(what), countdown=3600)
    return self.request.retries


@task(name="testing.doubled_name")
def doubled_name(name: str) -> str:
    User.objects.create(username=f"before-{name}")
    User.objects.create(username=name)
    return name


@task(name="testing.careful_name")
def careful_name(name: str) -> bool:
    try:
        with transaction.atomic():
            User.objects.create(username=name)
    except IntegrityError:
        return False
    return True


@task(name="testing.follow")
def follow(what: str) -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: _seen.append(what))
        add.delay(1, 1)


@task(name="testing.endless")
def endless() -> None:
    endless.delay()


@task(name="testing.note")
def note(what: str) -> None:
    _seen.append(what)


@task(name="testing.waits")
def waits() -> Any:
    return add.delay(1, 2).get(timeout=1)


@task(name="testing.in_transaction")
def in_transaction() -> bool:
    return connection.in_atomic_block


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    _seen.clear()


class InATestCase(JobsMixin, TestCase):
    def test_what_waits_for_the_commit_is_seen_and_run(self) -> None:
        result = add.delay(1, 2)
        self.assertEnqueued(add, args=(1, 2), count=1)
        assert result.state == "PENDING"
        assert self.run_jobs() == [result]
        assert result.get(timeout=0) == 3

    def test_what_was_rolled_back_was_not_sent(self) -> None:
        with transaction.atomic():
            add.delay(1, 2)
            transaction.set_rollback(True)
        self.assertNotEnqueued(add)
        assert self.run_jobs() == []

    def test_a_captured_commit_runs_once(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            note.delay("a")
        self.run_jobs()
        self.run_jobs()
        assert _seen == ["a"]

    def test_each_test_has_an_empty_broker(self) -> None:
        for queue in ("default", "low"):
            assert broker.get().stats(queue).waiting == 0
        note.delay("left behind")

    test_each_test_has_an_empty_broker_again = test_each_test_has_an_empty_broker

    def test_a_failed_statement_leaves_the_transaction_usable(self) -> None:
        User.objects.create(username="taken")
        result = doubled_name.delay("taken")
        self.run_jobs()
        assert isinstance(result.get(timeout=0, propagate=False), IntegrityError)
        assert User.objects.count() == 1, "what the failed call wrote is rolled back"

    def test_a_handled_error_of_the_database(self) -> None:
        User.objects.create(username="taken")
        result = careful_name.delay("taken")
        self.run_jobs()
        assert result.get(timeout=0) is False

    def test_what_a_task_does_at_its_commit_is_done(self) -> None:
        transaction.on_commit(lambda: _seen.append("the test's own"))
        follow.delay("mail")
        ran = self.run_jobs()
        assert _seen == ["mail"], "hooks of the test itself wait, as Django has it"
        assert ran[1].get(timeout=0) == 2

    def test_it_runs_on_this_connection_and_in_this_thread(self) -> None:
        result = in_transaction.delay()
        self.run_jobs()
        assert result.get(timeout=0) is True

    def test_async_tasks_see_the_transaction(self) -> None:
        result = async_add.delay(1, 2)
        self.run_jobs()
        assert result.get(timeout=0) == 3

    def test_the_message_of_a_failed_assertion(self) -> None:
        add.delay(1, 2)
        with pytest.raises(
            AssertionError, match=r"wanted: any of .*add, args=\(2, 2\)[\s\S]*\(1, 2\)"
        ):
            self.assertEnqueued(add, args=(2, 2))


class WithoutATransaction(JobsMixin, TransactionTestCase):
    def test_it_runs(self) -> None:
        result = add.delay(1, 2)
        self.run_jobs()
        assert result.get(timeout=0) == 3

    def test_a_worker_in_a_thread(self) -> None:
        with worker():
            assert add.delay(1, 2).get(timeout=10) == 3


class WithoutADatabase(JobsMixin, SimpleTestCase):
    def test_what_was_sent_is_seen(self) -> None:
        self.assertNotEnqueued()


class WithASetUpOfItsOwn(JobsMixin, SimpleTestCase):
    def setUp(self) -> None:  # without super().setUp()
        assert broker.get().stats("default").waiting == 0
        assert not self.enqueued

    def test_it_has_a_broker_in_memory(self) -> None:
        assert isinstance(broker.by_shard(), MemoryBroker)

    def tearDown(self) -> None:
        assert isinstance(broker.by_shard(), MemoryBroker)


@pytest.mark.parametrize("way", ["run", "debug"])
def test_a_set_up_that_calls_no_other(way: str) -> None:
    case = WithASetUpOfItsOwn("test_it_has_a_broker_in_memory")
    result = getattr(case, way)()
    assert result is None or result.wasSuccessful(), result.errors
    assert not isinstance(broker.by_shard(), MemoryBroker), "the test's broker is gone with it"


def test_a_worker_needs_what_other_threads_see(db: None) -> None:
    with pytest.raises(JobsError, match=r"Call run_jobs\(\)"), worker():
        pass


@pytest.mark.django_db
class TestRunJobs:
    @pytest.fixture(autouse=True)
    def _memory(self) -> Any:
        with in_memory() as sent:
            yield sent

    def test_a_retry_is_made_at_once(self) -> None:
        result = twice.delay("no")
        assert run_jobs() == [result]
        assert result.get(timeout=0) == 1
        assert TaskResult.objects.get(pk=result.id).attempts == 2

    def test_chains_groups_and_chords(self) -> None:
        chained = chain(add.s(1, 1), add.s(2), add.s(3))()
        joined = chord(group(add.s(n, n) for n in range(3)), echo.s())()
        members = group(add.s(n, 1) for n in range(3))()
        run_jobs()
        assert chained.get(timeout=0) == 7
        assert joined.get(timeout=0) == [0, 2, 4]
        assert members.get(timeout=0) == [1, 2, 3]

    def test_a_batch(self) -> None:
        results = [collect.delay(n) for n in range(7)]
        assert len(run_jobs()) == 7
        assert all(result.ready() for result in results)

    def test_a_countdown_waits_unless_one_looks_ahead(self) -> None:
        late = note.apply_async(("late",), countdown=7200)
        note.apply_async(("soon",), countdown=60)
        note.delay("now")
        run_jobs()
        assert _seen == ["now"]
        run_jobs(ahead=dt.timedelta(hours=1))
        assert _seen == ["now", "soon"]
        run_jobs(ahead=3600)
        assert not late.ready()
        run_jobs(ahead=7300)
        assert _seen == ["now", "soon", "late"]

    def test_what_is_sent_after_a_look_ahead_waits_as_usual(self) -> None:
        run_jobs(ahead=3600)
        note.apply_async(("later",), countdown=60)
        assert run_jobs() == []

    def test_schedules_fire_ahead_in_their_order(self) -> None:
        Schedule.objects.create(
            name="quarterly", task=note.name, args=["quarter"], interval=dt.timedelta(minutes=15)
        )
        note.apply_async(("in between",), countdown=20 * 60)
        run_jobs(ahead=dt.timedelta(minutes=40))
        assert _seen == ["quarter", "in between", "quarter"]

    def test_only_these_queues(self) -> None:
        note.apply_async(("low",), queue="low")
        assert run_jobs("default") == []
        assert len(run_jobs("low")) == 1

    def test_errors_are_results_unless_wanted(self) -> None:
        result = fail.delay("broken")
        run_jobs()
        assert result.failed()
        fail.delay("again")
        note.delay("all the same")
        with pytest.raises(ValueError, match="again"):
            run_jobs(propagate=True)
        assert _seen == ["all the same"]

    def test_a_setting_says_whether_errors_are_raised(self, settings: Settings) -> None:
        settings.JOBS = {**settings.JOBS, "EAGER_PROPAGATES": True}
        fail.delay("broken")
        with pytest.raises(ValueError, match="broken"):
            run_jobs()

    def test_calls_without_an_end(self) -> None:
        endless.delay()
        with pytest.raises(TooManyCalls, match=r"50 calls were run.*testing.endless"):
            run_jobs(most=50)

    def test_ctrl_c_ends_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def pressed(what: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(note, "run", pressed)
        note.delay("a")
        with pytest.raises(KeyboardInterrupt):
            run_jobs()

    def test_a_wait_in_a_task_is_an_error_as_in_a_worker(self) -> None:
        result = waits.delay()
        run_jobs()
        assert type(result.get(timeout=0, propagate=False)).__name__ == "WaitInTask"


@pytest.mark.django_db
def test_what_was_sent_can_be_asked_for() -> None:
    with in_memory() as sent:
        add.delay(1, 2)
        add.apply_async((3,), {"b": 4}, queue="low", countdown=60, label="mine", headers={"x": 1})
        fail.delay("no")
        assert [one.task for one in sent] == [add.name, add.name, fail.name]
        assert len(sent(add)) == 2
        (one,) = sent(add, args=[3], kwargs={"b": ANY}, queue="low", label="mine")
        assert one.headers == {"x": 1}
        assert isinstance(one.result, AsyncResult)
        assert sent(eta=lambda eta: eta and eta.timestamp() > time.time() + 50) == [one]
        assert sent(eta=None) == [sent[0], sent[2]]
        with pytest.raises(TypeError, match="no 'arg'"):
            sent(add, arg=1)
        sent.clear()
        assert len(sent) == 0


@pytest.mark.django_db(transaction=True)
async def _in_an_async_test() -> None:
    result = await add.adelay(1, 2)
    await arun_jobs()
    assert await result.aget(timeout=0) == 3


@pytest.mark.django_db(transaction=True)
def test_async_tests() -> None:
    from asgiref.sync import async_to_sync

    with in_memory():
        async_to_sync(_in_an_async_test)()


def test_the_broker_of_the_settings_is_back_afterwards(broker_url: str) -> None:
    before = broker.get()
    with in_memory():
        assert isinstance(broker.by_shard(), MemoryBroker)
    assert broker.get().address == before.address


# ------------------------------------------------------------------------- runworker in a test


@pytest.mark.django_db
def test_a_burst_in_a_test_runs_in_it(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process would run the call on the database of development."""
    monkeypatch.setitem(processes._databases, "default", "the one of development")
    result = add.delay(1, 2)
    with TestCase.captureOnCommitCallbacks(execute=True):
        pass
    from jobs.ledger import publish

    publish.publish_waiting(connection)
    call_command("runworker", burst=True)
    assert result.get(timeout=0) == 3
    with pytest.raises(CommandError, match="--burst"):
        call_command("runworker")


# ------------------------------------------------------------------------------ ALWAYS_EAGER


@pytest.fixture
def eager(settings: Settings) -> Settings:
    settings.JOBS = {**settings.JOBS, "ALWAYS_EAGER": True}
    return settings


@pytest.mark.django_db
class TestEager:
    def test_a_call_runs_where_it_is_sent(self, eager: Settings) -> None:
        assert add.delay(1, 2).get(timeout=0) == 3
        assert add.apply_async((2, 2), countdown=3600).get(timeout=0) == 4

    def test_arguments_go_through_json(self, eager: Settings) -> None:
        with pytest.raises(Exception, match="object"):
            echo.delay(object())
        assert echo.delay((1, 2)).get(timeout=0) == [1, 2]

    def test_retries_links_and_chords(self, eager: Settings) -> None:
        assert twice.delay("no").get(timeout=0) == 1
        note_link = note.si("linked")
        add.apply_async((1, 1), link=note_link)
        assert _seen == ["linked"]
        assert chord([add.s(1, 1), add.s(2, 2)], echo.s())().get(timeout=0) == [2, 4]
        assert chain(add.s(1, 1), add.s(1))().get(timeout=0) == 3

    def test_errors(self, eager: Settings) -> None:
        assert fail.delay("broken").failed()
        assert fail_hourly.delay("broken").failed(), "after all its attempts"
        eager.JOBS = {**eager.JOBS, "EAGER_PROPAGATES": True}
        with pytest.raises(ValueError, match="broken"):
            fail.delay("broken")

    def test_it_needs_no_broker(self, eager: Settings) -> None:
        eager.JOBS = {**eager.JOBS, "BROKER_URL": "redis://localhost:1/0"}
        assert add.delay(1, 2).get(timeout=0) == 3

    def test_a_task_that_sends(self, eager: Settings) -> None:
        follow.delay("mail")
        assert _seen == ["mail"]
        assert TaskResult.objects.filter(task=add.name, state="SUCCESS").count() == 1


# ------------------------------------------------------------------------------------- apply()


@pytest.mark.django_db
class TestApply:
    def test_its_result(self, broker_url: str) -> None:
        result = add.apply((1,), {"b": 2})
        assert isinstance(result, EagerResult)
        assert (result.get(), result.state, result.ready()) == (3, "SUCCESS", True)
        assert TaskResult.objects.count() == 0
        assert echo.apply(((1, 2),)).get() == [1, 2], "through JSON"

    def test_errors(self, broker_url: str) -> None:
        result = fail.apply(("broken",))
        assert result.failed()
        assert "ValueError: broken" in (result.traceback or "")
        with pytest.raises(ValueError, match="broken"):
            result.get()
        with pytest.raises(ValueError, match="broken"):
            fail.apply(("broken",), throw=True)
        with pytest.raises(TypeError):
            add.apply((1,))

    def test_attempts_and_links(self, broker_url: str) -> None:
        assert twice.apply(("no",)).get() == 1
        add.apply((1, 1), link=note.s())
        fail.apply(("broken",), link_error=note.si("failed"))
        assert _seen == [2, "failed"]

    def test_async_tasks(self, broker_url: str) -> None:
        assert async_add.apply((1, 2)).get() == 3

    def test_the_request_is_that_of_a_worker(self, broker_url: str) -> None:
        assert who.apply().get()["retries"] == 0
