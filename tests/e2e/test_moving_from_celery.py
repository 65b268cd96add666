"""A project moves from Celery, one process at a time, and back again, as
docs/coming-from-celery.md says: *One process at a time*.

Its old code is `tests/celery_side/site.py`, on the real Celery. Calls are sent all the while, and
each of them must be run once.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, broker, chain, chord, conf
from jobs.models import TaskResult
from jobs.states import TERMINAL
from tests.for_celery import write, write_at_last
from tests.project import Project
from tests.services import missing, wait_for
from tests.starter import ROOT
from tests.workers import ready_worker, settled

pytestmark = pytest.mark.django_db(transaction=True)

#: Celery's interpreter, which `make` installs beside ours.
PYTHON = Path(os.environ.get("CELERY_PYTHON") or Path(sys.prefix) / "celery" / "bin" / "python")

_numbers = itertools.count()

BOTH = ("orders", "mail")
QUEUES: dict[str, dict[str, bool]] = {"high": {}, "default": {}, "low": {}}
NEW_CODE = {
    "QUEUES": {**QUEUES, "orders": {"open": True}, "mail": {"open": True}},
    "RECOVER": False,
}
#: While Celery's workers still serve the other queue.
HALF_MOVED = {
    "QUEUES": {**QUEUES, "orders": {"foreign_workers": True}, "mail": {"open": True}},
    "RECOVER": False,
}


class Old(subprocess.Popen[str]):
    """A process of the old code."""

    def __init__(self, project: Project, role: str, *args: str) -> None:
        if not PYTHON.exists():
            missing("Celery's own environment is not installed (`make` installs it)")
        script = ROOT / "tests" / "celery_side" / "site.py"
        self._log = project.folder / f"old-{role}-{next(_numbers)}.log"
        with self._log.open("w") as log:
            super().__init__(
                [PYTHON, script, role, project.redis_url, *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if role == "web" else log,
                stderr=log,
                text=True,
                cwd=project.folder,
                env={"PATH": os.environ["PATH"]},
            )

    def wait_until_ready(self) -> None:
        wait_for(lambda: " ready." in self._log.read_text(), what="Celery's worker to be ready")

    def end(self) -> str:
        """Stop it as a service manager or, a web process, by the end of its input; what it said."""
        if self.args[2] == "worker":  # type: ignore[index]
            self.send_signal(signal.SIGTERM)
        said, _ = self.communicate(timeout=200)
        assert self.returncode == 0, self._log.read_text()
        return said or ""


class Site:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._old: list[Old] = []
        self.file = str(project.folder / "runs")
        Path(self.file).touch()
        #: The labels of all calls that were sent.
        self.sent: list[str] = []

    def runs(self) -> Counter[str]:
        return Counter(Path(self.file).read_text().splitlines())

    def wait_for_runs(self, queue: str, where: str, count: int = 10) -> None:
        """Until so many further calls of a queue have run in workers of one kind."""

        def found() -> int:
            return sum(one.startswith(queue) and one.endswith(where) for one in self.runs())

        before = found()
        wait_for(lambda: found() >= before + count, what=f"runs of {queue} {where}")

    def old_worker(self, *queues: str) -> Old:
        self._old.append(started := Old(self._project, "worker", *queues))
        started.wait_until_ready()
        return started

    def new_worker(self, *queues: str, jobs: dict[str, Any] = NEW_CODE) -> Any:
        arguments = ("--processes", "1", "--queues", ",".join(queues))
        return ready_worker(self._project, *arguments, jobs=jobs)

    def old_web(self, name: str) -> Old:
        self._old.append(started := Old(self._project, "web", self.file, name))
        return started

    def end_old_web(self, web: Old) -> None:
        """It has all its results when it ends."""
        self.sent += json.loads(web.end())

    def send(self, name: str) -> list[AsyncResult[Any]]:
        """What the web process with the new code sends."""

        def label(queue: str) -> str:
            self.sent.append(f"{queue}/{name}-{len(self.sent)}")
            return self.sent[-1]

        results: list[AsyncResult[Any]] = []
        for queue in BOTH:
            results.append(write.si(self.file, label(queue)).set(queue=queue).delay())
            with transaction.atomic():
                for task in (write, write_at_last):
                    results.append(task.si(self.file, label(queue)).set(queue=queue).delay())
            later = write.si(self.file, label(queue)).set(queue=queue, countdown=0.5)
            results.append(later.delay())
        calls = [write.si(self.file, label(queue)).set(queue=queue) for queue in BOTH]
        results.append(chain(*calls).delay())
        calls = [write.si(self.file, label(queue)).set(queue=queue) for queue in (*BOTH, "mail")]
        results.append(chord(calls[:2], calls[2]).delay())
        return results

    def close(self) -> None:
        for process in self._old:
            process.kill()
            process.communicate()


@pytest.fixture
def site(project: Project, settings: Settings) -> Iterator[Site]:
    settings.JOBS = {**settings.JOBS, **NEW_CODE}
    made = Site(project)
    try:
        yield made
    finally:
        made.close()


def held_by_celery() -> int:
    """Messages that Celery's workers have taken and not finished."""
    with redis.Redis.from_url(conf.get().broker_url) as client:
        return int(client.hlen("unacked"))


@pytest.mark.timeout(600)
def test_there_and_back_without_losing_a_call(site: Site) -> None:
    worker = site.old_worker(*BOTH)
    web = site.old_web("before")
    site.wait_for_runs("orders", "celery")

    # Workers, a queue at a time.
    worker.end()
    new_mail = site.new_worker("mail", jobs=HALF_MOVED)
    worker = site.old_worker("orders")
    site.wait_for_runs("mail", "here")
    site.wait_for_runs("orders", "celery")
    worker.end()
    assert held_by_celery() == 0
    assert new_mail.stop() == 0
    new_mail = site.new_worker("mail")
    new_orders = site.new_worker("orders")
    site.wait_for_runs("orders", "here")

    # Then the web processes.
    results = site.send("new")
    site.end_old_web(web)
    results += site.send("alone")
    for result in results:
        result.get(timeout=60)

    # Back: the web processes, and when the calls of the new code have ended, the workers.
    web = site.old_web("after")
    for result in site.send("last"):
        result.get(timeout=60)
    assert not TaskResult.objects.exclude(state__in=TERMINAL).exists()
    for queue, new in (("orders", new_orders), ("mail", new_mail)):
        wait_for(lambda: broker.get().stats(queue).due > 0, what="a countdown")  # noqa: B023
        assert new.stop() == 0
        call_command("jobs_hand_over", queue)
        worker = site.old_worker(queue)
        site.wait_for_runs(queue, "celery")
    site.end_old_web(web)

    for queue in BOTH:
        settled(queue)
        assert broker.get().stats(queue).due == 0
    runs = Counter(line.split()[0] for line in site.runs().elements())
    assert runs == Counter(site.sent)
