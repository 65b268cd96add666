"""The calls that follow a task, as messages, and the ends of those that will never be sent.

On success: its callbacks, and the next call of its chain. On failure: its errbacks; the rest of its
chain ends as it did. The ids of all these are chosen before, so a second run of the same message
sends nothing twice. `jobs.worker.record.joining` sends what follows the last member of a chord.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import (
    conf,
    message,
    routing,
    signals,
)
from jobs.api.sending import takes_error
from jobs.conf.values import check_label, tenant
from jobs.control.metrics import FAILED, REVOKED
from jobs.exceptions import JobsError, MessageError, SendError, TaskRevoked
from jobs.ledger.outcomes import Record
from jobs.message import Message, workflow
from jobs.message.behind import Behind
from jobs.message.call import Send, new_message, stamped
from jobs.message.workflow import Call
from jobs.registry import tasks
from jobs.states import State
from jobs.timing import clock
from jobs.worker.record import errbacks as errback_arguments
from jobs.worker.record.outcome import (
    BURIED,
    NOTHING,
    Dead,
    Delivery,
    Done,
    Following,
    Member,
    Outcome,
    Run,
    failure,
    is_kept,
    lock_of,
    origin,
    reason,
)

log = logging.getLogger("jobs.worker")

#: Forms of ``expires`` that this project sends. Celery clients send texts.
_ENDS = (int, float, dt.timedelta, dt.datetime)

#: Errors from treating arbitrary JSON as a call.
NO_CALL = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def after_success(sent: Message, result: Any) -> Following:
    """What follows a success: the callbacks, and the rest of the chain.

    Raises `SendError` if the result can't be put into their messages.
    """
    callbacks = enumerate(sent.embed.get("callbacks") or ())
    parts = [started(sent, f"callback {n}", call, [result]) for n, call in callbacks]
    if len(parts) > 1:
        parts = _as_group(sent, "callbacks", parts)
    if sent.embed.get("chain"):
        parts.append(started(sent, "chain", _chained(sent.embed["chain"]), [result]))
    following = _together(parts, _membership(sent))
    for one in following.messages:
        message.encode(one)  # now, when it can still be the task's failure
    return following


def _chained(behind: Sequence[Call]) -> Call:
    """The call that goes on with a chain: all of it or, of a long one, the next call with the bytes
    of what follows that."""
    if isinstance(behind, Behind) and behind.plain:
        call = behind[-1]
        if not workflow.options(call).get("chain"):
            rest = behind.after_next()
            return workflow.with_options(call, chain=rest) if rest else dict(call)
    return workflow.chain(reversed(behind))


def _together(parts: Sequence[Following], members: Sequence[Member]) -> Following:
    """All parts in one. ``members``: the call itself, as a member of a chord."""
    return Following(
        [one for part in parts for one in part.messages],
        [one for part in parts for one in part.chords],
        [one for part in parts for one in part.ends],
        [*members, *(one for part in parts for one in part.members)],
        children=[one for part in parts for one in part.children],
        context=_context(),
    )


def _context() -> contextvars.Context | None:
    """What `task_sending` is heard in: the recorder sends what follows, in a thread where nothing
    is left of the call that it follows."""
    return contextvars.copy_context() if signals.task_sending.receivers else None


def after_end(
    sent: Message, raw: bytes, run: Run, why: BaseException, state: State = State.FAILURE
) -> Following:
    """After an end other than success. Errbacks are sent after failures, not after revocations."""
    if not sent.embed:
        return NOTHING
    parts = []
    if state == State.FAILURE and sent.embed.get("errbacks"):
        parts.append(told(sent, sent.embed["errbacks"], why))
    if sent.embed.get("chain"):
        ended = failure(sent, raw, run, why, state)
        error = f"{sent.task}[{sent.id}], before it in its chain: {ended.error}"
        call = workflow.chain(reversed(sent.embed["chain"]))
        ended = ended._replace(error=error, parent_id=sent.id)
        ends, members = unsent(call, ended, celery=sent.celery)
        parts.append(Following(ends=ends, members=members))
    return _together(parts, _membership(sent))


def end_of(delivery: Delivery, run: Run, why: Exception) -> Outcome:
    """The outcome of a call that doesn't run, or runs no longer: REVOKED or FAILURE. A message
    that kills workers, can't be read or was rejected becomes a dead letter besides."""
    sent, raw = delivery.message, delivery.raw
    state = State.REVOKED if isinstance(why, TaskRevoked) else State.FAILURE
    buried = isinstance(why, BURIED)
    row = failure(sent, raw, run, why, state) if buried or is_kept(sent, delivery.task) else None
    following = after_end(sent, raw, run, why, state)
    counts = REVOKED if state == State.REVOKED else FAILED
    if buried:
        return Dead(
            *origin(delivery),
            record=row,
            following=following,
            ended=sent.id,
            counts=counts,
            call=sent,
            reason=reason(why),
            raw=raw,
        )
    return Done(
        *origin(delivery), record=row, following=following, ended=sent.id, counts=counts, call=sent
    )


