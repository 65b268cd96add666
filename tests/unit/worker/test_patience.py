"""Pauses that grow, and what is logged of an outage."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from jobs.exceptions import BrokerUnavailable
from jobs.worker.patience import Patience

BROKER = BrokerUnavailable("nobody listens")
DATABASE = OperationalError("the server has closed the connection")


@pytest.fixture
def patience() -> Patience:
    return Patience("{what} gone", "{what} there", longest=2.0)


def test_one_line_at_each_change(patience: Patience, caplog: pytest.LogCaptureFixture) -> None:
    patience.back()
    for _ in range(3):
        patience.away(BROKER)
    patience.back()
    patience.back()
    patience.away(BROKER)
    assert caplog.messages == [
        "broker gone: nobody listens",
        "broker there (after 3 tries)",
        "broker gone: nobody listens",
    ]


def test_when_the_other_is_away_the_first_is_back(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    patience.away(BROKER)
    patience.away(DATABASE)
    assert patience.missing == "database"
    patience.back()
    assert patience.missing == ""
    assert [message.split(":")[0] for message in caplog.messages] == [
        "broker gone",
        "broker there (after 1 tries)",
        "database gone",
        "database there (after 1 tries)",
    ]


def test_pauses_grow_to_a_limit(patience: Patience) -> None:
    # Thousands of tries: an outage of hours.
    pauses = [patience.away(BROKER) for _ in range(5000)]
    for n, pause in enumerate(pauses[:5], start=1):
        assert 0.025 * 2**n <= pause <= 0.05 * 2**n
    assert all(1.0 <= pause <= 2.0 for pause in pauses[6:])
    assert len(set(pauses)) > 4000
    patience.back()
    assert patience.away(BROKER) <= 0.1
