"""Several hooks of one transaction (``on_commit``) whose work is done by the first that runs."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

_Hook = TypeVar("_Hook")


def hook_before(connection: BaseDatabaseWrapper, kind: type[_Hook]) -> _Hook | None:
    """The last hook that was registered, if it is of this kind and has the present savepoints. A
    rollback to one of them then drops both that hook and a new one.

    The caller registers a new hook all the same; the first that runs at the commit does the work of
    all. Tests need that: a block of `TestCase.captureOnCommitCallbacks` gets only the hooks that
    were registered inside it, and must find in them what was sent inside it.
    """
    hooks: list[Any] = connection.run_on_commit
    if not hooks:
        return None
    savepoints, hook = hooks[-1][:2]
    if isinstance(hook, kind) and set(savepoints) == set(connection.savepoint_ids):
        return hook
    return None


def is_committed(connection: BaseDatabaseWrapper) -> bool:
    """Whether the commit runs the hook, and not a test that has captured it."""
    return not connection.in_atomic_block