def dead_letter(
    queue: str, number: int, raw: bytes, sent: Message, run: Run, error: MessageError
) -> Outcome:
    """A dead letter, whose call ends in the ledger whether or not it wants its result kept."""
    task = tasks.get(sent.task)
    if task is not None:
        sent.sensitive = task.sensitive
    return Dead(
        queue,
        number,
        lock=lock_of(sent, task),
        record=failure(sent, raw, run, error),
        following=after_end(sent, raw, run, error),
        ended=sent.id,
        counts=FAILED,
        call=sent,
        reason=reason(error),
    )


def after_replacing(sent: Message, call: Call) -> Following:
    """The start of a call's replacement, which is sent instead. Raises `SendError`."""
    replaced = sent.replaced + 1
    if workflow.kind(call) == "chain":
        said = {"replaced_task_nesting": replaced}
        call = workflow.chain([workflow.with_options(p, **said) for p in workflow.parts(call)])
    start = workflow.start(call)
    # Their parent is that of the replaced call, whose id the last task of the replacement gets.
    messages = [message_of(one, sent.parent_id, _root(sent), sent.celery) for one in start.calls]
    for one in messages:
        one.replaced = replaced
        message.encode(one)
    return Following(messages, start.chords, replaces=sent.id, context=_context())


def told(sent: Message, errbacks: Sequence[Call], why: BaseException) -> Following:
    """The errbacks of a call that has failed: each is given its id, or what has become of it."""
    starts = []
    for n, call in enumerate(errbacks):
        new = _takes_error(call)
        before = errback_arguments.to_wire(sent, why) if new else [sent.id]
        start = started(sent, f"errback {n}", call, before)
        for one in start.messages:
            one.errback = new and not call.get("immutable")
        starts.append(start)
    return _together(_as_group(sent, "errbacks", starts), ())


def _takes_error(call: Call) -> bool:
    try:
        return takes_error(call)
    except NO_CALL:
        return False  # it can't be sent either


def _as_group(sent: Message, what: str, parts: list[Following]) -> list[Following]:
    """The same, for Celery's clients as one group: so Celery sends several callbacks, and errbacks
    however few."""
    if not sent.celery:
        return parts
    members = [one for part in parts for one in part.children]
    group = [[message.derived_id(sent.id, what), None], members]
    return [*(one._replace(children=()) for one in parts), Following(children=[group])]


def ids_behind(sent: Message, *, succeeded: bool) -> list[str]:
    """The ids of calls that may have ended with this one: of the rest of its chain, unless it has
    succeeded, and of the body of its chord with all that follows that."""
    waiting: list[Call] = []
    if not succeeded and sent.embed.get("chain"):
        waiting.append(workflow.chain(reversed(sent.embed["chain"])))
    if isinstance(sent.embed.get("chord"), Mapping):
        waiting.append(sent.embed["chord"])
    found: dict[str, None] = {}
    for call in waiting:  # it grows meanwhile
        for one in _tasks(call):
            options = workflow.options(one)
            if message.is_name(options.get("task_id")) and options["task_id"] not in found:
                found[options["task_id"]] = None
                if isinstance(options.get("chord"), Mapping):
                    waiting.append(options["chord"])
    return list(found)


