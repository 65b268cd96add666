"""`manage.py runworker`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs import broker, conf
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from jobs.management import processes
from jobs.worker import inline
from jobs.worker.child import ORDERS, Options, default_name, split
from jobs.worker.machine import cores
from jobs.worker.supervisor.starting import Starter
from jobs.worker.supervisor.supervisor import Supervisor


class Command(BaseCommand):
    help = (
        "Run tasks. SIGTERM or Ctrl-C: finish what is running, give back the rest, end; "
        "a second time: end now, and what was running goes back to its queue. SIGHUP: run new "
        "code, once it has been shown to import. SIGQUIT: print what every thread is doing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "-Q",
            "--queues",
            default="",
            help="Names separated by commas, the most important "
            "first; with weights, such as high:6,default:3,low:1, each gets its share. "
            "Default: all that JOBS['QUEUES'] declares, in its order.",
        )
        add(
            "--queue-order",
            choices=ORDERS,
            default="",
            help="strict: the second queue is looked at when the first is empty. weighted: each "
            "gets the share that its weight gives it, and 1 where none is written. round-robin: "
            "each gets the same. Default: weighted if a weight is given, else strict.",
        )
        add(
            "--processes",
            type=int,
            default=cores(),
            metavar="N",
            help="Child processes. Default: the number of cores that this process may use, "
            "%(default)s.",
        )
        add(
            "--threads",
            type=int,
            default=0,
            metavar="M",
            help="Threads for ordinary tasks in "
            "each child. Default: one task at a time, in the main thread.",
        )
        add(
            "--concurrency",
            type=int,
            default=100,
            metavar="K",
            help="'async def' tasks at once in each child. Default: %(default)s.",
        )
        add(
            "--time-limit",
            type=float,
            metavar="S",
            help="Kill the process of a task after S seconds, for tasks that have no limit of "
            "their own.",
        )
        add(
            "--soft-time-limit",
            type=float,
            metavar="S",
            help="Raise SoftTimeLimitExceeded in a task after S seconds, likewise.",
        )
        add(
            "--max-memory-per-child",
            type=int,
            metavar="KB",
            help="Replace a child that has more kilobytes than this in memory after a task. "
            "Default: JOBS['MAX_MEMORY_PER_CHILD'].",
        )
        add("-n", "--name", default="", help="Default: made of host and process.")
        add(
            "--health-file",
            default="",
            metavar="PATH",
            help="A file touched every third of JOBS['LEASE_SECONDS'] while all is well, for "
            "probes that look at its age; removed at the end.",
        )
        add("--burst", action="store_true", help="End when the queues are empty.")
        add("--reload", action="store_true", help="Restart the children when code changes.")

    def handle(self, **asked: Any) -> None:

        def say(text: str) -> None:
            if asked["verbosity"] > 0:
                processes.say(self.stdout, text)

        called = not getattr(self, "_called_from_command_line", False)
        if called and processes.on_test_database():
            self._in_a_test(asked)
            return
        processes.refuse_memory()
        # First: the fork server is to be a copy of a process that has opened nothing.
        starter = Starter(conf.get().preload)
        most_memory = asked["max_memory_per_child"]
        try:
            broker.get()
            queues, weights = split(asked["queues"], asked["queue_order"])
            chosen = Options(
                queues=queues,
                weights=weights,
                name=asked["name"] or default_name(),
                processes=asked["processes"],
                threads=asked["threads"],
                concurrency=asked["concurrency"],
                time_limit=asked["time_limit"],
                soft_time_limit=asked["soft_time_limit"],
                max_memory_per_child=(
                    conf.get().max_memory_per_child if most_memory is None else most_memory
                ),
                burst=asked["burst"],
                reload=asked["reload"],
                health_file=asked["health_file"],
                verbose=asked["verbosity"] > 1,
            )
            supervisor = Supervisor(chosen, starter, say)
        except (ConfigurationError, BrokerUnavailable) as error:
            starter.end()
            raise CommandError(str(error)) from error
        sys.exit(supervisor.run())

    def _in_a_test(self, asked: dict[str, Any]) -> None:
        """Work in this thread. Processes would start from the settings, and run the test's calls on
        the database of development."""
        if not asked["burst"]:
            raise CommandError(
                "A test's database is no other process's. Write runworker --burst, which runs what "
                "waits in this thread, or run_jobs() of jobs.testing."
            )
        try:
            queues, _ = split(asked["queues"], asked["queue_order"])
            inline.Inline(queues).run()
        except (ConfigurationError, BrokerUnavailable) as error:
            raise CommandError(str(error)) from error
