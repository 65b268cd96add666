"""What a message asks to be sent after its task, and what becomes of what never will be.

On success: its callbacks, and the next call of its chain. On failure: its errbacks; the rest of its
chain ends as it did. Ids are chosen before, so that a second run of the same message sends nothing
twice. What comes when the last member of a chord has ended, `jobs.worker.joining` says.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs import (
    clock,
    conf,
    known,
    message,
    routing,
    workflow,
)
from jobs.exceptions import SendError
from jobs.ledger import Record
from jobs.message import Message
from jobs.registry import tasks
from jobs.sending import end
from jobs.states import State
from jobs.worker import record
from jobs.worker.outcome import NOTHING, Following, Member
from jobs.worker.record import Run
from jobs.workflow import Call, Counted

log = logging.getLogger("jobs.worker")

#: Messages, and the chords whose headers are among them.
Sent = tuple[list[Message], list[Counted]]

#: What is raised by looking for a call in what is none.
NO_CALL = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def after_success(sent: Message, result: Any) -> Following:
    """Raises `SendError` for a result that can't be in the messages to be sent."""
    messages, chords = [], []
    for more, counted in _starts(sent, result):
        messages += more
        chords += counted
    for one in messages:
        message.encode(one)  # now, when it can still be the task's failure
    return Following(messages, chords, (), _membership(sent))


def _starts(sent: Message, result: Any) -> Iterator[Sent]:
    root_id = _root(sent)
    for n, call in enumerate(sent.embed.get("callbacks") or ()):
        yield from started(sent.id, root_id, f"callback {n}", call, [result])
    if sent.embed.get("chain"):
        calls = workflow.chain(reversed(sent.embed["chain"]))
        yield from started(sent.id, root_id, "chain", calls, [result])


def after_end(
    sent: Message, raw: bytes, run: Run, why: BaseException, state: State = State.FAILURE
) -> Following:
    """After an end other than success. Errbacks are told of failures, not of revocations."""
    if not sent.embed:
        return NOTHING
    errbacks = sent.embed.get("errbacks") if state == State.FAILURE else None
    messages, chords = told(sent.id, _root(sent), errbacks)
    ends: list[Record] = []
    members = _membership(sent)
    if sent.embed.get("chain"):
        ended = record.failure(sent, raw, run, why, state)
        error = f"{sent.task}[{sent.id}], before it in its chain: {ended.error}"
        call = workflow.chain(reversed(sent.embed["chain"]))
        ends, more = unsent(call, ended._replace(error=error, parent_id=sent.id))
        members += more
    return Following(messages, chords, ends, members)


def after_replacing(sent: Message, call: Call) -> Following:
    """What is sent instead of the call: the start of its replacement. Raises `SendError`."""
    start = workflow.start(call)
    # Not its own id for their parent: that is the end of what they begin.
    messages = [message_of(one, sent.parent_id, _root(sent)) for one in start.calls]
    for one in messages:
        message.encode(one)
    return Following(messages, start.chords, replaces=sent.id)


def told(
    task_id: str, root_id: str, errbacks: Sequence[Call] | None
) -> tuple[list[Message], list[Counted]]:
    """The errbacks of a call that has failed: they get its id."""
    messages, chords = [], []
    for n, call in enumerate(errbacks or ()):
        for more, counted in started(task_id, root_id, f"errback {n}", call, [task_id]):
            messages += more
            chords += counted
    return messages, chords


def unsent(call: Call, ended: Record) -> tuple[list[Record], list[Member]]:
    """The ends of all tasks of a call that will not be sent, as that of another, and those of them
    that chords wait for."""
    ends, members = [], []
    root_id = ended.root_id or ended.id
    foreign = conf.get().queue(ended.queue).open
    for one in _tasks(call):
        options = workflow.options(one)
        task_id, group_id = options.get("task_id"), options.get("group_id")
        if not message.is_name(task_id):
            continue
        if not message.is_name(group_id):
            group_id = None
        ends.append(
            ended._replace(
                id=task_id,
                task=str(one.get("task")).replace("\0", "")[: message.LONGEST],
                queue=_address(one)["queue"],
                args="[]",
                kwargs="{}",
                traceback="",
                attempts=1,
                started_at=None,
                message=b"",
                group_id=group_id,
                group_index=_index(options),
                root_id=root_id,
            )
        )
        if group_id and isinstance(options.get("chord"), Mapping):
            body = options["chord"] if foreign else None
            members.append(Member(task_id, group_id, root_id, body))
    return ends, members


