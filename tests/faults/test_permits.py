"""What a process held of limits and unique keys when it was killed is free again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import broker, limits
from jobs.broker.limiting import Slot
from jobs.exceptions import LimitReached
from tests.project import ROOT, Project
from tests.services import wait_for
from tests.tasks import once_at, one_each
from tests.workers import Gate, children, ready_worker, settled


def test_a_child_is_killed_that_holds_a_slot_and_a_unique_key(
    project: Project, tmp_path: Path
) -> None:
    worker = ready_worker(project, "--processes", "2")
    slot, lock = Gate(tmp_path / "slot"), Gate(tmp_path / "lock")
    limited, unique = one_each.delay(slot.path, "shop"), once_at.delay(lock.path)
    slot.wait_for()
    lock.wait_for()
    waiting = one_each.delay(slot.path, "shop")
    assert once_at.delay(lock.path) == unique
    for child in children(worker):
        os.kill(child, signal.SIGKILL)
    # Both are run again, in spite of what they themselves held; perhaps one after the other.
    wait_for(lambda: slot.arrived() + lock.arrived() >= 3, what="a call to be run again")
    assert once_at.delay(lock.path) == unique
    slot.open()
    lock.open()
    assert limited.get(timeout=60)
    assert unique.get(timeout=60)
    # Nothing is held any more: the next ones run.
    assert waiting.get(timeout=60)
    settled()  # an end can be read a moment before the lock is given up
    again = once_at.delay(lock.path)
    assert again != unique
    assert again.get(timeout=60)
    settled()
    probe = Slot(limits.name_of(one_each.name, "shop"), 1, "probe")
    assert broker.get().take_slots([probe]) == [0.0]
    assert worker.stop() == 0


HOLD = """
import django; django.setup()
from jobs import limits
with limits.concurrency("imports", 1):
    print("held", flush=True)
    input()
"""


@pytest.mark.one_database
def test_a_process_that_is_no_worker_is_killed(project: Project) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=ROOT,
        env=project.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LimitReached), limits.concurrency("imports", 1):
            pass
    finally:
        holder.kill()
        holder.communicate()
    # Nobody holds on to it any more. That lasts for a minute; here it is over sooner.
    with project.valkey.client() as client:
        ends = client.zrange("{limit:imports}:held", 0, -1, withscores=True)
        assert len(ends) == 1
        assert 0 < client.pttl("{limit:imports}:held") <= 60_000
        client.zadd("{limit:imports}:held", {ends[0][0]: 1})
    with limits.concurrency("imports", 1):
        pass


ATTEMPTS = """
import pathlib, sys, time
import django; django.setup()
from tests.tasks import once_at
name, gate, begin = sys.argv[1:]
print("ready", flush=True)
while not pathlib.Path(begin).exists():
    time.sleep(0.01)
mine = 0
for n in range(1250):
    task_id = f"{name}-{n}"
    mine += once_at.apply_async((gate,), task_id=task_id).id == task_id
print(f"accepted: {mine}")
"""


@pytest.mark.one_database
@pytest.mark.timeout(300)
def test_of_ten_thousand_attempts_by_eight_processes_one_is_accepted(
    project: Project, tmp_path: Path
) -> None:
    gate, begin, script = Gate(tmp_path / "gate"), tmp_path / "begin", tmp_path / "attempts.py"
    script.write_text(ATTEMPTS)
    senders = [project.start(str(script), str(n), gate.path, str(begin)) for n in range(8)]
    for sender in senders:
        sender.wait_for_output("ready")
    begin.touch()
    accepted = [sender.wait_for_output("accepted:", timeout=270).split()[-1] for sender in senders]
    assert sorted(accepted) == ["0"] * 7 + ["1"]
    assert broker.get().stats("default").waiting == 1
