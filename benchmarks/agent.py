"""One action with one system, in a process of its own: ``python -m benchmarks.agent``.

The module of a system (``benchmarks.apps.*``) offers what a user of it would write: its tasks, and

    send_singly(numbers)   one call of ``noop`` for each, as its users send
    send_bulk(numbers)     the same through its way to send many, where it has one (else None)
    send_in_turns(numbers, tenants)  the same, where so many tenants take turns
    send_stamp(at, delay)  one call of ``stamp(at)``, due after ``delay`` seconds (None: now)
    round_trip(number)     send ``echo`` and wait for what it returns

The last line of what is printed is the answer, as JSON.
"""

import importlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 200
BATCH = 1000
#: In how many seconds those messages are due that are to be due by the time they are claimed.
DUE_SECONDS = 1.0
TRIPS_SECONDS = 15
STAMPS_SECONDS = 30
#: Fewest tasks by which a start is measured, however slow; also how many greet new workers.
FEWEST = 20
#: Longest wait for one task to start: workers that are only starting up need some seconds.
GAP_SECONDS = 10
#: These include connecting, and are left out.
FIRST_TRIPS = 10


def prepare(module: Any) -> None:
    """Do once what the system needs before work (the tables of its database)."""
    getattr(module, "prepare", lambda: None)()


def fill(module: Any, count: int, first: int = 0, tenants: int | None = None) -> float:
    """Send ``noop(first)`` and what follows, by the fastest way there is; return the seconds."""
    started = time.perf_counter()
    if tenants is not None:
        for start in range(first, first + count, BATCH):
            module.send_in_turns(range(start, min(start + BATCH, first + count)), tenants)
    elif module.send_bulk is None:
        module.send_singly(range(first, first + count))
    else:
        for start in range(first, first + count, BATCH):
            module.send_bulk(range(start, min(start + BATCH, first + count)))
    return time.perf_counter() - started


def fill_later(module: Any, count: int) -> None:
    """Send calls that are due tomorrow."""
    for start in range(0, count, BATCH):
        module.send_later(min(BATCH, count - start))


def fill_due(module: Any, count: int, first: int = 0) -> None:
    """Send calls that are due as soon as all are sent."""
    for start in range(first, first + count, BATCH):
        module.send_due(range(start, min(start + BATCH, first + count)), DUE_SECONDS)
    time.sleep(DUE_SECONDS)


def send_slowly(module: Any, count: int, rate: float) -> None:
    """Send so many calls of ``noop`` one by one, at this rate (calls a second)."""
    started = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        module.send_singly([number])


def enqueue(module: Any, singles: int, bulk: int) -> dict[str, float | None]:
    """Return how many messages a second one process sends, one by one and in bulk."""
    module.send_singly(range(WARM_UP))
    started = time.perf_counter()
    module.send_singly(range(singles))
    answer: dict[str, float | None] = {"single": singles / (time.perf_counter() - started)}
    answer["bulk"] = None
    if module.send_bulk is not None:
        module.send_bulk(range(WARM_UP))
        answer["bulk"] = bulk / fill(module, bulk)
    return answer


def stamps(module: Any, count: int) -> int:
    """Send ``stamp`` to an idle worker again and again, with gaps of 10 to 30 ms; how often.

    Slow systems get the next one only when the last has left its stamp: no queue builds up. If they
    need longer than STAMPS_SECONDS, they get fewer than ``count``.
    """
    deadline = time.monotonic() + STAMPS_SECONDS
    stamps_file = Path(os.environ["BENCH_STAMPS"])
    before = stamps_file.stat().st_size if stamps_file.exists() else 0
    for number in range(count):
        if time.monotonic() > deadline and number >= FEWEST:
            return number
        module.send_stamp(time.time_ns(), None)
        before = _grown(stamps_file, before)
        time.sleep(random.uniform(0.01, 0.03))  # noqa: S311 - no secret
    return count


