"""What one run shares: its servers, its folder, and how to start and end processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from .servers import Cluster, Postgres, Valkey

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 15
AGENT_SECONDS = 300


class BenchmarkError(Exception):
    """Something did not happen in time, or a process ended that should not have."""


@dataclass
class Bench:
    """The servers and the folder of this run, and the wishes from the command line."""

    folder: Path
    valkey: Valkey
    postgres: Postgres | None
    #: For the systems that use it in place of ``valkey``.
    cluster: Cluster | None = None
    scale: float = 1.0
    #: Whether *growth* includes the largest sizes.
    large: bool = False
    #: Words of the subjects of *growth* that are measured; none: all.
    subjects: tuple[str, ...] = ()
    #: Length of this program's messages, for the yardstick; as measured, once it was.
    message_bytes: int = 900

    def on_cluster(self) -> "Bench":
        """Return the same with the Cluster as its server."""
        assert self.cluster is not None
        return replace(self, valkey=self.cluster)

    @property
    def stamps(self) -> Path:
        """The file in which the tasks leave their stamps."""
        return self.folder / "stamps"

    def reset(self) -> None:
        """Empty the Valkey server and forget the stamps, so that each system starts alike."""
        self.valkey.client.flushall()
        self.stamps.unlink(missing_ok=True)

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        """Return the environment of a worker or an agent."""
        own = {
            "BENCH_REDIS_URL": self.valkey.url,
            "BENCH_STAMPS": str(self.stamps),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**os.environ, **own, **extra}


def interpreter(apart: str = "") -> str:
    """Return the path of the Python that runs a system: this one, or one of an environment apart.

    An environment apart is made, beside this program, when it is wanted for the first time.
    """
    if not apart:
        return sys.executable
    folder = ROOT / f".venv-bench-{apart}"
    path, made = folder / "bin" / "python", folder / ".installed"
    if not made.exists():
        print(f"Making the environment {folder.name} …", file=sys.stderr, flush=True)
        wanted = ["-r", str(ROOT / f"requirements-bench-{apart}.txt")]
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        for command in ([sys.executable, "-m", "venv", str(folder)], [str(path), *install]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise BenchmarkError(f"{folder.name} can't be made:\n{done.stdout}{done.stderr}")
        made.touch()
    return str(path)


def agent(
    bench: Bench, python: str, module: str, action: str, env: dict[str, str], **options: Any
) -> Any:
    """Run one action of ``benchmarks.agent`` in a process of its own, and return what it tells.

    Each system is imported only there, so that none of them slows another one down.
    """
    command = [python, "-m", "benchmarks.agent", module, action, json.dumps(options)]
    environment = bench.environment(env)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=AGENT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{action} of {module} took over {AGENT_SECONDS} s.") from error
    if done.returncode:
        raise BenchmarkError(f"{action} of {module} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class Workers:
    """The running worker processes of one system, and what they use."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
        self.roots = processes
        self.log = log

    def family(self) -> list[psutil.Process]:
        """Return every process of the worker: those that were started, and their descendants."""
        found = []
        for root in self.roots:
            try:
                process = psutil.Process(root.pid)
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    def check_alive(self) -> None:
        """Raise with the end of the log when a worker has ended by itself."""
        if any(root.poll() is not None for root in self.roots):
            text = self.log.read_text(errors="replace")[-3000:]
            raise BenchmarkError(f"A worker ended by itself. The end of its log:\n{text}")

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, also that of children which have already ended."""
        return sum(float(sum(times[:4])) for times in self._ask("cpu_times"))

    def pss_bytes(self) -> int:
        """Return the memory in use, where a page shared by n processes counts as an n-th each."""
        return sum(int(info.pss) for info in self._ask("memory_full_info"))

    def largest_rss_bytes(self) -> int:
        """Return the resident memory of the largest process."""
        return max(int(info.rss) for info in self._ask("memory_info"))

    def _ask(self, method: str) -> list[Any]:
        answers = []
        for process in self.family():
            try:
                answers.append(getattr(process, method)())
            except psutil.NoSuchProcess:
                continue
        return answers

    def stop(self) -> None:
        """End all of them: politely first, by force after STOP_SECONDS; children as well."""
        family = self.family()
        for root in self.roots:
            root.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for root in self.roots:
            root.wait()


def start_workers(
    bench: Bench, python: str, commands: list[list[str]], env: dict[str, str]
) -> Workers:
    """Start the worker commands of a system, with their output in a file of the run's folder."""
    log = bench.folder / "worker.log"
    processes = []
    with log.open("wb") as output:
        for command in commands:
            # A session of its own keeps the terminal's Ctrl-C from it: we end it ourselves.
            processes.append(
                subprocess.Popen(
                    [python, *command],
                    cwd=ROOT,
                    env=bench.environment(env),
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
    return Workers(processes, log)


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float, workers: Workers, every: float = 0.02
) -> None:
    """Return when ``condition()`` holds; raise after ``seconds``, or when a worker has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        workers.check_alive()
        if time.monotonic() > deadline:
            text = workers.log.read_text(errors="replace")[-3000:]
            raise BenchmarkError(f"Waited {seconds:g} s for {what}. The worker's log:\n{text}")
        time.sleep(every)
