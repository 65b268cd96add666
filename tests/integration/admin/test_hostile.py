"""No address and no form of the admin answers with an error of the server, whatever is sent."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from jobs import broker, message
from jobs.broker.base import Outgoing
from jobs.message import Message
from jobs.models import (
    Dashboard,
    DeadLetters,
    Errors,
    Queues,
    Schedule,
    TaskResult,
    Tasks,
    Workers,
)
from tests.integration.admin.conftest import bury, letter, row
from tests.integration.admin.schedules import ADD, errors, form, made, page_of, ran
from tests.tasks import trace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("short_lists")]

#: Values of parameters and fields, as they are sent: percent-encoded bytes.
VALUES = [
    "",
    "%00",
    "a%00b",
    "%ED%A0%80",  # a lone surrogate
    "%FF%FE",
    "%F0%9F%98%80",
    "-1",
    "0",
    "9" * 18,
    "9" * 19,
    "9" * 30,
    "9" * 5_000,
    "1e999",
    "nan",
    "true",
    "None",
    "%27%22%3Cscript%3E",
    "%25%5F",
    "..%2F..%2Fetc%2Fpasswd",
    "1-0",
    "older:",
    "older:%00",
    "newer:%00",
    "older:" + "9" * 300,
    "newer:" + "x" * 10_000,
    "x" * 10_000,
    "+x" * 5_000,
    "%22+" * 2_000,
    "%5B" * 20_000,
    "%5B" + "9" * 5_000 + "%5D",
    "%7B%22a%22%3A" * 5_000,
    "%5B%22%5Cu0000%22%5D",
    "%5B%22%5Cud800%22%5D",
    "%5BNaN%5D",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00%2B14:00",
    "2024-13-45",
    "*/0+*+*+*+*",
    "0-99999999999999999999+*+*+*+*",
]


#: What the pages of all models read, by the end of their addresses: parameters, and fields.
FORM = tuple(form())
FORM += ("at", "start_at", "end_at", "paused_until", "description", "labels", "exchange")
FORM += ("routing_key", "priority", "expires_0", "expires_1", "expires_from", "misfire_window_0")
FORM += ("jitter_0", "enabled")
CHOSEN = ("_selected_action", "index", "select_across")
READ: dict[type[Any], dict[str, tuple[str, ...]]] = {
    TaskResult: {
        "": ("p", "q", "o", "e", "state__exact", "task", "queue", "sent", "id", "created_at__gte"),
        "history/": ("p",),
        "change/": ("_popup", "_to_field", "_changelist_filters"),
    },
    Schedule: {
        "": ("p", "q", "o", "e", "all", "label", "enabled__exact", "_to_field", "id__exact"),
        "add/": ("copy", "name", "kind", "at"),
        "preview/": ("id", *FORM),
        "runs/": ("before",),
        "history/": ("p",),
        "change/": ("_popup", "_to_field", "_changelist_filters"),
    },
    Dashboard: {
        "": ("range", "queue"),
        "live/": ("range", "queue"),
        "numbers/": ("range", "queue"),
        "metrics.json": ("range", "queue"),
    },
    Queues: {
        "history/": ("before",),
        "pause-task/": ("task",),
        "queue/<path:queue>/": ("tab", "p"),
        "call/<path:queue>/<str:task_id>/": ("tab", "key"),
    },
    DeadLetters: {"": ("queue", "reason", "task", "before")},
    Errors: {"": ("range",)},
    Tasks: {"": ("q", "after")},
    Workers: {
        "worker/<path:name>/": ("queue", "command", "show"),
        "live-worker/<path:name>/": ("queue", "command"),
    },
}
SENT: dict[type[Any], dict[str, tuple[str, ...]]] = {
    TaskResult: {
        "": ("action", *CHOSEN),
        "delete/": ("post",),
        "revoke/": ("confirmed",),
        "edit/": ("args", "kwargs", "why"),
    },
    Schedule: {"": ("action", *CHOSEN), "add/": FORM, "delete/": ("_to_field",)},
    Dashboard: {},
    Queues: {
        "queue/<path:queue>/": ("action", "key", "to", "why"),
        "pause-task/": ("task", "why"),
        "pause/<path:name>/": ("why",),
        "purge/<path:name>/": ("why", "name"),
        "resume-task/<path:name>/": ("why",),
    },
    DeadLetters: {"": ("action", "key", "newest", "why")},
    Errors: {
        "retry/": ("task", "error_type", "since", "until", "range"),
        "mark/": ("task", "error_type", "why", "range"),
        "unmark/": ("task", "error_type", "range"),
    },
    Tasks: {
        "run/<path:name>/": ("arg-args", "arg-kwargs", "queue", "countdown"),
        "rate/<path:name>/": ("rate", "burst"),
    },
    Workers: {
        "drain/<path:name>/": ("confirmed", "why"),
        "stop/<path:name>/": ("confirmed",),
        "add-queue/<path:name>/": ("confirmed", "queue"),
        "cancel-queue/<path:name>/": ("queue",),
    },
}
ACTS_AT_ONCE = ("quiet", "resume", "restart", "stack")
#: Pages that read nothing but their address.
READS_NOTHING: dict[type[Any], set[str]] = {
    TaskResult: {"live/"},
    Schedule: set(),
    Dashboard: {"stream/"},
    Queues: {
        "",
        "live/",
        "dead/<path:queue>/",
        "letter/<path:queue>/<str:key>/",
        "resume/<path:name>/",
    },
    DeadLetters: {"letter/<path:queue>/<str:key>/"},
    Errors: set(),
    Tasks: {"task/<path:name>/"},
    Workers: {"", "live/", *(f"{act}/<path:name>/" for act in ACTS_AT_ONCE)},
}
#: What else a page needs in order to look at the field.
BESIDES = {
    (TaskResult, ""): ["action=revoke&_selected_action=x", "action=delete_selected&post=yes"],
    (Schedule, ""): ["action=disable&_selected_action=1", "action=delete_selected&post=yes"],
    (Queues, "queue/<path:queue>/"): [
        "action=revoke&confirmed=yes",
        "action=move&key=0:x:y&confirmed=yes",
        "action=move_all&confirmed=yes&to=high",
    ],
    (DeadLetters, ""): ["action=discard&confirmed=yes", "action=discard_all&confirmed=yes"],
    (Queues, "pause-task/"): [f"task={trace.name}"],
    (Errors, "retry/"): ["task=a.b&confirmed=yes&in_background=yes", "task=a.b"],
    (Errors, "mark/"): ["task=a.b&confirmed=yes"],
    (TaskResult, "edit/"): ["args=[]&kwargs={}"],
}
#: What an address means by a name.
NAMES: dict[type[Any], str] = {Queues: "default", Tasks: trace.name, Workers: "host.1"}
MODELS = [model for model in admin.site._registry if model._meta.app_label == "jobs"]
#: Django's own, of each model that has rows.
DJANGOS = {"add/", "<path:object_id>/", "delete/", "history/", "change/"}


#: How many of the values each parameter has; each field of the form has fewer, since it is slow.
EACH, OF_THE_FORM = 4, 1


def some(place: str, count: int = EACH) -> list[str]:
    """Some values for this place, the same at each run."""
    return random.Random(place).sample(VALUES, count)


def routes(model: type[Any]) -> list[str]:
    """The addresses of a model's pages, relative to its list."""
    return [str(found.pattern) for found in admin.site._registry[model].get_urls()]


