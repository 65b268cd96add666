"""From a composition's JSON form to its messages, all of them in one sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs import (
    ledger,
    message,
    registry,
)
from jobs.api.checking import (
    check,
    freeze,
    python_options,
)
from jobs.api.results import AsyncResult, GroupResult, Handle
from jobs.exceptions import SendError
from jobs.ledger import publish
from jobs.message import Message, workflow
from jobs.message.send import Send
from jobs.message.workflow import Call
from jobs.models import TaskGroup

#: Options of the sending, not of the calls.
_SENDING = ("using", "retry", "retry_policy")


def send(
    form: Call, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """Send what of it starts; the handle of its end. `Composable.apply_async` says what is raised.

    ``options``: in their JSON forms.
    """
    how = Send(**{name: options[name] for name in _SENDING if name in options})
    of_calls = {name: options[name] for name in options if name not in _SENDING}
    frozen = freeze(form, of_calls)
    check(frozen, len(args), kwargs)
    start = workflow.start(frozen, args, kwargs)
    messages = [message_of(call) for call in start.calls]
    if start.chords:
        message.check(messages)  # they have the bodies with them, and name what can't be sent
        ledger.open_chords(start.chords)  # first: a worker may be quick
    try:
        _publish(messages, start.calls, how)
    except SendError:
        ids = [chord.id for chord in start.chords]
        TaskGroup.objects.using(ledger.alias()).filter(id__in=ids).delete()
        raise
    return handle_of(frozen)


def message_of(call: Call) -> Message:
    """The message of a call of one task; raises what `jobs.Task.message` does."""
    options = python_options(workflow.options(call))
    sent: Message = registry.find(call["task"]).message(call["args"], call["kwargs"], **options)
    return sent


def _publish(messages: Sequence[Message], calls: Sequence[Call], how: Send) -> None:
    durable = [registry.find(call["task"]).durable for call in calls]
    for kept in {*durable}:
        some = [sent for sent, one in zip(messages, durable, strict=True) if one is kept]
        publish.send(some, durable=kept, using=how.using, retry_policy=how.policy())


def handle_of(call: Call, parent: Handle | None = None) -> Handle:
    """Of a frozen call that follows ``parent``."""
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
