"""The dead letters of all queues in one order, the newest first, and what they have in common."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jobs import broker, conf, message
from jobs.admin.deadletters.verbs import KEY, Letter
from jobs.broker.base import DeadLetter
from jobs.broker.sharding import place_among

#: Dead letters that are looked at for one page, or for one act on all that match. Each is read
#: whole.
LOOKED = 2_500

#: Dead letters that are counted in groups, and the groups that are shown.
GROUPED, GROUPS = 1_000, 20

#: Dead letters that are read at once from each queue: few at first, since there may be many queues
#: and the page needs fifty; then twice as many each time.
_FIRST, _MOST = 25, 200

#: Characters of a reason's kind.
_KIND = 80


class Place(NamedTuple):
    """Where a dead letter is in the order of all."""

    key: str
    queue: str

    def __str__(self) -> str:
        return f"{self.key}:{self.queue}"


class Filter(NamedTuple):
    """Empty: any."""

    queue: str = ""
    reason: str = ""
    task: str = ""

    @property
    def of_messages(self) -> bool:
        """Whether each letter has to be looked at."""
        return bool(self.reason or self.task)

    def fits(self, queue: str, letter: DeadLetter) -> bool:
        if self.reason and kind_of(letter) != self.reason:
            return False
        return not self.task or task_of(queue, letter) == self.task


class Group(NamedTuple):
    """Dead letters with the same reason and task."""

    reason: str
    #: Empty: their messages can't be read.
    task: str
    size: int


class Page(NamedTuple):
    letters: list[tuple[str, DeadLetter]]
    #: Where the search goes on; None: there are no older ones.
    after: Place | None
    #: Whether the search has stopped before the page was full.
    cut: bool


def place_of(text: str) -> Place | None:
    """The place that an address or a form names; None: that isn't one."""
    key, _colon, queue = text.partition(":")
    return Place(key, queue) if KEY.fullmatch(key) and queue in conf.get().queues else None


def kind_of(letter: DeadLetter) -> str:
    """The beginning of a reason, which is the name of an error in most."""
    return letter.reason.partition(":")[0].strip()[:_KIND]


def task_of(queue: str, letter: DeadLetter) -> str:
    return message.task_of(letter.raw, queue)


def page_of(wanted: Filter, after: Place | None, count: int) -> Page:
    """The newest dead letters that fit and are older than a place."""
    found: list[tuple[str, DeadLetter]] = []
    last: Place | None = after
    looked = 0
    for queue, letter in _newest(wanted.queue, after):
        if len(found) == count:
            return Page(found, last, cut=False)
        if looked == LOOKED:
            return Page(found, last, cut=True)
        looked, last = looked + 1, Place(letter.key, queue)
        if wanted.fits(queue, letter):
            found.append((queue, letter))
    return Page(found, None, cut=False)


def matching(wanted: Filter, newest: Place | None, most: int) -> list[Letter]:
    """The newest dead letters that fit, from this place on, at most so many."""
    found: list[Letter] = []
    for queue, letter in itertools.islice(_newest(wanted.queue, newest, itself=True), LOOKED):
        if wanted.fits(queue, letter):
            found.append(Letter(queue, letter.key))
            if len(found) == most:
                break
    return found


def groups_of(queue: str) -> list[Group]:
    """The newest dead letters by reason and task, the largest group first."""
    counts = Counter(
        (kind_of(letter), task_of(of, letter))
        for of, letter in itertools.islice(_newest(queue, None), GROUPED)
    )
    return [Group(reason, task, n) for (reason, task), n in counts.most_common(GROUPS)]


def count_of(queue: str) -> int:
    """How many dead letters a queue has, or all queues together."""
    return sum(broker.get().stats(name).dead for name in ([queue] if queue else conf.get().queues))


# ------------------------------------------------------------------------------ the order


def _newest(
    queue: str, after: Place | None, *, itself: bool = False
) -> Iterator[tuple[str, DeadLetter]]:
    """The dead letters of one queue or of all, the newest first; those older than a place, or with
    that ``itself``. What has the same time stands in the order of the queues' names."""
    before: dict[str, str | None] = {}
    for name in [queue] if queue else sorted(conf.get().queues):
        before[name] = None if after is None else after.key
        if after is not None and name > after.queue:
            before[name] = _above(after.key)
        elif after is not None and itself and name == after.queue:
            before[name] = _next(after.key)
    read: dict[str, list[DeadLetter]] = {name: [] for name in before}
    count = _MOST if queue else _FIRST
    while True:
        empty = {name: before[name] for name, letters in read.items() if not letters}
        found = broker.get().dead_letters_of(empty, count) if empty else {}
        count = min(2 * count, _MOST)
        for name, letters in found.items():
            if letters:
                read[name], before[name] = letters[::-1], letters[-1].key
            else:
                del read[name]
        if not read:
            return
        heads = [_head(name, letters) for name, letters in read.items()]
        heapq.heapify(heads)
        # Until one of the queues has to be read again: its next letter may be the newest.
        while heads:
            name = heads[0][3]
            letters = read[name]
            yield name, letters.pop()
            if not letters:
                break
            heapq.heapreplace(heads, _head(name, letters))


def _head(name: str, letters: list[DeadLetter]) -> tuple[int, int, int, str]:
    """The place of a queue's next letter, so that the newest of all is the least."""
    time, number, shard = place_among(letters[-1].key)
    return -time, -number, -shard, name


def _above(key: str) -> str:
    """A key above all that have the same time and number."""
    time, number, _shard = place_among(key)
    return f"{time}-{number + 1}" if "-" in key else f"{time + 1}"


def _next(key: str) -> str:
    """The next possible key: that of the next shard."""
    own, _dot, shard = key.partition(".")
    return f"{own}.{int(shard or 0) + 1}"
