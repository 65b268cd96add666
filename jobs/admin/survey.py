"""What the pages of the queues show, gathered from the broker and made ready for templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from jobs import (
    broker,
    conf,
    control,
    ledger,
    message,
    registry,
    serialization,
)
from jobs.admin import words
from jobs.broker.base import Consumer, DeadLetter, Stats
from jobs.control import Pause, inspect
from jobs.control.inspecting import Running
from jobs.exceptions import BrokerUnavailable, ConfigurationError, MessageError
from jobs.message import HIDDEN, Message
from jobs.models import TaskResult
from jobs.timing import clock

#: Why the broker can't be asked: these a page shows instead of its content.
TROUBLE = (BrokerUnavailable, ConfigurationError)

#: Dead letters that are read at once, each of them whole.
_SOME = 100


#: Tasks of one process that are named.
_NAMED = 5


class PauseRow(NamedTuple):
    """A queue or task of which nothing is handed out."""

    name: str
    pause: Pause

    @property
    def at(self) -> str:
        return words.moment(self.pause.at)


class QueueRow(NamedTuple):
    name: str
    stats: Stats
    #: None when it isn't paused.
    paused: PauseRow | None = None

    @property
    def deserted(self) -> bool:
        """Messages wait and nobody claims them."""
        return bool((self.stats.waiting or self.stats.due) and not self.stats.consumers)


class WorkerRow(NamedTuple):
    """One consumer, with all the queues it claims from."""

    name: str
    queues: list[str]
    in_flight: int
    #: Seconds until its lease ends; negative when it has.
    lease: float
    #: What it does now, the longest first.
    running: tuple[Running, ...] = ()

    @property
    def doing(self) -> list[tuple[Running, str]]:
        """The first of what it does now, each with how long it has done so."""
        now = clock.now()
        return [(running, words.duration(now - running.since)) for running in self.running[:_NAMED]]

    @property
    def doing_besides(self) -> int:
        return max(0, len(self.running) - _NAMED)

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
    #: None when it can't be read.
    message: Message | None
    #: Whether the ledger has a row of it to look at.
    recorded: bool

    @property
    def at(self) -> str:
        return words.moment(self.letter.at)


def survey() -> dict[str, Any]:
    """What the broker says of every declared queue, or why it can't be asked."""
    queues: list[QueueRow] = []
    workers: dict[str, WorkerRow] = {}
    tasks: list[PauseRow] = []
    problem = ""
    try:
        asked, paused = broker.get(), control.paused()
        for name in conf.get().queues:
            said = PauseRow(name, paused[name]) if name in paused else None
            queues.append(QueueRow(name, asked.stats(name), said))
            for consumer in asked.consumers(name):
                workers[consumer.name] = _joined(workers.get(consumer.name), name, consumer)
        tasks = [PauseRow(name, said) for name, said in control.paused_tasks().items()]
        for running in inspect.active():
            if row := workers.get(running.consumer):
                workers[row.name] = row._replace(running=(*row.running, running))
    except TROUBLE as error:
        # Half an answer would look like the whole.
        problem, queues, workers, tasks = str(error), [], {}, []
    return {
        "problem": problem,
        "queues": queues,
        "paused_tasks": tasks,
        "workers": sorted(workers.values()),
        "at": words.moment(clock.now()),
    }


def _joined(known: WorkerRow | None, queue: str, consumer: Consumer) -> WorkerRow:
    if known is None:
        return WorkerRow(consumer.name, [queue], consumer.in_flight, consumer.lease)
    return WorkerRow(
        known.name,
        [*known.queues, queue],
        known.in_flight + consumer.in_flight,
        min(known.lease, consumer.lease),
    )


def letter_rows(queue: str, letters: Sequence[DeadLetter]) -> list[LetterRow]:
    """Dead letters with what can be read of them."""
    read = [_read(queue, letter.raw) for letter in letters]
    ids = [found.id for found in read if found]
    recorded = set(
        TaskResult.objects.using(ledger.alias()).filter(id__in=ids).values_list("id", flat=True)
    )
    return [
        LetterRow(letter, found, bool(found and found.id in recorded))
        for letter, found in zip(letters, read, strict=True)
    ]


def letter_page(queue: str, letter: DeadLetter) -> dict[str, Any]:
    """Everything about one dead letter."""
    (row,) = letter_rows(queue, [letter])
    found = row.message
    return {
        "row": row,
        "args": words.pretty(serialization.dumps(found.shown_args)) if found else "",
        "kwargs": words.pretty(serialization.dumps(found.shown_kwargs)) if found else "",
        "whole": _laid_out(letter.raw, hide=bool(found and found.sensitive)),
    }


def keys_from(queue: str, newest: str, most: int) -> list[str]:
    """Keys of dead letters from this one on, the newest first, so many at most."""
    keys = [newest]
    while len(keys) < most:
        page = broker.get().dead_letters(queue, min(_SOME, most - len(keys)), keys[-1])
        if not page:
            break
        keys += [letter.key for letter in page]
    return keys


def _read(queue: str, raw: bytes) -> Message | None:
    """For the eye only, so whoever signed it: a message that nobody signed is here for just that
    reason."""
    try:
        found = message.decode(raw, queue, trusted=True)
    except MessageError:
        return None
    task = registry.tasks.get(found.task)
    found.sensitive = task.sensitive if task else message.hidden_by_sender(found)
    return found


def _laid_out(raw: bytes, *, hide: bool) -> str:
    """A message as indented JSON, or as it is. ``hide``: without the arguments in its body."""
    text = raw.decode("utf-8", "backslashreplace")
    try:
        envelope = json.loads(text)
        if hide:
            envelope["body"] = HIDDEN
        return json.dumps(envelope, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
