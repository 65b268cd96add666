"""What a task offers for composing its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from jobs.canvas.base import Composable
from jobs.canvas.calls import Signature
from jobs.canvas.composing import Group
from jobs.canvas.running import add_to_chord, replacement
from jobs.exceptions import Replaced, WorkflowError
from jobs.request import current
from jobs.values import check_whole


class Composing:
    """A part of `jobs.Task`."""

    name: str
    atomic: bool
    is_async: bool
    ignore_result: bool
    expires: Any

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """This call as a value, to be sent by somebody else or later."""
        return Signature(self.name, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """`s`, taking no result of a task before it."""
        return Signature(self.name, args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature:
        """`s` with arguments as a sequence and a mapping, and with options."""
        made = Signature(self.name, tuple(args or ()), dict(kwargs or {}), immutable=immutable)
        return made.set(**options)

    subtask = signature  # Celery's former name

    def map(self, items: Iterable[Any]) -> Signature:
        """One call that runs this task for each item, one after the other; it returns the list of
        their results. It goes to this task's queue."""
        return self._over("celery.map", items)

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature:
        """`map`, each item being all positional arguments."""
        return self._over("celery.starmap", items)

    def chunks(self, items: Iterable[Sequence[Any]], size: int) -> Group:
        """`starmap` in a group of calls, each for so many items."""
        check_whole("the size of chunks()", size, 1, 2**31)
        several = list(items)
        starts = range(0, len(several), size)
        return Group(tuple(self.starmap(several[n : n + size]) for n in starts))

    def _over(self, name: str, items: Iterable[Any]) -> Signature:
        if self.is_async:
            raise TypeError(
                f"Task {self.name!r} is 'async def'; send a group of its calls instead."
            )
        options: dict[str, Any] = {}
        if self.ignore_result:
            options["ignore_result"] = True
        if self.expires is not None:
            options["expires"] = self.expires
        kwargs = {"task": self.s().as_dict(), "it": list(items)}
        return Signature(name, (), kwargs, options, immutable=True)

    def replace(self, call: Composable) -> NoReturn:
        """End this call, for another one to take its place: that ends under this id, and what was
        to follow this call follows that.

        Raises `Replaced`, which the worker understands; `WorkflowError` in an atomic task, whose
        effects that would take back; and what `jobs.canvas.Composable.apply_async` does.
        """
        running = current.get()
        if running is None:
            raise RuntimeError(f"Task {self.name!r} is not being run by a worker.")
        if self.atomic:
            raise WorkflowError(
                f"Task {self.name!r} is atomic: replacing it would take its effects back. Let it "
                "return, and write what follows as a chain."
            )
        raise Replaced(call=replacement(call, running[0]))

    def add_to_chord(self, call: Composable) -> Any:
        """Make a call a further member of the chord that this one is a member of; its handle.

        Its result comes last in what the body gets. Raises `WorkflowError` in what is no member of
        a chord, and what `jobs.canvas.Composable.apply_async` does.
        """
        return add_to_chord(call)
