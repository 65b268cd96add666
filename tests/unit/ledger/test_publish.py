"""The connection whose transaction a sending joins is the one that Django's own way gives. A bulk
is sent without making its messages, unless these are needed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.dispatch import Signal
from django.test.utils import override_settings

from jobs import signals
from jobs.broker.base import Outgoing
from jobs.ledger import publish
from jobs.message import Calls, Message, new_id, sent_by

LATER = dt.datetime(2099, 1, 2, tzinfo=dt.UTC)


def both_ways() -> tuple[object, object]:
    found = publish._connection(DEFAULT_DB_ALIAS)
    return found, connections[DEFAULT_DB_ALIAS]


async def both_ways_on_a_loop() -> tuple[object, object]:
    return both_ways()


def test_the_short_way_is_taken() -> None:
    assert publish._of_threads is not None


def test_each_thread_has_its_own() -> None:
    here, known_here = both_ways()
    with ThreadPoolExecutor(1) as pool:
        there, known_there = pool.submit(both_ways).result()
    assert here is known_here
    assert there is known_there
    assert here is not there


def test_one_that_was_replaced() -> None:
    before = connections[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = connections.create_connection(DEFAULT_DB_ALIAS)
    try:
        found, known = both_ways()
    finally:
        connections[DEFAULT_DB_ALIAS] = before
    assert found is known is not before


def test_an_event_loop_has_its_own() -> None:
    before = connections[DEFAULT_DB_ALIAS]
    found, known = asyncio.run(both_ways_on_a_loop())
    assert found is known is not before


def a_bulk(**common: Any) -> Calls:
    return Calls(
        Message(**{"task": "add", "queue": "default", "id": "", **common}),
        [(new_id(), (n,), {}) for n in range(3)],
    )


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What `send` was given."""
    given: list[Message] = []
    monkeypatch.setattr(publish, "send", lambda sent, **_: given.extend(sent))
    return given


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Outgoing]:
    given: list[Outgoing] = []
    monkeypatch.setattr(publish, "_push", lambda sent, *_: given.extend(sent))
    return given


@pytest.mark.parametrize(
    "common", [{}, {"eta": LATER, "priority": 3}, {"fair": "tenant"}, {"parent_id": "another"}]
)
def test_a_bulk_is_pushed_as_its_messages_would_be(
    common: dict[str, Any], messages: list[Message], pushed: list[Outgoing]
) -> None:
    bulk = a_bulk(**common)
    publish.send_calls(bulk)
    assert messages == []
    assert pushed == [publish.outgoing_of(one) for one in bulk.messages()]


def hear(message: Message, **_: Any) -> None:
    pass


@contextlib.contextmanager
def heard_of(signal: Signal) -> Iterator[None]:
    signal.connect(hear)
    try:
        yield
    finally:
        signal.disconnect(hear)


WAYS: dict[str, Callable[[pytest.MonkeyPatch], contextlib.AbstractContextManager[Any]]] = {
    "in a transaction": lambda patch: contextlib.nullcontext(
        patch.setattr(connections[DEFAULT_DB_ALIAS], "in_atomic_block", True)
    ),
    "foreign workers": lambda _: jobs_with(
        QUEUES={"own": {}, "default": {"foreign_workers": True}}, DEFAULT_QUEUE="own"
    ),
    "missing queues": lambda _: jobs_with(CREATE_MISSING_QUEUES=True),
    "eager": lambda _: jobs_with(ALWAYS_EAGER=True),
    "sent by a Celery client's call": lambda patch: contextlib.nullcontext(
        patch.setitem(sent_by, "running", [])
    ),
    "task_sending": lambda _: heard_of(signals.task_sending),
    "task_enqueued": lambda _: heard_of(signals.task_enqueued),
}


def jobs_with(**given: Any) -> contextlib.AbstractContextManager[Any]:
    return override_settings(JOBS={**settings.JOBS, **given})


@pytest.mark.parametrize("way", WAYS)
def test_where_each_message_counts(
    way: str, messages: list[Message], pushed: list[Outgoing], monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = a_bulk()
    with WAYS[way](monkeypatch):
        publish.send_calls(bulk)
    assert pushed == []
    assert messages == bulk.messages()
    assert [one.args for one in messages] == [[0], [1], [2]]


def test_hidden_arguments_are_left_to_the_messages(
    messages: list[Message], pushed: list[Outgoing]
) -> None:
    publish.send_calls(a_bulk(sensitive=frozenset({"0"})))
    assert (len(messages), pushed) == (3, [])
