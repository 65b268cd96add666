"""The contract of every broker: what running tasks note."""

from __future__ import annotations

from jobs.broker.base import About, Broker, Note, progress
from tests.services import wait_for

HALF = Note("id-1", About.PROGRESS, b"half")


def test_the_last_note_of_each_task_is_kept(broker: Broker) -> None:
    assert broker.noted("mail", "id-1", About.PROGRESS) is None
    broker.note(
        "mail", [HALF, Note("id-2", About.PROGRESS, b"other"), HALF._replace(value=b"all")], 60
    )
    assert broker.noted("mail", "id-1", About.PROGRESS) == b"all"
    assert broker.noted("mail", "id-2", About.PROGRESS) == b"other"
    assert broker.noted("another queue", "id-1", About.PROGRESS) is None
    broker.note("mail", [], 60)


def test_progress_and_position_are_two_things(broker: Broker) -> None:
    broker.note("mail", [HALF, Note("id-1", About.POSITION, b"5")], 60)
    assert broker.noted("mail", "id-1", About.POSITION) == b"5"
    broker.forget_notes("mail", ["id-1", "never seen"], About.PROGRESS)
    assert broker.noted("mail", "id-1", About.PROGRESS) is None
    assert broker.noted("mail", "id-1", About.POSITION) == b"5"
    broker.forget_notes("mail", [], About.POSITION)


def test_it_is_kept_for_so_long(broker: Broker) -> None:
    broker.note("mail", [HALF], 0.05)
    wait_for(lambda: broker.noted("mail", "id-1", About.PROGRESS) is None, 5)


def test_those_who_listen_are_told_of_progress_alone(broker: Broker) -> None:
    with broker.subscribe(progress("id-1"), "another topic") as heard:
        broker.note("mail", [Note("id-1", About.POSITION, b"5"), HALF._replace(task_id="id-2")], 60)
        assert not heard(0.05)
        broker.note("mail", [HALF], 60)
        assert heard(5)
        broker.notify("another topic")
        assert heard(5)
        assert not heard(0)
