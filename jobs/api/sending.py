"""From a composition's JSON form to its messages: checked as a whole, and sent together."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import (
    ledger,
    message,
    registry,
)
from jobs.api.results import AsyncResult, GroupResult, Handle
from jobs.exceptions import NotReplicated, SendError, WorkflowError
from jobs.ledger import publish
from jobs.message import Message, new_id, workflow
from jobs.message.call import Send
from jobs.message.workflow import Call
from jobs.models import TaskGroup

#: What a call gets in front of its own arguments, depending on what it follows.
_RESULT = "the result of the call before it"
_RESULTS = "the list of the results of its chord's header"
_ID = "the id of the call that failed"
_ERROR = "request, exception and traceback of the call that failed"

#: Options that Celery's clients write and nothing here reads.
_FOREIGN = frozenset({"reply_to", "root_id", "parent_id", "stamped_headers", "chord_size"})


def python_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `jobs.message.call.Send`, from their JSON forms."""
    given = {name: value for name, value in options.items() if name not in _FOREIGN}
    for name in ("eta", "expires"):
        if isinstance(given.get(name), str):
            given[name] = dt.datetime.fromisoformat(given[name])
    return given


def freeze(call: Call, options: Mapping[str, Any]) -> dict[str, Any]:
    """`workflow.freeze` of the call with further options. Raises `WorkflowError`."""
    try:
        frozen = workflow.freeze(workflow.spread(call, options), new_id)
        named = [workflow.options(one).get("task_id") for one in workflow.tasks(frozen)]
    except RecursionError:
        raise WorkflowError("The calls are nested too deeply.") from None
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    ids = [one for one in named if isinstance(one, str)]
    if len({*ids}) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise WorkflowError(
            f"Two of the calls have the id {twice!r}, under which only one of them would run. Give "
            "each a task_id of its own, or none."
        )
    return frozen


def check(call: Call, given: int, kwargs: Mapping[str, Any], *, what: str = "") -> None:
    """Find mistakes in a frozen call now: a worker would find them too late for the caller.

    It will be given so many arguments in front of its own, and these keywords. ``what`` names the
    one argument that a call before it gives. Raises `UnknownTask`, `TypeError` for arguments that
    a task doesn't take, what `jobs.Task.apply_async` raises for options, and `WorkflowError` for a
    chord over calls that ignore their results.
    """
    kind = workflow.kind(call)
    if kind == "task":
        return _check_task(call, given, kwargs, what)
    if kind == "chord":
        for part in workflow.parts(workflow.header(call)):
            check(part, given, kwargs, what=what)
            last = workflow.last(part)
            task, asked = registry.find(last["task"]), workflow.options(last).get("ignore_result")
            if task.ignore_result if asked is None else asked:
                raise WorkflowError(
                    f"Task {task.name!r} ignores its result, which the body of its chord is to be "
                    "given. Have it keep it, by set(ignore_result=False), or send a group, which "
                    "has no body."
                )
        return check(workflow.body(call), 1, {}, what=_RESULTS)
    for n, part in enumerate(workflow.parts(call)):
        if kind == "chain" and n > 0:
            given, kwargs, what = 1, {}, _RESULT
        check(part, given, kwargs, what=what)
    return None


def check_linked(options: Mapping[str, Any]) -> None:
    """Check the callbacks and errbacks in these options. Raises what `check` raises."""
    for name, what in (("link", _RESULT), ("link_error", _ID)):
        for part in workflow.listed(options.get(name)):
            if not isinstance(part, Mapping) or not isinstance(part.get("task"), str):
                raise TypeError(f"{name} has a {type(part).__name__}, no call; write task.s(…)")
            if name == "link_error" and takes_error(part):
                check(freeze(part, {}), 3, {}, what=_ERROR)
            else:
                check(freeze(part, {}), 1, {}, what=what)


def takes_error(errback: Call) -> bool:
    """Whether an errback is given request, exception and traceback of the failed call, and not its
    id: whether its function takes more than one argument besides those that the errback has. So
    Celery decides, and so that tasks which take ``self`` are always given the id."""
    if workflow.kind(errback) != "task":
        return False
    task = registry.tasks.get(str(errback.get("task")))
    if task is None or task.bind or task.batch:
        return False
    given, named = errback.get("args") or (), errback.get("kwargs") or {}
    if errback.get("immutable"):
        given, named = (), {}
    places = []
    for parameter in inspect.signature(task.run).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            places.append(parameter.name)
    return len([name for name in places if name not in named]) - len(given) > 1


def _check_task(call: Call, given: int, kwargs: Mapping[str, Any], what: str) -> None:
    task = registry.find(call["task"])
    task.check_options(python_options(workflow.options(call)))
    args = list(call.get("args") or ())
    own: Mapping[str, Any] = call.get("kwargs") or {}
    try:
        if call.get("immutable"):
            task.check_arguments(args, own)
        else:
            task.check_arguments([None] * given + args, {**own, **kwargs})
    except TypeError as error:
        if not what or call.get("immutable"):
            raise
        raise TypeError(
            f"{error} It gets {what} in front of its own arguments; it gets none with si(…)."
        ) from None
    check_linked(workflow.options(call))


#: Options of the sending, not of the calls.
_SENDING = ("using", "retry", "retry_policy")


def send(
    form: Call, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """Send what starts a composition, and return the handle of its end.

    ``options``: in their JSON forms. Raises what `Composable.apply_async` raises.
    """
    how = Send(**{name: options[name] for name in _SENDING if name in options}).checked()
    of_calls = {name: options[name] for name in options if name not in _SENDING}
    frozen = freeze(form, of_calls)
    check(frozen, len(args), kwargs)
    start = workflow.start(frozen, args, kwargs)
    messages = [message_of(call) for call in start.calls]
    if start.chords:
        message.check(messages)  # raises for what can't be sent, the chords' bodies included
        ledger.open_chords(start.chords)  # first: members may end before all are sent
    unsafe: list[NotReplicated] = []
    try:
        durable = [registry.find(call["task"]).durable for call in start.calls]
        for kept in {*durable}:
            some = [sent for sent, one in zip(messages, durable, strict=True) if one is kept]
            try:
                publish.send(some, durable=kept, using=how.using, retry_policy=how.policy())
            except NotReplicated as error:  # they are sent, so the others have to be
                unsafe.append(error)
    except SendError:
        ids = [chord.id for chord in start.chords]
        TaskGroup.objects.using(ledger.alias()).filter(id__in=ids).delete()
        raise
    if unsafe:
        raise unsafe[0]
    return handle_of(frozen)


def message_of(call: Call) -> Message:
    """The message of a call of one task. Raises what `jobs.Task.message` raises."""
    options = python_options(workflow.options(call))
    sent: Message = registry.find(call["task"]).message(call["args"], call["kwargs"], **options)
    return sent


def handle_of(call: Call, parent: Handle | None = None) -> Handle:
    """The handle of a frozen call's end. ``parent``: that of the call before it."""
    kind = workflow.kind(call)
    if kind == "chain":
        for part in workflow.parts(call):
            parent = handle_of(part, parent)
        assert parent is not None, "a chain is not empty"
        return parent
    if kind == "group":
        members = [handle_of(part, parent) for part in workflow.parts(call)]
        return GroupResult(workflow.options(call)["task_id"], members, parent=parent)
    if kind == "chord":
        return handle_of(workflow.body(call), handle_of(workflow.header(call), parent))
    options = workflow.options(call)
    asked = options.get("ignore_result")
    ignored = registry.find(call["task"]).ignore_result if asked is None else asked
    return AsyncResult(options["task_id"], ignored=bool(ignored), parent=parent)
