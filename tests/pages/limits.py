"""What docs/limits.md takes for granted."""

from typing import Any

import pytest

from jobs import control, limits
from jobs.exceptions import LimitReached


def read(file: str) -> None: ...


def ask_geocoder(address: str) -> str:
    return address


def afterwards(page: Any) -> None:
    assert page.look_up_now("here") == "here"
    assert page.import_now("file") is None
    with (
        limits.concurrency("imports", 1),
        pytest.raises(LimitReached),
        limits.concurrency("imports", 1),
    ):
        pass
    assert page.first.state == "SUCCESS"
    assert page.settle.key((7, 5), {}) == "7"
    assert page.remind.key((), {"customer": "x"}) == "x"
    assert page.update_index.uniqueness.quiet == 5
    set_now = {task: str(said) for task, said in control.rate_limits().items()}
    assert set_now == {"shop.tasks.look_up": "unlimited", "shop.tasks.render": "5/s, burst 10"}