def stamps_on(module: Any, queue: str, count: int) -> None:
    """Like `stamps`, with the messages on this queue."""
    stamps_file = Path(os.environ["BENCH_STAMPS"])
    before = stamps_file.stat().st_size if stamps_file.exists() else 0
    for _ in range(count):
        module.send_stamp(time.time_ns(), None, queue=queue)
        before = _grown(stamps_file, before)
        time.sleep(random.uniform(0.01, 0.03))  # noqa: S311 - no secret


def mixture(module: Any, count: int, rate: float, every: int) -> None:
    """Send ``stamp`` at this rate (calls a second), but each ``every``-th time a call that takes a
    second (0: never)."""
    started = time.monotonic()
    for number in range(1, count + 1):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        if every and number % every == 0:
            module.send_long()
        else:
            module.send_stamp(time.time_ns(), None)


def _grown(file: Path, size: int) -> int:
    """Wait until ``file`` is larger than ``size`` (GAP_SECONDS at most); return its size."""
    deadline = time.monotonic() + GAP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.002)
        if file.exists() and (now := file.stat().st_size) > size:
            return now
    return size


def countdowns(module: Any, count: int) -> None:
    """Send ``stamp`` due after 0.5 to 3 s; its mark is the time at which it is due."""
    for _ in range(count):
        delay = random.uniform(0.5, 3)  # noqa: S311 - no secret
        module.send_stamp(time.time_ns() + int(delay * 1e9), delay)


def round_trips(module: Any, count: int) -> list[float]:
    """Return the milliseconds from each send to the result in the hand of the sender.

    Fewer than ``count`` of a system that needs longer than TRIPS_SECONDS for them.
    """
    answers: list[float] = []
    deadline = time.monotonic() + TRIPS_SECONDS
    for number in range(count + FIRST_TRIPS):
        if time.monotonic() > deadline and len(answers) > 2 * FIRST_TRIPS:
            break
        started = time.perf_counter()
        if module.round_trip(number) != number:
            raise RuntimeError(f"The round trip of {number} returned something else.")
        answers.append((time.perf_counter() - started) * 1000)
        time.sleep(random.uniform(0.01, 0.03))  # noqa: S311 - no secret
    return answers[FIRST_TRIPS:]


def limited(module: Any, count: int) -> None:
    """Send calls of a task with a rate limit, each of which leaves a stamp."""
    module.send_limited(count)


def claims(module: Any, tenants: list[int]) -> dict[str, float]:
    """What Redis needs for a claim while so many tenants wait, in µs: "size_tenants" → median."""
    answer: dict[str, float] = module.claims(tenants)
    return answer


def overtaken(module: Any) -> int:
    """How many claims of one message it takes until a tenant has its turn that comes last."""
    answer: int = module.overtaken()
    return answer


def send_in_transactions(module: Any, count: int) -> None:
    """Send calls of ``noop``, each in a transaction of its own."""
    module.send_in_transactions(count)


def replicated(module: Any, count: int) -> dict[str, float]:
    """What a send takes in µs, without and with waiting for a replica."""
    answer: dict[str, float] = module.replicated(count)
    return answer


def send_on(module: Any, queues: list[str], pause: float, log: str, until: str) -> None:
    """Send ``stamp`` on several queues at once until a file is there; write down each send."""
    module.send_on(queues, pause, log, until)


def schedules(module: Any, verb: str, **options: Any) -> float:
    """Do something with the schedules of a beat (``benchmarks.beats``); when it was done."""
    getattr(module, verb)(**options)
    return time.time()


def compose(module: Any, what: str, count: int) -> dict[str, float]:
    """Send a ``group`` or a ``chord`` of so many no-ops; the seconds until it was sent, and until
    all of it had ended."""
    answer: dict[str, float] = module.compose(what, count)
    return answer


ACTIONS = {
    action.__name__: action
    for action in (
        prepare,
        fill,
        fill_later,
        fill_due,
        send_slowly,
        enqueue,
        stamps,
        stamps_on,
        mixture,
        countdowns,
        round_trips,
        limited,
        claims,
        overtaken,
        send_in_transactions,
        replicated,
        send_on,
        schedules,
        compose,
    )
}


def main() -> None:
    """Run the action named on the command line."""
    module, action, options = sys.argv[1:]
    answer = ACTIONS[action](importlib.import_module(module), **json.loads(options))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
