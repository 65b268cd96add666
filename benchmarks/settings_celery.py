"""The same settings for Celery with django-celery-results, without this program's app."""

from .settings import *  # noqa: F403 - that is its purpose
from .settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("jobs", "benchmarks")]
INSTALLED_APPS += ["django_celery_results"]
