"""The overview of the queues."""

from __future__ import annotations

import re

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from jobs import (
    broker,
)
from jobs.broker.base import Outgoing
from tests.services import Valkey

pytestmark = pytest.mark.django_db

LIVE = "/admin/jobs/queues/live/"
OVERVIEW = "/admin/jobs/queues/"
DEAD = "/admin/jobs/deadletters/"
SCRIPT = "<script>alert('x')</script>"


def numbers(client: Client, queue: str) -> list[int]:
    """Waiting, in flight, due, dead and workers of a queue, as the page has them."""
    page = client.get(LIVE).content.decode()
    cells = page.partition(f'/queue/{queue}/">{queue}</a></th>')[2].partition("</tr>")[0]
    return [int(n) for n in re.findall(r">\s*(\d+)\s*</(?:td|a)>", cells)]


def said(response: object) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ overview


def test_the_numbers_of_a_queue(root: Client, broker_url: str) -> None:
    port = broker.get()
    port.push([Outgoing("high", b"%d" % n) for n in range(5)])
    port.push([Outgoing("high", b"later", due=4e9)])
    port.claim("high", "child-1", 1, 2, 600.0)
    port.renew("low", ["child-1"], 600.0)
    port.dead_letter("high", "child-1", 1, "why", "w")
    assert numbers(root, "high") == [3, 1, 1, 1, 1]
    assert numbers(root, "default") == [0, 0, 0, 0, 0]
    page = root.get(OVERVIEW).content.decode()
    assert 'hx-get="/admin/jobs/queues/live/"' in page
    # Who they are is on the page of the queue, and on that of the workers.
    assert 'href="/admin/jobs/workers/"' in page
    assert "child-1" not in page
    page = root.get("/admin/jobs/queues/queue/high/").content.decode()
    assert re.search(r"child-1</th>\s*<td[^>]*>1</td>", page)
    (left,) = re.findall(r"ends in (\d+) s unless renewed", page)
    assert 500 < int(left) <= 600


def test_a_queue_that_nobody_serves_is_told(root: Client, broker_url: str) -> None:
    assert "no worker takes them" not in root.get(LIVE).content.decode()
    broker.get().push([Outgoing("low", b"x")])
    page = root.get(LIVE).content.decode()
    assert "Messages wait in queue “low”, and no worker takes them." in page
    assert "manage.py runworker --queues low" in page


def test_a_queue_of_celery_s_workers(root: Client, broker_url: str, settings: Settings) -> None:
    queues = {"default": {}, "theirs": {"foreign_workers": True}}
    settings.JOBS = {**settings.JOBS, "QUEUES": queues}
    broker.get().push([Outgoing("theirs", b"x")])
    page = root.get(LIVE).content.decode()
    assert "no worker takes them" not in page
    assert numbers(root, "theirs")[:4] == [1, 0, 0, 0]
    row = page.partition('/queue/theirs/">theirs</a>')[2].partition("</tr>")[0]
    assert re.search(r">Celery’s\s*</td>", row)
    assert "pause" not in row
    assert "purge" not in row
    assert root.get(reverse("admin:jobs_queues_pause", args=["theirs"])).status_code == 404
    assert root.get(reverse("admin:jobs_queues_pause", args=["default"])).status_code == 200
    page = root.get("/admin/jobs/queues/queue/theirs/").content.decode()
    assert "Celery’s workers take the calls of this queue." in page
    assert "/theirs/purge/" not in page
    assert "no worker takes them" not in root.get("/admin/").content.decode()


def test_a_worker_whose_lease_has_ended(root: Client, broker_url: str) -> None:
    port = broker.get()
    port.push([Outgoing("low", b"x")])
    port.claim("low", "gone", 1, 1, -5.0)
    assert "No worker is running." in root.get(LIVE).content.decode()
    page = root.get("/admin/jobs/queues/queue/low/").content.decode()
    assert "what it holds goes back to its queue" in page
    assert 'class="jobs-gone"' in page


@pytest.mark.parametrize("url", [OVERVIEW, LIVE, DEAD])
def test_redis_away(root: Client, own_valkey: Valkey, url: str) -> None:
    own_valkey.kill()
    response = root.get(url)
    assert response.status_code == 200
    page = response.content.decode()
    assert "Redis can’t be asked" in page
    assert str(own_valkey.port) in page
    own_valkey.start()
    assert "Redis can’t be asked" not in root.get(url).content.decode()


def test_no_broker_configured(root: Client, settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": ""}
    settings.DEBUG = False
    assert "BROKER_URL" in root.get(OVERVIEW).content.decode()
