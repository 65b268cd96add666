"""The settings of the project with many queues, for `benchmarks.pages`."""

import os

from jobsite.settings import *  # noqa: F403
from jobsite.settings import JOBS

QUEUES = [f"queue_{number}" for number in range(int(os.environ.get("BENCH_QUEUES", "20")))]
JOBS = {**JOBS, "QUEUES": {name: {} for name in QUEUES}, "DEFAULT_QUEUE": QUEUES[0]}