@pytest.fixture
def things(broker_url: str) -> dict[str, str]:
    """What stands for the places in an address."""
    Schedule.objects.all().delete()  # the demonstration site's
    schedule = made()
    ran(schedule)
    row(id=str(schedule.pk))
    sent = Message(task="shop.tasks.send_receipt", id=message.new_id(), queue="default")
    broker.get().push([Outgoing("default", message.encode(sent))])
    broker.get().report("default", NAMES[Workers], b'{"consumers": []}')
    return {
        "object_id": str(schedule.pk),
        "queue": "default",
        "key": letter()[0],
        "task_id": sent.id,
    }


@pytest.fixture
def client(db: None) -> Client:
    user = User.objects.create_superuser("root", password="a")
    found = Client(raise_request_exception=False)
    found.force_login(user)
    return found


def filled(model: type[Any], route: str, values: dict[str, str]) -> str:
    for name, value in {"name": NAMES.get(model, ""), **values}.items():
        for kind in ("path", "str"):
            route = route.replace(f"<{kind}:{name}>", value)
    return f"/admin/jobs/{model._meta.model_name}/{route}"


def asked(client: Client, method: str, url: str, data: str = "") -> str:
    """What went wrong; empty: nothing. Percent-encoding stays as it is."""
    client.cookies.pop("messages", None)
    with transaction.atomic():
        if method == "get":
            response = client.generic("GET", url, QUERY_STRING=data)
        else:
            response = client.generic("POST", url, data, "application/x-www-form-urlencoded")
        transaction.set_rollback(True)
    if response.status_code < 500:
        return ""
    why = response.exc_info[1] if response.exc_info else ""
    return f"{method} {url[:80]} {data[:80]}: {type(why).__name__} {str(why)[:80]}"


@pytest.mark.parametrize("model", MODELS)
def test_every_address_is_covered(things: dict[str, str], model: type[Any]) -> None:
    """A page that is added has to be named in the tables above."""
    named = {*READ.get(model, {}), *SENT.get(model, {}), *READS_NOTHING.get(model, ()), *DJANGOS}
    named |= {f"{verb.name}/" for verb in getattr(admin.site._registry[model], "verbs", ())}
    for route in routes(model):
        # Django's own for a row has nothing behind its key.
        page = route.removeprefix("<path:object_id>/") or "<path:object_id>/"
        assert page in named or route == "", route
        assert "<" not in filled(model, route, things)


