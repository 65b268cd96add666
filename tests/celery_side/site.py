"""A project as it is on Celery: `tests/e2e/test_moving_from_celery.py` moves it, and back.

`python site.py worker REDIS_URL QUEUE …` is its worker. `python site.py web REDIS_URL FILE NAME` is
its web process, which sends calls to both queues until its standard input is closed. Then it waits
for all results, and prints the labels of its calls as JSON. Both have tasks of
`tests/for_celery.py` that write each run to ``FILE``, under the same names.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord

ROLE, URL, *REST = sys.argv[1:]

app = Celery("site", broker=URL, backend=URL, set_as_current=True)
app.conf.task_default_queue = "orders"
app.conf.worker_prefetch_multiplier = 2
app.conf.broker_connection_retry_on_startup = True


@app.task(name="tests.for_celery.write")
def write(file: str, label: str) -> str:
    with Path(file).open("a", encoding="utf-8") as runs:
        runs.write(f"{label} celery\n")
    return label


@app.task(name="tests.for_celery.write_at_last", bind=True)
def write_at_last(self: Any, file: str, label: str) -> str:
    if not self.request.retries:
        raise self.retry(countdown=0.5)
    written: str = write(file, label)
    return written


def web(file: str, name: str) -> None:
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    labels: list[str] = []
    results: list[Any] = []

    def call(task: Any, queue: str, **options: Any) -> Any:
        labels.append(f"{queue}/{name}-{len(labels)}")
        return task.si(file, labels[-1]).set(queue=queue, **options)

    while not stop.wait(0.2):
        for queue in ("orders", "mail"):
            results.append(call(write, queue).delay())
            results.append(call(write, queue, countdown=1).delay())
            results.append(call(write_at_last, queue).delay())
        for queues in (("orders", "mail"), ("mail", "orders")):
            results.append(chain(*(call(write, queue) for queue in queues)).delay())
    # While workers of both kinds take a queue, nobody counts all members of a chord.
    for queue in ("orders", "mail"):
        header = [call(write, queue), call(write, queue)]
        results.append(chord(header, call(write, queue)).delay())
    for result in results:
        result.get(timeout=120)
    sys.stdout.write(json.dumps(labels))


if ROLE == "web":
    web(*REST)
else:
    arguments = ["worker", "-Q", ",".join(REST), "-c", "1", "-P", "solo", "-l", "info"]
    arguments += ["-n", f"{'-'.join(REST)}@here", "--without-gossip", "--without-mingle"]
    app.worker_main(arguments)
