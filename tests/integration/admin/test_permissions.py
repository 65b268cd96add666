"""Nobody without the permission sees any of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from jobs import broker, message
from jobs.broker.base import Outgoing
from jobs.message import Message
from tests.integration.admin.conftest import SIGN_IN, letter, row, staff

pytestmark = pytest.mark.django_db

RESULTS = ["/admin/jobs/taskresult/", "/admin/jobs/taskresult/{id}/change/"]
QUEUES = [
    "/admin/jobs/queues/",
    "/admin/jobs/queues/live/",
    "/admin/jobs/queues/queue/default/",
    "/admin/jobs/queues/call/default/{waiting}/",
    "/admin/jobs/deadletters/",
    "/admin/jobs/deadletters/letter/default/{key}/",
]
DELETE = "/admin/jobs/taskresult/{id}/delete/"
ADD = "/admin/jobs/taskresult/add/"


@pytest.fixture
def address(broker_url: str) -> Callable[[str], str]:
    """Fills in the id of a result, the key of a dead letter, and the id of a call that waits."""
    sent = Message(task="shop.tasks.send_receipt", id=message.new_id(), queue="default")
    broker.get().push([Outgoing("default", message.encode(sent))])
    found = {"id": row().pk, "key": letter()[0], "waiting": sent.id}
    return lambda url: url.format(**found)


@pytest.mark.parametrize("url", [*RESULTS, *QUEUES, DELETE, ADD])
def test_anonymous_people_are_sent_to_sign_in(address: Callable[[str], str], url: str) -> None:
    response = Client().get(address(url))
    assert response.status_code == 302
    assert response["Location"].startswith(SIGN_IN)


@pytest.mark.parametrize("url", [*RESULTS, *QUEUES, DELETE, ADD])
def test_staff_without_permissions_is_refused(address: Callable[[str], str], url: str) -> None:
    assert staff().get(address(url)).status_code == 403


@pytest.mark.parametrize("url", RESULTS)
def test_viewing_results(address: Callable[[str], str], url: str) -> None:
    assert staff("jobs.view_taskresult").get(address(url)).status_code == 200
    assert staff("jobs.view_queues", "jobs.manage_queues").get(address(url)).status_code == 403


@pytest.mark.parametrize("url", QUEUES)
def test_viewing_queues(address: Callable[[str], str], url: str) -> None:
    assert staff("jobs.view_queues").get(address(url)).status_code == 200
    assert staff("jobs.manage_queues").get(address(url)).status_code == 200
    assert staff("jobs.view_taskresult").get(address(url)).status_code == 403


@pytest.mark.parametrize("url", [*RESULTS, *QUEUES, DELETE])
def test_superusers_see_all(address: Callable[[str], str], root: Client, url: str) -> None:
    assert root.get(address(url)).status_code == 200


def test_nobody_adds_or_changes_a_result(address: Callable[[str], str], root: Client) -> None:
    assert root.get(ADD).status_code == 403
    change = address(RESULTS[1])
    assert root.post(change, {"state": "FAILURE"}).status_code == 403
    assert 'name="_save"' not in root.get(change).content.decode()


def test_deleting_needs_its_permission(address: Callable[[str], str]) -> None:
    url = address(DELETE)
    assert staff("jobs.view_taskresult").post(url, {"post": "yes"}).status_code == 403
    client = staff("jobs.view_taskresult", "jobs.delete_taskresult")
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert client.get(address(RESULTS[1])).status_code == 302


@pytest.mark.parametrize(
    ("permissions", "seen"),
    [
        ((), set()),
        (("jobs.view_taskresult",), {"/admin/jobs/taskresult/"}),
        (("jobs.view_queues",), {"/admin/jobs/queues/"}),
        (("jobs.manage_queues",), {"/admin/jobs/queues/"}),
    ],
)
def test_the_index_lists_what_may_be_seen(permissions: tuple[str, ...], seen: set[str]) -> None:
    client = staff(*permissions)
    page = client.get("/admin/").content.decode()
    listed = {url for url in ("/admin/jobs/taskresult/", "/admin/jobs/queues/") if url in page}
    assert listed == seen
    assert client.get("/admin/jobs/").status_code == (200 if seen else 404)
