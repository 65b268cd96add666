"""`python -m tests.django_contract`: Django's own tests of ``django.tasks``, on our backend.

They come with Django's source distribution of the version that is installed, which pip fetches. The
backend runs each call at once, as Django's `ImmediateBackend` does, whose tests these are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent

#: Tests of what that backend lacks and ours has, and the one whose error has another class here.
NOT_OURS = (
    "test_cannot_get_result",
    "test_cannot_pass_run_after",
    "test_cannot_refresh_result",
    "test_complex_return_value",
)

BACKEND = """
from jobs.contrib.django_tasks import JobsBackend
from jobs.testing import run_jobs


class ImmediateBackend(JobsBackend):
    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        run_jobs()
        result.refresh()
        return result
"""

SETTINGS = """
SECRET_KEY = "contract"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "jobs"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
JOBS = {"CREATE_MISSING_QUEUES": True}
USE_TZ = False
"""


def fetch(folder: Path) -> Path:
    """The folder of Django's tests of tasks, from the source distribution."""
    wanted = f"django=={django.__version__}"
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        members = [one for one in source.getmembers() if re.match(r"[^/]+/tests/tasks/", one.name)]
        source.extractall(folder, members, filter="data")
    (found,) = folder.glob("*/tests/tasks")
    return found


def main() -> int:
    if django.VERSION < (6, 0):
        return 0  # the backport's source distribution has no tests
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = fetch(folder).rename(folder / "tasks")
        (folder / "contract_backend.py").write_text(BACKEND)
        (folder / "contract_settings.py").write_text(SETTINGS)
        file = tests / "test_immediate_backend.py"
        text = file.read_text()
        text = text.replace("django.tasks.backends.immediate", "contract_backend")
        # Ours has a database.
        text = text.replace("(SimpleTestCase)", "(TransactionTestCase)")
        file.write_text(text)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "jobs.contrib.pytest_plugin"]
        command += ["--ds", "contract_settings", "-p", "no:cacheprovider"]
        command += ["-k", " and ".join(f"not {one}" for one in NOT_OURS)]
        command += [str(file), str(tests / "test_tasks.py")]
        paths = f"{ROOT}:{folder}"
        env = {"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
        return subprocess.run(command, cwd=folder, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
