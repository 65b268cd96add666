"""The soft limit of tasks in threads, under a tool that traces every instruction."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys, threading
import django
django.setup()
from jobs.exceptions import SoftTimeLimitExceeded
from jobs.worker.run.executor import ThreadTimer

timer = ThreadTimer()


def work():
    for n in range(3):
        try:
            with timer.limit(0.01):
                while True:
                    pass
        except SoftTimeLimitExceeded:
            pass
        sys.setprofile(lambda *args: None)
        (lambda: None)()
        sys.setprofile(None)


thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_a_profiler_goes_on_after_it(tmp_path: Path) -> None:
    """It would run the same instruction for ever, without a look at signals: so in a process of its
    own."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", _PROGRAM], env=env, timeout=60, check=True)
