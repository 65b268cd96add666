"""`manage.py jobs_status`."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.utils.translation import gettext as _

from jobs import (
    broker,
    conf,
    control,
    ledger,
)
from jobs.broker.base import SCHEDULES, Keeping, Stats
from jobs.control import Pause, attention, inspecting, metrics
from jobs.control.metrics import Range
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from jobs.ledger import recovery
from jobs.ledger.refusals import told
from jobs.management.operating import JobsCommand, pause_lines, pauses_as_json
from jobs.management.processes import refuse_memory
from jobs.models import Schedule, TaskResult
from jobs.registry import tasks
from jobs.timing import clock

#: Exit statuses.
_PROBLEM, _AWAY = 1, 2

#: Calls that were sent or tried more recently are not looked for on the broker.
_OLD = dt.timedelta(seconds=60)

#: Beat sends a due run within a second. A run that waits longer than this has no beat.
_OVERDUE = dt.timedelta(seconds=30)

#: Seconds that a committed message may stay unpublished where a worker or beat runs.
_LONG = 60.0


class Command(JobsCommand):
    help = """\
Show what the queues hold and who works on them.

Exit status: 0 all is well; 1 there is a problem: messages wait and no worker claims them, committed
ones are not handed to the broker, the broker has lost some or may evict them, or schedules are
enabled and no beat runs; 2 the broker is away."""
    #: Probes call it often; it reports wrong settings itself, without all of Django's checks.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)
        parser.add_argument(
            "--fail-on-dead", action="store_true", help=_("a dead letter is a problem, too")
        )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_memory(self)
        stats: dict[str, Stats] = {}
        queues: dict[str, Pause] = {}
        paused_tasks: dict[str, Pause] = {}
        #: The age, in seconds, of the oldest message that is committed and not published.
        now, oldest = clock.now(), None
        numbers: dict[str, Any] | None = None
        keeping = Keeping()
        status = _PROBLEM
        try:
            claimers = inspecting.claimers()
            stats = {queue: inspecting.stats(queue, claimers) for queue in conf.get().queues}
            queues, paused_tasks = control.paused(), control.paused_tasks()
            rows = TaskResult.objects.using(ledger.alias()).unpublished(now)
            at = rows.order_by("created_at").values_list("created_at", flat=True).first()
            oldest = None if at is None else (now - at).total_seconds()
            problems = _problems(stats, oldest, fail_on_dead=options["fail_on_dead"])
            if found := _lost(stats):
                problems.append(
                    _("The broker has lost the messages of at least %d calls; see jobs_recover.")
                    % found
                )
            overdue = Schedule.objects.using(ledger.alias()).due(now - _OVERDUE).count()
            if overdue:
                problems.append(_("%d schedules are overdue. Is beat running?") % overdue)
            # Every beat listens for edited schedules. None: the server doesn't say who does.
            if broker.get().listeners(SCHEDULES) == 0 and attention.needs_beat():
                problems.append(attention.no_beat())
            if options["json"] and conf.get().metrics:
                numbers = _numbers()
            problems += map(attention.damaged, broker.get().damaged())
            keeping = broker.get().keeping()
            if keeping.eviction.startswith("allkeys-"):
                problems.append(keeping.loses)
        except BrokerUnavailable as error:
            problems, status = [str(error)], _AWAY
        except (ConfigurationError, DatabaseError) as error:
            problems = [told(error)]
        if options["json"]:
            said = {
                "queues": {
                    queue: {
                        "waiting": counts.waiting,
                        "in_flight": counts.in_flight,
                        "due": counts.due,
                        "dead": counts.dead,
                        "workers": counts.consumers,
                    }
                    for queue, counts in stats.items()
                },
                **pauses_as_json(queues, paused_tasks),
                "oldest_unpublished_seconds": oldest,
                "metrics": numbers,
                "problems": problems,
            }
            self.print_json(said)
        elif stats:
            self._print(stats, oldest)
            for line in pause_lines(queues, paused_tasks):
                self.stdout.write(line)
            if keeping.loses and keeping.loses not in problems:
                self.stdout.write(keeping.loses)
        if problems:
            raise CommandError("\n".join(problems), returncode=status)

    def _print(self, stats: dict[str, Stats], oldest: float | None) -> None:
        titles = [_("waiting"), _("in flight"), _("due later"), _("dead"), _("workers")]
        width = max(map(len, [*stats, _("queue")]))
        self.stdout.write("  ".join([_("queue").ljust(width), *titles]))
        for queue, counts in stats.items():
            cells = [f"{n:>{len(title)},}" for n, title in zip(counts, titles, strict=True)]
            self.stdout.write("  ".join([queue.ljust(width), *cells]))
        if oldest is not None:
            self.stdout.write(_("oldest committed and not yet published: %.0f s ago") % oldest)


def _problems(stats: dict[str, Stats], oldest: float | None, *, fail_on_dead: bool) -> list[str]:
    problems = []
    for queue, counts in stats.items():
        named = {"n": counts.waiting + counts.in_flight, "queue": repr(queue)}
        if named["n"] and not counts.consumers and queue not in conf.foreign_queues():
            problems.append(
                _("%(n)d messages of the queue %(queue)s, and no worker claims from it.") % named
            )
        if counts.dead and fail_on_dead:
            problems.append(
                _("%(n)d dead letters of the queue %(queue)s; see jobs_dead_letters.")
                % {**named, "n": counts.dead}
            )
    if oldest is not None and oldest > _LONG:
        problems.append(
            _("A message was committed %.0f s ago, and neither worker nor beat has published it.")
            % oldest
        )
    return problems


def _lost(stats: dict[str, Stats]) -> int:
    """How many calls are lost at least. Raises `BrokerUnavailable`."""
    messages = sum(one.waiting + one.in_flight + one.due + one.dead for one in stats.values())
    # They may have run.
    early = [name for name, task in tasks.items() if task.options.acks == "early"]
    return recovery.some_lost(clock.now() - _OLD, messages, unless=early)


def _numbers() -> dict[str, Any]:
    """Those of the last hour, day and week, of all queues and of each. Raises
    `BrokerUnavailable`."""
    return {
        period.value: {
            "total": metrics.plain(metrics.total(period)),
            "queues": {
                queue: metrics.plain(metrics.total(period, [queue])) for queue in conf.get().queues
            },
            "tasks": {task: metrics.plain(one) for task, one in metrics.by_task(period).items()},
        }
        for period in (Range.HOUR, Range.DAY, Range.WEEK)
    }
