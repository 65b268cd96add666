"""Settings of all processes of a storm."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, JOBS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.storm"]

#: Queues that calls are spread over, on a Cluster: the first three are on nodes of their own, one
#: shares a node, and one has shards on all of them. Elsewhere, each task has its queue.
SPREAD = ["mail", "default", "low", "high", "wide"] if os.environ.get("STORM_SPREAD") else []

JOBS = {
    **JOBS,
    "LEASE_SECONDS": 3.0,
    "RELAY_AFTER_SECONDS": 1.0,
    "SOCKET_TIMEOUT": 1.0,
    "BROKER_WAIT_REPLICAS": int(os.environ.get("STORM_REPLICAS", "0")),
    # Whatever is running when something is killed here is innocent.
    "MAX_CRASHES": 1000,
    **({"QUEUES": {**{name: {} for name in SPREAD}, "wide": {"shards": 3}}} if SPREAD else {}),
}
