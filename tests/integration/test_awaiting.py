"""Waiting for results on an event loop, and what `get` keeps for the next time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections
from pytest_django import Settings

from jobs import AsyncResult, GroupResult, broker, ledger, task
from jobs.api import waiting
from jobs.broker.base import ended
from jobs.exceptions import ResultTimeout, TaskFailed
from jobs.models import TaskResult
from jobs.states import State
from tests.services import Valkey, wait_for
from tests.tasks import add, fail, quiet_trace
from tests.workers import work

pytestmark = pytest.mark.django_db(transaction=True)


def record(ids: Sequence[str], **changes: Any) -> None:
    """Write ends of which nobody is told; in another thread, since a loop runs in this one."""

    def write() -> None:
        values: dict[str, Any] = {"state": State.SUCCESS, "result": "3", **changes}
        rows = [TaskResult(id=one, task="x", queue="default", **values) for one in ids]
        TaskResult.objects.bulk_create(rows)
        connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def end(ids: Sequence[str]) -> None:
    """What a worker's recorder does."""
    record(ids)
    broker.get().ack("default", "nobody", [], ids)


def threads() -> list[str]:
    """Those that wait for results."""
    return [one.name for one in threading.enumerate() if one.name.startswith("jobs-results")]


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, condition)


def subscribers(url: str) -> list[dict[str, str]]:
    """The connections that are subscribed to anything."""
    with redis.Redis.from_url(url) as plain:
        return plain.client_list(_type="pubsub")


def channels(url: str) -> int:
    with redis.Redis.from_url(url) as plain:
        return len(plain.pubsub_channels())


def test_a_thousand_wait_with_one_connection_and_one_thread(broker_url: str) -> None:
    results = [AsyncResult[int](f"call-{n}") for n in range(1000)]

    async def wait() -> list[int]:
        waits = [asyncio.ensure_future(one.aget(timeout=60)) for one in results]
        await until(lambda: channels(broker_url) == 1000)
        assert len(subscribers(broker_url)) == 1
        assert len(threads()) == 1
        assert waiting._of_loops[asyncio.get_running_loop()]._thread._max_workers == 1
        end([one.id for one in results])
        found = await asyncio.gather(*waits)
        await until(lambda: channels(broker_url) == 0)
        return found

    assert asyncio.run(wait()) == [3] * 1000
    wait_for(lambda: not subscribers(broker_url))
    assert not threads()


def test_it_is_woken(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "DEAF", 3600.0)

    async def wait() -> list[int]:
        first = asyncio.ensure_future(AsyncResult[int]("a").aget(timeout=60))
        again = asyncio.ensure_future(AsyncResult[int]("a").aget(timeout=60))
        await until(lambda: channels(broker_url) == 1)
        end(["a"])
        return [await first, await again, await AsyncResult[int]("a").aget(timeout=60)]

    assert asyncio.run(wait()) == [3, 3, 3]


def test_a_notification_alone_decides_nothing(broker_url: str) -> None:
    async def wait() -> int:
        one = asyncio.ensure_future(AsyncResult[int]("a").aget(timeout=60))
        await until(lambda: channels(broker_url) == 1)
        heard = waiting._of_loops[asyncio.get_running_loop()]._heard
        with redis.Redis.from_url(broker_url) as plain:
            assert plain.publish("jobs:ended:a", "SUCCESS 666") == 1
        assert heard is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(one), 0.2)
        end(["a"])
        return await one

    assert asyncio.run(wait()) == 3


def test_an_end_that_nobody_was_told_of(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "DEAF", 0.2)

    async def wait() -> int:
        one = asyncio.ensure_future(AsyncResult[int]("a").aget(timeout=60))
        await until(lambda: channels(broker_url) == 1)
        record(["a"])
        return await one

    assert asyncio.run(wait()) == 3


