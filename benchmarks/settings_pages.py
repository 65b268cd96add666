"""The settings of the project with twenty queues, for `benchmarks.pages`."""

from jobsite.settings import *  # noqa: F403
from jobsite.settings import JOBS

QUEUES = [f"queue_{number}" for number in range(20)]
JOBS = {**JOBS, "QUEUES": {name: {} for name in QUEUES}, "DEFAULT_QUEUE": QUEUES[0]}
