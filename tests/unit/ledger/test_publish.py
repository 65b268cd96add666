"""The connection whose transaction a sending joins is the one that Django's own way gives."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.db import DEFAULT_DB_ALIAS, connections

from jobs.ledger import publish


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
