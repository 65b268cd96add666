"""Django's settings for the benchmarks: as small as a project that only runs jobs can be."""

import os

import environ

SECRET_KEY = "only for measuring: nobody else reaches these servers"  # noqa: S105
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "jobs",
    "benchmarks",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": environ.Env.db_url_config(os.environ["BENCH_DATABASE_URL"])}
DATABASES["default"]["CONN_MAX_AGE"] = 600
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

JOBS = {
    "BROKER_URL": os.environ["BENCH_REDIS_URL"],
    # For what grows with the number of queues.
    "QUEUES": {
        "bench": {"shards": int(os.environ.get("BENCH_SHARDS", "1"))},
        **{f"bench-{n}": {} for n in range(1, int(os.environ.get("BENCH_QUEUES", "1")))},
    },
    "DEFAULT_QUEUE": "bench",
    "METRICS": os.environ.get("BENCH_METRICS") != "off",
}
