"""Tenants of calls: what can be one, where it comes from, and how it travels."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from jobs import message, task
from jobs.api.task import Task
from jobs.broker.tenants import MARK, tenant_of
from jobs.exceptions import MalformedMessage
from jobs.message import Message
from tests.unit.message.wire import a_message, changed, there_and_back

ID = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")


@task
def plain(order: Any = 0) -> None: ...


@task(fair_by="tenant")
def named(order: int, tenant: Any = "default") -> None: ...


@task(fair_by=lambda order, tenant="x": f"{tenant}-{order}")
def made(order: int) -> None: ...


@task(fair_by=lambda order: 1 // order)
def failing(order: int) -> None: ...


@pytest.mark.parametrize(
    ("tenant", "why"),
    [
        (1.5, "must be text, a whole number, a UUID or None, not 1.5"),
        (True, "must be text, a whole number"),
        (b"acme", "must be text, a whole number"),
        (["acme"], "must be text, a whole number"),
        ("x" * 201, "1 to 200 characters, not 201"),
        ("a\0b", "NUL"),
        ("\ud800", "UTF-8"),
    ],
)
def test_what_is_no_tenant_is_told_at_the_call(tenant: Any, why: str) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"'{plain.name}' can't be sent: fair .*{why}"
    ):
        plain.message((), {}, fair=tenant)
    returned = f"'{named.name}' can't be sent: what its fair_by returns .*{why}"
    with pytest.raises((TypeError, ValueError), match=returned):
        named.message((1, tenant), {})


def test_a_model_is_told_what_to_take() -> None:
    class Customer:
        pk = 7

    with pytest.raises(TypeError, match="take its primary key"):
        named.message((1, Customer()), {})


def test_where_it_comes_from() -> None:
    assert plain.message((), {}).fair == ""
    assert plain.message((), {}, fair="acme").fair == "acme"
    assert plain.message((), {}, fair=7).fair == "7"
    assert named.message((1,), {}).fair == "default"
    assert named.message((1, ID), {}).fair == str(ID)
    assert named.message((1,), {"tenant": "acme"}).fair == "acme"
    assert named.message((1, None), {}).fair == ""
    assert named.message((1, "acme"), {}, fair="other").fair == "other"
    assert named.message((1, "acme"), {}, fair="").fair == ""
    assert made.message((5,), {}).fair == "x-5"


def test_a_function_that_fails_is_told_at_the_call() -> None:
    with pytest.raises(ValueError, match="its fair_by fails for these arguments: ZeroDivision"):
        failing.message((0,), {})
    with pytest.raises(TypeError, match="missing a required argument"):
        failing.message((), {})


def test_a_map_has_the_one_tenant_of_its_items() -> None:
    def fair(call: Any) -> str:
        sent: Message = Task.message(_task(call.task), call.args, call.kwargs)
        return sent.fair

    assert fair(made.map([5, 5])) == "x-5"
    assert fair(made.map([5, 6])) == ""
    assert fair(made.map([])) == ""
    assert fair(named.starmap([(1, "a"), (2, "a")])) == "a"
    assert [fair(one) for one in named.chunks([(1, "a"), (2, "a"), (3, "b")], 2).tasks] == [
        "a",
        "b",
    ]
    assert fair(plain.map([5])) == ""


def _task(name: str) -> Any:
    from jobs import registry

    return registry.find(name)


@pytest.mark.parametrize(
    "tenant", ["acme", "7", 'say "a"', "back\\slash\\", "é", "\n", "a:b", "x" * 200]
)
def test_brokers_find_it_in_the_wire_form(tenant: str) -> None:
    sent = a_message(fair=tenant, label="l", own_headers={"jobs_fair": "not mine", "a": [1]})
    raw = message.encode(sent)
    assert json.loads(b'"%b"' % tenant_of(raw)) == tenant
    assert message.decode(raw, "default").fair == tenant
    marked, _ = message.mark_redelivered(message.mark(raw, jobs_killed="x"), crashed=True)
    assert tenant_of(marked) == tenant_of(raw)
    assert there_and_back(sent).headers == {"a": [1]}


def test_nothing_else_is_taken_for_one() -> None:
    text = 'jobs_fair":"x", "jobs_fair":"y"'
    raw = message.encode(a_message(args=[text], label=text, own_headers={"said": text}))
    assert MARK not in raw
    assert tenant_of(raw) == b""
    assert tenant_of(b"{}") == tenant_of(b'jobs_fair":""') == tenant_of(b'jobs_fair":"x') == b""


def test_the_next_attempt_and_copies_keep_it() -> None:
    sent = a_message(fair="acme", copies=("low",))
    assert [one.fair for one in message.spread(sent)] == ["acme", "acme"]
    assert message.first_attempt(sent).fair == "acme"


def test_one_that_is_too_long_is_malformed() -> None:
    raw = json.dumps(changed("headers", jobs_fair="x" * 201)).encode()
    with pytest.raises(MalformedMessage, match="jobs_fair"):
        message.decode(raw, "default", trusted=True)
