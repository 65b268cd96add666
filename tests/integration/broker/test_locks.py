"""Unique locks: what both brokers promise of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from jobs.broker.base import Broker
from jobs.broker.limiting import Lock, Take
from jobs.broker.memory import MemoryBroker


def lock(task_id: str, take: Take = Take.FREE, name: str = "import:7") -> Lock:
    return Lock(name, task_id, 60.0, take)


def test_the_first_has_it(broker: Broker) -> None:
    assert broker.lock([lock("a"), lock("b"), lock("a"), lock("b", name="import:8")]) == [
        *("", "a", "", "")
    ]
    assert broker.locked(["import:7", "import:8", "import:9"]) == ["a", "b", ""]


def test_given_up_it_is_free(broker: Broker) -> None:
    broker.lock([lock("a")])
    assert broker.unlock([lock("b"), lock("a"), lock("a")]) == ["a", "", ""]
    assert broker.locked(["import:7"]) == [""]
    assert broker.lock([lock("b")]) == [""]


def test_the_last_has_it_who_replaces(broker: Broker) -> None:
    assert broker.lock([lock("a", Take.REPLACE), lock("b", Take.REPLACE)]) == ["", ""]
    assert broker.unlock([lock("a", Take.REPLACE)]) == ["b"]
    assert broker.unlock([lock("b", Take.REPLACE)]) == [""]
    # It is free, and those that were replaced still learn of it.
    assert broker.locked(["import:7"]) == [""]
    assert broker.unlock([lock("a", Take.REPLACE), lock("b", Take.REPLACE)]) == ["b", ""]
    assert broker.lock([lock("c")]) == [""]


def test_kept_only_when_it_is_ours(broker: Broker) -> None:
    assert broker.lock([lock("a", Take.KEEP)]) == ["-"]
    broker.lock([lock("a", Take.REPLACE)])
    assert broker.lock([lock("a", Take.KEEP), lock("b", Take.KEEP)]) == ["", "a"]
    broker.unlock([lock("a", Take.REPLACE)])
    assert broker.lock([lock("a", Take.KEEP)]) == ["-"]
    assert broker.locked(["import:7"]) == [""]


def test_many_at_once(broker: Broker, threads: ThreadPoolExecutor) -> None:
    answers = threads.map(lambda n: broker.lock([lock(str(n))]), range(400))
    assert [answer for [answer] in answers].count("") == 1


def test_it_goes_by_itself() -> None:
    now = [1_700_000_000.0]
    broker = MemoryBroker(lambda: now[0])
    broker.lock([lock("a")])
    now[0] += 61
    assert broker.lock([lock("b")]) == [""]
