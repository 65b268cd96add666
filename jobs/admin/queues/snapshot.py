"""What the broker says at this moment of queues, workers and dead letters, for the pages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from jobs import ledger, message, registry, serialization
from jobs.admin import words
from jobs.broker.base import DeadLetter
from jobs.control import Pause
from jobs.control.snapshot import latest
from jobs.exceptions import MessageError
from jobs.message import HIDDEN, Message
from jobs.models import TaskResult

#: A body as most senders write it.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4}){6,}")


class PauseRow(NamedTuple):
    """A paused queue or task: the broker hands none of its messages out."""

    name: str
    pause: Pause

    @property
    def at(self) -> str:
        return words.moment(self.pause.at)


class WorkerRow(NamedTuple):
    """One consumer of a queue."""

    name: str
    in_flight: int
    #: Seconds until its lease ends; negative when it has ended.
    lease: float

    @property
    def alive(self) -> bool:
        return self.lease > 0

    @property
    def lease_in_words(self) -> str:
        if self.alive:
            return _("ends in %(n).0f s unless renewed") % {"n": self.lease}
        if self.in_flight:
            return _("ended %(n).0f s ago; what it holds goes back to its queue") % {
                "n": -self.lease
            }
        return _("ended %(n).0f s ago") % {"n": -self.lease}


class LetterRow(NamedTuple):
    letter: DeadLetter
    #: None when the letter can't be read.
    message: Message | None
    #: Whether the ledger has a row of the call.
    recorded: bool

    @property
    def at(self) -> str:
        return words.moment(self.letter.at)


def snapshot(*, now: bool = False) -> dict[str, Any]:
    """What the broker says of every queue, or why it can't be asked.

    ``now``: as of this moment, for a page that somebody opens, perhaps after an act. The pages that
    keep themselves up to date share a snapshot.
    """
    taken = latest(now=now)
    return {
        "problem": taken.problem,
        "queues": [
            (queue, PauseRow(queue.name, queue.pause) if queue.pause else None)
            for queue in taken.queues
        ],
        "paused_tasks": [PauseRow(name, said) for name, said in taken.paused_tasks.items()],
        "served": any(queue.stats.consumers for queue in taken.queues),
        "at": words.moment(taken.at),
    }


def letter_rows(letters: Sequence[tuple[str, DeadLetter]]) -> list[LetterRow]:
    """Dead letters, each with its queue, and their messages."""
    read: list[Message | None] = []
    for queue, letter in letters:
        try:
            # Only for people to look at, so the signature doesn't matter: a message may be here
            # just because nobody signed it.
            found = message.decode(letter.raw, queue, trusted=True)
        except MessageError:
            read.append(None)
            continue
        task = registry.tasks.get(found.task)
        found.sensitive = task.sensitive if task else message.hidden_by_sender(found)
        read.append(found)
    ids = [known.id for known in read if known]
    recorded = set(
        TaskResult.objects.using(ledger.alias()).filter(id__in=ids).values_list("id", flat=True)
    )
    return [
        LetterRow(letter, known, bool(known and known.id in recorded))
        for (_, letter), known in zip(letters, read, strict=True)
    ]


def _names_a_sensitive_task(whole: str) -> bool:
    """Whether it is a message of such a task, or one of them follows its call. Also of a message
    that nobody can read."""
    text = whole
    for found in _BASE64.findall(whole):
        text += base64.b64decode(found).decode(errors="replace")
    return any(task.sensitive and name in text for name, task in registry.tasks.items())


def letter_page(queue: str, letter: DeadLetter) -> dict[str, Any]:
    """Everything about one dead letter."""
    (row,) = letter_rows([(queue, letter)])
    found = row.message
    whole = letter.raw.decode("utf-8", "backslashreplace")
    hidden = bool(found and found.sensitive) or _names_a_sensitive_task(whole)
    try:
        envelope = json.loads(whole)
        if hidden:
            envelope["body"] = HIDDEN
        whole = words.writable(json.dumps(envelope, indent=2, ensure_ascii=False))
    except (ValueError, TypeError, RecursionError):  # no message: it is shown as it is
        whole = HIDDEN if hidden else whole
    return {
        "row": row,
        "args": words.pretty(serialization.dumps(found.shown_args)) if found else "",
        "kwargs": words.pretty(serialization.dumps(found.shown_kwargs)) if found else "",
        "whole": whole,
    }
