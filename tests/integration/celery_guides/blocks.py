"""Code of Celery's user guide, run as it stands there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.db import connections

from tests.workers import work


class Block(NamedTuple):
    """A block of the guide that works."""

    #: As the guide has it, without prompts; ``from jobs import …`` in place of Celery.
    code: str
    #: Expressions, and what they are afterwards.
    then: Mapping[str, Any] = {}


class Refused(NamedTuple):
    """A block that can't work here, and what its error says."""

    code: str
    told: str
    #: Whether the guide has it; others are mistakes that one might make.
    guide: bool = False


def run(code: str, names: dict[str, Any]) -> None:
    """Run it beside a worker, for which ``get()`` may wait. Raises what it raises."""
    raised: list[BaseException] = []

    def run_here() -> None:
        try:
            exec(code, names)
        except BaseException as error:  # noqa: BLE001  told below
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run_here)
    thread.start()
    while thread.is_alive():
        work()
        thread.join(0.02)
    work()
    if raised:
        raise raised[0]
