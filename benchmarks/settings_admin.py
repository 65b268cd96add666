"""`benchmarks.settings` with Django's admin, as most projects have it; ``BENCH_PRELOAD=0``: each
child of a worker loads all of it by itself."""

import os

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS, JOBS

INSTALLED_APPS = [
    "django.contrib.admin",
    *INSTALLED_APPS,
    "django.contrib.sessions",
    "django.contrib.messages",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
JOBS = {**JOBS, "PRELOAD": os.environ.get("BENCH_PRELOAD") != "0"}
