"""The rest of a long chain, as it came: read only as far as it is needed.

Each message of a chain carries all calls that follow. Reading and writing them anew at each step
would take time that grows with the square of the chain's length; to copy their bytes takes next to
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import msgspec

from jobs import serialization


class Behind(Sequence[Any]):
    """The JSON forms of the calls that follow one in its chain, the next one last."""

    __slots__ = ("_texts", "plain")

    def __init__(self, texts: Sequence[bytes], *, plain: bool) -> None:
        """``texts``: one for each call. ``plain``: whether each is a call of one task, with an id:
        no group or chord, which takes what follows it into its body."""
        self._texts = texts
        self.plain = plain

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [serialization.loads(text) for text in self._texts[place]]
        return serialization.loads(self._texts[place])

    def after_next(self) -> Behind:
        """Those that follow the next one."""
        return Behind(self._texts[:-1], plain=self.plain)

    def text(self) -> str:
        """All of them as JSON."""
        return b"".join((b"[", b",".join(self._texts), b"]")).decode()

    def __json__(self) -> list[Any]:
        return list(self)


class _Options(msgspec.Struct):
    task_id: str


class _Step(msgspec.Struct):
    """What a call of one task has at least."""

    task: str
    options: _Options
    subtask_type: str | None = None


def read(texts: Iterable[msgspec.Raw]) -> Behind | None:
    """The calls of these JSON texts; None if one of them is no call, or has no id."""
    found, plain = [bytes(text) for text in texts], True
    try:
        for text in found:
            plain = plain and _step.decode(text).subtask_type in (None, "task")
    except msgspec.DecodeError:
        return None
    return Behind(found, plain=plain)


_step = msgspec.json.Decoder(_Step)
