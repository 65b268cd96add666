"""Rates that are set at run time, with the real worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import broker, control
from jobs.broker.limiting import Rate
from jobs.control import RateOverride
from jobs.exceptions import BrokerUnavailable, UnknownTask
from jobs.worker.claim.admission import Overrides
from tests.models import Run
from tests.services import wait_for
from tests.tasks import async_add, both_limits, echo, hourly, hourly_each, trace
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@pytest.fixture
def overrides() -> Iterator[Overrides]:
    """As a child has them."""
    made = Overrides()
    yield made
    made.end()


def send(task: Any, *labels: str) -> None:
    for label in labels:
        task.delay(label)


def ran() -> list[str]:
    return sorted(Run.objects.values_list("label", flat=True))


def due() -> int:
    return broker.get().stats("default").due


# ------------------------------------------------------------------------------- its effect


def test_a_task_without_a_limit_gets_one_and_is_free_again() -> None:
    control.rate_limit(trace.name, "1/h", by="ada")
    send(trace, "a", "b", "c")
    work()
    assert (len(ran()), due()) == (1, 2)
    assert not trace.limited  # outside of the worker it is as in the code
    control.rate_limit(trace.name, "")
    send(trace, "d")
    work()
    assert (len(ran()), due()) == (2, 2)  # those have their times
    assert control.ask_again(trace.name) == 2
    work()
    assert (ran(), due()) == (["a", "b", "c", "d"], 0)


def test_an_asynchronous_task_is_limited_as_well() -> None:
    control.rate_limit(async_add.name, "1/h")
    results = [async_add.delay(1, 2) for _ in range(3)]
    work()
    assert [result.ready() for result in results].count(True) == 1


def test_the_limit_in_the_code_can_be_lifted() -> None:
    control.rate_limit(hourly.name, control.UNLIMITED)
    send(hourly, *"abcde")
    work()
    assert ran() == list("abcde")
    control.rate_limit(hourly.name, None)
    send(hourly, *"fghij")
    work()
    assert (len(ran()), due()) == (7, 3)


def test_a_faster_rate_counts_at_once_for_new_calls_and_for_those_that_ask_again() -> None:
    send(hourly, *"abcdef")
    work()
    assert (len(ran()), due()) == (2, 4)
    control.rate_limit(hourly.name, "100/s", burst=20)
    send(hourly, "new")

    def everything_ran() -> bool:
        work()
        return len(ran()) == 7

    wait_for(lambda: work() or "new" in ran(), what="the new call")
    assert control.ask_again(hourly.name) == 4
    wait_for(everything_ran, what="those that waited")


def test_a_slower_rate_takes_those_along_that_wait() -> None:
    control.rate_limit(trace.name, "1/m", burst=1)
    send(trace, *"abc")
    work()
    control.rate_limit(trace.name, "1/h", burst=1)
    control.ask_again(trace.name)
    work()
    assert (len(ran()), due()) == (1, 2)


def test_a_key_and_a_concurrency_limit_stay() -> None:
    control.rate_limit(hourly_each.name, "1/h", burst=2)
    for customer in (1, 2):
        for n in range(3):
            hourly_each.delay(f"{customer}/{n}", customer=customer)
    control.rate_limit(both_limits.name, control.UNLIMITED)
    results = [both_limits.delay() for _ in range(2)]
    work()
    assert (len(ran()), due()) == (4, 2)
    assert all(result.ready() for result in results)


def test_what_waits_for_other_reasons_does_not_ask_again() -> None:
    trace.apply_async(("later",), countdown=600)
    control.pause_task(echo.name)
    control.rate_limit(echo.name, "1/h")
    echo.delay("parked")
    work()
    assert due() == 2
    assert control.ask_again(trace.name) == control.ask_again(echo.name) == 0


# --------------------------------------------------------------------------- what is kept


def test_what_is_set_is_told_with_who_and_when() -> None:
    assert control.rate_limits() == {}
    control.rate_limit(trace.name, " 10/m ", burst=3, by="ada")
    control.rate_limit(hourly.name, 0.5)
    first, second = control.rate_limits().values()
    assert (first.task, first.rate, first.burst, first.by) == (hourly.name, 0.5, None, "")
    assert (second.task, second.rate, second.burst, second.by) == (trace.name, "10/m", 3, "ada")
    assert (first.parsed(), second.parsed()) == (Rate(2.0, 1), Rate(6.0, 3))
    assert first.at >= second.at
    control.rate_limit(trace.name, "")
    assert list(control.rate_limits()) == [hourly.name]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"[]",
        b"{}",
        b'{"rate": "fast", "burst": null, "by": "", "at": "2026-03-01T00:00:00+00:00"}',
        b'{"rate": "1/h", "burst": null, "by": "", "at": 5}',
        b'{"rate": 1%s, "burst": null, "by": "", "at": "2026-03-01"}' % (b"0" * 400),
    ],
)
def test_what_cannot_be_read_changes_nothing(text: bytes, overrides: Overrides) -> None:
    broker.get().set_override(trace.name, text)
    control.rate_limit("tests.tasks.echo", "1/h")
    assert list(control.rate_limits()) == [echo.name]
    overrides.look(0.0)
    assert (trace.limited, echo.limited) == (False, True)
    control.rate_limit(trace.name, "")
    assert list(broker.get().overrides()) == [echo.name]


def test_what_there_is_not() -> None:
    with pytest.raises(UnknownTask, match=r"Did you mean 'tests\.tasks\.trace'"):
        control.rate_limit("tests.tasks.tracee", "1/h")
    with pytest.raises(UnknownTask, match=r"Did you mean 'tests\.tasks\.trace'"):
        control.rate_limit("tests.tasks.tracee", None)
    with pytest.raises(UnknownTask):
        control.ask_again("tests.tasks.tracee")
    # One that the code no longer has may be set still.
    broker.get().set_override("tests.tasks.gone", b"{}")
    control.rate_limit("tests.tasks.gone", "")
    assert broker.get().overrides() == {}


@pytest.mark.parametrize(
    ("rate", "burst", "told"),
    [
        ("10/d", None, r"'tests.tasks.trace': rate_limit must be like '100/s'.*'unlimited' is no"),
        ("unlimted", None, "Did you mean 'unlimited'"),
        (0, None, r"not 0\. 'unlimited' is no limit"),
        (True, None, "not True"),
        ("1/s", 0, "burst must be at least 1"),
        ("1/s", "2", "burst must be a whole number"),
        ("unlimited", 5, "burst is for a rate"),
        ("", 5, "burst is for a rate"),
    ],
)
def test_what_is_no_rate(rate: Any, burst: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        control.rate_limit(trace.name, rate, burst=burst)
    assert control.rate_limits() == {}


# --------------------------------------------------------------------------------- a child


def test_a_child_looks_now_and_then(overrides: Overrides) -> None:
    overrides.look(100.0)
    control.rate_limit(trace.name, "1/h")
    overrides.look(102.9)
    assert not trace.limited
    overrides.look(103.1)
    assert (trace.limited, trace.rate) == (True, Rate(3600.0, 1))
    control.rate_limit(trace.name, "")
    overrides.look(110.0)
    assert (trace.limited, trace.rate) == (False, None)


def test_it_logs_what_begins_and_ends_to_count(
    overrides: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    control.rate_limit(trace.name, "10/m", burst=2, by="ada")
    overrides.look(0.0)
    overrides.look(10.0)
    control.rate_limit(trace.name, "")
    overrides.look(20.0)
    overrides.look(30.0)
    assert caplog.messages == [
        "task tests.tasks.trace has the rate 10/m, burst 2, set by ada",
        "task tests.tasks.trace: the rate 10/m, burst 2 counts, set by ada",
        "task tests.tasks.trace has the rate of its code again",
        "task tests.tasks.trace: the rate of its code counts again",
    ]


def test_a_task_of_other_workers(overrides: Overrides) -> None:
    said = b'{"rate": "1/h", "burst": null, "by": "", "at": "2026-03-01T00:00:00+00:00"}'
    broker.get().set_override("shop.tasks.elsewhere", said)
    overrides.look(0.0)
    overrides.end()
    assert isinstance(control.rate_limits()["shop.tasks.elsewhere"], RateOverride)


def test_the_broker_is_away_at_the_look(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.rate_limit(trace.name, "1/h")
    port = broker.get()
    overridden, away = port.overrides, [BrokerUnavailable()]

    def ask() -> Any:
        if away:
            raise away.pop()
        return overridden()

    monkeypatch.setattr(port, "overrides", ask)
    with pytest.raises(BrokerUnavailable):
        overrides.look(0.0)
    overrides.look(0.0)
    assert trace.limited
