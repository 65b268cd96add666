"""Stamps: what each call of a composition finds in its request, and calls that are revoked by
them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from pytest_django import Settings

from jobs import Task, broker, chain, chord, control, group, signature, task
from jobs.control import inspect
from jobs.message import stamps
from jobs.models import TaskResult
from jobs.states import State
from jobs.testing import run_jobs
from tests.integration.commands.helpers import fail as fail_command
from tests.integration.commands.helpers import run
from tests.workers import put_message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

GIVEN = {"customer": "acme", "tags": ["a", 5]}

SEEN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


@task(bind=True, name="stamps.see")
def see(self: Task[..., Any], name: str) -> str:
    SEEN[name] = self.request.stamps
    return name


@task(bind=True, name="stamps.fails")
def fails(self: Task[..., Any], name: str) -> None:
    SEEN[name] = self.request.stamps
    raise ValueError(name)


@task(bind=True, name="stamps.again", max_retries=1)
def again(self: Task[..., Any], name: str) -> None:
    SEEN[f"{name}{self.request.retries}"] = self.request.stamps
    self.retry(countdown=0)


@task(bind=True, name="stamps.copied")
def copied(self: Task[..., Any], name: str) -> None:
    SEEN[name] = self.request.stamps
    if name == "a":
        self.signature_from_request(args=["b"], countdown=0).delay()


@task(bind=True, name="stamps.replaced")
def replaced(self: Task[..., Any], name: str) -> None:
    self.replace(see.si(name))


COMPOSED = {
    "chain": (see.si("a") | see.si("b") | group(see.si("c"), see.si("d")) | see.si("e"), "abcde"),
    "chord": (chord([see.si("a"), see.si("b") | see.si("c")], see.si("d") | see.si("e")), "abcde"),
    "group": (group(see.si("a"), see.si("b") | group(see.si("c"), see.si("d"))), "abcd"),
    "link": (see.si("a").set(link=[see.si("b"), see.si("c") | see.si("d")]), "abcd"),
    "link_error": (fails.si("a").set(link_error=see.si("b")) | see.si("c"), "ab"),
    "behind a replacement": (replaced.si("x") | see.si("b"), "b"),
    "the next attempt": (again.si("a"), ["a0", "a1"]),
    "signature_from_request": (copied.si("a"), "ab"),
}


@pytest.mark.parametrize("how", COMPOSED)
def test_all_calls_of_a_composition_have_them(how: str) -> None:
    call, names = COMPOSED[how]
    call.clone().stamp(**GIVEN).delay()
    run_jobs()
    assert {name: SEEN[name] for name in names} == dict.fromkeys(names, GIVEN)
    assert SEEN.keys() - {*names} <= {"x"}
    assert SEEN.get("x", {}) == {}  # what takes a call's place has its own


@pytest.mark.parametrize("how", ["chain", "chord", "group", "link", "link_error"])
def test_those_of_a_celery_client(how: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}}}
    call, names = COMPOSED[how]
    # Its first call has them in its message, the others in what the message holds of them.
    form = chain(see.si("first"), call.clone()).stamp(**GIVEN).as_dict()
    behind = [signature(one).as_dict() for one in reversed(form["kwargs"]["tasks"][1:])]
    put_message(
        task=see.name,
        args=["first"],
        embed={"chain": behind, "callbacks": None, "errbacks": None, "chord": None},
        own_headers={"stamped_headers": list(GIVEN), "stamps": GIVEN},
    )
    run_jobs()
    assert {name: SEEN[name] for name in ["first", *names]} == dict.fromkeys(
        ["first", *names], GIVEN
    )


def test_a_call_without_stamps() -> None:
    see.delay("a")
    run_jobs()
    assert SEEN == {"a": {}}


def test_further_ones_when_it_is_sent() -> None:
    see.si("a").stamp(x=1).apply_async(stamped_headers=["x", "y"], x=2, y={3})
    (see.si("b").stamp(x=1) | see.si("c")).apply_async(stamped_headers=["y"], y=3)
    run_jobs()
    assert SEEN == {"a": {"x": 1, "y": [3]}, "b": {"x": 1, "y": 3}, "c": {}}


def state_of(result: Any) -> str:
    return TaskResult.objects.get(id=result.id).state


@pytest.mark.parametrize(
    "headers",
    [
        {"customer": "acme"},
        {"customer": ["nobody", "acme"], "no": "one"},
        ["customer=acme"],
        {"n": 5},
        ["n=5"],
        {"n": [True, 6]},
    ],
    ids=str,
)
def test_revoked_by_a_stamp(headers: Any) -> None:
    stamped = see.si("a").stamp(customer="acme", n=[5, 6]).delay()
    others = [
        see.si("b").stamp(customer="other", n=55).delay(),
        see.si("c").set(headers={"customer": "acme"}).delay(),
        see.delay("d"),
    ]
    control.revoke_by_stamped_headers(headers)
    run_jobs()
    row = TaskResult.objects.get(id=stamped.id)
    assert (row.state, row.error) == (State.REVOKED, "revoked")
    assert [state_of(one) for one in others] == [State.SUCCESS] * 3
    # Also one that is sent later.
    later = see.si("a").stamp(customer="acme", n=[5, 6]).delay()
    run_jobs()
    assert state_of(later) == State.REVOKED


@pytest.mark.parametrize(
    ("value", "typed"),
    [(dt.date(2026, 3, 1), "2026-03-01"), (uuid.UUID(int=7), str(uuid.UUID(int=7))), (b"x", None)],
    ids=str,
)
def test_revoked_by_a_stamp_that_is_no_text(value: Any, typed: str | None) -> None:
    """Nor does its value keep its call, and others beside it, from running."""
    stamped, other = see.si("a").stamp(x=value).delay(), see.si("b").stamp(x=[value, 1]).delay()
    control.revoke_by_stamped_headers({"y": "z"})
    run_jobs()
    assert [state_of(one) for one in (stamped, other)] == [State.SUCCESS] * 2
    control.revoke_by_stamped_headers({"x": typed or value})
    stamped = see.si("a").stamp(x=value).delay()
    run_jobs()
    assert state_of(stamped) == State.REVOKED


def test_a_call_whose_id_looks_like_a_stamp() -> None:
    result = see.apply_async(("a",), task_id="customer=acme")
    control.revoke_by_stamped_headers({"customer": "acme"})
    run_jobs()
    assert state_of(result) == State.SUCCESS


def test_what_is_remembered() -> None:
    control.revoke("an-id")
    control.revoke_by_stamped_headers({"customer": "acme"}, terminate=True, remember=60.0)
    see.si("a").delay().revoke_by_stamped_headers({"n": 5})
    assert [one.id for one in inspect.revoked()] == ["an-id"]
    first, second = inspect.revoked_stamps()
    assert (first.name, first.value, first.terminate) == ("n", "5", False)
    assert (second.name, second.value, second.terminate) == ("customer", "acme", True)
    assert 80_000 < first.until - second.until < 86_400
    assert run("jobs_inspect", "stamps").splitlines()[0].startswith("n=5 ")
    # A stamp that is terminated is remembered like an id: for every queue, and not for ever.
    mark = stamps.mark_of("customer", "acme")
    assert [found.name for found in broker.get().revoked("low", [mark])] == ["TERMINATE"]


def test_many_stamps_hide_no_revoked_call_and_the_reverse() -> None:
    control.revoke("an-id", remember=10)
    control.revoke_by_stamped_headers({"a": list(range(9))}, remember=60)
    for n in range(9):
        control.revoke(f"id-{n}", remember=30)
    control.revoke_by_stamped_headers({"last": "x"}, remember=5)
    assert [one.id for one in inspect.revoked(10)][-1] == "an-id"
    assert [one.name for one in inspect.revoked_stamps(10)] == ["a"] * 9 + ["last"]
    assert (inspect.revoked(0), len(inspect.revoked(1)), len(inspect.revoked(99))) == ([], 1, 10)


def test_the_command() -> None:
    stamped = see.si("a").stamp(customer="acme").delay()
    printed = run("jobs_revoke", "--stamp", "customer=acme")
    assert printed == "Calls with the stamp customer=acme are revoked.\n"
    assert "by a --stamp" in fail_command("jobs_revoke")[2]
    assert "Name stamps" in fail_command("jobs_revoke", "--stamp", "customer")[2]
    run_jobs()
    assert state_of(stamped) == State.REVOKED
    later = see.si("a").stamp(customer="acme").delay()
    for more in ("--terminate", later.id):
        assert "alone" in fail_command("jobs_revoke", "--stamp", "a=b", "--undo", more)[2]
    control.revoke_by_stamped_headers({"customer": "acme"}, terminate=True)
    printed = run("jobs_revoke", "--stamp", "customer=acme", "--undo")
    assert printed == "Calls with the stamp customer=acme are not revoked any more.\n"
    assert inspect.revoked_stamps() == []
    run_jobs()
    assert state_of(later) == State.SUCCESS
    assert state_of(stamped) == State.REVOKED


@pytest.mark.parametrize(
    "headers",
    [
        *({}, [], "a=b", ["a"], ["=b"], {"": "x"}, {"a\0": "x"}, {"a": "x" * 300}, {"a": "\ud800"}),
        *({"a": None}, {"a": ["x", None]}, {"a": object()}),
    ],
)
def test_what_names_no_stamps(headers: Any) -> None:
    with pytest.raises(ValueError, match="stamp"):
        control.revoke_by_stamped_headers(headers)
    assert inspect.revoked_stamps() == []
