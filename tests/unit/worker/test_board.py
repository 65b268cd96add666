"""What a child writes on its board, its supervisor reads: in another process, and after its end."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobs.message import Killed
from jobs.worker import board as board_module
from jobs.worker.board import Board, Running, key


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make(3)
    yield made
    made.close()


def test_a_new_board_is_empty(board: Board) -> None:
    assert board.running() == []
    assert not board.ready


def test_what_begins_and_ends(board: Board) -> None:
    board.begin(0, 11)
    board.begin(2, 13, 99.5)
    limit = Killed.TIME_LIMIT
    assert board.running() == [Running(11, math.inf, limit), Running(13, 99.5, limit)]
    board.end(0)
    board.begin(2, 14)
    assert board.running() == [Running(14, math.inf, limit)]


def test_being_ready_is_not_a_task(board: Board) -> None:
    board.set_ready()
    assert board.ready
    assert board.running() == []


def test_numbers_of_the_child(board: Board) -> None:
    board.set_ready(7, 2)
    assert (board.ready, board.processed, board.failed, board.over) == (True, 7, 2, False)
    board.set_over()
    board.set_ready(8, 2)
    assert (board.processed, board.over, board.quiet) == (8, True, False)


def test_the_supervisor_asks_for_quiet(board: Board) -> None:
    board.set_ready(3)
    board.quiet = True
    board.set_ready(4)  # what the child writes leaves alone what its supervisor has written
    assert board.quiet
    board.quiet = False
    assert (board.quiet, board.processed, board.running()) == (False, 4, [])


def test_the_supervisor_notes_losses(board: Board) -> None:
    assert board.losses == 0
    for quiet in (False, True, False):
        board.quiet = quiet
        before = board.losses
        board.note_loss()
        assert (board.losses, board.quiet) == (before + 1, quiet)


def test_a_place_is_filled_before_it_counts(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor may read at any moment."""

    words = board._words

    class Interrupted:
        def __setitem__(self, where: int, value: int) -> None:
            if value == 7:
                raise KeyboardInterrupt
            words[where] = value

    monkeypatch.setattr(board, "_words", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        board.begin(0, 7, 123.0, 45.0)
    monkeypatch.undo()
    assert board.running() == []
    board.begin(0, 7, 123.0, 45.0)
    assert board.running() == [Running(7, 123.0, Killed.TIME_LIMIT, 45.0)]


def test_stacks_are_taken_once(board: Board) -> None:
    code = (
        "import faulthandler, os, signal, sys; from jobs.worker.board import DUMP; "
        "fd = int(sys.argv[1]); os.lseek(fd, 0, os.SEEK_END); "
        "faulthandler.register(DUMP, file=fd, all_threads=True); "
        "[(signal.raise_signal(DUMP), print('.', flush=True), sys.stdin.readline()) for _ in '12']"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(board.fd)],
        pass_fds=[board.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin
        assert child.stdout
        for _ in range(2):
            child.stdout.readline()
            assert board.take_stacks().count("most recent call first") == 1
            assert board.take_stacks() == ""
            child.stdin.write(b"\n")
            child.stdin.flush()
    board.begin(2, 14)
    assert [running.delivery for running in board.running()] == [14]


def test_condemned(board: Board) -> None:
    board.begin(1, 12, 99.5)
    assert board.condemn(12, 50.0) is True
    assert board.running() == [Running(12, 50.0, Killed.REVOKED)]
    assert board.condemn(13, 50.0) is False
    board.end(1)
    board.begin(1, 15)  # the next in its place is not
    assert board.running() == [Running(15, math.inf, Killed.TIME_LIMIT)]


def test_it_outlives_the_process_that_wrote_on_it(board: Board) -> None:
    code = (
        "import os, signal, sys; from jobs.worker.board import Board; "
        "board = Board(int(sys.argv[1]), 3); board.set_ready(); board.begin(1, 7, 5.0); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(board.fd)], pass_fds=[board.fd], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert board.ready
    assert board.running() == [Running(7, 5.0, Killed.TIME_LIMIT)]


def test_keys_tell_deliveries_apart() -> None:
    found = {key(queue, number) for queue in ("a", "b", "mail") for number in range(1, 2000)}
    assert len(found) == 3 * 1999
    for number in (0, 1, 2**31, 2**40):
        assert 0 < key("mail", number) < 2**63
        board = Board.make(1)
        board.begin(0, key("mail", number))
        assert [place.delivery for place in board.running()] == [key("mail", number)]
        board.close()


def test_queues_that_change(board: Board) -> None:
    first = board.changes
    board.change_queues(["low"], ["default", "é"])
    changes, added, given_up = board.queues() or (0, [], [])
    assert changes == board.changes != first
    assert (added, given_up) == (["low"], ["default", "é"])
    longest = [chr(0x10000 + n) * 255 for n in range(board_module.MOST_CHANGES)]
    board.change_queues(longest, [])
    assert board.queues() == (board.changes, longest, [])
    assert board.running() == []


def test_queues_that_are_being_written(board: Board) -> None:
    board.change_queues(["low"], [])
    board._say(board_module._CHANGES, board.changes + 1)
    assert board.queues() is None
