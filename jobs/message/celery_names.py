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
_IN_HEADERS = "write headers={…}, which the task finds in self.request.headers"
_SENSITIVE = "name what is not to be shown by @task(sensitive=[…])"
_ROLES = "the ledger knows what follows what; write a root or parent of your own into headers={…}"

#: Options of ``apply_async`` and its like.
CALL: Mapping[str, Known] = {
    "serializer": Known(("json",), "messages are always JSON; turn the value into JSON types"),
    "compression": Known(("", False), "messages are not compressed; store the data, send its key"),
    "connection": Known((), _IN_SETTINGS),
    "producer": Known((), _IN_SETTINGS),
    "publisher": Known((), _IN_SETTINGS),
    "add_to_parent": Known((True,), "the ledger knows the calls that a task sends as its children"),
    "delivery_mode": Known((2, "persistent"), "messages are kept as Redis keeps its data"),
    "mandatory": Known((False,), "a call that leads to no queue is always refused"),
    "immediate": Known((False,), "use expires="),
    "exchange_type": Known(("direct", "topic", "fanout"), "JOBS['EXCHANGES'] says the kinds"),
    "declare": Known(((), []), "declare queues in JOBS['QUEUES']"),
    "reply_to": Known(("",), "results are in the ledger; ask for them by their ids"),
    "correlation_id": Known((), "it is the id; write task_id="),
    "shadow": Known(("",), f"a call is shown by its task's name; {_IN_HEADERS}"),
    "stamped_headers": Known(((), []), _IN_HEADERS),
    "stamps": Known(({},), _IN_HEADERS),
    "argsrepr": Known((), _SENSITIVE),
    "kwargsrepr": Known((), _SENSITIVE),
    "root_id": Known((), _ROLES),
    "parent_id": Known((), _ROLES),
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
    "on_message": Known((), "read what a task tells meanwhile by `for told in result.follow()`"),
    "on_interval": Known((), "give get() a timeout, and call it again"),
    "callback": Known((), "use what get() returns"),
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
_ROW = "the row has it: jobs.models.TaskResult.objects.get(id=result.id)"
_RELATIVES = "go through result.parent and result.children, or result.collect()"

#: Attributes of ``AsyncResult``.
RESULT: Mapping[str, str] = {
    "then": _AT_THE_CALL,
    "add_pending_result": _AT_THE_CALL,
    "iterdeps": _RELATIVES,
    "graph": _RELATIVES,
    "build_graph": _RELATIVES,
    "as_tuple": "keep its id, and write AsyncResult(id)",
    "as_list": "keep its id, and write AsyncResult(id)",
    "wait": "write result.get()",
    "maybe_throw": "write result.get()",
    "maybe_reraise": "write result.get()",
    "throw": "write result.get()",
    "revoke_by_stamped_headers": "there are no stamps; keep the ids, and revoke those",
    "backend": "results are rows of the ledger, jobs.models.TaskResult",
    "app": "there is no app; see jobs.conf",
    "task_name": _ROW,
    "name": _ROW,
    "args": _ROW,
    "kwargs": _ROW,
    "worker": _ROW,
    "queue": _ROW,
    "retries": _ROW,
    "date_done": f"{_ROW}.finished_at",
    "supports_native_join": "write result.get()",
}

_MADE = "a group's members are chosen when it is sent; write GroupResult(id, results) for others"

#: Attributes of ``GroupResult``.
GROUP: Mapping[str, str] = {
    "save": "it is in the ledger; keep its id, and write GroupResult(id)",
    "restore": "write GroupResult(id)",
    "delete": "write result.forget()",
    "add": _MADE,
    "remove": _MADE,
    "discard": _MADE,
    "update": _MADE,
    "clear": _MADE,
    "then": _AT_THE_CALL,
    "add_pending_result": _AT_THE_CALL,
    "collect": "write result.iterate(), or collect() of one of its results",
    "iterdeps": "go through its results",
    "as_tuple": "keep its id, and write GroupResult(id)",
    "as_list": "keep its id, and write GroupResult(id)",
    "join_native": "write result.join()",
    "iter_native": "write result.iterate()",
    "supports_native_join": "write result.join()",
    "maybe_throw": "write result.get()",
    "maybe_reraise": "write result.get()",
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

_NO_STAMPS = "there are no stamps; write call.set(headers={…})"

#: Attributes of signatures, chains, groups and chords.
CALLS: Mapping[str, str] = {
    "add_callback": "write call.link(…)",
    "add_errback": "write call.link_error(…)",
    "set_immutable": "write task.si(…), or call = call.set(immutable=True)",
    "set_parent_id": "the ledger knows which call has sent another",
    "stamp": _NO_STAMPS,
    "stamp_links": _NO_STAMPS,
    "apply": "call it here and now, task(…); a composition is sent, and get() waits for its end",
    "replace": "write call.set(…) or call.clone(…)",
    "merge": "write call.set(…)",
    "reprcall": "write repr(call)",
    "election": "send it: the first worker that is free takes it",
    "type": "jobs.registry.find(call.task) is the task",
    "name": "it is call.task",
    "id": "write call.freeze(), whose options have the task_id",
    "flatten_links": "call.options has link",
    "app": _NO_APP,
}

_TIMES = "write seconds, a timedelta or jobs.crontab(…)"
_SETTINGS = "queues and exchanges are declared in JOBS['QUEUES'] and JOBS['EXCHANGES']"

#: What is imported from ``celery``, ``kombu`` and their parts.
MODULE: Mapping[str, str] = {
    "Celery": f"{_NO_APP}; decorate functions by @jobs.task",
    "app": _NO_APP,
    "current_app": _NO_APP,
    "get_logger": _LOGGER,
    "maybe_signature": "write jobs.signature(…)",
    "subtask": "write jobs.signature(…)",
    "chunks": "write task.chunks(…)",
    "xmap": "write task.map(…)",
    "xstarmap": "write task.starmap(…)",
    "StampingVisitor": _NO_STAMPS,
    "solar": f"there are no schedules by the sun; {_TIMES}",
    "schedule": _TIMES,
    "Queue": _SETTINGS,
    "Exchange": _SETTINGS,
    "binding": _SETTINGS,
    "Broadcast": "bind a queue of each machine to an exchange of the kind fanout",
    "send_task": "write jobs.signature(name, args, kwargs, **options).apply_async()",
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
