"""Keys that hold another type than they should: what is remembered of them."""

from __future__ import annotations

import pytest

from jobs.broker.damage import MOST, Damage


def test_each_key_is_logged_once_and_can_be_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    damage = Damage()
    for _ in range(3):
        damage.note("{mail}:workers", "hash")
    assert damage.known() == [("{mail}:workers", "hash")]
    assert len(caplog.records) == 1
    assert "'{mail}:workers' on Redis should be a hash" in caplog.text
    damage.forget("{mail}:workers")
    damage.forget("{mail}:workers")
    assert damage.known() == []
    assert "is as it should be again" in caplog.records[1].getMessage()
    assert len(caplog.records) == 2


def test_so_many_are_remembered() -> None:
    damage = Damage()
    for n in range(MOST + 10):
        damage.note(f"key-{n}", "hash")
    assert len(damage.known()) == MOST
