"""Which Sentinel is asked, and which of their answers counts."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from jobs.broker.sentinels import Sentinels
from jobs.conf import address
from jobs.exceptions import BrokerUnavailable

OLD, NEW = {"host": "old", "port": 6379}, {"host": "new", "port": 6379}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sentinel → the host of the master that it names; "away" for one that doesn't answer."""
    said = dict.fromkeys("abc", "old")

    def ask(self: Sentinels, host: str, *_args: Any) -> list[bytes]:
        asked.append(host)
        if said[host] == "away":
            raise redis.TimeoutError("away")
        return [said[host].encode(), b"6379"]

    asked.clear()
    monkeypatch.setattr(Sentinels, "_ask", ask)
    return said


asked: list[str] = []


@pytest.fixture
def sentinels(said: dict[str, str]) -> Sentinels:
    return Sentinels(address.parse("redis+sentinel://a,b,c/jobs/0"))


def test_the_first_answer_counts(sentinels: Sentinels) -> None:
    assert sentinels.master(1.0) == OLD
    assert asked == ["a"]


def test_a_sentinel_that_has_not_heard_of_the_new_master_yet(
    sentinels: Sentinels, said: dict[str, str]
) -> None:
    said["c"] = "new"
    sentinels.doubt("old", 6379)
    assert sentinels.master(1.0) == NEW


def test_a_master_that_all_still_name_counts(sentinels: Sentinels) -> None:
    sentinels.doubt("old", 6379)
    assert sentinels.master(1.0) == OLD
    assert asked == ["a", "b", "c"]
    asked.clear()
    assert sentinels.master(1.0) == OLD
    assert asked == ["a"]


def test_one_that_is_away_is_asked_last_from_then_on(
    sentinels: Sentinels, said: dict[str, str]
) -> None:
    said["a"] = "away"
    for _ in range(2):
        assert sentinels.master(1.0) == OLD
    assert asked == ["a", "b", "b"]


def test_none_answers(sentinels: Sentinels, said: dict[str, str]) -> None:
    said.update(dict.fromkeys(said, "away"))
    with pytest.raises(BrokerUnavailable, match="no Sentinel names the master"):
        sentinels.master(1.0)
