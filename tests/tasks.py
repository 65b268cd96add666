"""Tasks that the tests send. Those with a `Gate` run for as long as the test wants them to."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connection

from jobs import Request, Task, shared_task, task
from jobs.control import control_command
from jobs.exceptions import Reject, Retry, SoftTimeLimitExceeded
from tests import django_tasks, for_celery  # noqa: F401  workers are to know them as well
from tests.models import Author, Run

#: Longest stay, in seconds, before a gate that nobody opens.
PATIENCE = 100.0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class TwoArguments(Exception):
    """Can't be made from its `args`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def echo(value: Any) -> Any:
    return value


@shared_task
def trace(label: str) -> None:
    """Leave a row."""
    Run.objects.create(label=label)


@task(fair_by="tenant")
def trace_for(label: str, tenant: str | None = None) -> None:
    """Leave a row, in turns with other tenants."""
    Run.objects.create(label=label)


@task(ignore_result=True)
def quiet_trace(label: str) -> str:
    Run.objects.create(label=label)
    return "nobody sees this"


@task(durable=False)
def light_trace(label: str) -> None:
    Run.objects.create(label=label)


@task
def fail(text: str) -> None:
    raise ValueError(text)


@task(autoretry_for=(ValueError,), default_retry_delay=3900)
def fail_hourly(text: str) -> None:
    raise ValueError(text)


@task
def fail_with(kind: str) -> None:
    """Raise what is hard to record."""
    if kind == "unprintable":
        raise Unprintable
    if kind == "two arguments":
        raise TwoArguments(7, "seven")
    if kind == "local":

        class LocalError(Exception):
            pass

        raise LocalError("made in a function")
    if kind == "cause":
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    raise AssertionError(kind)


@task
def leave() -> None:
    sys.exit(3)


@task
def return_object() -> object:
    return object()


@task
def return_text(length: int) -> str:
    return "x" * length


@task
def kill_child(path: str) -> str:
    """End the child process the hard way, the first time only."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "alive"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


@task(bind=True)
def who(self: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "retries": request.retries,
        "queue": request.queue,
        "worker": request.worker,
        "headers": dict(request.headers),
        "args": list(request.args),
        "kwargs": dict(request.kwargs),
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "redelivered": request.redelivered,
    }


@task
def send_who() -> str:
    """The id of a task sent by this one."""
    return who.delay().id


@task
def where() -> tuple[int, str]:
    """Process, and "main" or the name of another thread."""
    thread = threading.current_thread()
    return os.getpid(), "main" if thread is threading.main_thread() else thread.name


@task
async def async_where() -> tuple[int, str]:
    await asyncio.sleep(0)
    return os.getpid(), threading.current_thread().name


@task
async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@task
async def async_fail(text: str) -> None:
    raise ValueError(text)


@task
async def async_fail_unprintable() -> None:
    raise Unprintable


@task
async def async_count_authors() -> int:
    return await Author.objects.acount()


@task
def wait_at(gate: str) -> int:
    """Stay until the gate opens; the process that did."""
    _arrive(gate)
    ends = time.monotonic() + PATIENCE
    while not Path(gate, "open").exists() and time.monotonic() < ends:
        time.sleep(0.005)
    return os.getpid()


@task
async def async_wait_at(gate: str) -> int:
    _arrive(gate)
    ends = time.monotonic() + PATIENCE
    while not Path(gate, "open").exists() and time.monotonic() < ends:
        await asyncio.sleep(0.005)
    return os.getpid()


@task
def hold_interpreter(seconds: float) -> float:
    """Keep the interpreter's lock for so long, but for a moment now and then, as a long loop in C
    does; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        sum(itertools.repeat(1, 20_000_000))
    return time.monotonic() - began


