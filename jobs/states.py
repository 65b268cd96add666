"""The states of a task, named as Celery names them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    PENDING = "PENDING", _("pending")
    STARTED = "STARTED", _("started")
    RETRY = "RETRY", _("waiting for a retry")
    SUCCESS = "SUCCESS", _("succeeded")
    FAILURE = "FAILURE", _("failed")
    REVOKED = "REVOKED", _("revoked")


#: A state that no later outcome changes.
TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})

# What Celery's module of this name has besides.

PENDING = State.PENDING
STARTED = State.STARTED
RETRY = State.RETRY
SUCCESS = State.SUCCESS
FAILURE = State.FAILURE
REVOKED = State.REVOKED
# No call here is in one of these.
RECEIVED = "RECEIVED"
REJECTED = "REJECTED"
IGNORED = "IGNORED"

READY_STATES: frozenset[str] = TERMINAL
UNREADY_STATES: frozenset[str] = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
#: The result is an exception.
EXCEPTION_STATES: frozenset[str] = frozenset({RETRY, FAILURE, REVOKED})
#: `AsyncResult.get` raises it.
PROPAGATE_STATES: frozenset[str] = frozenset({FAILURE, REVOKED})
ALL_STATES: frozenset[str] = frozenset({*State, RECEIVED})

#: Which state says most, that first; None stands for a state of a task's own.
PRECEDENCE: list[str | None] = [
    *(SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING),
]
_PLACES = {None if one is None else str(one): place for place, one in enumerate(PRECEDENCE)}


def precedence(state: str) -> int:
    """The place of a state in `PRECEDENCE`."""
    return _PLACES.get(str(state), _PLACES[None])


class state(str):
    """A state that compares by precedence: ``state("PENDING") < state("PROGRESS")``."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
