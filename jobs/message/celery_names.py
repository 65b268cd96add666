"""Options and attributes of Celery's that don't exist here, and what to write instead.

An option whose value asks for what is done anyway is accepted. Any other value, and every
attribute, is refused in a sentence that says what to write. `jobs.api.options` has the options of
the decorator. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PAGE = "docs/coming-from-celery.md has what differs on purpose"


class Known(NamedTuple):
    """An option of Celery's."""

    #: Values that ask for what is done anyway, and so are accepted; None always is.
    harmless: tuple[object, ...]
    #: What to write in place of any other value.
    instead: str


_IN_SETTINGS = "each thread has its connection by itself; JOBS['BROKER_URL'] says where to"

#: Celery's methods: messages arrive the same without them.
_METHODS = ("", False, "zlib", "gzip", "bzip2", "lzma", "brotli", "zstd")

#: Options of ``apply_async`` and its like.
CALL: Mapping[str, Known] = {
    "serializer": Known(("json",), "messages are always JSON; turn the value into JSON types"),
    "compression": Known(_METHODS, "messages are not compressed; store the data, send its key"),
    "connection": Known((), _IN_SETTINGS),
    "producer": Known((), _IN_SETTINGS),
    "publisher": Known((), _IN_SETTINGS),
    "delivery_mode": Known(
        (2, 1, "persistent", "transient"), "messages are kept as Redis keeps its data"
    ),
    "mandatory": Known((False,), "a call that leads to no queue is always refused"),
    "immediate": Known((False,), "use expires="),
    "exchange_type": Known(("direct", "topic", "fanout"), "JOBS['EXCHANGES'] says the kinds"),
    "declare": Known(((), []), "declare queues in JOBS['QUEUES']"),
    "reply_to": Known(("",), "results are in the ledger; ask for them by their ids"),
    "correlation_id": Known((), "it is the id; write task_id="),
    "stamps": Known(({},), "write stamped_headers=['name'], name=value, or call.stamp(name=value)"),
    "chord_size": Known((), "a chord counts its members itself"),
    "retries": Known((0,), "self.retry() counts"),
    "timeout": Known((), "JOBS['SOCKET_TIMEOUT'] says how long the broker may take"),
    "confirm_timeout": Known((), "JOBS['SOCKET_TIMEOUT'] says how long the broker may take"),
    "task_type": Known((), "it is the task's own"),
    "debug": Known((False,), "a call of the function itself, task(…), can be stepped through"),
    "throw": Known((True, False), "a direct call, task(…), raises what the function raises"),
    "logfile": Known((), "logging is Django's LOGGING"),
    "loglevel": Known((), "logging is Django's LOGGING"),
}

#: Options of ``AsyncResult.get``.
GET: Mapping[str, Known] = {
    "no_ack": Known((True, False), ""),
    "follow_parents": Known((True, False), ""),
    "EXCEPTION_STATES": Known((), "there are FAILURE and REVOKED"),
    "PROPAGATE_STATES": Known((), "there are FAILURE and REVOKED"),
}

#: Keys of an entry of ``beat_schedule``.
SCHEDULE: Mapping[str, Known] = {
    "relative": Known(
        (False,), "due times count from start_at of its row; a crontab says them outright"
    ),
    "nowfun": Known((), "schedules go by the machine's clock; write crontab(…, timezone=…)"),
}

_TERM = ("SIGTERM", "TERM", 15, "SIGKILL", "KILL", 9)
#: Options of ``AsyncResult.revoke``.
REVOKE: Mapping[str, Known] = {
    "signal": Known(_TERM, "a call that doesn't end when it is asked to is killed"),
    "wait": Known((False,), "ask the result for its end by get()"),
    "timeout": Known((), "ask the result for its end by get(timeout=…)"),
    "connection": Known((), _IN_SETTINGS),
}

_AT_THE_CALL = "write link= at the call, or a chain"

#: Attributes of ``AsyncResult``.
RESULT: Mapping[str, str] = {
    "then": _AT_THE_CALL,
    "add_pending_result": _AT_THE_CALL,
    "backend": "results are rows of the ledger, jobs.models.TaskResult",
    "app": "there is no app; see jobs.conf",
    "supports_native_join": "write result.get()",
}

_MADE = "a group's members are chosen when it is sent; write GroupResult(id, results) for others"

