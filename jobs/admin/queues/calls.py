"""The calls that a queue holds, a page at a time, as the broker has them now.

No list is read as a whole: a page costs the same whether ten messages wait or a million. To find
one call, the first `SEARCHED` of each list are read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import broker, conf, control, ledger, limits, message, registry, routing, serialization
from jobs.admin import words
from jobs.admin.pages import may_look
from jobs.admin.queues.snapshot import PauseRow, WorkerRow
from jobs.admin.results.page import progress_bar
from jobs.admin.verbs import TROUBLE, address
from jobs.broker.base import PARKED, DeadLetter, InFlight, Waiting
from jobs.control import inspecting
from jobs.exceptions import MessageError
from jobs.message import Message
from jobs.models import TaskResult
from jobs.running import progress
from jobs.running.progress import Progress
from jobs.timing import clock

#: Calls on one page.
PAGE = 50

#: How far a call is searched for in each list of a queue.
SEARCHED = 2_000

#: Messages that are read at once by a search.
_STEP = 500

#: Most consumers, and most limits, on a queue's page.
SHOWN = 50

#: What a list of a queue can be asked for, with the words for it, in the order of the tabs.
WAITING, RUNNING, IN_FLIGHT, DUE = "waiting", "running", "in-flight", "due"
TABS = {
    WAITING: gettext_lazy("Waiting"),
    RUNNING: gettext_lazy("Running"),
    IN_FLIGHT: gettext_lazy("In flight"),
    DUE: gettext_lazy("Due later"),
}

#: Where a page begins: a number of calls; or, of those due later, a time in ms and how many of that
#: time come before. Longer numbers are in no link.
_START = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,9}))?")


#: An id as this program and Celery make them.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Found(NamedTuple):
    """A message of a queue, and where it is."""

    queue: str
    raw: bytes
    #: Its place among those that wait, or its number among its consumer's.
    place: int = 0
    #: Priority of its list; of one in flight, 0.
    priority: int = 0
    #: Unix seconds, if it is among the due.
    due: float | None = None
    consumer: str = ""
    #: When its run began (Unix seconds), if a worker has reported that.
    since: float | None = None

    @property
    def list(self) -> str:
        if self.consumer:
            return IN_FLIGHT if self.since is None else RUNNING
        return WAITING if self.due is None else DUE

    @property
    def waiting(self) -> Waiting | None:
        """As `jobs.control` takes it; None: a consumer holds it."""
        return None if self.consumer else Waiting(self.raw, self.priority, self.due)

    @property
    def parked(self) -> bool:
        return self.due is not None and self.due >= PARKED


class CallRow(NamedTuple):
    """A message on a page."""

    found: Found
    #: None when it can't be read.
    message: Message | None
    progress: Progress | None = None

    @property
    def key(self) -> str:
        """What finds it again when it was chosen on the page: `chosen` reads it."""
        place = self.found.place if self.found.due is None else round(self.found.due * 1000)
        return f"{place}:{_digest(self.found.raw)}:{self.message.id if self.message else ''}"

    @property
    def linked(self) -> bool:
        """Whether its id can stand in an address."""
        return bool(self.message and self.message.id.strip(".") and self.message.id.isprintable())

    @property
    def call(self) -> str:
        if self.message is None:
            return ""
        args, kwargs = map(
            serialization.dumps, (self.message.shown_args, self.message.shown_kwargs)
        )
        return words.call(args, kwargs, whole=words.SHOWN)

    @property
    def sent_at(self) -> dt.datetime | None:
        """By its id; None for one of another kind."""
        made = message.id_time(self.message.id) if self.message else None
        return None if made is None else dt.datetime.fromtimestamp(made, dt.UTC)

    @property
    def sent(self) -> str:
        return words.moment(self.sent_at) if self.sent_at else ""

    @property
    def age(self) -> str:
        return words.away(self.sent_at, clock.now()) if self.sent_at else ""

    @property
    def attempt(self) -> int:
        return self.message.retries + 1 if self.message else 0

    @property
    def priority(self) -> int:
        return self.message.priority if self.message else self.found.priority

    @property
    def due(self) -> str:
        return "" if self.found.due is None or self.found.parked else words.moment(self._due)

    @property
    def due_away(self) -> str:
        return words.away(self._due, clock.now())

    @property
    def since(self) -> str:
        return "" if self.found.since is None else words.moment(_moment(self.found.since))

    @property
    def runs(self) -> str:
        since = _moment(self.found.since or 0.0)
        return words.duration(clock.now() - since)

    @property
    def bar(self) -> SafeString | None:
        return progress_bar(self.progress) if self.progress else None

    @property
    def _due(self) -> dt.datetime:
        return _moment(self.found.due or 0.0)


class LimitRow(NamedTuple):
    """The limits of a task whose calls go to the queue."""

    task: str
    #: The rate in code, and the one that an operator has set.
    rate: str
    override: str
    #: How many of its calls run at once, in the whole fleet; 0: any number.
    most: int
    #: None: there is a limit for each key.
    in_use: int | None


class Page(NamedTuple):
    rows: list[CallRow]
    #: Where the next page begins; empty: there is none.
    following: str
    #: Where the page before begins; None: unknown, or there is none.
    before: str | None


# ------------------------------------------------------------------------------ the lists


def page_of(queue: str, tab: str, start: str) -> Page:
    """One page of a list. ``start``: what the address says, anything."""
    asked = _START.fullmatch(start)
    first, skip = (int(asked[1]), int(asked[2] or 0)) if asked else (0, 0)
    if tab == DUE:
        due = broker.get().peek_due(queue, PAGE + 1, first / 1000, skip)
        listed = [Found(queue, raw, 0, priority, at) for raw, priority, at in due[:PAGE]]
        following = _following(listed, first, skip) if len(due) > PAGE else ""
        return Page(_rows(queue, listed), following, None)
    if tab == RUNNING:
        every = running(queue)
        more = len(every) > first + PAGE
        listed = _running(queue, every[first : first + PAGE])
    elif tab == IN_FLIGHT:
        in_flight = broker.get().peek_in_flight(queue, first, PAGE + 1)
        more = len(in_flight) > PAGE
        listed = _in_flight(queue, in_flight[:PAGE])
    else:
        waiting = broker.get().peek(queue, first, PAGE + 1)
        more = len(waiting) > PAGE
        listed = _waiting(queue, waiting[:PAGE], first)
    before = str(max(0, first - PAGE)) if first else None
    return Page(_rows(queue, listed), str(first + PAGE) if more else "", before)


def running(queue: str) -> list[inspecting.Place]:
    """The deliveries of a queue that run, by the workers' last reports; the longest first."""
    found = [
        place
        for place in control.inspect.reported()
        if place.queue == queue and math.isfinite(place.since)
    ]
    return sorted(found, key=lambda place: (place.since, place))


