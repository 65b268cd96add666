"""What `runworker` was asked for."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from jobs.exceptions import ConfigurationError
from jobs.worker.child import Options, split


@pytest.fixture(autouse=True)
def _queues(settings: Settings) -> None:
    settings.JOBS = {"QUEUES": {"high": {}, "default": {}, "low": {}, "a:5": {}}}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("high,low", "", (("high", "low"), ())),
        ("high, low", "strict", (("high", "low"), ())),
        ("high:6,default:3,low:1", "", (("high", "default", "low"), (6, 3, 1))),
        ("high:6,low", "", (("high", "low"), (6, 1))),
        ("high:6 , low", "weighted", (("high", "low"), (6, 1))),
        ("high,low", "weighted", (("high", "low"), (1, 1))),
        ("high,low", "round-robin", (("high", "low"), (1, 1))),
        ("", "", (("high", "default", "low", "a:5"), ())),
        ("", "round-robin", (("high", "default", "low", "a:5"), (1, 1, 1, 1))),
        ("a:5,low", "", (("a:5", "low"), ())),
        ("a:5:2,low", "", (("a:5", "low"), (2, 1))),
    ],
)
def test_queues_of_the_command(text: str, kind: str, expected: object) -> None:
    assert split(text, kind) == expected


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("high:x", "", "The weight of queue 'high' must be a whole number from 1, not 'x'"),
        ("high:", "", "not ''"),
        ("high:0", "", "not '0'"),
        ("high:-1", "", "not '-1'"),
        ("high:1.5", "", "not '1.5'"),
        ("high:2,low", "strict", "Weights are given, and the order 'strict'"),
        ("high:2,low", "round-robin", "Weights are given, and the order 'round-robin'"),
        ("high:1001", "", "from 1 to 1000"),
        ("hihg:2", "", "Did you mean 'high'?"),
        ("high,high", "", "A queue is named twice"),
    ],
)
def test_wrong_queues_of_the_command(text: str, kind: str, told: str) -> None:
    def made() -> Options:
        queues, weights = split(text, kind)
        return Options(queues=queues, weights=weights, name="w")

    with pytest.raises(ConfigurationError) as caught:
        made()
    assert told in str(caught.value)


def test_options_reach_the_children() -> None:
    chosen = Options(queues=("high", "low"), weights=(2, 1), name="w")
    assert Options.loads(chosen.dumps()) == chosen
    with pytest.raises(ConfigurationError, match="Either each queue"):
        Options(queues=("high", "low"), weights=(2,), name="w")


def test_a_child_without_memory() -> None:
    with pytest.raises(ConfigurationError, match="a number of kilobytes from 0, not -1"):
        Options(queues=("high",), name="w", max_memory_per_child=-1)


@pytest.mark.parametrize("name", ["x" * 201, "", "a\0", "\ud800"])
def test_a_name_that_the_ledger_cannot_keep(name: str) -> None:
    with pytest.raises(ConfigurationError, match="give another --name"):
        Options(queues=("high",), name=name)


def test_the_longest_name() -> None:
    assert Options(queues=("high",), name="x" * 200).name
