import datetime as dt
import time
from typing import Any

import pytest

from jobs import task
from jobs.control.metrics import FAILED, RETRIED, REVOKED, SUCCEEDED
from jobs.ledger.outcomes import Attempt
from jobs.message import Message
from jobs.worker.celery.events import hostname_of, of_outcome
from jobs.worker.record.outcome import Dead, Done, Later, Outcome, Run, failure, of_success
from tests.tasks import add

NOW = time.time()


@task(sensitive=["card"])
def pay(card: str, amount: int) -> None: ...


def sent(**fields: Any) -> Message:
    return Message(task=add.name, id="an-id", queue="default", args=[1, 2], **fields)


def told(outcome: Outcome) -> list[dict[str, Any]]:
    return list(of_outcome(outcome, "celery@w"))


def test_a_call_that_succeeded():
    record = of_success(sent(), add, Run("w/1.1", NOW - 2), 3)
    done = Done("default", 1, record=record, counts=SUCCEEDED, call=sent(), began=NOW - 2, over=NOW)
    received, started, succeeded = told(done)
    assert (received["type"], received["name"], received["args"]) == (
        "task-received",
        add.name,
        "[1, 2]",
    )
    assert (started["type"], started["timestamp"]) == ("task-started", NOW - 2)
    assert (succeeded["type"], succeeded["result"]) == ("task-succeeded", "3")
    assert succeeded["runtime"] == pytest.approx(2)
    for event in (received, started, succeeded):
        assert (event["uuid"], event["hostname"]) == ("an-id", "celery@w")


def test_a_call_that_failed():
    record = failure(sent(), b"", Run("w/1.1", NOW), ValueError("no"))
    done = Done("default", 1, record=record, counts=FAILED, call=sent(), began=NOW, over=NOW)
    *_, failed = told(done)
    assert (failed["type"], failed["exception"]) == ("task-failed", "ValueError('no')")
    assert "ValueError" in failed["traceback"]


def test_a_call_that_is_retried():
    at = dt.datetime.now(dt.UTC)
    attempt = Attempt("an-id", 1, "w/1.1", at, at, "builtins.KeyError", "'x'", "the traceback")
    later = Later(
        queue="default",
        number=1,
        raw=b"",
        priority=0,
        due=NOW,
        attempt=attempt,
        counts=RETRIED,
        call=sent(),
        began=NOW,
        over=NOW,
    )
    *_, retried = told(later)
    assert (retried["type"], retried["traceback"]) == ("task-retried", "the traceback")


def test_a_call_that_never_ran():
    received, revoked = told(Done("default", 1, counts=REVOKED, call=sent()))
    assert (received["type"], revoked["type"]) == ("task-received", "task-revoked")
    *_, rejected = told(Dead("default", 1, reason="no", call=sent()))
    assert rejected["type"] == "task-rejected"


def test_what_counts_as_nothing_is_no_end():
    assert [one["type"] for one in told(Done("default", 1, call=sent()))] == ["task-received"]
    assert told(Dead("default", 1, reason="can't be read")) == []


def test_sensitive_arguments_are_hidden():
    call = Message(task=pay.name, id="an-id", queue="default", args=["4111", 5])
    (received,) = told(Done("default", 1, call=call))
    assert "4111" not in str(received)
    assert received["args"] == "['…', 5]"


@pytest.mark.parametrize(
    ("worker", "hostname"), [("w", "celery@w"), ("worker-7@host", "worker-7@host")]
)
def test_a_worker_has_a_host_in_its_name(worker: str, hostname: str):
    assert hostname_of(worker) == hostname
