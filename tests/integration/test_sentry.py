"""What Sentry is told: every final failure once, in the trace of whoever has sent the call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import Request, Task, chain, task
from jobs.testing import run_jobs
from tests.tasks import add, async_fail, fail
from tests.workers import put_message, work

pytest.importorskip("sentry_sdk")

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from jobs.contrib import sentry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task(bind=True, max_retries=1)
def never(self: Task[..., Any]) -> None:
    sentry_sdk.add_breadcrumb(message=f"attempt {self.request.retries}")
    self.retry(exc=ValueError("never"), countdown=0)


@task(throws=(KeyError,))
def expected() -> None:
    raise KeyError("as it may be")


@task
def messages(text: str) -> None:
    sentry_sdk.capture_message(text)


@task
async def async_messages(text: str) -> None:
    await asyncio.sleep(0)
    sentry_sdk.capture_message(text)


@task(batch=5, batch_wait=0)
def partly(requests: list[Request]) -> list[Any]:
    return [ValueError("one") if "bad" in one.args else None for one in requests]


class Kept(Transport):
    """Keeps what would be sent."""

    events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += [item.payload.json for item in envelope.items if item.payload.json]


class Told:
    @property
    def errors(self) -> list[dict[str, Any]]:
        return [one for one in Kept.events if one.get("type") != "transaction"]

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [one for one in Kept.events if one.get("type") == "transaction"]

    def shown(self) -> list[tuple[str, str]]:
        """The errors: the transaction's name, and the exception or message."""
        found = []
        for one in self.errors:
            what = one["exception"]["values"][-1]["value"] if "exception" in one else one["message"]
            found.append((one["transaction"], what))
        return sorted(found)


@pytest.fixture
def told() -> Iterator[Told]:
    Kept.events = []
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Kept,
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[LoggingIntegration(), DedupeIntegration(), sentry.JobsIntegration()],
    )
    sentry.JobsIntegration.setup_once()  # again, in the second test of a process
    yield Told()
    for signal, _ in sentry._RECEIVERS:
        signal.disconnect(dispatch_uid=sentry.__name__)
    # Not with those that it has by itself: they change what other tests look at.
    sentry_sdk.init(default_integrations=False)
    assert not sentry._running


def test_every_final_failure_once(told: Told) -> None:
    sent = fail.delay("once")
    for one in (never, expected):
        one.delay()
    async_fail.delay("beside")
    for args in ("good", "bad"):
        partly.delay(args)
    work()
    assert told.shown() == sorted(
        [
            (fail.name, "once"),
            (never.name, "never"),
            (async_fail.name, "beside"),
            (partly.name, "one"),
        ]
    )
    error = next(one for one in told.errors if one["transaction"] == fail.name)
    assert error["tags"] | {"worker": ""} == {
        "task": fail.name,
        "task_id": sent.id,
        "queue": "default",
        "attempt": "1",
        "worker": "",
    }
    assert error["exception"]["values"][-1]["mechanism"] == {"type": "jobs", "handled": False}
    assert error["contexts"]["job"] == {"id": sent.id, "root_id": sent.id}  # no arguments
    last = next(one for one in told.errors if one["transaction"] == never.name)
    assert last["tags"]["attempt"] == "2"
    crumbs = [one["message"] for one in last["breadcrumbs"]["values"]]
    assert [one for one in crumbs if one.startswith("attempt")] == ["attempt 1"]


def test_a_transaction_for_each_attempt(told: Told) -> None:
    with sentry_sdk.start_transaction(name="GET /checkout") as request:
        chain(add.s(1, 2), messages.si("in a chain")).delay()
        never.delay()
    work()
    named = {one["transaction"]: one for one in told.transactions}
    assert set(named) == {"GET /checkout", add.name, messages.name, never.name}
    traces = {one["contexts"]["trace"]["trace_id"] for one in [*told.transactions, *told.errors]}
    assert traces == {request.trace_id}
    spans = {one["op"]: one for one in named["GET /checkout"]["spans"]}
    assert spans["queue.publish"]["data"]["messaging.destination.name"] == "default"
    states = sorted(
        (one["transaction"], one["tags"]["state"], one["contexts"]["trace"]["status"])
        for one in told.transactions[1:]
    )
    assert states == sorted(
        [
            (add.name, "SUCCESS", "ok"),
            (messages.name, "SUCCESS", "ok"),
            (never.name, "RETRY", "aborted"),
            (never.name, "FAILURE", "internal_error"),
        ]
    )


@pytest.mark.parametrize("mode", ["threads", "run_jobs"])
def test_each_call_has_a_scope_of_its_own(told: Told, mode: str) -> None:
    sentry_sdk.set_tag("of", "the process")
    calls = [one.delay(f"{one.name} {n}") for one in (messages, async_messages) for n in range(2)]
    if mode == "run_jobs":
        run_jobs()
    else:
        work(threads=2)
    assert {one["tags"]["task_id"] for one in told.errors} == {call.id for call in calls}
    for one in told.errors:
        assert one["message"].startswith(one["tags"]["task"])
        assert one["transaction"] == one["tags"]["task"]
    scope = sentry_sdk.get_isolation_scope()
    assert scope._tags == {"of": "the process"}
    scope.clear()


def test_dead_letters_are_reported_by_their_lines_of_the_log(told: Told) -> None:
    put_message(task=add.name, args=[1, 2, 3])
    work()
    (error,) = told.errors
    assert error["logger"] == "jobs.worker"
    assert "dead letter" in error["logentry"]["message"]


def test_settings_can_import_it() -> None:
    code = "import sys, jobs.contrib.sentry; assert 'jobs.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
