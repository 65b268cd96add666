"""Hooks of a transaction that do together what each could do alone."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

_Hook = TypeVar("_Hook")


def hook_before(connection: BaseDatabaseWrapper, kind: type[_Hook]) -> _Hook | None:
    """The hook registered just before, if it is of this kind and under the savepoints of now: what
    rolls back one (Django drops it then) rolls back the other.

    A new hook is registered beside it all the same, and the first that runs at the commit does the
    work of all. Whoever captures hooks (`TestCase.captureOnCommitCallbacks`) gets those that were
    registered since, and must find in them what was done since.
    """
    hooks: list[Any] = connection.run_on_commit
    if not hooks:
        return None
    savepoints, hook = hooks[-1][:2]
    if isinstance(hook, kind) and set(savepoints) == set(connection.savepoint_ids):
        return hook
    return None


def is_committed(connection: BaseDatabaseWrapper) -> bool:
    """Whether a hook is run by the commit, and not by a test that has captured it."""
    return not connection.in_atomic_block