def unsent(call: Call, ended: Record, *, celery: bool = False) -> tuple[list[Record], list[Member]]:
    """The ends of all tasks of a call that will not be sent, and which of them are members of
    chords. ``ended``: the end of another call, which they end like. ``celery``: as of
    `Message`."""
    ends, members = [], []
    root_id = ended.root_id or ended.id
    foreign = celery or conf.get().queue(ended.queue).open
    for one in _tasks(call):
        name, options = str(one.get("task")), workflow.options(one)
        task_id, group_id = options.get("task_id"), options.get("group_id")
        if not message.is_name(task_id):
            continue
        if not message.is_name(group_id):
            group_id = None
        args, kwargs = one.get("args") or [], one.get("kwargs") or {}
        sent = Message(task=name, id=task_id, queue="", args=args, kwargs=kwargs)
        ends.append(
            ended._replace(
                id=task_id,
                task=name.replace("\0", "")[: message.LONGEST],
                queue=_placed(sent, options).queue,
                args="[]",
                kwargs="{}",
                traceback="",
                attempts=1,
                started_at=None,
                message=b"",
                group_id=group_id,
                group_index=_index(options),
                root_id=root_id,
                label=_label(one) or "",
            )
        )
        if group_id and isinstance(options.get("chord"), Mapping):
            body = options["chord"] if foreign else None
            members.append(Member(task_id, group_id, root_id, body, celery))
    return ends, members


def started(sent: Message, what: str, call: Call, before: list[Any]) -> Following:
    """The first messages of a call that follows this one. Their ids are the same at every run of
    the task. What is no call, or can't be sent, ends as FAILURE instead, with all that comes after
    it."""
    ids = (message.derived_id(sent.id, f"{what}/{n}") for n in itertools.count())
    try:
        call = workflow.freeze(call, ids.__next__)
        start = workflow.start(call, before)
        for one in start.calls:
            _check(one)
        return Following(
            [message_of(one, sent.id, _root(sent), sent.celery) for one in start.calls],
            start.chords,
            children=[_child(call)] if sent.celery else (),
        )
    except NO_CALL as error:
        log.error("task %s is followed by what can't be sent: %s (%r)", sent.id, shown(call), error)
        why = JobsError(f"It can't be sent after {sent.task}[{sent.id}]: {error!r}")
        why.__cause__ = error
        ended = failure(sent, b"", Run("", time.time()), why)
        ends, members = unsent(call, ended._replace(parent_id=sent.id), celery=sent.celery)
        return Following(ends=ends, members=members)


def _child(call: Call) -> list[Any]:
    """The result of a frozen call that is sent, as Celery stores it with the call that sends it: of
    a chain that of its first call, of a chord that of its header."""
    what = workflow.kind(call)
    if what == "chain":
        return _child(workflow.parts(call)[0])
    if what == "task":
        return [[workflow.options(call)["task_id"], None], None]
    members = workflow.header(call) if what == "chord" else call
    results = [_last(part) for part in workflow.parts(members)]
    return [[workflow.options(members).get("task_id"), None], results]


def _last(call: Call) -> list[Any]:
    """The result of a member of a group: that of its last call, behind those before it."""
    result: list[Any] | None = None
    tasks = workflow.parts(call) if workflow.kind(call) == "chain" else [call]
    for one in tasks:
        result = [[workflow.options(workflow.last(one))["task_id"], result], None]
    return result or []


def shown(call: Any) -> str:
    """A call, or what should be one, for the log: without its arguments, which may be secret."""
    named = call.get("task") if isinstance(call, Mapping) else None
    return repr(named)[:100] if named else f"a {type(call).__name__}"


def _check(call: Call) -> None:
    """Raise `ValueError` for a call of a single task that no row can hold."""
    task_id = workflow.options(call).get("task_id")
    if not message.is_name(task_id) or not message.is_name(call["task"]):
        raise ValueError(f"{call['task']!r}[{task_id!r}]: a name or id that can't be stored")