def started(task_id: str, root_id: str, what: str, call: Call, before: list[Any]) -> Iterator[Sent]:
    """What a call sends that follows this task, at its start; nothing, but a line in the log, for
    what is no call. Its ids are the same, however often the task is run."""
    ids = (message.derived_id(task_id, f"{what}/{n}") for n in itertools.count())
    try:
        start = workflow.start(workflow.freeze(call, ids.__next__), before)
        for one in start.calls:
            _check(one)
        yield [message_of(one, task_id, root_id) for one in start.calls], start.chords
    except NO_CALL as error:
        log.error("task %s is followed by what can't be sent: %s (%r)", task_id, shown(call), error)


def shown(call: Any) -> str:
    """What a log may say of a call, or of what should be one: its arguments may be secret."""
    named = call.get("task") if isinstance(call, Mapping) else None
    return repr(named)[:100] if named else f"a {type(call).__name__}"


def _check(call: Call) -> None:
    """Raise `ValueError` for the call of a single task that no row could hold."""
    task_id = workflow.options(call).get("task_id")
    if not message.is_name(task_id) or not message.is_name(call["task"]):
        raise ValueError(f"{call['task']!r}[{task_id!r}]: a name or id that can't be stored")


def message_of(call: Call, parent_id: str | None, root_id: str) -> Message:
    """The message of a call of a single task that is started."""
    options = workflow.options(call)
    task = tasks.get(call["task"])
    expires = options.get("expires")
    if expires is None and task is not None:
        expires = task.expires
    return Message(
        task=call["task"],
        id=options["task_id"],
        **_address(call),
        args=list(call["args"]),
        kwargs=dict(call["kwargs"]),
        embed={
            "callbacks": workflow.listed(options.get("link")) or None,
            "errbacks": workflow.listed(options.get("link_error")) or None,
            "chain": list(options.get("chain") or ()) or None,
            "chord": options.get("chord"),
        },
        eta=_eta(options),
        expires=_expires(expires),
        timelimit=(_seconds(options, "time_limit"), _seconds(options, "soft_time_limit")),
        ignore_result=options.get("ignore_result", task.ignore_result if task else None),
        root_id=root_id,
        parent_id=parent_id,
        group=options["group_id"] if message.is_name(options.get("group_id")) else None,
        group_index=_index(options),
        own_headers=dict(options.get("headers") or {}),
        sensitive=task.sensitive if task else frozenset(),
    )


def _tasks(call: Call) -> list[Call]:
    try:
        return list(workflow.tasks_in_place(call))
    except NO_CALL:
        return []  # it could not have been sent either


def _membership(sent: Message) -> list[Member]:
    body = sent.embed.get("chord")
    if not (sent.group and body):
        return []
    foreign = conf.get().queue(sent.queue).open
    return [Member(sent.id, sent.group, _root(sent), body if foreign else None)]


def _root(sent: Message) -> str:
    return sent.root_id or sent.id


def _address(call: Call) -> dict[str, Any]:
    """Queue and priority, as fields of its message. By its own arguments: what the call before it
    gives it is not looked at."""
    name, options = str(call.get("task")), workflow.options(call)
    args, kwargs = call.get("args") or (), call.get("kwargs") or {}
    try:
        decides, task = known.routed_as(name, kwargs)
        address, priority = routing.get().find(decides, args, kwargs, options, task)
        return {**address.fields(), "priority": min(max(int(priority), 0), 9)}
    except (SendError, TypeError, ValueError) as error:  # a foreign call's options are anything
        default = conf.get().default_queue
        log.error("%s is sent to queue %r: %s", name, default, error)
        return {"queue": default}


def _index(options: Mapping[str, Any]) -> int | None:
    """A call's place in its group."""
    index = options.get("group_index")
    return index if isinstance(index, int) and 0 <= index < 2**31 else None


def _eta(options: Mapping[str, Any]) -> dt.datetime | None:
    if options.get("countdown") is not None:
        return clock.now() + dt.timedelta(seconds=float(options["countdown"]))
    return _moment(options.get("eta"))


def _expires(expires: Any) -> dt.datetime | None:
    if isinstance(expires, int | float | dt.timedelta | dt.datetime):
        return end(expires)
    return _moment(expires)


def _seconds(options: Mapping[str, Any], name: str) -> float | None:
    limit = options.get(name)
    return limit if isinstance(limit, int | float) and limit > 0 else None


def _moment(text: Any) -> dt.datetime | None:
    if not isinstance(text, str):
        return None
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
