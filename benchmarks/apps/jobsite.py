"""This program: the tasks are in ``benchmarks.tasks``, where the app's discovery finds them."""

import os
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

import django
import redis
from django.conf import settings
from django.db import transaction
from django.test.utils import override_settings

django.setup()

from benchmarks.tasks import (  # noqa: E402 - needs the settings
    echo,
    length,
    limited,
    nap,
    noop,
    noop_in_turns,
    stamp,
)
from jobs import broker, chain, chord, group, message  # noqa: E402 - likewise
from jobs.broker.base import Outgoing  # noqa: E402 - likewise
from jobs.exceptions import BrokerUnavailable  # noqa: E402 - likewise

#: Messages that wait while claims are measured, claims of each size, and the sizes.
WAITING, CLAIMS, SIZES = 100_000, 300, (1, 100)
#: How many are sent before the way of sending changes, and how many more that don't count.
BLOCK, WARM_UP = 100, 10


def prepare() -> None:
    """Make the tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def send_singly(numbers: Sequence[int]) -> None:
    for number in numbers:
        noop.delay(number)


def send_in_transactions(count: int) -> None:
    """Each in one of its own."""
    for number in range(count):
        with transaction.atomic():
            noop.delay(number)


def send_bulk(numbers: Sequence[int]) -> None:
    noop.enqueue_many([(number,) for number in numbers])


def send_in_turns(numbers: Sequence[int], tenants: int) -> None:
    noop_in_turns.enqueue_many(
        [(number, number % tenants if tenants else None) for number in numbers]
    )


def claims(tenants: Sequence[int]) -> dict[str, float]:
    """What the server needs for claims of each size while so many tenants wait, on a queue each:
    the median, in µs. The queues are asked in turn, so that the machine's moods fall on all."""
    raw = message.encode(noop_in_turns.message((0, 0), {}, fair="tenant"))
    nobody = message.encode(noop_in_turns.message((0, 0), {}, fair=""))
    for count in tenants:
        names = (b'"%d"' % (n % count) for n in range(WAITING if count else 0))
        named = [raw.replace(b'"tenant"', name) for name in names]
        broker.get().push(Outgoing(f"bench-{count}", one) for one in named or [nobody] * WAITING)
    server = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    first = dict.fromkeys(tenants, 1)
    found = {}
    for size in SIZES:
        spent: dict[int, list[int]] = {count: [] for count in tenants}
        for _ in range(CLAIMS):
            for count in tenants:
                claim = broker.get().claim(f"bench-{count}", "bench", first[count], size, 60.0)
                first[count] += len(claim.messages)
                scripts = server.info("commandstats")["cmdstat_evalsha"]
                spent[count].append(scripts["usec"])
                server.config_resetstat()
        found |= {f"{size}_{count}": statistics.median(spent[count]) for count in tenants}
    return found


def overtaken() -> int:
    """With one tenant's messages waiting, another sends one."""
    for start in range(0, WAITING, 1000):
        noop_in_turns.enqueue_many([(number, 1) for number in range(start, start + 1000)])
    broker.get().claim("bench", "bench", 1, 1000, 60.0)
    noop_in_turns.delay(0, 2)
    for claim in range(1, WAITING):
        ((_, raw),) = broker.get().claim("bench", "bench", 1000 + claim, 1, 60.0).messages
        if b'jobs_fair":"2"' in raw:
            return claim
    raise RuntimeError("The other tenant had no turn.")


def replicated(count: int) -> dict[str, float]:
    """Send in turn without and with waiting for a replica; the time of a `delay()`, in µs."""
    ways = {"plain": 0, "waited": 1}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(0, count, BLOCK):
        for way, replicas in ways.items():
            with override_settings(JOBS={**settings.JOBS, "BROKER_WAIT_REPLICAS": replicas}):
                for number in range(-WARM_UP, BLOCK):
                    started = time.perf_counter()
                    noop.delay(number)
                    if number >= 0:
                        spent[way].append((time.perf_counter() - started) * 1e6)
    found = {}
    for way, times in spent.items():
        hundredths = statistics.quantiles(times, n=100)
        found |= {way: hundredths[49], f"{way}_p99": hundredths[98]}
    return found


def send_limited(count: int) -> None:
    limited.enqueue_many([(number,) for number in range(count)])


def send_stamp(at: int, delay: float | None, queue: str | None = None) -> None:
    stamp.apply_async((at,), countdown=delay, queue=queue)


def send_on(queues: Sequence[str], pause: float, log: str, until: str) -> None:
    """Send ``stamp`` on each of these queues, by a thread each, until the file ``until`` is there.
    A line of ``log``: the place of the queue, and when a send that was accepted began and ended."""

    def send(place: int) -> None:
        while not Path(until).exists():
            began = time.time_ns()
            try:
                stamp.apply_async((began * 10 + place,), queue=queues[place])
            except BrokerUnavailable:
                pass
            else:
                os.write(file, b"%d %d %d\n" % (place, began, time.time_ns()))
            time.sleep(pause)

    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with ThreadPoolExecutor(len(queues)) as pool:
        list(pool.map(send, range(len(queues))))
    os.close(file)


def send_long() -> None:
    nap.delay()


def round_trip(number: int) -> int:
    answer: int = echo.delay(number).get(timeout=10)
    return answer


def send_later(count: int) -> None:
    """Messages that are due when nobody measures any more."""
    noop.enqueue_many([(0,)] * count, countdown=86_400)


def send_due(numbers: Sequence[int], delay: float) -> None:
    """Messages that are due in a moment."""
    noop.enqueue_many([(number,) for number in numbers], countdown=delay)


def compose(what: str, count: int) -> dict[str, float]:
    """The end is when the ledger holds all of it. ``memory``: how many bytes the process has grown
    by at most while it sent."""
    from jobs.models import TaskResult

    # The first sending of a process imports and connects, which no size changes.
    (chord([noop.s(0)], length.s()) if what == "chord" else chain(noop.si(0), noop.si(0))).delay()
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    if what == "chain":
        calls = chain(*(noop.si(number) for number in range(count)))
    else:
        calls = group(noop.s(number) for number in range(count))
    sent = (calls | length.s() if what == "chord" else calls).apply_async()
    sent_in = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    if what == "group":
        rows, wanted = TaskResult.objects.filter(group_id=sent.id, state="SUCCESS"), count
    else:
        rows, wanted = TaskResult.objects.filter(id=sent.id, state="SUCCESS"), 1
    while rows.count() < wanted:
        # To count the members of a large group takes a while itself.
        time.sleep(max(0.01, count / 100_000) if what == "group" else 0.01)
    return {
        "sent": sent_in,
        "ended": time.perf_counter() - started,
        "sent_cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": (after.ru_maxrss - before.ru_maxrss) * 1024,
    }
