"""What a call belongs to and what came of it, on the page of its result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import transaction
from django.test import Client
from django.utils import timezone, translation

from jobs import chord
from jobs.admin.results.relations import SHOWN
from jobs.models import TaskGroup, TaskResult
from jobs.states import State
from tests.integration.admin.conftest import row, staff
from tests.tasks import add, echo, fail
from tests.workers import work


def page(client: Client, pk: str) -> str:
    response = client.get(f"/admin/jobs/taskresult/{quote(pk)}/change/")
    assert response.status_code == 200
    return response.content.decode()


def field(client: Client, pk: str, name: str) -> str:
    """The HTML of one field of a result's page; empty when it isn't there."""
    found = re.search(rf'field-{name}_text".*?</fieldset>', page(client, pk), re.DOTALL)
    return re.split(r'class="form-row field-', found[0])[0] if found else ""


def links(html: str) -> list[str]:
    return re.findall(r'href="/admin/jobs/taskresult/([^"/]+)/change/"', html)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("broker_url")
def test_the_ways_through_a_chord(root: Client) -> None:
    with transaction.atomic():
        result = (echo.s(1) | chord([add.s(1), add.s(2)], echo.s())).delay()
    first = TaskResult.objects.get().pk
    work()
    one, two = TaskResult.objects.filter(task=add.name).order_by("group_index")
    assert links(field(root, first, "children")) == [one.pk, two.pk]
    assert field(root, first, "parent") == field(root, first, "group") == ""

    assert links(field(root, two.pk, "parent")) == [first]
    html = field(root, two.pk, "group")
    assert f"member 2 of group {one.group_id}" in html
    assert links(html) == [result.id, one.pk, two.pk]

    last = TaskResult.objects.get(pk=result.id).parent_id
    html = field(root, result.id, "parent")
    assert links(html) == [last]
    assert f"of group {one.group_id}" in html


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("broker_url")
def test_the_body_of_a_chord_that_waits_or_has_failed(root: Client) -> None:
    with transaction.atomic():
        result = chord([add.s(1, 2), fail.s("boom")], echo.s()).delay()
    one, two = TaskResult.objects.order_by("group_index")
    assert TaskGroup.objects.exists()
    for state in (State.PENDING, State.FAILURE):
        html = field(root, two.pk, "group")
        assert links(html) == [result.id, one.pk, two.pk]
        assert f"jobs-state-{state.lower()}" in html
        work()


@pytest.mark.django_db
def test_a_call_by_itself_has_no_relatives(root: Client) -> None:
    assert "Workflow" not in page(root, row().pk)


@pytest.mark.django_db
def test_what_is_not_in_the_ledger_any_more_is_named_and_no_link(root: Client) -> None:
    html = field(root, row(parent_id="<gone>", root_id="<gone>").pk, "parent")
    assert "&lt;gone&gt; (not in the ledger any more)" in html
    assert links(html) == []


@pytest.mark.django_db
def test_of_very_many_some_are_shown(
    root: Client, django_assert_num_queries: Any, no_counting: Callable[[Any], None]
) -> None:
    parent = row()
    page(root, parent.pk)  # Django knows its content types from here on
    related = {"parent_id": parent.pk, "root_id": parent.pk, "group_id": "g"}
    rows = [row(**related, group_index=index) for index in range(SHOWN + 10)]
    # Session, user, row; people's acts, children, schedule; the drawing: line, group, chord.
    with django_assert_num_queries(9) as captured:
        html = field(root, parent.pk, "children")
    no_counting(captured)
    assert len(links(html)) == SHOWN
    assert "More are not shown." in html
    # Session, user, row; its parent, children, members; the chord, its last members, its body.
    with django_assert_num_queries(15) as captured:
        html = field(root, rows[-1].pk, "group")
    no_counting(captured)
    assert len(links(html)) == SHOWN
    assert f"member {SHOWN + 10} of group g" in html


@pytest.mark.django_db
def test_the_body_is_found_from_each_of_very_many(root: Client) -> None:
    """The last one to end isn't among those that are shown, and each is its own root."""
    members = [row(group_id="g", group_index=index) for index in range(SHOWN + 10)]
    last = members[-2].pk
    TaskResult.objects.filter(pk=last).update(finished_at=timezone.now())
    body = row(parent_id=last, root_id=last)
    assert links(field(root, members[0].pk, "group"))[0] == body.pk


@pytest.mark.django_db
def test_it_is_for_those_who_may_see_results_and_in_their_language() -> None:
    result = row(group_id="g", group_index=0)
    url = f"/admin/jobs/taskresult/{result.pk}/change/"
    assert staff("jobs.view_queues").get(url).status_code == 403
    with translation.override("zh-hans"):
        client = staff("jobs.view_taskresult")
        text = client.get(url, headers={"accept-language": "zh-hans"}).content.decode()
    assert "组 g 的第 1 个成员" in text
