"""Beat: sends the task of each schedule at its due times.

Any number of beat processes may run. A tick advances schedules and writes their messages to the
outbox in one transaction that holds the schedules' rows, under ids that follow from schedule and
due time. Whoever comes second finds nothing due; a crash leaves all of it done or none.

`process.py` repeats a step; `ticking.py` is what a step does; `decision.py` decides what becomes of
due times; `sending.py` makes messages of them.
"""

from __future__ import annotations

from jobs.beat import wake  # noqa: F401  edits in any process are told to beat
from jobs.beat.process import Beat
from jobs.beat.sending import run_id, send_now
from jobs.beat.ticking import tick

__all__ = ["Beat", "run_id", "send_now", "tick"]