def message_of(call: Call, parent_id: str | None, root_id: str, celery: bool = False) -> Message:
    """The message of a call of a single task. A foreign client may have written it, so its options
    are not checked: those that mean nothing are left out, and others go as they are.

    ``celery``: as of `Message`.
    """
    options = stamped(workflow.options(call))
    if options.get("countdown") is None:
        eta = _moment(options.get("eta"))
    else:
        eta = clock.now() + dt.timedelta(seconds=float(options["countdown"]))
    expires = options.get("expires")
    send = Send(
        eta=eta,
        expires=expires if isinstance(expires, _ENDS) else _moment(expires),
        task_id=options["task_id"],
        headers=options.get("headers"),
        ignore_result=options.get("ignore_result"),
        time_limit=_seconds(options, "time_limit"),
        soft_time_limit=_seconds(options, "soft_time_limit"),
        link=workflow.listed(options.get("link")),
        link_error=workflow.listed(options.get("link_error")),
        chain=options.get("chain"),
        group_id=options["group_id"] if message.is_name(options.get("group_id")) else None,
        group_index=_index(options),
        chord=options.get("chord"),
        label=_label(call),
        shadow=_text(options, "shadow"),
        argsrepr=_text(options, "argsrepr"),
        kwargsrepr=_text(options, "kwargsrepr"),
    )
    name = call["task"]
    sent = new_message(name, tasks.get(name), send, parent_id=parent_id, root_id=root_id)
    sent.args, sent.kwargs = list(call["args"]), dict(call["kwargs"])
    sent.celery = celery
    sent.replaced = _replaced(options)
    sent.fair = _tenant(sent, options)
    sent.shard_key = _shard_key(sent, options)
    return _placed(sent, options)


def _replaced(options: Mapping[str, Any]) -> int:
    count = options.get("replaced_task_nesting")
    return count if isinstance(count, int) and 0 <= count <= 1_000_000 else 0


def _text(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    return value if isinstance(value, str) else None


def _tenant(sent: Message, options: Mapping[str, Any]) -> str:
    """The tenant of a call: the one that its options name or, by its arguments, its task does."""
    task = tasks.get(sent.task)
    try:
        if options.get("fair") is not None:
            return tenant("fair", options["fair"])
        return task.tenant_of(sent.args, sent.kwargs) if task and task.tenant_of else ""
    except (TypeError, ValueError) as error:  # nobody is there to be told, and the call must run
        log.error("%s[%s] is sent as nobody's: %s", sent.task, sent.id, error)
        return ""


def _shard_key(sent: Message, options: Mapping[str, Any]) -> str:
    """The key of a call that chooses its shard: its own or, if that can't be one, what the task's
    function says."""
    own = options.get("shard_key")
    if own == "" or message.is_name(own):
        return str(own)
    task = tasks.get(sent.task)
    if task is None or task.shard_by is None:
        return ""
    try:
        return str(task.shard_by(sent.args, sent.kwargs))
    except Exception as error:  # noqa: BLE001  anybody's function
        log.error("%s is sent to any shard: its shard_by failed: %r", sent.task, error)
        return ""


def _placed(sent: Message, options: Mapping[str, Any]) -> Message:
    """The same message with its queue and priority. Routes see the call's own arguments and those
    of the call before it."""
    try:
        routing.get().place(sent, options)
    except (SendError, TypeError, ValueError) as error:  # a foreign call's options are anything
        sent.queue = conf.get().default_queue
        log.error("%s is sent to queue %r: %s", sent.task, sent.queue, error)
    return sent


def _tasks(call: Call) -> list[Call]:
    """All tasks of a call, without parts that are no calls and could not be sent either."""
    try:
        found = list(workflow.tasks_in_place(call))
        for one in found:
            workflow.options(one).get("task_id")
    except NO_CALL:
        try:
            parts = workflow.parts(call) if workflow.kind(call) == "chain" else []
        except NO_CALL:
            return []
        return [one for part in parts for one in _tasks(part)]
    return found


def _membership(sent: Message) -> list[Member]:
    body = sent.embed.get("chord")
    if not (sent.group and body):
        return []
    foreign = sent.celery or conf.get().queue(sent.queue).open
    body = body if foreign else None
    return [Member(sent.id, sent.group, _root(sent), body, sent.celery, _context())]


def _root(sent: Message) -> str:
    return sent.root_id or sent.id


def _index(options: Mapping[str, Any]) -> int | None:
    """A call's place in its group."""
    index = options.get("group_index")
    return index if isinstance(index, int) and 0 <= index < 2**31 else None


def _label(call: Call) -> str | None:
    """The label of a call of a single task: its own or, if that can't be one, the task's."""
    label = workflow.options(call).get("label")
    if label is not None:
        with contextlib.suppress(TypeError, ValueError):
            check_label(label)
            return str(label)
    task = tasks.get(str(call.get("task")))
    return task.label if task else None


def _seconds(options: Mapping[str, Any], name: str) -> float | None:
    limit = options.get(name)
    return limit if isinstance(limit, int | float) and limit > 0 else None


def _moment(text: Any) -> dt.datetime | None:
    if not isinstance(text, str):
        return None
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
