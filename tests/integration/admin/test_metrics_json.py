"""The numbers as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory

from jobs import broker
from jobs.admin.dashboard.metrics import metrics_json
from jobs.control import metrics
from jobs.control.metrics import Range
from tests.integration.admin.conftest import staff

pytestmark = pytest.mark.django_db


def ask(query: str = "", permission: str = "jobs.view_queues") -> tuple[int, Any]:
    staff(permission)
    request = RequestFactory().get(f"/admin/jobs/dashboard/metrics.json{query}")
    request.user = User.objects.latest("pk")
    response = metrics_json(request)
    return response.status_code, json.loads(response.content)


@pytest.fixture
def numbers(broker_url: str) -> None:
    broker.get().count("default", {"succeeded": 2, "w0": 2}, {"shop.pay": {"succeeded": 2}})
    broker.get().count("low", {"failed": 1}, {"shop.pay": {"failed": 1}})


@pytest.mark.parametrize("period", Range)
def test_they_are_those_of_python(numbers: None, period: Range) -> None:
    status, told = ask(f"?range={period}")
    assert status == 200
    assert told["range"] == period
    assert told["queues"] == ["high", "default", "low"]
    assert told["series"] == [metrics.plain(one) for one in metrics.series(period)]
    assert told["total"] == metrics.plain(metrics.total(period))
    assert (told["total"]["succeeded"], told["total"]["failed"]) == (2, 1)
    assert told["tasks"]["shop.pay"]["succeeded"] == 2


def test_the_last_hour_is_meant_if_none_is_named(numbers: None) -> None:
    _, told = ask()
    assert (told["range"], len(told["series"])) == ("hour", 60)


def test_some_queues(numbers: None) -> None:
    _, told = ask("?queue=low&queue=high")
    assert told["queues"] == ["low", "high"]
    assert (told["total"]["succeeded"], told["total"]["failed"]) == (0, 1)
    assert told["tasks"]["shop.pay"]["failed"] == 1


@pytest.mark.parametrize("query", ["?range=month", "?range=", "?queue=unknown", "?queue="])
def test_what_there_is_not(numbers: None, query: str) -> None:
    status, told = ask(query)
    assert (status, list(told)) == (400, ["problem"])


def test_a_broker_that_is_away() -> None:
    status, told = ask()
    assert status == 503
    assert "can't be used" in told["problem"]


def test_others_may_not_see_them(numbers: None) -> None:
    with pytest.raises(PermissionDenied):
        ask(permission="jobs.view_taskresult")