@pytest.mark.parametrize("model", MODELS)
def test_addresses(client: Client, things: dict[str, str], model: type[Any]) -> None:
    wrong = []
    for route in routes(model):
        places = [name for name in (*things, "name") if f":{name}>" in route]
        for place in places:
            for value in some(route):
                # Only the path counts: these characters would end it.
                url = filled(model, route, {**things, place: value.replace("+", "%20")})
                wrong += [asked(client, method, url) for method in ("get", "post")]
    assert not [text for text in wrong if text]


@pytest.mark.parametrize("model", MODELS)
def test_parameters(client: Client, things: dict[str, str], model: type[Any]) -> None:
    wrong = []
    for route in routes(model):
        names = READ[model].get(route.removeprefix("<path:object_id>/"), ("p",))
        for name in names:
            usual = "&".join(f"{k}={v}" for k, v in form().items() if k != name)
            besides = usual if route == "preview/" else ""
            count = OF_THE_FORM if route == "preview/" else EACH
            for value in some(route + name, count):
                url = filled(model, route, things)
                wrong.append(asked(client, "get", url, f"{name}={value}&{besides}"))
    assert not [text for text in wrong if text]


@pytest.mark.parametrize("model", MODELS)
def test_fields(client: Client, things: dict[str, str], model: type[Any]) -> None:
    wrong = []
    for route in routes(model):
        page = route.removeprefix("<path:object_id>/")
        for name in SENT[model].get(page, ()):
            usual = "&".join(f"{k}={v}" for k, v in form().items() if k != name)
            others = [usual] if SENT[model][page] is FORM else BESIDES.get((model, page), [""])
            count = OF_THE_FORM if SENT[model][page] is FORM else EACH
            for value in some(route + name, count):
                for other in others:
                    url = filled(model, route, things)
                    wrong.append(asked(client, "post", url, f"{name}={value}&{other}"))
    assert not [text for text in wrong if text]


@pytest.mark.parametrize("field", ["args", "kwargs", "headers"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested more than 100 levels deep"),
        ("[" * 100_000, "nested more than 100 levels deep"),
        ("[" * 102 + "]" * 102, "nested more than 100 levels deep"),
        ('{"a":' * 102 + "1" + "}" * 102, "nested more than 100 levels deep"),
        ("[" + "9" * 5_000 + "]", "too many digits"),
        ("[NaN]", "no number NaN or Infinity"),
        ('{"a": 1e999}', "no number NaN or Infinity"),
        ('["a\\u0000b"]', "has a NUL"),
        ('{"\\ud800": 1}', "half of a surrogate pair"),
    ],
)
def test_json_that_can_not_be_kept(root: Client, field: str, text: str, words: str) -> None:
    answer = errors(root, **{field: text})
    assert words in " ".join(answer[field])
    assert not Schedule.objects.filter(name="s").exists()


def test_json_at_the_bounds(root: Client) -> None:
    text = "[" * 99 + '"😀"' + "]" * 99
    response = root.post(ADD, form(args=f"[{text}, {'9' * 4_000}]"))
    assert response.status_code == 302
    assert root.get(page_of(Schedule.objects.get(name="s"))).status_code == 200


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"kind": "at", "at": "9999-12-31T23:59:59"}, "at", "Write a year from 1900 to 9000."),
        ({"start_at": "0001-01-01T00:00:00"}, "start_at", "Write a year from 1900 to 9000."),
        ({"interval_0": "1e999999"}, "interval", "This is too long."),
        ({"jitter_0": "1e999999"}, "jitter", "This is too long."),
        ({"priority": "9" * 5_000}, "priority", "whole number"),
    ],
)
def test_numbers_and_moments_out_of_bounds(
    root: Client, fields: dict[str, str], field: str, words: str
) -> None:
    assert words in " ".join(errors(root, **fields)[field])


def test_stored_values_that_no_page_can_hold(root: Client, broker_url: str) -> None:
    held = '{"\\ud800": "\\udfff"}'
    result = row(args=f"[{held}]", kwargs=held, result=held, label="<b>\u202e")
    key = bury(f'{{"headers": {held}, "body": "{"9" * 5_000}"}}'.encode())
    deep = bury(b"[" * 100_000)
    for url in (
        "/admin/jobs/taskresult/",
        f"/admin/jobs/taskresult/{result.pk}/change/",
        "/admin/jobs/deadletters/",
        f"/admin/jobs/deadletters/letter/default/{key}/",
        f"/admin/jobs/deadletters/letter/default/{deep}/",
    ):
        assert root.get(url).status_code == 200
