"""Rates that an operator has set, applied to the tasks of this process."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from jobs import rate_overrides
from jobs.rate_overrides import RateOverride
from jobs.registry import tasks, use_rate

log = logging.getLogger("jobs.worker")

#: Seconds between two looks, at least.
_EVERY = 3.0


class Overrides:
    """One child's. Looked at before a claim, so a message never waits for it."""

    def __init__(self) -> None:
        self._known: Mapping[str, RateOverride] = {}
        self._next = float("-inf")

    def look(self, now: float) -> None:
        """Have the tasks ask for permits of what is set now, if it is time for a look.

        ``now``: monotonic seconds. Raises `BrokerUnavailable`.
        """
        if now < self._next:
            return
        said = rate_overrides.rate_limits()
        self._next = now + _EVERY
        for name in sorted(self._known.keys() | said.keys()):
            if said.get(name) != self._known.get(name):
                _apply(name, said.get(name))
        self._known = said

    def end(self) -> None:
        """The tasks have the rates of their code again."""
        for task in map(tasks.get, self._known):
            if task:
                use_rate(task, task.options.rate())


def _apply(name: str, said: RateOverride | None) -> None:
    task = tasks.get(name)
    if task is None:
        return  # other workers have it
    if said is None:
        use_rate(task, task.options.rate())
        log.info("task %s: the rate of its code counts again", name)
    else:
        use_rate(task, said.parsed())
        log.info("task %s: the rate %s counts, set by %s", name, said, said.by or "somebody")
