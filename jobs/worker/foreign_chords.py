"""Chords whose headers Celery's clients send themselves, counted in the ledger as ours are.

Nothing is sent to us but the members; each carries the body. How many there are the client writes
to its result backend, just before it sends the last of them (``set_chord_size`` in
https://github.com/celery/celery/blob/main/celery/backends/redis.py). Where that is the broker's
Redis, whoever records an end of such a member looks there. Until the number is known the counter
goes down from nothing; so no end is missed, and the last one finds the number.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from jobs import broker, ledger, workflow
from jobs.models import TaskGroup
from jobs.worker.following import NO_CALL, shown
from jobs.worker.outcome import Member
from jobs.workflow import Counted

log = logging.getLogger("jobs.worker")


def open_counters(members: Iterable[Member]) -> list[str]:
    """Begin to count the chords of these members, one member each; the groups that are counted."""
    chords = [chord for member in members if (chord := _counted(member))]
    if chords:
        ledger.open_chords(chords)
        log.info(
            "chords of other clients are counted, and go on when Redis has their sizes: %s",
            ", ".join(chord.id for chord in chords),
        )
    return [chord.id for chord in chords]


def _counted(member: Member) -> Counted | None:
    if member.body is None:
        return None
    try:
        return workflow.of_client(member.group_id, member.body)
    except NO_CALL as error:
        log.error(
            "task %s belongs to a chord whose body can't be sent: %s (%r)",
            member.id,
            shown(member.body),
            error,
        )
        return None


def with_sizes(groups: Sequence[TaskGroup]) -> list[TaskGroup]:
    """Ask for the sizes of these, which were counted down just now; those that are complete."""
    complete = []
    for group in groups:
        size = broker.get().chord_size(group.id)
        if size and TaskGroup.objects.using(ledger.alias()).set_size(group, size):
            complete.append(group)
    return complete
