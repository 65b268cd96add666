"""The same settings for django-q2, without this program's app."""

import os

from .settings import *  # noqa: F403 - that is its purpose
from .settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("jobs", "benchmarks")]
INSTALLED_APPS += ["django_q"]

Q_CLUSTER = {
    "name": "bench",
    "redis": os.environ["BENCH_REDIS_URL"],
    "workers": int(os.environ.get("BENCH_PROCESSES", "2")),
    "timeout": 60,
    "retry": 120,
    # 0 keeps every result: so that they can be counted.
    "save_limit": 0,
    "catch_up": False,
    "log_level": "WARNING",
}
