"""What a process that has loaded the project may have left running or open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def found(code: str, *pass_fds: int) -> str:
    """What is found in a fresh process after this code."""
    ask = "from jobs.worker import leftovers; leftovers.note_start()\n{}\nprint(leftovers.find())"
    command = [sys.executable, "-c", ask.format(code)]
    return subprocess.check_output(command, cwd=ROOT, pass_fds=pass_fds, text=True).strip()


def test_a_fresh_process_has_left_nothing() -> None:
    assert found("") == ""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import threading\n"
            "threading.Thread(target=threading.Event().wait, name='busy', daemon=True).start()",
            "the thread 'busy' runs",
        ),
        (
            "import _thread, threading\n_thread.start_new_thread(threading.Event().wait, ())",
            "threads run that a library has started without Python (1)",
        ),
        ("import socket; ours = socket.socket()", "a socket is open"),
        ("import os; ours = os.pipe()", "a pipe is open"),
        ("import select; ours = select.epoll()", "a descriptor of kind eventpoll is open"),
        ("import multiprocessing; ours = multiprocessing.Lock()", "memory is shared"),
        ("import mmap; ours = mmap.mmap(-1, 4096)", "memory is shared"),
    ],
)
def test_what_no_fork_may_copy(code: str, said: str) -> None:
    assert said in found(code)


@pytest.mark.parametrize(
    ("flags", "well"),
    [
        (os.O_WRONLY | os.O_APPEND | os.O_CREAT, True),
        (os.O_WRONLY | os.O_CREAT, False),
        (os.O_RDWR | os.O_APPEND | os.O_CREAT, False),
        (os.O_RDONLY | os.O_CREAT, False),
    ],
)
def test_only_files_that_are_appended_to_are_shared(tmp_path: Path, flags: int, well: bool) -> None:
    said = found(f"import os; os.open({str(tmp_path / 'file')!r}, {flags})")
    assert said == ("" if well else f"the file {str(tmp_path / 'file')!r} is open")


def test_devices_without_a_position_are_shared() -> None:
    assert found("ours = open('/dev/urandom', 'rb', 0)") == ""


def test_what_the_process_was_given_is_no_matter_and_can_be_closed() -> None:
    read, write = os.pipe()
    try:
        assert found("", read) == ""
        closed = (
            "import os; leftovers.close_given()\n"
            f"print({read} in map(int, os.listdir('/proc/self/fd')))"
        )
        assert found(closed, read) == "False"
        # Another one that has taken its number since.
        taken = (
            f"import os, socket; os.close({read}); ours = socket.socket(); leftovers.close_given()"
        )
        assert found(taken, read) == "a socket is open"
    finally:
        os.close(read)
        os.close(write)
