"""The fixture `project` itself: its processes share the test's database and broker."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User

from tests.project import ROOT, Project
from tests.starter import Starter
from tests.workers import own_jobs

CODE = """
import redis
from django.conf import settings
from django.contrib.auth.models import User
User.objects.create(username=User.objects.get().username + "'s friend")
redis.Redis.from_url(settings.JOBS["BROKER_URL"]).lpush("mail", "letter")
print(settings.SECRET_KEY)
"""

#: What tests and what they start may look at.
LOOK = """
import gc, json, locale, os, pathlib, signal, sys, threading, time, warnings
import __main__
from django.conf import settings
from jobs import conf, registry
streams = [sys.stdin, sys.stdout, sys.stderr]
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").open())
print(json.dumps({
    "argv": sys.argv,
    "path": sys.path,
    "main": sorted(name for name in vars(__main__) if not name.startswith("__")),
    "main's file": __main__.__file__,
    "main's spec": __main__.__spec__,
    "environment": dict(os.environ),
    "flags": sys.flags,
    "folder": os.getcwd(),
    "descriptors": os.listdir("/proc/self/fd"),
    "files": [os.readlink(f"/proc/self/fd/{fd}") for fd in range(2)],
    "streams": [(s.encoding, s.errors, s.line_buffering, s.write_through) for s in streams],
    "own session": os.getsid(0) == os.getpgrp() == os.getpid(),
    "parent": os.getppid(),
    "handlers": [str(signal.getsignal(s)) for s in signal.valid_signals()],
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "threads": threading.active_count(),
    "garbage": [gc.isenabled(), gc.get_threshold()],
    "limit": sys.getrecursionlimit(),
    "locale": locale.setlocale(locale.LC_ALL),
    "zone": time.tzname,
    "warnings": [str(f) for f in warnings.filters],
    "settings": {name: str(getattr(settings, name)) for name in dir(settings) if name.isupper()},
    "database": settings.DATABASES["default"]["NAME"],
    "settings' module": settings.SETTINGS_MODULE,
    "conf": str(conf.get()),
    "tasks": sorted(registry.tasks),
}))
"""


def looks(project: Project, **env: str) -> dict[str, Any]:
    process = project.start("manage.py", "shell", "-v", "0", "-c", LOOK, **env)
    assert process.wait(timeout=60) == 0, process.output()
    found: dict[str, Any] = json.loads(process.output())
    del found["settings"]["DATABASES"]  # the name for tests has the id of the process
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only there are processes forked")
@pytest.mark.parametrize("kind", ["own variables", "usual", "own JOBS"])
def test_a_forked_process_looks_like_a_fresh_interpreter(
    project: Project, starter: Starter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    env = {}
    if kind == "own variables":
        env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        env |= {"TZ": "Asia/Tokyo", "LOG_LEVEL": "DEBUG"}
    elif kind == "own JOBS":
        env = own_jobs(project, {"LEASE_SECONDS": 7, "QUEUES": {"default": {}}})
    forked = []
    suits = starter.suits
    monkeypatch.setattr(starter, "suits", lambda *a: forked.append(suits(*a)) or forked[-1])
    warm = looks(project, **env)
    monkeypatch.setattr(starter, "suits", lambda *_: False)
    fresh = looks(project, **env)
    assert forked == [True]
    del warm["files"][1], fresh["files"][1]  # each has a log of its own
    assert warm == fresh


def test_processes_share_database_broker_and_key(project: Project, settings: object) -> None:
    User.objects.create(username="ann")
    printed = project.run("shell", "-c", CODE)
    assert settings.SECRET_KEY in printed  # type: ignore[attr-defined]
    assert User.objects.filter(username="ann's friend").exists()
    with project.valkey.client() as client:
        assert client.lrange("mail", 0, -1) == [b"letter"]


def test_the_server_keeps_its_data_and_its_address_through_a_crash(project: Project) -> None:
    with project.valkey.client() as client:
        client.set("key", "value")
    project.valkey.kill()
    project.valkey.start()
    with redis.Redis.from_url(project.redis_url) as client:
        assert client.get("key") == b"value"


def test_a_process_that_ends_is_told_from_one_that_is_slow(project: Project) -> None:
    printed = project.run("migrate", "--nonsense", status=2)
    assert "unrecognized arguments" in printed


def test_django_s_checks_are_those_of_jobs_too(project: Project) -> None:
    """In a process of its own: the tests of checks import what registers them."""
    assert "(jobs.E001)" in project.run("check", status=1, REDIS_URL="localhost:6379")