#: Attributes of ``GroupResult``.
GROUP: Mapping[str, str] = {
    "add": _MADE,
    "remove": _MADE,
    "discard": _MADE,
    "update": _MADE,
    "clear": _MADE,
    "then": _AT_THE_CALL,
    "add_pending_result": _AT_THE_CALL,
    "collect": "write result.iterate(), or collect() of one of its results",
    "iterdeps": "go through its results",
    "supports_native_join": "write result.join()",
    "backend": "results are rows of the ledger, jobs.models.TaskResult",
    "app": "there is no app; see jobs.conf",
}

_BY_SIGNALS = "workers run tasks in their own way; write hooks, or connect to jobs.signals"
_NO_APP = "there is no app: tasks are found by Django, settings are JOBS"
_LOGGER = "write logging.getLogger(__name__)"

#: Attributes of ``Task``.
TASK: Mapping[str, str] = {
    "app": _NO_APP,
    "backend": "results are rows of the ledger, jobs.models.TaskResult",
    "get_logger": _LOGGER,
    "get_publisher": "to send many calls in one round trip, write task.enqueue_many([…])",
    "send_event": "there are no events; see self.progress() and jobs.signals",
    "push_request": "call the function here and now: task(…)",
    "pop_request": "call the function here and now: task(…)",
    "request_stack": "self.request is the call that runs",
    "on_bound": _BY_SIGNALS,
    "Request": _BY_SIGNALS,
    "Strategy": _BY_SIGNALS,
    "add_trail": "the ledger knows a call's children: AsyncResult(id).children",
    "start_strategy": _BY_SIGNALS,
}

#: Attributes of ``self.request``.
REQUEST: Mapping[str, str] = {
    "children": "AsyncResult(self.request.id).children has them",
    "utc": "eta and expires have their time zones",
    "taskset": "write self.request.group",
    "logfile": "logging is Django's LOGGING",
    "loglevel": "logging is Django's LOGGING",
    "as_execution_options": "write self.signature_from_request(…)",
}

#: Attributes of signatures, chains, groups and chords.
CALLS: Mapping[str, str] = {
    "set_parent_id": "the ledger knows which call has sent another",
    "stamp_links": "call.stamp(…) stamps the linked calls, too",
    "merge": "write call.set(…)",
    "election": "send it: the first worker that is free takes it",
    "app": _NO_APP,
}

_TIMES = "write seconds, a timedelta or jobs.crontab(…)"
_SETTINGS = "queues and exchanges are declared in JOBS['QUEUES'] and JOBS['EXCHANGES']"

_PERIODIC = "call jobs.add_periodic_task(…) in a module of tasks"

#: What is imported from ``celery``, ``kombu`` and their parts.
MODULE: Mapping[str, str] = {
    "Celery": f"{_NO_APP}; decorate functions by @jobs.task",
    "app": _NO_APP,
    "current_app": _NO_APP,
    "on_after_configure": _PERIODIC,
    "on_after_finalize": _PERIODIC,
    "get_logger": _LOGGER,
    "solar": f"there are no schedules by the sun; {_TIMES}",
    "Queue": _SETTINGS,
    "Exchange": _SETTINGS,
    "binding": _SETTINGS,
    "Broadcast": "bind a queue of each machine to an exchange of the kind fanout",
    "group_result": "write jobs.GroupResult(id)",
}


def left_of(given: Mapping[str, Any], known: Mapping[str, Known], ours: Any = ()) -> dict[str, Any]:
    """These options, without those of Celery's that ask for what is done anyway.

    Raises `TypeError` for one of Celery's that asks for something else.
    """
    left = {}
    for name, value in given.items():
        option = known.get(name)
        if option is None or name in ours:
            left[name] = value
        elif value is not None and not any(
            type(value) is type(one) and value == one for one in option.harmless
        ):
            raise TypeError(f"{name}={value!r} can't be followed here: {option.instead}. {PAGE}")
    return left


def no_attribute(whose: object, name: str, known: Mapping[str, str]) -> str:
    """The text of an `AttributeError`."""
    kind = type(whose).__name__
    if name in known:
        return f"{kind!r} has no attribute {name!r}, which Celery's has: {known[name]}. {PAGE}."
    return f"{kind!r} object has no attribute {name!r}"
