"""The tasks that are measured."""

import os
import time

from benchmarks import work
from jobs import task

WITHOUT_RESULTS = not os.environ.get("BENCH_RESULTS")


@task(name="noop", queue="bench", ignore_result=WITHOUT_RESULTS)
def noop(number: int) -> None:
    work.noop(number)


@task(
    name="noop in turns",
    queue="bench",
    ignore_result=WITHOUT_RESULTS,
    fair_by=lambda tenant: tenant,
)
def noop_in_turns(number: int, tenant: int | None) -> None:
    work.noop(number)


@task(name="limited", queue="bench", ignore_result=WITHOUT_RESULTS, rate_limit="100/s")
def limited(number: int) -> None:
    work.stamp(number)


@task(name="echo", queue="bench", ignore_result=WITHOUT_RESULTS)
def echo(number: int) -> int:
    return work.echo(number)


@task(name="stamp", queue="bench", ignore_result=WITHOUT_RESULTS)
def stamp(at: int) -> None:
    work.stamp(at)


@task(name="nap", queue="bench", ignore_result=WITHOUT_RESULTS)
def nap() -> None:
    time.sleep(1)


@task(name="length", queue="bench", ignore_result=WITHOUT_RESULTS)
def length(results: list[object]) -> int:
    return len(results)


@task(name="kept", queue="bench")
def kept(number: int) -> None:
    """As ``noop``, and its result is always recorded."""
