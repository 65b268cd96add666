"""Each address of each page, for people who may not: it shows nothing, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from jobs import broker
from jobs.models import KnownError, Schedule, TaskResult
from tests.integration.admin.conftest import SIGN_IN, row, staff
from tests.integration.admin.test_hostile import MODELS, filled, routes, things

__all__ = ["things"]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("short_lists")]

#: Fields with which some form would act at once.
PRESSED = {
    "confirmed": "yes",
    "in_background": "yes",
    "post": "yes",
    "name": "default",
    "task": "tests.tasks.trace",
    "rate": "1/s",
    "to": "high",
    "args": "[]",
    "kwargs": "{}",
    "select_across": "1",
    "due": "yes",
}

#: They only look.
VIEWS = ("jobs.view_taskresult", "jobs.view_queues", "jobs.view_schedule")


def state(broker_url: str) -> dict[str, Any]:
    """All that an act could change."""
    found: dict[str, Any] = {
        model.__name__: list(model.objects.order_by("pk").values())  # type: ignore[attr-defined]
        for model in (TaskResult, Schedule, KnownError, LogEntry)
    }
    with redis.Redis.from_url(broker_url) as server:
        for key in server.scan_iter():
            found[key.decode()] = server.dump(key)
    return found


def acts(model: type[Any]) -> list[str]:
    """The names of all actions that a list of this model may know."""
    from jobs.admin.deadletters.verbs import ALL_LETTERS_VERBS, LETTER_VERBS
    from jobs.admin.queues.verbs import ALL_CALLS_VERBS, CALL_VERBS

    owner = admin.site._registry[model]
    verbs = [*LETTER_VERBS, *ALL_LETTERS_VERBS]
    for some in (*CALL_VERBS.values(), *ALL_CALLS_VERBS.values()):
        verbs += some
    names = {verb.name for verb in verbs}
    names |= {v.action or v.name for v in getattr(owner, "verbs", ())}
    return sorted(names | {"delete_selected"})


def posts(model: type[Any], route: str, places: dict[str, str]) -> list[dict[str, str]]:
    chosen = {"_selected_action": places["object_id"], "key": f"{places['key']}:default"}
    if route in ("", "queue/<path:queue>/"):
        return [{**PRESSED, **chosen, "action": name} for name in acts(model)]
    return [{**PRESSED, **chosen}]


@pytest.mark.parametrize("model", MODELS)
def test_without_any_permission(things: dict[str, str], broker_url: str, model: type[Any]) -> None:
    before, client, nobody = state(broker_url), staff(), Client()
    for route in routes(model):
        if route == "<path:object_id>/":
            continue  # Django's own old address: a redirect to the new one
        url = filled(model, route, things)
        refused = (403, 405)  # 405: it is for POST alone
        assert client.get(url).status_code in refused, url
        assert nobody.get(url)["Location"].startswith(SIGN_IN), url
        for fields in posts(model, route, things)[:1]:
            assert client.post(url, fields).status_code == 403, url
            assert nobody.post(url, fields)["Location"].startswith(SIGN_IN), url
    assert state(broker_url) == before


@pytest.mark.parametrize("model", MODELS)
def test_who_may_look_changes_nothing(
    things: dict[str, str], broker_url: str, model: type[Any]
) -> None:
    row(state="FAILURE", task="tests.tasks.trace", error_type="builtins.ValueError")
    before, client = state(broker_url), staff(*VIEWS)
    for route in routes(model):
        url = filled(model, route, things)
        assert client.get(url).status_code in (200, 302, 403, 404, 405), url
        for fields in posts(model, route, things):
            answer = client.post(url, fields)
            assert answer.status_code in (200, 302, 403, 404, 405), url
            assert state(broker_url) == before, (url, fields.get("action"))


#: Permission → the addresses that do what it is for.
GUARDED = {
    "jobs.pause_queues": [
        "queues/pause/default/",
        "queues/resume/default/",
        "queues/pause-task/",
        "queues/resume-task/tests.tasks.trace/",
    ],
    "jobs.purge_queues": ["queues/purge/default/"],
    "jobs.run_tasks": ["tasks/run/tests.tasks.trace/"],
    "jobs.rate_tasks": ["tasks/rate/tests.tasks.trace/"],
    "jobs.mark_errors": ["errors/mark/", "errors/unmark/"],
    "jobs.control_workers": [
        f"workers/{act}/host.1/"
        for act in (
            "quiet",
            "resume",
            "drain",
            "stop",
            "restart",
            "stack",
            "add-queue",
            "cancel-queue",
        )
    ],
    "jobs.retry_taskresult": ["errors/retry/", "taskresult/{id}/again/"],
    "jobs.revoke_taskresult": ["taskresult/{id}/revoke/"],
    "jobs.edit_taskresult": ["taskresult/{id}/edit/"],
    "jobs.delete_taskresult": ["taskresult/{id}/delete/"],
}


@pytest.mark.parametrize("permission", GUARDED)
def test_all_permissions_but_the_right_one(broker_url: str, permission: str) -> None:
    broker.get().report("default", "host.1", b"{}")
    found = row(state="FAILURE", task="tests.tasks.trace", error_type="builtins.ValueError")
    others = Permission.objects.filter(content_type__app_label="jobs")
    others = others.exclude(codename__in=(permission.partition(".")[2], "manage_queues"))
    client = staff(*(f"jobs.{code}" for code in others.values_list("codename", flat=True)))
    before = state(broker_url)
    for address in GUARDED[permission]:
        url = f"/admin/jobs/{address.format(id=found.pk)}"
        assert client.post(url, {**PRESSED, "error_type": "x"}).status_code == 403, url
    assert state(broker_url) == before
