"""``python -m jobs.worker <consumer> <board's fd> <options>``: a child process of a worker.

Started by the supervisor as a fresh interpreter, so that no connection, lock or thread crosses a
fork, and so that a reload loads the code anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading

import django

from jobs.worker import isolation

#: From <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    consumer, board_fd, asked = sys.argv[1:]
    # kill -QUIT: what is every thread doing?
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    # The supervisor decides; a Ctrl-C in the terminal reaches the whole group of processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    isolation.watch()
    django.setup()
    # Only now can modules be imported that import models.
    from jobs.worker.board import Board
    from jobs.worker.child import Child
    from jobs.worker.options import Options

    options = Options.loads(asked)
    Child(consumer, options, Board(int(board_fd), options.places)).run()


def die_with_parent() -> None:
    """End when the supervisor does: nobody would renew this process's lease any more.

    The supervisor holds the other end of our standard input, which closes when it dies, however
    it dies. On Linux the kernel is asked as well, since a task that holds the interpreter lock
    would keep the thread from noticing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os._exit(1)

    threading.Thread(target=watch, name="jobs-parent", daemon=True).start()


if __name__ == "__main__":
    main()