@task
def connections_of_database() -> int:
    """How many connections this process's user has to the database (PostgreSQL)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


@task
def greet_author(pk: int) -> None:
    Run.objects.create(label=f"author {pk}")


@task
def index_book(pk: int) -> None:
    Run.objects.create(label=f"book {pk}")


def _arrive(gate: str) -> None:
    Path(gate, f"arrived-{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}").touch()


# ------------------------------------------------------------------- what a process has once


@task
def process_state() -> dict[str, str]:
    """What tasks find of their process."""
    mask = os.umask(0o022)
    os.umask(mask)
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM]
    return {
        "directory": os.getcwd(),  # noqa: PTH109
        "umask": oct(mask),
        "handlers": str([signal.getsignal(signum) for signum in signals]),
        "mask": str(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": str(signal.getitimer(signal.ITIMER_PROF)),
        "alarm": str(signal.getitimer(signal.ITIMER_REAL)),
        "recursion limit": str(sys.getrecursionlimit()),
        "warnings": str(warnings.filters),
        "locale": locale.setlocale(locale.LC_ALL),
        "sockets": str(socket.getdefaulttimeout()),
        "logging": str(logging.root.manager.disable),
        "gc": f"{gc.isenabled()} {gc.get_threshold()}",
        "stdout": str(sys.stdout is sys.__stdout__),
    }


@task
def change_process(what: str) -> None:
    """Change one of them, and leave it so."""
    _CHANGES[what]()


@task
async def async_change_process(what: str) -> None:
    _CHANGES[what]()


def _leave_catching() -> None:
    warnings.catch_warnings(record=True).__enter__()
    warnings.simplefilter("error")


def _alarm() -> None:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.alarm(1000)


_CHANGES: dict[str, Callable[[], object]] = {
    "chdir": lambda: os.chdir("/"),
    "fchdir": lambda: os.fchdir(os.open("/", os.O_RDONLY)),
    "umask": lambda: os.umask(0),
    "SIGTERM": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIGINT": lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    "SIGUSR1": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "SIGCHLD": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "alarm": _alarm,
    "timer": lambda: signal.setitimer(signal.ITIMER_PROF, 1000),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "recursion limit": lambda: sys.setrecursionlimit(99_999),
    "simplefilter": lambda: warnings.simplefilter("error"),
    "filterwarnings": lambda: warnings.filterwarnings("ignore", "mine"),
    "resetwarnings": warnings.resetwarnings,
    "catch_warnings": _leave_catching,
    "locale": lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
    "sockets": lambda: socket.setdefaulttimeout(0.001),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "gc": gc.disable,
    "how often gc": lambda: gc.set_threshold(1, 1, 1),
    "stdout": lambda: setattr(sys, "stdout", io.StringIO()),
}


# ------------------------------------------------------------------- limits, crashes, reloads


@task
def spin(seconds: float) -> str:
    """Be busy in Python."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass
    return "done"


@task
def tidy_up(seconds: float) -> str:
    """Be busy, and use the time between the soft limit and the hard one."""
    # In a call: the jump back of a `while` that stands in the `try` itself is not covered by it, as
    # Python 3.12 and later compile it, and the exception may come just there.
    try:
        return spin(seconds)
    except SoftTimeLimitExceeded:
        return "tidied up"


@task
async def async_nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@task(time_limit=1.5)
def wait_within_limit(gate: str) -> int:
    """`wait_at`, for so long."""
    return wait_at(gate)


@task(time_limit=1.5)
async def async_wait_within_limit(gate: str) -> int:
    """Block the event loop, as nothing in it should."""
    return wait_at(gate)


@task
def poison(antidote: str) -> str:
    """Kill the process as often as it runs, while there is no such file."""
    if Path(antidote).exists():
        return "alive"
    Run.objects.create(label="poison")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


# --------------------------------------------------------------- progress, long work, batches


@task(bind=True)
def tell(self: Task[..., Any], gate: str, times: int = 1) -> str:
    """Report so many times, and stay until the gate opens."""
    for n in range(1, times + 1):
        self.progress(n, times, f"step {n}")
    wait_at(gate)
    return "told"


@task
def tell_state(gate: str) -> str:
    """A state of its own, told by a function that isn't bound."""
    tell_state.update_state(state="PACKING", meta={"box": 3})
    wait_at(gate)
    return "packed"


@task
async def async_tell(gate: str) -> None:
    async_tell.progress(1, 4)
    await async_wait_at(gate)


@task(batch=3, batch_wait=0.05, default_retry_delay=0.01)
def collect(requests: list[Request]) -> Any:
    """Leave a row with what came together; what the first argument of each asks for."""
    Run.objects.create(label=" ".join(str(request.args[0]) for request in requests))
    if any(request.args[0] == "raise" for request in requests):
        raise ValueError("all of them")
    return [_one(request) for request in requests]


