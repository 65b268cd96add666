"""The pages in an `AdminSite` of a project's own: another name, another prefix, perhaps only some
of the pages. Every link of every page is followed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest
from django.contrib.admin import AdminSite
from django.http import HttpResponse
from django.test import Client
from django.urls import clear_url_caches, path, resolve, set_urlconf

from jobs import broker
from jobs.admin import ADMINS
from jobs.models import Schedule, ScheduleRun
from tests.integration.admin.conftest import row, staff
from tests.tasks import add
from tests.workers import put

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.one_database,
    pytest.mark.urls(__name__),
    pytest.mark.usefixtures("short_lists"),
]

PREFIX = "/back/office/"

#: Links to pages of one thing after another: a few are as good as all.
MOST = 120

urlpatterns: list[object] = []


def mount(names: set[str]) -> None:
    """Have a site with these of the pages, and no other."""
    site = AdminSite(name="ops")
    for model, owner in ADMINS.items():
        if model._meta.model_name in names:
            site.register(model, owner)
    urlpatterns[:] = [path(PREFIX.strip("/") + "/", site.urls)]
    clear_url_caches()


@pytest.fixture
def full(broker_url: str) -> Iterator[None]:
    """Something of everything."""
    failed = row(state="FAILURE", error_type="builtins.ValueError", error="no", traceback="Trace")
    gone = row(state="FAILURE", error_type="jobs.exceptions.TaskKilled", task=add.name)
    row(state="SUCCESS", parent_id=failed.pk, root_id=failed.pk)
    row(state="PENDING", task=add.name)
    schedule = Schedule.objects.create(name="nightly", task=add.name, crontab="0 3 * * *")
    ScheduleRun.objects.create(
        schedule=schedule, due_at=gone.created_at, at=gone.created_at, result=gone.pk
    )
    add.delay(1, 2)
    add.apply_async((1, 2), countdown=3_600)
    put(b"no message")
    claim = broker.get().claim("default", "here/1", 1, 1, 30.0)
    broker.get().dead_letter("default", "here/1", claim.messages[0][0], "unreadable", "here")
    yield
    set_urlconf(None)
    clear_url_caches()


def links(answer: HttpResponse) -> set[str]:
    shown = answer.content.decode()
    found = re.findall(r'(?:href|action|hx-get|data-stream|data-url)="([^"]+)"', shown)
    return {unescape(one) for one in found}


def visit_all(root: Client) -> set[str]:
    """Open what the site links to, from its index on. Returns the pages, without their queries."""
    todo, seen, pages = [PREFIX], {PREFIX}, set()
    while todo and len(pages) < MOST:
        page = todo.pop(0)
        answer = root.get(page)
        # Some acts can only be posted.
        assert answer.status_code in (200, 302, 405), page
        pages.add(page.partition("?")[0])
        if answer.streaming or not answer["Content-Type"].startswith("text/html"):
            continue
        for link in links(answer) | ({answer["Location"]} if "Location" in answer else set()):
            if link.startswith("?"):
                link = page.partition("?")[0] + link
            address = link.partition("?")[0].partition("#")[0]
            if not address or address.startswith(("/static/", "../")) or address in ("/", "./"):
                continue
            if address.startswith("/"):
                assert address.startswith(PREFIX), f"{page} links to {link}"
                resolve(address)
                # These sign out, stream for ever, or show the same in another order.
                ends = re.search(r"logout|stream|jsi18n|password|/auth/", address)
                if address not in seen and not ends:
                    seen.add(address)
                    todo.append(link)
    return pages


def tabs(root: Client, page: str) -> list[str]:
    shown = root.get(page).content.decode()
    nav = re.search(r'<nav class="jobs-tabs".*?</nav>', shown, re.DOTALL)
    return re.findall(r'href="([^"]+)"', nav[0]) if nav else []


def test_all_pages(full: None) -> None:
    names = {str(model._meta.model_name) for model in ADMINS}
    mount(names)
    root = staff(superuser=True)
    pages = visit_all(root)
    assert {f"{PREFIX}jobs/{name}/" for name in names} <= pages
    assert len(pages) > 30
    assert set(tabs(root, f"{PREFIX}jobs/queues/")) == {f"{PREFIX}jobs/{n}/" for n in names}


@pytest.mark.parametrize("name", [str(model._meta.model_name) for model in ADMINS])
def test_one_page_alone(full: None, name: str) -> None:
    mount({name})
    root = staff(superuser=True)
    assert f"{PREFIX}jobs/{name}/" in visit_all(root)
    assert tabs(root, f"{PREFIX}jobs/{name}/") == []


def test_two_pages_have_tabs_to_each_other_alone(full: None) -> None:
    mount({"queues", "errors"})
    expected = [f"{PREFIX}jobs/queues/", f"{PREFIX}jobs/errors/"]
    assert tabs(staff(superuser=True), f"{PREFIX}jobs/errors/") == expected


def test_an_act(full: None) -> None:
    mount({"queues"})
    answer = staff(superuser=True).post(f"{PREFIX}jobs/queues/pause/default/", {"why": "tests"})
    assert (answer.status_code, answer["Location"]) == (302, f"{PREFIX}jobs/queues/")
    assert [pause.why for pause in broker.get().paused("default")] == ["tests"]
