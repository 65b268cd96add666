"""Procrastinate: messages and results are rows of PostgreSQL. Its tasks are coroutines."""

import datetime as dt
import os
from collections.abc import Iterable

from procrastinate import App, PsycopgConnector

from benchmarks import work

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))


@app.task(name="noop", queue="bench")
async def noop(number: int) -> None:
    work.noop(number)


@app.task(name="echo", queue="bench")
async def echo(number: int) -> int:
    return work.echo(number)


@app.task(name="stamp", queue="bench")
async def stamp(at: int) -> None:
    work.stamp(at)


def prepare() -> None:
    with app.open():
        app.schema_manager.apply_schema()


_opened = False


def _open() -> None:
    """Open the app's synchronous connections once, and keep them."""
    global _opened
    if not _opened:
        app.open()
        _opened = True


def send_singly(numbers: Iterable[int]) -> None:
    _open()
    for number in numbers:
        noop.defer(number=number)


def send_bulk(numbers: Iterable[int]) -> None:
    _open()
    noop.batch_defer(*({"number": number} for number in numbers))


def send_stamp(at: int, delay: float | None) -> None:
    _open()
    if delay is None:
        stamp.defer(at=at)
    else:
        due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay)
        stamp.configure(schedule_at=due).defer(at=at)


def round_trip(number: int) -> int:
    raise NotImplementedError("Procrastinate keeps no return values.")