def _following(listed: Sequence[Found], first: int, skip: int) -> str:
    """Where the page after these due calls begins. By time and not by place: what becomes due
    meanwhile doesn't move it."""
    last = round((listed[-1].due or 0.0) * 1000)
    same = sum(round((found.due or 0.0) * 1000) == last for found in listed)
    return f"{last}.{same + (skip if last == first else 0)}"


def _waiting(queue: str, found: Iterable[Waiting], first: int) -> list[Found]:
    return [Found(queue, m.raw, place, m.priority) for place, m in enumerate(found, first)]


def _running(queue: str, reported: Sequence[inspecting.Place]) -> list[Found]:
    held = broker.get().held_by([(at.shard, at.consumer, [at.number]) for at in reported])
    return [
        Found(queue, raw, at.number, consumer=at.consumer, since=at.since)
        for raw, at in zip(held, reported, strict=True)
        if raw is not None  # otherwise it has ended since the report
    ]


def _in_flight(queue: str, found: Iterable[InFlight]) -> list[Found]:
    since = {place[:3]: place.since for place in running(queue)}
    return [
        Found(
            queue,
            one.raw,
            one.number,
            consumer=one.consumer,
            since=since.get((one.shard or queue, one.consumer, one.number)),
        )
        for one in found
    ]


def _rows(queue: str, listed: Sequence[Found]) -> list[CallRow]:
    read = [read_for_people(queue, found.raw) for found in listed]
    held = [sent.id for found, sent in zip(listed, read, strict=True) if sent and found.consumer]
    said = dict(zip(held, progress.read_all(queue, held), strict=True))
    return [
        CallRow(found, sent, said.get(sent.id) if sent else None)
        for found, sent in zip(listed, read, strict=True)
    ]


