"""The same settings for django-tasks-db, without this program's app."""

from importlib.util import find_spec

from .settings import *  # noqa: F403 - that is its purpose
from .settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("jobs", "benchmarks")]
INSTALLED_APPS += ["django_tasks_db"]
if not find_spec("django.tasks"):
    INSTALLED_APPS += ["django_tasks"]

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["bench"]}}
