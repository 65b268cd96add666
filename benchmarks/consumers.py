"""``python -m benchmarks.consumers COUNT``: workers of one child each, as far as the broker knows.

Hundreds of real workers don't fit on one machine. Here each is a thread that waits at the bell,
claims one message at a time and acknowledges it, and a supervisor's turn at each renewal of the
leases: what it sends to the broker is what a real one sends. No task is run.
"""

import functools
import json
import sys
import threading
import time

from benchmarks.apps import jobsite  # noqa: F401 - sets Django up
from jobs import broker, conf
from jobs.message import decode
from jobs.worker.supervisor import upkeep

QUEUE = "bench"
#: As long as the report of a worker of one child.
REPORT = {"text": "x" * 700}


def consume(name: str) -> None:
    """Claim and acknowledge, for ever."""
    own, number, settings = broker.get(), 1, conf.get()
    while True:
        claim = own.wait_and_claim(
            QUEUE, name, number, 1, settings.lease_seconds, settings.poll_seconds
        )
        if claim.messages:
            numbers = [taken for taken, _ in claim.messages]
            ended = [decode(raw, QUEUE).id for _, raw in claim.messages]
            own.ack(QUEUE, name, numbers, ended)
        number = claim.resume or number + len(claim.messages)


def supervise(worker: str, consumer: str) -> None:
    """Do what a supervisor does when it renews its child's lease."""
    broker.get().renew(QUEUE, [consumer], conf.get().lease_seconds)
    upkeep.reclaim_expired([QUEUE], alive=[consumer])
    upkeep.note_lost([QUEUE])
    broker.get().report(QUEUE, worker, json.dumps({"consumers": [consumer], **REPORT}).encode())


def main() -> None:
    """Run so many workers until this process is killed."""
    workers = {f"simulated/{n}": f"simulated/{n}/1" for n in range(int(sys.argv[1]))}
    for consumer in workers.values():
        work = functools.partial(consume, consumer)
        threading.Thread(target=work, daemon=True).start()
    every = conf.get().lease_seconds / 3 / len(workers)
    due = time.monotonic()
    while True:
        for worker, consumer in workers.items():
            supervise(worker, consumer)
            due += every
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