def read_for_people(queue: str, raw: bytes) -> Message | None:
    """A message with its sensitive arguments named; None when it can't be read."""
    try:
        # Only to be looked at, so the signature doesn't matter.
        sent = message.decode(raw, queue, trusted=True)
    except MessageError:
        return None
    if "\0" in sent.id:  # nothing of ours, and PostgreSQL can't be asked for it
        return None
    task = registry.tasks.get(sent.task)
    sent.sensitive = task.sensitive if task else message.hidden_by_sender(sent)
    return sent


# ------------------------------------------------------------------------------ the queue


def about(queue: str) -> dict[str, Any]:
    """What the page of a queue says above its lists."""
    asked = broker.get()
    claimers = inspecting.claimers()
    stats, consumers = inspecting.stats(queue, claimers), inspecting.consumers(queue, claimers)
    pauses = asked.paused(queue)
    paused = PauseRow(queue, pauses[0]) if pauses and not pauses[0].task else None
    workers = sorted(WorkerRow(c.name, c.in_flight, c.lease) for c in consumers)
    found = _limits(queue)
    return {
        "stats": stats,
        "running": len(running(queue)),
        "paused": paused,
        "paused_tasks": [PauseRow(pause.task, pause) for pause in pauses if pause.task],
        "workers": workers[:SHOWN],
        "workers_besides": max(0, len(workers) - SHOWN),
        "limits": found[:SHOWN],
        "limits_besides": max(0, len(found) - SHOWN),
    }


def _limits(queue: str) -> list[LimitRow]:
    router, overrides = routing.get(), control.rate_limits()
    here = []
    for name, task in sorted(registry.tasks.items()):
        options = task.options
        if options.rate_limit is None and not options.concurrency and name not in overrides:
            continue
        address = router.plan(task).address
        if address is not None and queue in address.queues:
            here.append(task)
    counted = [task.name for task in here if task.options.concurrency and not task.key]
    names = [limits.name_of(name) for name in counted]
    in_use = dict(zip(counted, broker.get().slots_in_use(names), strict=True))
    return [
        LimitRow(
            task.name,
            "" if task.options.rate_limit is None else str(task.options.rate_limit),
            str(overrides.get(task.name, "")),
            task.options.concurrency or 0,
            in_use.get(task.name),
        )
        for task in here
    ]


# ------------------------------------------------------------------------------ one call


class Chosen(NamedTuple):
    """A call that an operator acts on."""

    queue: str
    #: Empty when its message can't be read.
    id: str
    #: None when the message isn't there any more.
    found: Found | None
    task: str = ""

    def __str__(self) -> str:
        return f"{self.task} {self.id}".strip() or _("a message that can’t be read")


def chosen(queue: str, tab: str, keys: Sequence[str]) -> list[Chosen]:
    """The calls that were chosen on a page of a list, in their order. They are looked for where
    they were, and then from the beginning of the list on."""
    wanted: dict[str, tuple[int, str]] = {}
    for key in dict.fromkeys(keys):
        place, _colon, rest = key.partition(":")
        digest, _colon, task_id = rest.partition(":")
        asked = _START.fullmatch(place)
        possible = task_id.isprintable() and len(task_id) <= 255
        wanted[digest] = (int(asked[1]) if asked else 0, task_id if possible else "")
    if not wanted:
        return []
    first = min(place for place, _id in wanted.values())
    there: dict[str, Found] = {}
    # What waits moves to the front as others are claimed.
    starts = {WAITING: (max(0, first - _STEP), 0), DUE: (first, 0)}.get(tab, (0,))
    for start in starts:
        for found in _walk(queue, tab, start, _STEP + SEARCHED):
            digest = _digest(found.raw)
            if digest in wanted:
                there.setdefault(digest, found)
                if len(there) == len(wanted):
                    break
        if len(there) == len(wanted):
            break
    return [
        _chosen(queue, there[digest]) if digest in there else Chosen(queue, task_id, None)
        for digest, (_place, task_id) in wanted.items()
    ]


