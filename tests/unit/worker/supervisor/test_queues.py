"""The queues of a worker, changed while it runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django import Settings

from jobs.exceptions import ConfigurationError, UnknownQueue
from jobs.worker.board import MOST_CHANGES
from jobs.worker.child import Options
from jobs.worker.supervisor.queues import Queues


class Children:
    """What the children of a worker were told."""

    def __init__(self, *queues: str, weights: tuple[int, ...] = ()) -> None:
        self.told: list[Options] = []
        options = Options(queues=queues, weights=weights, name="w")
        slot: Any = SimpleNamespace(use=self.told.append)
        self.queues = Queues(options, [slot])


def test_one_is_taken_on_and_given_up() -> None:
    children = Children("default")
    queues = children.queues
    assert queues.take_on("low")
    assert queues.served == queues.attended == children.told[-1].queues == ("default", "low")
    assert not queues.take_on("low")
    assert queues.give_up("default")
    assert queues.served == children.told[-1].queues == ("low",)
    assert queues.attended == ("default", "low")  # children may still hold messages
    assert queues.home == "default"
    assert not queues.give_up("default")
    assert not queues.give_up("no-such")
    assert queues.take_on("default")
    assert (queues.served, queues.attended) == (("low", "default"), ("default", "low"))
    assert len(children.told) == 3


def test_weights() -> None:
    children = Children("high", "default", weights=(6, 3))
    children.queues.take_on("low")
    children.queues.give_up("high")
    assert children.told[-1].queues == ("default", "low")
    assert children.told[-1].weights == (3, 1)


def test_what_it_refuses() -> None:
    queues = Children("default").queues
    with pytest.raises(UnknownQueue, match=r"'lo' is not declared .* Did you mean 'low'"):
        queues.take_on("lo")
    with pytest.raises(ConfigurationError, match="the only one of worker 'w'"):
        queues.give_up("default")
    assert queues.served == queues.attended == ("default",)


def test_not_more_than_a_child_can_be_told(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "CREATE_MISSING_QUEUES": True}
    queues = Children("default").queues
    for n in range(MOST_CHANGES):
        assert queues.take_on(f"q{n}")
        if n:
            assert queues.give_up(f"q{n}")
    with pytest.raises(ConfigurationError, match="restart it"):
        queues.take_on("one-more")
    assert queues.served == ("default", "q0")


def test_one_of_celerys_workers_is_left_to_them(settings: Settings) -> None:
    queues = {"default": {}, "theirs": {"foreign_workers": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    children = Children("default")
    with pytest.raises(ConfigurationError, match="Celery's workers take the calls"):
        children.queues.take_on("theirs")
    assert not children.told
