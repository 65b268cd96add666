"""Calls that an operator has run again, and what must not stand in their way."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    broker,
    control,
    ledger,
    message,
    task,
)
from jobs.broker.base import Outgoing
from jobs.exceptions import BrokerUnavailable, Reject
from jobs.ledger import publish, recovery, reopening
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.services import Valkey
from tests.tasks import trace
from tests.workers import dead_letters, on_redis, work

pytestmark = pytest.mark.django_db(transaction=True)

FAILS: list[bool] = []


@task(autoretry_for=(ValueError,), default_retry_delay=600, max_retries=1)
def shaky(label: str) -> None:
    """Fails when the last of `FAILS` says so."""
    if FAILS.pop():
        raise ValueError("not yet")
    Run.objects.create(label=label)


@task
def refuse() -> None:
    raise Reject("not this one")


@task(sensitive=["password"])
def secret(name: str, password: str) -> None:
    raise ValueError("no")


def result() -> TaskResult:
    return TaskResult.objects.get()


def ran() -> list[str]:
    return list(Run.objects.values_list("label", flat=True))


# ------------------------------------------------------------------------------ retry_now


def test_what_waits_for_a_retry_is_tried_now(broker_url: str) -> None:
    FAILS[:] = [False, True]
    sent = shaky.delay("at last")
    work()
    assert (result().state, ran()) == (State.RETRY, [])
    assert control.retry_now(sent.id) is True
    eta = result().eta
    assert eta is not None
    assert eta <= timezone.now()
    work()
    assert (result().state, ran()) == (State.SUCCESS, ["at last"])
    assert [attempt.number for attempt in result().failed_attempts.all()] == [1]


def test_with_a_priority(broker_url: str) -> None:
    FAILS[:] = [True]
    sent = shaky.apply_async(("x",), priority=9)
    work()
    assert control.retry_now(sent.id) is True


def test_after_it_was_put_back(broker_url: str, valkey_server: Valkey) -> None:
    FAILS[:] = [True]
    sent = shaky.delay("x")
    work()
    with valkey_server.client() as client:
        client.flushall()
    later = timezone.now() + dt.timedelta(hours=1)
    (calls,) = filter(None, recovery.lost(later))
    assert recovery.put_back(calls, later) == 1
    assert broker.get().stats("default").due == 1
    assert control.retry_now(sent.id) is True


def test_what_does_not_wait_is_left_alone(broker_url: str) -> None:
    FAILS[:] = [False]
    sent = shaky.delay("at once")
    assert control.retry_now(sent.id) is False
    work()
    assert control.retry_now(sent.id) is False
    assert control.retry_now("nobody") is False


def test_what_is_on_its_way_already_is_left_alone(broker_url: str) -> None:
    FAILS[:] = [True]
    sent = shaky.delay("x")
    work()
    before = result().eta
    assert control.retry_now(sent.id) is True
    broker.get().claim("default", "somebody", 1, 1, 60)
    TaskResult.objects.update(eta=before)
    assert control.retry_now(sent.id) is False
    assert result().eta == before


# ------------------------------------------------------------------------------ retry


def fail_for_good(label: str) -> str:
    """A call whose two attempts have failed; its id."""
    FAILS[:] = [True, True]
    sent = shaky.delay(label)
    work()
    assert control.retry_now(sent.id)
    work()
    assert result().state == State.FAILURE
    return sent.id


def attempts() -> list[tuple[int, str, str]]:
    found = result().failed_attempts.order_by("number")
    return [(one.number, one.error, one.reopened_by) for one in found]


def test_it_has_all_its_retries_again_and_the_numbers_go_on(broker_url: str) -> None:
    task_id = fail_for_good("again")
    assert attempts() == [(1, "not yet", "")]
    before = result()
    FAILS[:] = [False, True]
    assert control.retry(task_id, by="ada") is True
    row = result()
    assert (row.state, row.attempts, row.error, row.eta) == (State.PENDING, 2, "", None)
    assert attempts() == [(1, "not yet", ""), (2, "not yet", "ada")]
    work()
    assert (result().state, result().attempts) == (State.RETRY, 3)
    assert control.retry_now(task_id)
    work()
    assert (result().state, result().attempts, ran()) == (State.SUCCESS, 4, ["again"])
    assert attempts() == [(1, "not yet", ""), (2, "not yet", "ada"), (3, "not yet", "")]
    first, second, third = result().failed_attempts.order_by("number")
    # The second is how the call ended, before it was run again.
    assert (second.started_at, second.finished_at) == (before.started_at, before.finished_at)
    assert second.traceback == before.traceback != ""
    assert second.reopened_at is not None
    assert third.started_at is not None
    assert second.finished_at <= second.reopened_at <= third.started_at
    assert [one.reopened_at for one in (first, third)] == [None, None]


def test_an_attempt_knows_when_the_next_one_is_due(broker_url: str) -> None:
    FAILS[:] = [True]
    sent = shaky.delay("x")
    work()
    (attempt,) = result().failed_attempts.all()
    assert attempt.retry_at == result().eta
    assert control.retry_now(sent.id) is True
    attempt.refresh_from_db()
    assert attempt.retry_at == result().eta


def test_two_people_at_once_run_it_again_once(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = fail_for_good("once")
    unrevoke = broker.get().unrevoke

    def ada_is_faster(queue: str, call_id: str) -> None:
        monkeypatch.setattr(broker.get(), "unrevoke", unrevoke)
        assert control.retry(task_id, by="ada") is True

    # Bob has read the row by then.
    monkeypatch.setattr(broker.get(), "unrevoke", ada_is_faster)
    assert control.retry(task_id, by="bob") is False
    assert [who for _number, _error, who in attempts()] == ["", "ada"]
    assert broker.get().stats("default").waiting == 1


def test_a_dead_letter_that_is_put_back_keeps_its_history(broker_url: str) -> None:
    sent = refuse.delay()
    work()
    (letter,) = dead_letters()
    assert result().state == State.FAILURE
    assert control.requeue("default", letter.key, by="ada") is True
    assert [(n, who) for n, _error, who in attempts()] == [(1, "ada")]
    # What recovery would put back, had Redis lost the message.
    stored = message.decode(bytes(result().message), "default")
    assert (stored.id, stored.attempts_before) == (sent.id, 1)
    work()
    assert (result().state, result().attempts) == (State.FAILURE, 2)


def test_a_call_that_was_revoked_between_two_attempts(broker_url: str) -> None:
    FAILS[:] = [True]
    sent = shaky.delay("x")
    work()
    ledger.mark_revoked([sent.id], "discarded")
    assert reopening.reopen(sent.id, by="ada") == 2
    assert attempts() == [(1, "not yet", ""), (2, "discarded", "ada")]


def test_a_message_without_the_count_still_ends_the_call(broker_url: str) -> None:
    """A worker of an older version knows nothing of it."""
    task_id = fail_for_good("older")
    FAILS[:] = [False]
    assert control.retry(task_id) is True
    (_number, raw) = broker.get().claim("default", "somebody", 1, 1, 60).messages[0]
    control.purge("default")
    broker.get().push([Outgoing("default", message.mark(raw, jobs_attempts=0))])
    work()
    assert (result().state, ran()) == (State.SUCCESS, ["older"])


def test_a_revoked_call_is_not_revoked_again(broker_url: str) -> None:
    sent = trace.delay("pardoned")
    control.revoke(sent.id, terminate=True)
    work()
    assert (result().state, ran()) == (State.REVOKED, [])
    assert control.retry(sent.id) is True
    work()
    assert (result().state, ran()) == (State.SUCCESS, ["pardoned"])


def test_with_the_broker_away_nothing_is_changed(own_valkey: Valkey) -> None:
    task_id = fail_for_good("x")
    own_valkey.kill()
    with pytest.raises(BrokerUnavailable):
        control.retry(task_id)
    assert result().state == State.FAILURE


def test_gone_between_the_commit_and_the_push_it_is_relayed(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = fail_for_good("relayed")
    # Away from the moment on in which the row has been committed.
    monkeypatch.setattr(broker.get(), "unrevoke", lambda *_args: own_valkey.kill())
    FAILS[:] = [False]
    assert control.retry(task_id) is True
    assert result().published_at is None
    own_valkey.start()
    assert publish.relay(timezone.now() + dt.timedelta(hours=1)) == 1
    work()
    assert (result().state, result().attempts, ran()) == (State.SUCCESS, 3, ["relayed"])


def test_sensitive_arguments_stay_hidden(broker_url: str) -> None:
    sent = secret.delay("ada", password="lovelace")
    work()
    assert control.retry(sent.id) is True
    (_number, raw) = broker.get().claim("default", "somebody", 1, 1, 60).messages[0]
    assert b"lovelace" not in raw
    again = message.decode(raw, "default")
    assert again.kwargs == {"password": "lovelace"}
    assert b"lovelace" not in again.wire_headers


# ------------------------------------------------------------------------------ dead letters


def test_a_dead_letter_is_not_given_up_for_what_was_noted_on_it(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Message(task=trace.name, id=message.new_id(), queue="default", args=["forgiven"])
    raw = message.mark(message.encode(sent), jobs_crashes=99)
    broker.get().push([Outgoing("default", raw)])
    work()
    (letter,) = dead_letters()
    assert "WorkerLost" in letter.reason
    assert control.requeue("default", letter.key)
    work()
    assert (on_redis(), dead_letters(), ran()) == ((0, 0), [], ["forgiven"])


def test_a_dead_letter_of_an_open_queue_can_be_put_back(
    broker_url: str, settings: Settings
) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {}, "open": {"open": True}}}
    sent = Message(task=trace.name, id=message.new_id(), queue="open", args=["unsigned"])
    raw = message.mark(message.encode(sent), jobs_crashes=99, jobs_sig="")
    broker.get().push([Outgoing("open", raw)])
    work()
    (letter,) = broker.get().dead_letters("open", 9)
    assert control.requeue("open", letter.key)
    work()
    assert (result().state, ran()) == (State.SUCCESS, ["unsigned"])
