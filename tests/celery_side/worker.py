"""A worker of the real Celery, which has tasks of its own and nothing of this project.

`python worker.py REDIS_URL VISIBILITY_TIMEOUT` works the queue `theirs`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery

URL, VISIBILITY_TIMEOUT = sys.argv[1], float(sys.argv[2])

app = Celery("theirs", broker=URL, backend=URL, set_as_current=True)
app.conf.task_default_queue = "theirs"
app.conf.task_track_started = True
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"visibility_timeout": VISIBILITY_TIMEOUT}


@app.task(name="theirs.add")
def add(x: float, y: float) -> float:
    return x + y


@app.task(name="theirs.same")
def same(value: Any) -> Any:
    return value


@app.task(name="theirs.total")
def total(numbers: list[float]) -> float:
    return sum(numbers)


class OwnError(Exception):
    """One that no other program knows."""


@app.task(name="theirs.fail")
def fail(text: str, own: bool = False) -> None:
    raise OwnError(text) if own else ValueError(text)


@app.task(name="theirs.quiet", ignore_result=True)
def quiet(x: float) -> float:
    return x


@app.task(name="theirs.flaky", bind=True, max_retries=5)
def flaky(self: Any, fails: int) -> int:
    if self.request.retries < fails:
        raise self.retry(exc=KeyError(self.request.retries), countdown=0)
    return int(self.request.retries)


@app.task(name="theirs.replaced", bind=True)
def replaced(self: Any, x: float) -> float:
    raise self.replace(add.s(x, 1) | add.s(1))


@app.task(name="theirs.note")
def note(file: str, text: str) -> str:
    """Write a line, which tells how often the call was run."""
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")
    return text


@app.task(name="theirs.wait", acks_late=True)
def wait(folder: str) -> str:
    """Say that it has begun, and return when the gate is opened."""
    gate = Path(folder)
    (gate / f"arrived-{time.time_ns()}").touch()
    ends = time.monotonic() + 120
    while not (gate / "open").exists():
        if time.monotonic() > ends:
            raise TimeoutError(folder)
        time.sleep(0.01)
    return "through"


if __name__ == "__main__":
    arguments = ["worker", "-Q", "theirs", "-c", "2", "-l", "info", "-n", "theirs@here"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(arguments)