def _one(request: Request) -> Any:
    asked = request.args[0]
    if asked == "fail":
        return ValueError("this one")
    if asked == "retry" and not request.retries:
        return Retry(countdown=0)
    if asked == "reject":
        return Reject("no")
    return f"{asked} done"


@task(batch=3, batch_wait=0.0)
def collect_as(requests: list[Request]) -> Any:
    """Return what can't be."""
    shapes = {
        "none": None,
        "number": 7,
        "short": [1] * (len(requests) - 1),
        "mapping": {requests[0].id: "first"},
        "strange": {"unknown": 1},
        "unstorable": [object()] + ["fine"] * (len(requests) - 1),
    }
    return shapes[requests[0].args[0]]


@task(batch=8, batch_wait=10.0)
def collect_poison(requests: list[Request]) -> list[int]:
    """Kill the process when one of the calls asks for it; how many came together."""
    if any(request.args[0] == "poison" for request in requests):
        os.kill(os.getpid(), signal.SIGKILL)
    return [len(requests)] * len(requests)


@task(batch=10, batch_wait=60.0)
def collect_slowly(requests: list[Request]) -> None:
    Run.objects.create(label=f"{len(requests)} together")


@task(bind=True)
def walk(self: Task[..., Any], count: int, gate: str, stay_at: int) -> str:
    """Leave a row for each number, and stay at one of them until the gate opens."""
    for n in self.iterate(range(count)):
        Run.objects.create(label=str(n))
        if n == stay_at:
            wait_at(gate)
    return "there"


@task(bind=True, autoretry_for=(ValueError,), default_retry_delay=0, max_retries=1)
def greet_all(self: Task[..., Any], fail_at: str, attempts: int = 1, size: int = 2) -> int:
    """Leave a row for each author; fail at one of them in the first attempts."""
    for author in self.iterate(Author.objects.order_by("-name"), size=size):
        if author.name == fail_at and self.request.retries < attempts:
            raise ValueError(author.name)
        Run.objects.create(label=author.name)
    return Run.objects.count()


# --------------------------------------------------------------------------- limits, uniqueness


@task(rate_limit="1/h", burst=2)
def hourly(label: str) -> None:
    Run.objects.create(label=label)


@task(rate_limit="1/h", key=lambda customer: customer)
def hourly_each(label: str, customer: int) -> None:
    Run.objects.create(label=label)


@task(rate_limit=100, burst=1)
def hundredth(label: str) -> None:
    Run.objects.create(label=label)


@task(concurrency=1, key=lambda shop: shop)
def one_each(gate: str, shop: str) -> int:
    return wait_at(gate)


@task(concurrency=1, max_retries=1, default_retry_delay=0, autoretry_for=(ValueError,))
def one_at_a_time(text: str = "") -> None:
    """Fails with a text."""
    if text:
        raise ValueError(text)


@task(concurrency=1, rate_limit="1/h")
def both_limits() -> None: ...


@task(concurrency=1, key=lambda number: 1 // number)
def keyed_badly(number: int) -> None: ...


@task(concurrency=1, acks="early")
async def async_one_at_a_time() -> None: ...


@task(unique="until_end", max_retries=1, default_retry_delay=0, autoretry_for=(ValueError,))
def once(label: str, text: str = "", **more: Any) -> None:
    Run.objects.create(label=label)
    if text:
        raise ValueError(text)


@task(unique="until_end", unique_key=lambda gate: gate)
def once_at(gate: str) -> int:
    return wait_at(gate)


@task(unique="until_start", unique_key=lambda pk: pk, on_conflict="replace")
def latest(pk: int, label: str) -> None:
    Run.objects.create(label=label)


@task(unique="until_start", unique_key=lambda: "all", on_conflict="raise")
def alone(label: str) -> None:
    """Sends itself once more, which it may: it has started."""
    Run.objects.create(label=label)
    if label == "first":
        alone.delay("second")


@task(unique="until_start", rate_limit="1/h")
def once_an_hour(label: str) -> None:
    Run.objects.create(label=label)


@task(throttle=3600)
def throttled(label: str) -> None:
    Run.objects.create(label=label)


@task(debounce=0.2, unique_key=lambda pk: pk)
def debounced(pk: int, label: str) -> None:
    Run.objects.create(label=label)


@control_command
def own_command_of_tests(state: Any, number: int = 3) -> dict[str, str]:
    return {"ok": f"{state.hostname} {number}"}
