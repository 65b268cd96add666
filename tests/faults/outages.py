"""What is asked of a worker after any outage."""

from __future__ import annotations

import re

from tests.project import Process
from tests.services import wait_for

#: What a loop of the worker says when an outage begins for it, and when it is over.
_AWAY = ("is away; ", "is away: ", "can't reach the broker: ")
_BACK = ("is back", "reaches the broker again")
_TRIES = re.compile(r"\(after (\d+) tries\)")


def _count(output: str, signs: tuple[str, ...]) -> int:
    return sum(output.count(sign) for sign in signs)


def calm(worker: Process, seconds: float, outages: int = 1) -> None:
    """Wait until all of its loops say that the outage is over; that none was busy meanwhile, and
    none said more than it had to.

    ``seconds``: how long the outages lasted at most.
    """

    def said() -> str:
        """What it has printed, if that is so then: a loop may notice the outage when it is over."""
        output = worker.output()
        return output if 0 < _count(output, _AWAY) <= _count(output, _BACK) else ""

    what = f"the worker to say that all is back:\n{worker.output()}"
    output: str = wait_for(said, what=what)
    # The supervisor, its relay, its comparison, and two loops of a child.
    loops = 3 + 2 * output.count(" ready, queues")
    assert _count(output, _AWAY) == _count(output, _BACK) <= loops * outages, output
    # Pauses grow from 0.05 s to 0.5 s at least.
    assert max(int(tries) for tries in _TRIES.findall(output)) <= 6 + 2 * seconds, output
    assert "Traceback" not in output, output
