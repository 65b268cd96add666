"""The wire form is Celery's, both ways."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import pytest

from jobs import message
from tests.unit.message.wire import (
    FROM_CELERY,
    a_message,
    changed,
    received,
    wire,
)


def test_the_wire_form_is_celery_s() -> None:
    sent = a_message(args=[1], kwargs={"b": 2}, priority=3)
    found = wire(sent)
    assert found["content-type"] == "application/json"
    assert found["content-encoding"] == "utf-8"
    assert json.loads(base64.b64decode(found["body"])) == [
        [1],
        {"b": 2},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    headers = found["headers"]
    assert headers == {
        "lang": "py",
        "task": "shop.tasks.pay",
        "id": sent.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": sent.id,
        "parent_id": None,
        "argsrepr": "(1,)",
        "kwargsrepr": "{'b': 2}",
        "origin": headers["origin"],
        "ignore_result": None,
    }
    assert "@" in headers["origin"]
    properties = found["properties"]
    assert properties["delivery_info"] == {"exchange": "", "routing_key": "mail"}
    assert properties["delivery_tag"]
    assert (properties["priority"], properties["body_encoding"]) == (3, "base64")
    assert properties["correlation_id"] == sent.id


def test_long_arguments_are_shown_short() -> None:
    headers = wire(a_message(args=["x" * 5_000]))["headers"]
    assert len(headers["argsrepr"]) == 1025
    assert headers["argsrepr"].endswith("…")


def test_a_message_of_a_celery_client() -> None:
    found = received(FROM_CELERY)
    assert (found.task, found.id) == ("proj.add", "11111111-1111-1111-1111-111111111111")
    assert (found.args, found.kwargs) == ([1, 2], {})
    assert found.ignore_result is False
    assert found.origin == "gen7914@box"
    assert found.headers == {"stamped_headers": None, "stamps": {}}


def test_the_smallest_message_that_celery_runs() -> None:
    found = received(
        {
            "body": base64.b64encode(b"[[1, 2], {}, {}]").decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "proj.add", "id": "x"},
            "properties": {
                "delivery_tag": "unique",
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": "celery"},
            },
        }
    )
    assert (found.task, found.id, found.queue) == ("proj.add", "x", "celery")
    assert (found.args, found.kwargs, found.embed) == ([1, 2], {}, {})


def test_less_than_celery_runs() -> None:
    found = received({"body": "[[1], {}, null]", "headers": {"task": "proj.add", "id": "x"}})
    assert (found.args, found.embed) == ([1], {})


@pytest.mark.parametrize("encoding", [{}, {"body_encoding": "utf-8"}])
def test_a_body_of_plain_text(encoding: dict[str, str]) -> None:
    found = received({**changed(body='[["č"], {}, {}]'), "properties": encoding})
    assert found.args == ["č"]
    # So it is tried again, or run again by an operator.
    again = message.decode(message.encode(message.first_attempt(found)), found.queue)
    assert again.args == ["č"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2031-01-02T03:04:05+00:00", dt.datetime(2031, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ("2031-01-02T03:04:05Z", dt.datetime(2031, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ("2031-01-02T03:04:05.000006", dt.datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)),
        ("2031-01-02T03:04:05+02:00", dt.datetime(2031, 1, 2, 1, 4, 5, tzinfo=dt.UTC)),
    ],
)
def test_moments(text: str, moment: dt.datetime) -> None:
    found = received(changed("headers", eta=text, expires=text))
    assert found.eta == found.expires == moment
    assert found.eta is not None
    assert found.eta.tzinfo


@pytest.mark.parametrize(("sent", "read"), [(None, 0), (4, 4), (-1, 0), (255, 9), (2**70, 9)])
def test_a_priority_is_clamped(sent: Any, read: int) -> None:
    assert received(changed("properties", priority=sent)).priority == read


def test_lone_surrogates_that_celery_writes() -> None:
    body = base64.b64encode(b'[["\\ud800"], {}, {}]').decode()
    assert received(changed(body=body)).args == ["\ud800"]
