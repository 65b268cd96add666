"""What becomes of the examples of docs/metrics.md."""

from typing import Any

from django.contrib.auth.models import User
from django.test import RequestFactory


def afterwards(page: Any) -> None:
    request = RequestFactory().get("/metrics")
    request.user = User(is_superuser=True)
    answer = page.urlpatterns[0].callback(request)
    assert answer.status_code == 200
    assert b"jobs_" in answer.content
