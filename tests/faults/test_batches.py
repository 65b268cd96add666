"""Batches in real processes: killed, and told to stop while they are gathered."""

from __future__ import annotations

from jobs.models import TaskResult
from jobs.states import State
from tests.models import Run
from tests.project import Project
from tests.services import wait_for
from tests.tasks import add, collect_poison, collect_slowly
from tests.workers import dead_letters, on_redis, ready_worker, settled


def test_of_a_batch_that_kills_its_process_only_the_bad_call_is_given_up(project: Project) -> None:
    calls = [("poison",) if n == 4 else (n,) for n in range(8)]
    results = collect_poison.enqueue_many(calls)
    bad = results.pop(4)
    ready_worker(project, "--processes", "1", jobs={"MAX_CRASHES": 1})
    # Each was blamed once, and then run by itself.
    assert {result.get(timeout=60) for result in results} == {1}
    wait_for(bad.ready, what="the bad one to be given up")
    settled()
    assert bad.state == State.FAILURE
    assert TaskResult.objects.get(id=bad.id).error_type.endswith("WorkerLost")
    assert len(dead_letters()) == 1


def test_what_is_gathered_at_a_stop_goes_back_to_its_queue(project: Project) -> None:
    worker = ready_worker(project, "--processes", "1")
    collect_slowly.enqueue_many([(n,) for n in range(4)])
    wait_for(lambda: on_redis() == (0, 4), what="the calls to be gathered")
    assert add.delay(1, 2).get(timeout=60) == 3, "others don't wait for the batch"
    assert worker.stop() == 0
    assert on_redis() == (4, 0)
    assert not Run.objects.exists()
