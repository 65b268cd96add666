"""What a worker does when the broker may have lost messages, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import transaction
from pytest_django import Settings

from jobs import broker
from jobs.broker.base import Compare, Outgoing
from jobs.exceptions import BrokerUnavailable
from jobs.models import TaskResult
from jobs.worker.claim import admission
from jobs.worker.claim.holding import Holding
from jobs.worker.record.outcome import Delivery, Done
from jobs.worker.record.recorder import Recorder
from jobs.worker.supervisor import comparing
from jobs.worker.supervisor.comparing import Comparison
from tests.tasks import trace
from tests.workers import on_redis

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _soon(broker_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.JOBS = {**settings.JOBS, "LEASE_SECONDS": 1}
    monkeypatch.setattr(comparing, "_LOOK", 0.0)
    monkeypatch.setattr(comparing, "_AGAIN", 0.0)
    monkeypatch.setattr(comparing, "_SLACK", 0.0)


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as plain:
        yield plain


def send(count: int, queue: str = "default") -> None:
    with transaction.atomic():
        trace.enqueue_many([(str(n),) for n in range(count)], queue=queue)


def test_what_is_lost_is_sent_again_once(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    send(3)
    client.flushall()
    comparison = Comparison("w1")
    comparison.compare(["high", "default"])
    assert on_redis() == (3, 0)
    assert broker.get().doubtful(["high", "default", "low"]) == ["low"]
    comparison.compare(["high", "default"])
    assert on_redis() == (3, 0)
    assert caplog.text.count("3 committed calls of the queues high, default are sent again") == 1


def test_calls_of_other_queues_are_left_to_their_workers(client: redis.Redis) -> None:
    send(1, "low")
    client.flushall()
    Comparison("w1").compare(["default"])
    assert on_redis("low") == (0, 0)
    Comparison("w2").compare(["low"])
    assert on_redis("low") == (1, 0)


def test_what_was_moved_to_another_queue_is_found(client: redis.Redis) -> None:
    send(1)
    raw = client.rpop("default")
    assert isinstance(raw, bytes)
    broker.get().push([Outgoing("low", raw)])
    client.delete("{default}:compared")
    Comparison("w1").compare(["default"])
    assert (on_redis(), on_redis("low")) == ((0, 0), (1, 0))


def test_a_call_that_is_not_marked_as_published_yet_is_waited_for() -> None:
    with transaction.atomic():
        trace.delay("a")
    TaskResult.objects.update(published_at=None)
    waited: list[float] = []
    comparison = Comparison("w1")
    comparison._wait = lambda seconds, _: waited.append(seconds)  # type: ignore[method-assign]
    comparison.compare(["default"])
    assert waited == [0.0]


def test_another_compares_already(client: redis.Redis) -> None:
    send(1)
    client.flushall()
    assert broker.get().compare("default", "w2", Compare.BEGIN)
    Comparison("w1").compare(["default"])
    assert on_redis() == (0, 0)


def test_lost_again_meanwhile_it_stays_doubtful(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(2)
    client.flushall()
    monkeypatch.setattr(comparing, "COMPARING", 0.0)  # the broker is asked at each step
    comparison = Comparison("w1")
    put_back = comparing.recovery.put_back

    def and_lose(*args: object) -> int:
        client.flushall()
        return put_back(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing.recovery, "put_back", and_lose)
    comparison.compare(["default"])
    assert broker.get().doubtful(["default"]) == ["default"]


def test_a_worker_that_stops_ends_its_comparison(client: redis.Redis) -> None:
    send(1)
    client.flushall()
    comparison = Comparison("w1")
    comparison.stop()
    comparison.start(["default"])
    assert comparison._thread is not None
    comparison._thread.join(10)
    assert on_redis() == (0, 0)
    assert broker.get().doubtful(["default"]) == ["default"]


def test_what_fails_is_logged_once_and_tried_again(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send(1)
    client.flushall()
    comparison = Comparison("w1")
    with monkeypatch.context() as patch:
        patch.setattr(comparing.recovery, "any_open", lambda _: 1 / 0)
        for _ in range(2):
            comparison._run(["default"])
    comparison._run(["default"])
    assert caplog.text.count("can't look for calls that the broker has lost; it tries again") == 1
    assert "can look for calls that the broker has lost again" in caplog.text
    assert on_redis() == (1, 0)


def test_of_many_queues_a_few_are_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = [f"q{n}" for n in range(50)]
    assert comparing.doubtful(queues) == queues
    for queue in queues:
        broker.get().compare(queue, "w1", Compare.BEGIN)
        broker.get().compare(queue, "w1", Compare.END)
    asked: list[int] = []
    verb = broker.get().doubtful
    monkeypatch.setattr(broker.get(), "doubtful", lambda q: (asked.append(len(q)), verb(q))[1])
    assert comparing.doubtful(queues) == []
    assert asked == [3]


# ------------------------------------------------------------------------- held again


def claimed(count: int) -> list[Delivery]:
    send(count)
    found = []
    for number, raw in broker.get().claim("default", "w1", 1, count, 60).messages:
        one = admission.prepare("default", number, raw, worker="w1", now=0)
        assert isinstance(one, Delivery)
        found.append(one)
    return found


def test_what_is_here_is_in_flight_again(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    here = claimed(3)
    held = Holding("w1", lambda: here, Recorder("w1"))
    held.hold_again({"default": 4, "low": 1})
    assert "lost" not in caplog.text
    client.flushall()
    held.hold_again({"default": 4, "low": 1})
    assert on_redis() == (0, 3)
    assert caplog.text.count("had lost 3 messages of queue default") == 1


def test_what_was_settled_meanwhile_is_taken_out_of_flight(client: redis.Redis) -> None:
    """One is recorded while it is put back, one waits to be recorded, one runs on."""
    here = claimed(3)
    done, finished, running = here
    recorder = Recorder("w1")
    held = Holding("w1", lambda: here, recorder)
    client.flushall()
    held.hold_again({"default": 4})
    here[:] = [running]
    recorder.add(Done("default", finished.number))
    numbers = [done.number, finished.number, running.number]
    held.settle()
    assert broker.get().held("default", "w1", numbers) == set(numbers)
    held.settle()
    assert broker.get().held("default", "w1", numbers) == set(numbers[1:])
    recorder._outcomes.clear()
    for _ in range(2):
        held.settle()
    assert broker.get().held("default", "w1", numbers) == {running.number}


def test_what_is_nowhere_for_a_moment_stays_in_flight(client: redis.Redis) -> None:
    here = claimed(1)
    (one,) = here
    held = Holding("w1", lambda: here, Recorder("w1"))
    client.flushall()
    held.hold_again({"default": 2})
    for now in ([], [one], [], [one]):
        here[:] = now
        held.settle()
    assert on_redis() == (0, 1)


def test_what_was_put_back_without_an_answer_is_taken_out_of_flight(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = claimed(1)
    held = Holding("w1", lambda: here, Recorder("w1"))
    client.flushall()
    verb = broker.get().hold_again

    def unanswered(*args: Any) -> int:
        verb(*args)
        raise BrokerUnavailable("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(broker.get(), "hold_again", unanswered)
        with pytest.raises(BrokerUnavailable):
            held.hold_again({"default": 2})
    assert on_redis() == (0, 1)
    held.hold_again({"default": 2})
    here.clear()
    for _ in range(2):
        held.settle()
    assert on_redis() == (0, 0)


def test_what_ended_here_and_is_in_flight_there_goes_back(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica has taken over that had not received the acknowledgement of the first one."""
    here = claimed(4)
    _acknowledged, finished, running, _ = here
    recorder = Recorder("w1")
    held = Holding("w1", lambda: here, recorder)
    here[:] = [running]
    recorder.add(Done("default", finished.number))
    following = {"default": 4, "low": 1}  # the fourth is of a claim without an answer
    for _ in range(2):
        held.return_strays(following)
    assert on_redis() == (0, 4)  # nothing was lost
    held.hold_again(following)
    held.return_strays(following)
    assert on_redis() == (0, 4)
    held.return_strays(following)
    assert on_redis() == (1, 3)
    assert broker.get().held("default", "w1", [1, 2, 3, 4]) == {2, 3, 4}
    (back,) = broker.get().peek("default", 0, 1)
    assert json.loads(back.raw)["headers"]["redelivered"]
    assert "lost how 1 messages of queue default ended here" in caplog.text
    for _ in range(2):
        held.return_strays(following)
    assert on_redis() == (1, 3)


def test_what_is_nowhere_for_a_moment_does_not_go_back(client: redis.Redis) -> None:
    here = claimed(1)
    (one,) = here
    held = Holding("w1", lambda: here, Recorder("w1"))
    held.hold_again({"default": 2})
    held._again.clear()
    for now in ([], [one], [], [one]):
        here[:] = now
        held.return_strays({"default": 2})
    assert on_redis() == (0, 1)


def test_what_is_acknowledged_early_is_left_alone(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = claimed(1)
    monkeypatch.setattr(here[0].task, "acks_early", True)
    client.flushall()
    Holding("w1", lambda: here, Recorder("w1")).hold_again({"default": 2})
    assert on_redis() == (0, 0)