def test_the_last_word_at_the_time_out_is_the_ledgers(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = waiting.Waiters.look
    looks = []

    async def look(self: waiting.Waiters, ids: Sequence[str]) -> list[TaskResult]:
        looks.append(ids)
        if len(looks) == 2:
            record(ids)  # just before the time-out, and the notification is lost
        return await real(self, ids)

    monkeypatch.setattr(waiting.Waiters, "look", look)
    assert asyncio.run(AsyncResult[int]("a").aget(timeout=0.5)) == 3
    assert len(looks) == 2


def test_a_time_out(broker_url: str) -> None:
    result = add.delay(1, 2)
    for seconds in (0, 0.1):
        with pytest.raises(ResultTimeout, match=f"has not ended within {seconds:g} seconds"):
            asyncio.run(result.aget(timeout=seconds))
    work()
    assert asyncio.run(result.aget(timeout=0)) == 3
    assert asyncio.run(AsyncResult[int](result.id).aget(timeout=0)) == 3


def test_one_that_is_cancelled_leaves_the_others_alone(broker_url: str) -> None:
    async def wait() -> int:
        waits = [
            asyncio.ensure_future(AsyncResult[int](name).aget(timeout=60))
            for name in ("a", "a", "b")
        ]
        await until(lambda: channels(broker_url) == 2)
        waits[0].cancel()
        waits[2].cancel()
        await until(lambda: channels(broker_url) == 1)
        end(["a"])
        assert waits[0].cancelled()
        return await waits[1]

    assert asyncio.run(wait()) == 3


@pytest.mark.parametrize("odd", ["a\0", "a\ud800", "x" * 256])
def test_an_id_that_can_not_be_stored_leaves_the_others_alone(broker_url: str, odd: str) -> None:
    async def wait() -> int:
        other = asyncio.ensure_future(AsyncResult[int]("a").aget(timeout=60))
        await until(lambda: channels(broker_url) == 1)
        with pytest.raises(ValueError, match="The id of a call is text that can be stored, not"):
            await AsyncResult[int](odd).aget(timeout=60)
        end(["a"])
        return await other

    assert asyncio.run(wait()) == 3


def test_what_the_task_raised(broker_url: str) -> None:
    result = fail.delay("gone")
    work()
    with pytest.raises(ValueError, match="gone") as caught:
        asyncio.run(result.aget())
    assert isinstance(caught.value.__cause__, TaskFailed)


def test_the_broker_goes_and_comes_back(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WITHOUT_BROKER", 0.1)
    monkeypatch.setattr(waiting, "DEAF", 3600.0)

    async def wait() -> list[int]:
        waits = [
            asyncio.ensure_future(AsyncResult[int](name).aget(timeout=60)) for name in ("a", "b")
        ]
        await until(lambda: channels(own_valkey.url) == 2)
        await asyncio.to_thread(own_valkey.kill)
        record(["a"])
        found = [await waits[0]]  # by looking
        await asyncio.to_thread(own_valkey.start)
        await until(lambda: channels(own_valkey.url) == 1)
        end(["b"])
        return [*found, await waits[1]]

    assert asyncio.run(wait()) == [3, 3]


def test_the_broker_was_never_there(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WITHOUT_BROKER", 0.1)
    record(["a"])
    own_valkey.kill()

    async def wait() -> list[int]:
        one = asyncio.ensure_future(AsyncResult[int]("b").aget(timeout=60))
        found = [await AsyncResult[int]("a").aget(timeout=60)]
        record(["b"])
        return [*found, await one]

    assert asyncio.run(wait()) == [3, 3]


def test_an_error_of_the_database_is_raised(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(ids: Sequence[str]) -> Any:
        raise OperationalError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "ends", away)
        with pytest.raises(OperationalError, match="the database is away"):
            asyncio.run(AsyncResult[int]("a").aget(timeout=60))
    record(["a"])
    assert asyncio.run(AsyncResult[int]("a").aget(timeout=60)) == 3


def test_with_the_broker_in_memory(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "memory://"}

    async def wait() -> list[int]:
        names = [f"call-{n}" for n in range(20)]
        waits = [asyncio.ensure_future(AsyncResult[int](one).aget(timeout=60)) for one in names]
        topics = broker.by_shard()._subscriptions  # type: ignore[attr-defined]
        await until(lambda: len(topics) == 20)
        end(names)
        found = await asyncio.gather(*waits)
        await until(lambda: not topics)
        return found

    assert asyncio.run(wait()) == [3] * 20


def test_a_group(broker_url: str) -> None:
    members = [AsyncResult[int](f"call-{n}") for n in range(600)]
    group = GroupResult("g", [*members, quiet_trace.delay("x")])

    async def wait() -> list[Any]:
        found = asyncio.ensure_future(group.aget(timeout=60))
        await until(lambda: channels(broker_url) == 600)
        assert len(subscribers(broker_url)) == 1
        end([one.id for one in members])
        return await found

    assert asyncio.run(wait()) == [3] * 600 + [None]


def test_a_group_that_fails_is_not_waited_for(broker_url: str) -> None:
    failed, other = fail.delay("gone"), AsyncResult[int]("other")
    work()
    group = GroupResult("g", [other, failed])
    with pytest.raises(ValueError, match="gone"):
        asyncio.run(group.aget(timeout=60))
    with pytest.raises(ResultTimeout, match="1 of the 2 members of group g have not ended"):
        asyncio.run(group.aget(timeout=0.1, propagate=False))


def test_those_of_two_loops_have_nothing_in_common(broker_url: str) -> None:
    def wait() -> int:
        return asyncio.run(AsyncResult[int]("a").aget(timeout=60))

    async def both() -> list[int]:
        other = asyncio.to_thread(wait)
        mine = AsyncResult[int]("a").aget(timeout=60)
        waits = asyncio.gather(other, mine)
        await until(lambda: len(subscribers(broker_url)) == 2)
        await sync_to_async(end)(["a"])
        return list(await waits)

    assert asyncio.run(both()) == [3, 3]


@task
async def waits(task_id: str) -> int:
    return await AsyncResult[int](task_id).aget(timeout=60, disable_sync_subtasks=False)


def test_a_worker_that_ends_keeps_nothing(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    end(["a"])
    result = waits.delay("a")
    work()
    assert result.get(timeout=0) == 3
    assert not threads()
    assert not subscribers(broker_url)
    assert "destroyed" not in caplog.text


# --------------------------------------------------------------------------- threads


def connected(url: str) -> int:
    """How many connections the server has ever accepted, but for this one."""
    with redis.Redis.from_url(url) as plain:
        return int(plain.info("stats")["total_connections_received"])


def listens_to(task_id: str) -> Callable[[], bool]:
    return lambda: broker.get().listeners(ended(task_id)) == 1


def test_a_thread_keeps_its_subscription(broker_url: str) -> None:
    ids = [f"call-{n}" for n in range(4)]

    def end_all() -> None:
        for one in ids:
            wait_for(listens_to(one))
            end([one])
        broker.get().close()

    broker.get().ping()
    thread = threading.Thread(target=end_all)
    before = connected(broker_url)
    thread.start()
    assert [AsyncResult[int](one).get(timeout=60) for one in ids] == [3] * 4
    thread.join()
    # One for all four, that of the other thread, and that of `connected` itself.
    assert connected(broker_url) == before + 3
    wait_for(lambda: channels(broker_url) == 0)
    broker.get().close()
    wait_for(lambda: not subscribers(broker_url))


def test_a_kept_subscription_whose_server_was_restarted(own_valkey: Valkey) -> None:
    with pytest.raises(ResultTimeout):
        AsyncResult[int]("a").get(timeout=0.01)
    own_valkey.kill()
    own_valkey.start()

    def end_it() -> None:
        wait_for(listens_to("b"))
        end(["b"])
        broker.get().close()

    thread = threading.Thread(target=end_it)
    thread.start()
    assert AsyncResult[int]("b").get(timeout=60) == 3
    thread.join()
