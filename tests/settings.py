"""The project's settings as tests and the processes started by tests use them.

They depend on the environment alone (DATABASE_URL, REDIS_URL), not on a developer's `.env`.
"""

import os
import tempfile
from pathlib import Path

os.environ["ENV_FILE"] = ""
os.environ.setdefault("SECRET_KEY", "the-key-of-the-tests")
# Started processes send mail as well; with DEBUG off it would go to a server on this machine.
os.environ.setdefault("EMAIL_URL", "memorymail://")
# Nothing listens there: a test that needs a broker must ask for one (see conftest.py).
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1/0")

from jobsite.settings import *  # noqa: F403
from jobsite.settings import DATABASES, INSTALLED_APPS, JOBS, MIDDLEWARE

# So that tests/tasks.py is found, and tests/models.py gets its tables.
INSTALLED_APPS = [*INSTALLED_APPS, "tests"]

# A browser refuses what a strict site refuses, and says so in its console.
MIDDLEWARE = ["tests.strict.own_files_only", *MIDDLEWARE]

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

JOBS = {
    **JOBS,
    # What no worker here knows is a dead letter at once: nobody else is there to know it.
    "UNKNOWN_TASK_SECONDS": 0,
    # Tests of beat count what is sent, also at a quarter past three.
    "BEAT_SCHEDULE": {"jobs: prune results": None},
}

# Django reads it from 6.0 on, and on 5.2 its backport.
TASKS = {
    "default": {
        "BACKEND": "jobs.contrib.django_tasks.JobsBackend",
        "QUEUES": ["default", "low"],
    }
}

# Two runs at a time, and the processes of one run, must meet neither in a name nor in memory.
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    _file = Path(tempfile.gettempdir()) / f"jobsite-test-{os.getpid()}.sqlite3"
    DATABASES["default"]["TEST"] = {"NAME": str(_file)}
    # The kernel has what was written: tests kill processes, not machines.
    DATABASES["default"]["OPTIONS"]["init_command"] += " PRAGMA synchronous=OFF;"
else:
    DATABASES["default"]["TEST"] = {"NAME": f"test_{os.getpid()}"}
    DATABASES["default"]["CONN_MAX_AGE"] = 0
