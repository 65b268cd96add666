"""The page for Prometheus, read by the official client's parser."""

from __future__ import annotations

import itertools
import math

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from jobs import broker
from jobs.broker.base import Outgoing
from tests.integration.admin.conftest import staff
from tests.tasks import add, fail
from tests.workers import work

pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from prometheus_client.samples import Sample

from jobs.contrib import prometheus

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "only Prometheus knows it"


def get(user: User | AnonymousUser | None = None, **headers: str) -> HttpResponse:
    request = RequestFactory().get("/metrics", headers=headers)
    if user is not None:
        request.user = user
    return prometheus.metrics(request)


@pytest.fixture
def token(broker_url: str, settings: Settings) -> dict[str, str]:
    """The headers of somebody who may read."""
    settings.JOBS = {**settings.JOBS, "METRICS_TOKEN": TOKEN}
    return {"Authorization": f"Bearer {TOKEN}"}


def samples(response: HttpResponse) -> dict[str, list[Sample]]:
    assert response.status_code == 200
    text = response.content.decode()
    families = (openmetrics if "openmetrics" in response["Content-Type"] else plain_text)(text)
    found: dict[str, list[Sample]] = {}
    for sample in itertools.chain.from_iterable(family.samples for family in families):
        found.setdefault(sample.name, []).append(sample)
    return found


def value(found: dict[str, list[Sample]], name: str, **labels: str) -> float:
    (sample,) = [one for one in found[name] if labels.items() <= one.labels.items()]
    return sample.value


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_numbers(token: dict[str, str], accept: str) -> None:
    for n in range(3):
        add.delay(n, 1)
    fail.apply_async(("a",), queue="low")
    work()
    add.apply_async((1, 2), countdown=3600)
    add.apply_async((1, 2), queue="high")
    found = samples(get(**token, Accept=accept))
    assert value(found, "jobs_sent_total", queue="default") == 4
    outcomes = {
        (one.labels["queue"], one.labels["task"], one.labels["outcome"]): one.value
        for one in found["jobs_outcomes_total"]
        if one.value
    }
    assert outcomes == {
        ("default", add.name, "succeeded"): 3,
        ("low", fail.name, "failed"): 1,
    }
    assert value(found, "jobs_waiting", queue="high") == 1
    assert value(found, "jobs_due", queue="default") == 1
    assert value(found, "jobs_dead_letters", queue="default") == 0
    assert value(found, "jobs_run_seconds_count", queue="default", task=add.name) == 3
    assert value(found, "jobs_wait_seconds_count", queue="default") == 3
    assert value(found, "jobs_wait_seconds_sum", queue="default") >= 0
    buckets = [one for one in found["jobs_wait_seconds_bucket"] if one.labels["queue"] == "default"]
    assert [one.value for one in buckets] == sorted(one.value for one in buckets)
    bounds = [float(one.labels["le"]) for one in buckets]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1], buckets[-1].value) == (0.001, math.inf, 3)


def test_counters_never_fall(token: dict[str, str]) -> None:
    add.delay(1, 2)
    first = value(samples(get(**token)), "jobs_sent_total", queue="default")
    broker.get().push([Outgoing("default", b"a")])
    assert value(samples(get(**token)), "jobs_sent_total", queue="default") == first + 1


def test_hostile_names(token: dict[str, str]) -> None:
    name = 'a"} 1\n# HELP \\ é'
    broker.get().count("default", {}, {name: {"failed": 1}})
    found = samples(get(**token))
    assert value(found, "jobs_outcomes_total", task=name, outcome="failed") == 1


def test_without_metrics_the_states_are_left(token: dict[str, str], settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS": False}
    found = samples(get(**token))
    assert "jobs_waiting" in found
    assert "jobs_sent_total" not in found


@pytest.mark.parametrize(
    "given", ["", TOKEN, "Bearer ", "Bearer wrong", f"Basic {TOKEN}", "Bearer \udcff\xe9"]
)
def test_a_wrong_token(token: dict[str, str], given: str) -> None:
    refused = get(AnonymousUser(), Authorization=given)
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Bearer")
    assert b"jobs_" not in refused.content
    assert get(None, Authorization=given).status_code == 401


def test_no_token_is_no_empty_token(broker_url: str) -> None:
    assert get().status_code == 401
    assert get(Authorization="Bearer ").status_code == 401


def test_anybody_if_the_settings_say_so(broker_url: str, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS_PUBLIC": True}
    assert get().status_code == 200


@pytest.mark.parametrize(
    ("permission", "status"),
    [("jobs.view_queues", 200), ("jobs.manage_queues", 200), ("jobs.view_taskresult", 401)],
)
def test_users_who_may_look_at_the_queues(broker_url: str, permission: str, status: int) -> None:
    staff(permission)
    assert get(User.objects.get()).status_code == status


def test_only_reading(token: dict[str, str]) -> None:
    request = RequestFactory().post("/metrics", headers=token)
    assert prometheus.metrics(request).status_code == 405


def test_it_is_never_cached(token: dict[str, str]) -> None:
    assert "no-store" in get(**token)["Cache-Control"]


def test_a_broker_that_is_away(db: None, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "METRICS_PUBLIC": True}
    away = get()
    assert away.status_code == 503
    assert b"can't be used" in away.content
