"""What a measure needs to know of a system: how to start it, and when it has nothing left to do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ..bench import Bench, Workers, agent, interpreter, start_workers, wait_until

READY_SECONDS = 30


def count_keys(bench: Bench, pattern: str) -> int:
    """Return how many keys of the Redis server match."""
    return sum(1 for _ in bench.valkey.client.scan_iter(pattern, count=10_000))


@dataclass
class System(ABC):
    """One system in one configuration. ``results`` says where it keeps results ("": nowhere)."""

    name: str
    #: Module with its tasks, imported by the agents and the workers only.
    app: str
    #: Distribution whose version stands in the report.
    package: str
    results: str = ""
    #: A backlog that lasts some seconds on a machine of two cores.
    backlog: int = 10_000
    peer: bool = True
    #: Whether its workers alone can start a task after a delay.
    countdowns: bool = True
    #: Whether the sender of a task can wait for what it returns, where results are kept.
    answers: bool = True
    #: Name of the Python environment of its own, if it can't share one redis-py with the others.
    apart: str = ""
    #: Whether it is measured on a Cluster of three servers, not on one server.
    cluster: bool = False

    @abstractmethod
    def commands(self, processes: int) -> list[list[str]]:
        """Return the commands (after ``python``) that start ``processes`` worker processes."""

    @abstractmethod
    def waiting(self, bench: Bench) -> int:
        """Return how many messages wait or are in flight, as far as Redis tells."""

    def environment(self, bench: Bench) -> dict[str, str]:
        """Return the environment variables by which the app learns its configuration."""
        return {"BENCH_RESULTS": self.results, "BENCH_DATABASE_URL": self.database_url(bench)}

    def database_url(self, bench: Bench) -> str:
        """Return the URL of its own database."""
        if self.results == "postgres":
            assert bench.postgres is not None
            return bench.postgres.uri.replace("/postgres?", f"/{self._database}?", 1)
        return f"sqlite:///{bench.folder / self._database}.sqlite3"

    @property
    def _database(self) -> str:
        return "bench_" + self.name.replace("-", "_")

    def recorded(self, bench: Bench) -> int | None:
        """Return how many results its database holds; None when it keeps none there."""
        return None

    def kept(self, bench: Bench) -> int | None:
        """Return for how many calls an end is kept, wherever; None when it keeps none.

        Asked once, after the work: it may take a while.
        """
        return self.recorded(bench)

    def prepare(self, bench: Bench) -> None:
        """Start from nothing: an empty Redis, no stamps, and a fresh database if it uses one."""
        bench.reset()
        if self.results == "postgres":
            assert bench.postgres is not None
            bench.postgres.fresh(self._database)
        for leftover in Path(bench.folder).glob(f"{self._database}.sqlite3*"):
            leftover.unlink()
        self.act(bench, "prepare")

    def act(self, bench: Bench, action: str, stride: int = 0, **options: object) -> object:
        """Run an action of the agent with this system."""
        env = {**self.environment(bench), "BENCH_STRIDE": str(stride)}
        return agent(bench, interpreter(self.apart), self.app, action, env, **options)

    def start(self, bench: Bench, processes: int = 2, stride: int = 0) -> Workers:
        """Start the workers; they may need a while before they take messages."""
        own = {"BENCH_STRIDE": str(stride), "BENCH_PROCESSES": str(processes)}
        env = {**self.environment(bench), **own}
        return start_workers(bench, interpreter(self.apart), self.commands(processes), env)

    def greet(self, bench: Bench, workers: Workers) -> None:
        """Return when the workers run tasks: a few are sent until their stamps are seen."""
        for count in (1, 20):
            bench.stamps.write_bytes(b"")
            self.act(bench, "stamps", count=count)
            wait_until(
                lambda wanted=count: bench.stamps.read_bytes().count(b"\n") >= wanted,
                f"the workers of {self.name} to start",
                READY_SECONDS,
                workers,
            )
        bench.stamps.write_bytes(b"")
