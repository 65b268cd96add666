"""Settings of all processes of a storm."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, JOBS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.storm"]

JOBS = {
    **JOBS,
    "LEASE_SECONDS": 3.0,
    "RELAY_AFTER_SECONDS": 1.0,
    "SOCKET_TIMEOUT": 1.0,
    "BROKER_WAIT_REPLICAS": int(os.environ.get("STORM_REPLICAS", "0")),
    # Whatever is running when something is killed here is innocent.
    "MAX_CRASHES": 1000,
}
