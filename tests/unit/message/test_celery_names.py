"""What Celery calls things: taken where it changes nothing, else told what to write instead."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import jobs
from jobs import (
    AsyncResult,
    chain,
    chord,
    group,
)
from jobs.message import celery_names
from jobs.message.call import OPTIONS
from tests.tasks import add


@pytest.mark.parametrize("known", [celery_names.CALL, celery_names.GET, celery_names.REVOKE])
def test_what_is_harmless_is_taken(known: Any) -> None:
    for name, option in known.items():
        for value in (None, *option.harmless):
            assert celery_names.left_of({name: value, "ours": 1}, known) == {"ours": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delivery_mode", True),  # no number
        ("delivery_mode", 3),
        ("serializer", "JSON"),
        ("retries", False),
        ("compression", "rot13"),
    ],
)
def test_what_asks_for_something_else_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}=.* can't be followed here: "):
        celery_names.left_of({name: value}, celery_names.CALL)


def test_ours_are_ours() -> None:
    assert not OPTIONS & celery_names.CALL.keys()
    assert not set(jobs.__all__) & celery_names.MODULE.keys()
    for kind, known in (
        (type(add), celery_names.TASK),
        (AsyncResult, celery_names.RESULT),
        (jobs.GroupResult, celery_names.GROUP),
        (jobs.Request, celery_names.REQUEST),
        *((kind, celery_names.CALLS) for kind in (jobs.Signature, chain, group, chord)),
    ):
        assert not [name for name in known if hasattr(kind, name)]


@pytest.mark.parametrize(
    "call",
    [
        add.s(1, 2),
        chain(add.s(1, 2), add.s(3)),
        group(add.s(1, 2)),
        chord([add.s(1, 2)], add.si(1, 2)),
        AsyncResult("an-id"),
        jobs.GroupResult("an-id", [AsyncResult("another")]),
    ],
)
def test_values_can_still_be_copied(call: Any) -> None:
    assert copy.copy(call) == copy.deepcopy(call) == pickle.loads(pickle.dumps(call)) == call


def test_a_name_that_nobody_has() -> None:
    for one in (add, add.s(1, 2), AsyncResult("an-id"), jobs.GroupResult("an-id", []), jobs):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            one.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("jobs", "Celery", "decorate functions by @jobs.task"),
        ("jobs", "on_after_finalize", r"call jobs.add_periodic_task\(…\)"),
        ("jobs.signals", "celeryd_after_setup", "runworker --queues names"),
    ],
)
def test_an_import_says_what_to_write_instead(module: str, name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=f"'{name}' isn't .*{instead}"):
        exec(f"from {module} import {name}", {})
