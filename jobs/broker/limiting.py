"""The part of the broker's contract that is about limits and unique calls.

What is limited has a name, and belongs to no queue. What is kept of a limit goes when it says
nothing any more; only what operators have said of rates stays until they take it back.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.broker.rates import Permit, Rate

#: Seconds for which a slot is held unless it is kept on.
SLOT = 60.0
#: Seconds for which a slot that was freed is kept for the one who waited longest.
HANDED = 10.0
#: Seconds after which who waits for a slot asks again, should nobody have woken him; with many
#: waiting it is more, so that asking costs the same: so much for each, and so much at most.
ASK_AGAIN, ASK_AGAIN_EACH, ASK_AGAIN_MOST = 10.0, 0.05, 600.0


class Wish(NamedTuple):
    """Questions for permits of one rate."""

    limit: str
    rate: Rate
    #: For each permit the time that was kept for it (`Permit.at`), `rates.GIVEN_BACK`, or 0.0.
    before: Sequence[float]
    #: Seconds beyond which none is kept; None: however late.
    within: float | None = None
    #: How many that were given are not used, and are given back first.
    unused: int = 0


class Slot(NamedTuple):
    """One of so many places under a limit, and who has it or wants it."""

    limit: str
    most: int
    #: A task's id or another name that nobody else has. Asking twice is asking once.
    holder: str
    #: Where the message of its task waits when there is none, and until when (Unix seconds).
    queue: str = ""
    due: float = 0.0


class Take(enum.StrEnum):
    """How a lock is taken."""

    #: If nobody else has it.
    FREE = ""
    #: From whoever has it. When it is given up, those that were replaced can tell so for as long as
    #: it would have been kept.
    REPLACE = "replace"
    #: Only kept for longer, if it is ours.
    KEEP = "keep"


class Lock(NamedTuple):
    """The right of one call to be the only one of its name."""

    name: str
    task_id: str
    #: For how many seconds it is kept at most.
    seconds: float = 0.0
    take: Take = Take.FREE


class Limiting(ABC):
    """Several limits at once are one round trip. Safe to repeat, but for `permits`: a permit
    whose answer was lost is lost."""

    @abstractmethod
    def permits(self, wishes: Sequence[Wish]) -> list[list[Permit]]:
        """Ask for permits, in order. By a faster rate than the last time, what was taken and kept
        until then counts in intervals of the faster one."""

    @abstractmethod
    def set_rate(self, task: str, text: bytes | None) -> bool:
        """Keep what an operator says of a task's rate, for every worker, in place of what was said
        before; None: nothing. Whether something had been said."""

    @abstractmethod
    def rates(self) -> Mapping[str, bytes]:
        """Task → what `set_rate` keeps of it."""

    @abstractmethod
    def take_slots(self, slots: Sequence[Slot]) -> list[float]:
        """Take slots. For each 0.0 when it is held, or the time (Unix seconds) at which to ask
        again. Who holds one already holds it anew."""

    @abstractmethod
    def wait_for_slots(self, slots: Sequence[Slot]) -> None:
        """Have the messages that are due at `Slot.due` be due as soon as a slot is kept for them;
        to be called when they are among the due ones, or they could be missed. A hint: should it
        be lost, they ask again when they are due."""

    @abstractmethod
    def keep_slots(self, slots: Sequence[Slot]) -> None:
        """Hold slots for `SLOT` seconds from now; those that were lost stay lost."""

    @abstractmethod
    def free_slots(self, slots: Sequence[Slot]) -> None:
        """Give slots back, keep each for who has waited longest, and have his message be due."""

    @abstractmethod
    def lock(self, locks: Sequence[Lock]) -> list[str]:
        """Take locks, in order. For each "" when its call has it, or the id of the one that has;
        "-" for a lock that was to be kept, and that nobody has."""

    @abstractmethod
    def unlock(self, locks: Sequence[Lock]) -> list[str]:
        """Give up the locks that these calls have. For each "", or the id of the other call that
        has it or had it last."""

    @abstractmethod
    def locked(self, names: Sequence[str]) -> list[str]:
        """Who has these locks: ids, or "" where nobody has."""
