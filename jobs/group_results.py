"""Reading the results of a group, and waiting for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from jobs import celery_names, ledger
from jobs.exceptions import ResultTimeout
from jobs.models import TaskResult
from jobs.models.results import TaskResultQuerySet
from jobs.results import AsyncResult, Handle, assert_will_not_block, refuse_others, value_of
from jobs.states import TERMINAL, State

#: Longest time, in seconds, between two looks at the ledger for ends that nobody has told of.
_LOOK = 0.5
#: Rows of one query that asks for them by their ids.
_BATCH = 500


class GroupResult:
    """The handle of a group: the results of its members, in their order."""

    __slots__ = ("id", "parent", "results")

    def __init__(
        self,
        id: str,  # noqa: A002  Celery's name
        results: Sequence[Handle] | None = None,
        *,
        parent: Handle | None = None,
    ) -> None:
        """``results``: the handles of its members; by default of those that the ledger knows, which
        are all when it was sent in a transaction, or when all have ended. ``parent``: of the call
        before it."""
        self.id = id
        self.parent = parent
        if results is None:
            ids = _rows(id).order_by("group_index").values_list("id", flat=True)
            results = [AsyncResult(task_id) for task_id in ids]
        self.results: list[Handle] = list(results)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id}, {len(self.results)} members>"

    if not TYPE_CHECKING:  # a type checker is to name what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(celery_names.no_attribute(self, name, celery_names.GROUP))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Handle]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Handle:
        return self.results[index]

    @property
    def children(self) -> list[Handle]:
        return self.results

    # ------------------------------------------------------------------ looking

    def completed_count(self) -> int:
        """How many members have succeeded."""
        return _rows(self.id).filter(state=State.SUCCESS).count()

    def ready(self) -> bool:
        """Whether all members have ended, but for those that keep no result: of them nobody
        knows."""
        return self._all(*TERMINAL)

    def successful(self) -> bool:
        """Whether all members have succeeded, but for those that keep no result."""
        return self._all(State.SUCCESS)

    def _all(self, *states: str) -> bool:
        rows = _rows(self.id).filter(state__in=states)
        ignored = [one.id for one in self.results if isinstance(one, AsyncResult) and one.ignored]
        if ignored:  # sent in a transaction, they have rows
            rows = rows.exclude(id__in=ignored)
        return rows.count() >= len(self) - len(ignored)

    def failed(self) -> bool:
        """Whether a member has failed or was revoked."""
        return _rows(self.id).filter(state__in=(State.FAILURE, State.REVOKED)).exists()

    def waiting(self) -> bool:
        """Whether a member has not ended yet."""
        return not self.ready()

    def forget(self) -> None:
        """Delete what is recorded of members that have ended."""
        _rows(self.id).filter(state__in=TERMINAL).delete()

    def revoke(self, *, terminate: bool = False, **celerys: Any) -> None:
        """Have each member end as REVOKED: see `jobs.control.revoke`."""
        if celerys:
            refuse_others(celerys, celery_names.REVOKE, "revoke()")
        for result in self.results:
            result.revoke(terminate=terminate)

    # ------------------------------------------------------------------ waiting

    def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        interval: float | None = None,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> list[Any]:
        """What the members returned, in their order, waiting up to ``timeout`` seconds (None: for
        ever). ``interval``, and further options of Celery's, are taken and not needed.

        Raises what a member raised as soon as that is known (puts it into the list with
        ``propagate=False``), `TaskRevoked`, `ResultTimeout`, or `ResultError` where waiting could
        never end; in a task `WaitInTask`, as `AsyncResult.get` does.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "get()")
        found = dict(self._ends(timeout, propagate=propagate))
        return [found[result.id] for result in self.results]

    join = get

    async def aget(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """`get`, without blocking the event loop."""

        def get() -> list[Any]:
            try:
                return self.get(
                    timeout,
                    propagate=propagate,
                    disable_sync_subtasks=disable_sync_subtasks,
                )
            finally:
                close_old_connections()

        return await sync_to_async(get, thread_sensitive=False)()

    def iterate(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        interval: float | None = None,
        disable_sync_subtasks: bool = True,
        **celerys: Any,
    ) -> Iterator[Any]:
        """What the members returned, each as soon as it has ended; takes and raises what `get`
        does."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if celerys:
            refuse_others(celerys, celery_names.GET, "iterate()")
        return (value for _, value in self._ends(timeout, propagate=propagate))

    def _ends(self, timeout: float | None, *, propagate: bool) -> Iterator[tuple[str, Any]]:
        waiting = {result.id: result for result in self.results}
        for nobodys in [
            one for one in self.results if isinstance(one, AsyncResult) and one.ignored
        ]:
            del waiting[nobodys.id]
            yield nobodys.id, None  # as `AsyncResult.get` of one gives
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            for row in self._ended(waiting):
                value = value_of(row)
                if propagate and row.state != State.SUCCESS:
                    raise value
                yield row.id, value
            if not waiting:
                return
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise ResultTimeout(
                    f"{len(waiting)} of the {len(self)} members of group {self.id} have not ended "
                    f"within {timeout:g} seconds."
                )
            # The last one ends when most others have.
            _wait(next(reversed(waiting.values())), _LOOK if left is None else min(left, _LOOK))

    def _ended(self, waiting: dict[str, Handle]) -> Iterator[TaskResult]:
        """Those that have ended since the last look, which wait no more."""
        rows = _rows(self.id).filter(state__in=TERMINAL)
        new = [one for one in rows.values_list("id", flat=True).iterator() if one in waiting]
        for start in range(0, len(new), _BATCH):
            for row in rows.filter(id__in=new[start : start + _BATCH]).defer("message"):
                del waiting[row.id]
                yield row


def _wait(result: Handle, seconds: float) -> None:
    with contextlib.suppress(ResultTimeout):
        result.get(timeout=seconds, propagate=False, disable_sync_subtasks=False)


def _rows(group_id: str) -> TaskResultQuerySet:
    return TaskResult.objects.using(ledger.alias()).filter(group_id=group_id)
