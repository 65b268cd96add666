"""What a task does while it runs: telling how far it is, and loops that can be gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from jobs import iteration, progress

T = TypeVar("T")


class Running:
    """The part of `jobs.Task` that concerns the call that is running."""

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell whoever follows the running call that so much of ``total`` is done.

        It costs some microseconds: at most five a second are sent, always the newest. Outside
        of a worker it does nothing. Raises `TypeError` for what are no numbers.
        """
        progress.report(done, total, message)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None
    ) -> None:
        """Give the running call a state of its own until it ends, and JSON that says more.

        Sent as `progress` is. ``task_id``: as Celery has it; no other call's than the running
        one's. SUCCESS, FAILURE and REVOKED are kept instead if the task raises
        `Ignore` after it: that is its end then, and ``meta`` its result. Raises `ValueError` for a
        state that only the worker can give and for another call's id, `NotSerializable`,
        `MessageTooLarge`.
        """
        progress.update_state(state, meta, task_id)

    def iterate(
        self,
        items: Iterable[T],
        *,
        key: str = "pk",
        size: int = 1000,
        total: int | None = None,
    ) -> Iterator[T]:
        """Go through items in a loop that another run of this call goes on with where it stopped:
        after the worker was stopped, after a crash, after an attempt that failed.

        ``items``: a queryset, read ``size`` rows at a time in the order of the unique column
        ``key``; or what gives the same items in the same order each time. ``total``: how many
        there are, where counting them takes too long. Each step is done once or, after a crash,
        again. Raises `TypeError` or `ValueError` for what can't be gone through like that.
        """
        source = iteration.source_of(items, key, size)
        return iteration.loop(source, iteration.one_by_one, total)

    def iterate_batches(
        self,
        items: Iterable[T],
        *,
        key: str = "pk",
        size: int = 1000,
        total: int | None = None,
    ) -> Iterator[list[T]]:
        """`iterate`, by lists of ``size`` items, for one transaction each."""
        source = iteration.source_of(items, key, size)
        return iteration.loop(source, iteration.by_pages, total)
