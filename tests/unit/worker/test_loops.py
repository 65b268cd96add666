"""Pauses that grow, and what is logged of an outage."""

from __future__ import annotations

import logging

import pytest
from django.db import OperationalError

from jobs.exceptions import BrokerUnavailable
from jobs.worker.loops import Backoff

BROKER = BrokerUnavailable("nobody listens")
DATABASE = OperationalError("the server has closed the connection")


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(logging.getLogger("jobs"), "{what} gone", "{what} there", longest=2.0)


def test_one_line_at_each_change(backoff: Backoff, caplog: pytest.LogCaptureFixture) -> None:
    backoff.back()
    for _ in range(3):
        backoff.away(BROKER)
    backoff.back()
    backoff.back()
    backoff.away(BROKER)
    assert caplog.messages == [
        "broker gone: nobody listens",
        "broker there (after 3 tries)",
        "broker gone: nobody listens",
    ]


def test_an_unexpected_error_is_logged_once_until_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backoff = Backoff(
        logging.getLogger("jobs"), "{what} gone", "{what} there", failing="fails", working="works"
    )
    for kind in (KeyError, KeyError, TypeError):
        try:
            raise kind("odd")
        except (KeyError, TypeError) as error:
            backoff.failed(error)
    backoff.away(BROKER)  # it isn't over yet
    backoff.back()
    backoff.back()
    assert [message.split(":")[0] for message in caplog.messages] == [
        *("fails", "fails", "broker gone", "works", "broker there (after 1 tries)"),
    ]
    shown = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert shown == [KeyError, TypeError]


def test_when_the_other_is_away_the_first_is_back(
    backoff: Backoff, caplog: pytest.LogCaptureFixture
) -> None:
    backoff.away(BROKER)
    backoff.away(DATABASE)
    assert backoff.missing == "database"
    backoff.back()
    assert backoff.missing == ""
    assert [message.split(":")[0] for message in caplog.messages] == [
        "broker gone",
        "broker there (after 1 tries)",
        "database gone",
        "database there (after 1 tries)",
    ]


def test_pauses_grow_to_a_limit(backoff: Backoff) -> None:
    # Thousands of tries: an outage of hours.
    pauses = [backoff.away(BROKER) for _ in range(5000)]
    for n, pause in enumerate(pauses[:5], start=1):
        assert 0.025 * 2**n <= pause <= 0.05 * 2**n
    assert all(1.0 <= pause <= 2.0 for pause in pauses[6:])
    assert len(set(pauses)) > 4000
    backoff.back()
    assert backoff.away(BROKER) <= 0.1
