"""Whose transaction a call is part of."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from jobs.ledger import publish


def is_django_s() -> bool:
    # Twice: the first time, a thread has none yet.
    found = [publish._connection("default") for _ in range(2)]
    return all(one is connections["default"] for one in found)


def test_the_connection_is_the_one_that_django_gives() -> None:
    async def on_a_loop() -> bool:
        return is_django_s()

    assert is_django_s()
    assert asyncio.run(on_a_loop())
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(is_django_s).result()


def test_a_connection_that_was_put_in_its_place_counts() -> None:
    def put() -> bool:
        before = publish._connection("default")
        connections["default"] = other = connections.create_connection("default")
        return publish._connection("default") is other is not before

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(put).result()
