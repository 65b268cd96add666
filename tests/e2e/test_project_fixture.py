"""The fixture `project` itself: its processes share the test's database and broker."""

from __future__ import annotations

import redis
from django.contrib.auth.models import User

from tests.project import Project

CODE = """
import redis
from django.conf import settings
from django.contrib.auth.models import User
User.objects.create(username=User.objects.get().username + "'s friend")
redis.Redis.from_url(settings.JOBS["BROKER_URL"]).lpush("mail", "letter")
print(settings.SECRET_KEY)
"""


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