def first_of(queue: str, tab: str, count: int) -> list[Chosen]:
    """The first calls of a list, for an act on all of them."""
    return [_chosen(queue, found) for found in _walk(queue, tab, 0, count)]


def find(queue: str, task_id: str, most: int) -> Found | None:
    """The message of a call, if it is among the first ``most`` of those that are in flight, wait or
    are due later."""
    for tab in (IN_FLIGHT, WAITING, DUE):
        for found in _walk(queue, tab, 0, most):
            if _is(queue, found.raw, task_id):
                return found
    return None


def find_at(queue: str, task_id: str, tab: str, key: str) -> Found | None:
    """The message of a call where a list's link says that it was; anything may be in a link."""
    for one in chosen(queue, tab, [key]) if tab in TABS else ():
        if one.found and one.id == task_id:
            return one.found
    return None


def dead_letter_of(queue: str, task_id: str, most: int) -> DeadLetter | None:
    """The dead letter of a call, if it is among the newest ``most``."""
    before, looked = None, 0
    while looked < most:
        count = min(_STEP, most - looked)
        letters = broker.get().dead_letters(queue, count, before)
        for letter in letters:
            if _is(queue, letter.raw, task_id):
                return letter
        if len(letters) < count:
            return None
        before, looked = letters[-1].key, looked + len(letters)
    return None


def queue_of(task_id: str) -> str:
    """The queue that has a message of this call, dead letters included; empty: none, as far as the
    search goes."""
    queues = conf.get().queues
    most = max(PAGE, SEARCHED // len(queues))  # many queues are not to cost more than one
    for queue in queues:
        if find(queue, task_id, most) or dead_letter_of(queue, task_id, most):
            return queue
    return ""


def page_of_search(request: HttpRequest, text: str, site: str) -> str:
    """`page_of_id` for what is searched for, which may be no id at all."""
    return page_of_id(request, text, site) if _ID.fullmatch(text) else ""


def page_of_id(request: HttpRequest, text: str, site: str) -> str:
    """The page of a call of which the ledger has no row; empty: it has one, nobody knows the call,
    or this person may not see it."""
    if not message.is_name(text) or not may_look(request):
        return ""
    if TaskResult.objects.using(ledger.alias()).filter(pk=text).exists():
        return ""
    try:
        queue = queue_of(text)
    except TROUBLE:
        return ""
    return address(site, "queues_call", queue, quote(text)) if queue else ""


def row_of(found: Found) -> CallRow:
    """A message for its own page."""
    (row,) = _rows(found.queue, [found])
    return row


def _is(queue: str, raw: bytes, task_id: str) -> bool:
    plain = task_id.replace("-", "").isalnum() and task_id.isascii()  # JSON writes it as it is
    if plain and task_id.encode() not in raw:
        return False
    try:
        return message.decode(raw, queue, trusted=True).id == task_id
    except MessageError:
        return False


def _chosen(queue: str, found: Found) -> Chosen:
    sent = read_for_people(queue, found.raw)
    return Chosen(queue, sent.id, found, sent.task) if sent else Chosen(queue, "", found)


def _walk(queue: str, tab: str, start: int, most: int) -> Iterator[Found]:
    """The messages of a list in their order, at most so many."""
    if tab == RUNNING:
        yield from _running(queue, running(queue)[:most])
        return
    looked = 0
    while looked < most:
        count = min(_STEP, most - looked)
        if tab == DUE:
            due = broker.get().peek_due(queue, count, start / 1000, looked)
            found = [Found(queue, raw, 0, priority, at) for raw, priority, at in due]
        elif tab == WAITING:
            place = start + looked
            found = _waiting(queue, broker.get().peek(queue, place, count), place)
        else:
            found = _in_flight(queue, broker.get().peek_in_flight(queue, looked, count))
        yield from found
        if len(found) < count:
            return
        looked += count


def _digest(raw: bytes) -> str:
    """Tells a message from others. A form has this in place of the message, which is large, and
    may have secrets."""
    return hashlib.sha256(raw).hexdigest()[:24]


def _moment(seconds: float) -> dt.datetime:
    """Of Unix seconds that somebody else has written: kept within what a datetime can hold."""
    return dt.datetime.fromtimestamp(min(max(0.0, seconds), 253_402_000_000.0), dt.UTC)
