"""What a running call can do to its own workflow: have another call take its place, or add a call
to its chord."""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import F

from jobs import (
    conf,
    ledger,
    message,
    serialization,
)
from jobs.api.compositions import Signature, chain, to_dict
from jobs.api.sending import check, freeze, handle_of, message_of
from jobs.exceptions import ConfigurationError, WorkflowError
from jobs.ledger import publish
from jobs.message import Message, workflow
from jobs.message.workflow import Call
from jobs.models import TaskGroup, TaskResult
from jobs.running.request import current

#: The index of an added member if the number of members isn't known: behind all of them.
_LAST = 1_000_000

#: How many calls the running one has added to its chord.
_added: contextvars.ContextVar[tuple[object, int]] = contextvars.ContextVar(
    "jobs.added", default=(None, 0)
)


def replacement(call: Signature, sent: Message) -> dict[str, Any]:
    """The call in place of the running one: it ends under that one's id, and the calls that were to
    follow that one follow it.

    Its first call always has an id of its own, by which a second run knows that it was sent.
    """
    if isinstance(call, chain) and not call.tasks:
        raise ConfigurationError("Cannot replace with an empty chain: give it a call at least.")
    form = _with_one_end(to_dict(call))
    check(freeze(form, {}), 0, {})
    behind = sent.embed.get("chain") or ()
    options = {
        "task_id": sent.id,
        "link": sent.embed.get("callbacks"),
        "link_error": sent.embed.get("errbacks"),
    }
    whole = workflow.chain([workflow.spread(form, options), *reversed(behind)])
    frozen = workflow.freeze(whole, _ids(sent, "replacement"))
    if sent.group is None:
        return frozen
    index, body = sent.group_index or 0, sent.embed.get("chord")
    return workflow.member(frozen, sent.group, index, body)


def _with_one_end(call: Call) -> Call:
    end = workflow.task(workflow.ACCUMULATE, (), {"index": 0})
    # A group's results are a list also if it has a single member, which a chain would unroll.
    if workflow.kind(call) == "group":
        return workflow.chord(call, end)
    return workflow.chain([call, end])


def add_to_chord(call: Signature) -> Any:
    """Make a call a further member of the running call's chord, and return its handle. A second run
    of the running call adds nothing again.

    Raises `WorkflowError` outside of a chord, and what `Signature.apply_async` raises.
    """
    running = current.get()
    sent = running[0] if running else None
    if sent is None or sent.group is None or not sent.embed.get("chord"):
        raise WorkflowError("The running call is no member of a chord that could be added to.")
    last, number = _added.get()
    number = number + 1 if last is running else 0
    _added.set((running, number))
    form = workflow.group([to_dict(call)])  # a member of a group gets one end
    (frozen,) = workflow.parts(workflow.freeze(form, _ids(sent, f"added {number}")))
    check(frozen, 0, {})
    with transaction.atomic(using=ledger.alias()):
        _add(frozen, sent)
    return handle_of(frozen)


def _add(frozen: Call, sent: Message) -> None:
    group_id = sent.group or ""
    groups = TaskGroup.objects.using(ledger.alias()).filter(id=group_id)
    if (sent.celery or conf.get().queue(sent.queue).open) and not groups.exists():
        # A Celery client's, of which no member has ended yet.
        ledger.open_chords([workflow.of_client(group_id, sent.embed["chord"])])
    group = groups.select_for_update().first()
    if group is None:
        raise WorkflowError(f"Chord {group_id} has ended, or was never counted here.")
    # Of a client's chord, nobody here knows how many members come before this one.
    index = group.size or _LAST
    start = workflow.start(
        workflow.member(frozen, group_id, index, serialization.loads(group.body))
    )
    messages = [message_of(one) for one in start.calls]
    rows = TaskResult.objects.using(ledger.alias())
    if rows.filter(id__in=[one.id for one in messages[:1]]).exists():
        return
    sizes = {"size": F("size") + 1} if group.size else {}
    groups.update(remaining=F("remaining") + 1, **sizes)
    ledger.open_chords(start.chords)
    publish.send(messages, using=ledger.alias())


def _ids(sent: Message, what: str) -> Callable[[], str]:
    return (message.derived_id(sent.id, f"{what}/{n}") for n in itertools.count()).__next__
