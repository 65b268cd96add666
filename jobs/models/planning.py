"""What decides when a schedule is due, and how beat hears of it.

A schedule is *planned* when ``next_run_at`` says when its rule is next due. ``planned_at`` tells
when that was worked out, ``planned_for`` for which rule (a digest).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Any

from django.db import connections, transaction
from django.dispatch import Signal

from jobs.models.commits import hook_before, is_committed

#: What decides when a schedule is due. With another one, every row is planned anew.
RULE_FIELDS = (
    *("crontab", "interval", "at", "timezone", "start_at", "end_at", "created_at"),
    *("enabled", "paused_until"),
)
#: What planning writes.
PLAN_FIELDS = frozenset(("next_run_at", "planned_for", "planned_at"))

#: Sent once what changes the next time of schedules is committed. Argument: ``using``.
rules_changed = Signal()


def digest_of(values: Iterable[Any]) -> str:
    """A short text for the values of RULE_FIELDS, in their order."""
    parts = [value.timestamp() if isinstance(value, dt.datetime) else value for value in values]
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def is_rule(fields: Iterable[str]) -> bool:
    """Whether one of them is of RULE_FIELDS."""
    return any(field in RULE_FIELDS for field in fields)


class _Announce:
    """The commit hook that tells beat; one of several in a row does it for all."""

    def __init__(self, using: str, before: _Announce | None) -> None:
        self.using = using
        self.before = before
        self.done = False

    def __call__(self) -> None:
        told = (
            self.before is not None and self.before.done and is_committed(connections[self.using])
        )
        if not self.done and not told:
            rules_changed.send_robust(type(self), using=self.using)
        self.done = True


def announce_at_commit(using: str) -> None:
    """Send `rules_changed` when the current transaction commits, or now when there is none."""
    connection = connections[using]
    before = hook_before(connection, _Announce) if connection.in_atomic_block else None
    transaction.on_commit(_Announce(using, before), using=using)
