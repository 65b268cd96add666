"""kill -9 in the middle of a chord: every member counts once, and there is one body."""

from __future__ import annotations

from jobs import broker, chord
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from tests.celery_client import celery_call, celery_message
from tests.project import Project
from tests.services import wait_for
from tests.tasks import echo, trace
from tests.workers import kill_one_child, put, ready_worker, settled

MEMBERS = 800


def test_children_are_killed_in_the_middle_of_a_chord(project: Project) -> None:
    worker = ready_worker(project, "--processes", "2")
    inner = chord([echo.s(n) for n in range(MEMBERS)], echo.s())
    result = chord([inner, echo.s("beside")], echo.s() | trace.si("after")).delay()
    members = TaskResult.objects.filter(task=echo.name)
    for share in (50, 300, 550):
        wait_for(lambda share=share: members.count() >= share, what=f"{share} members")
        kill_one_child(worker)
    assert result.get(timeout=60) is None
    settled()
    assert result.parent.get(timeout=0) == [list(range(MEMBERS)), "beside"]
    # The members of both, and one body each; what follows the outer one's.
    assert members.filter(state=State.SUCCESS).count() == MEMBERS + 1 + 2
    assert TaskResult.objects.filter(task=trace.name).count() == 1
    assert TaskGroup.objects.count() == 0
    wait_for(lambda: worker.output().count("killed by SIGKILL") == 3, what="all of them")
    assert worker.stop() == 0


def test_children_are_killed_in_the_middle_of_a_celery_clients_chord(project: Project) -> None:
    """Its size is known only just before the last member is sent."""
    queues = {"high": {}, "default": {"open": True}, "low": {}}
    worker = ready_worker(project, "--processes", "2", jobs={"QUEUES": queues})
    members = TaskResult.objects.filter(group_id="G")

    def send(index: int) -> None:
        fields = {"group": "G", "group_index": index, "embed": {"chord": body}}
        put(celery_message(f"m{index}", echo.name, [index], **fields))

    body = celery_call(echo.name, "b")
    for index in range(MEMBERS - 1):
        send(index)
        if index in (200, 500):
            wait_for(lambda: members.count() >= 50, what="some members")
            kill_one_child(worker)
    broker.by_shard()._redis.call("SET", "celery-taskset-meta-G.s", MEMBERS)  # type: ignore[attr-defined]
    send(MEMBERS - 1)
    wait_for(lambda: TaskResult.objects.filter(id="b").exists(), what="the body")
    settled()
    assert members.filter(state=State.SUCCESS).count() == MEMBERS
    assert TaskResult.objects.get(id="b").result == str(list(range(MEMBERS))).replace(" ", "")
    assert TaskGroup.objects.count() == 0
    wait_for(lambda: worker.output().count("killed by SIGKILL") == 2, what="both")
    assert worker.stop() == 0
