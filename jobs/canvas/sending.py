"""From a composition's JSON form to its messages, all of them in one sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs import known, ledger, message, publish, workflow
from jobs.canvas.checking import check, freeze, python_options
from jobs.canvas.handles import handle_of
from jobs.exceptions import SendError
from jobs.message import Message
from jobs.models import TaskGroup
from jobs.sending import Send
from jobs.workflow import Call

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
    sent: Message = known.find(call["task"]).message(call["args"], call["kwargs"], **options)
    return sent


def _publish(messages: Sequence[Message], calls: Sequence[Call], how: Send) -> None:
    durable = [known.find(call["task"]).durable for call in calls]
    for kept in {*durable}:
        some = [sent for sent, one in zip(messages, durable, strict=True) if one is kept]
        publish.send(some, durable=kept, using=how.using, retry_policy=how.policy())
