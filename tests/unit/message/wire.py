"""Messages, and their wire forms, for the tests of `jobs.message`."""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import settings

from jobs import message
from jobs.message import Message, decode, encode

SOME = settings(max_examples=50, deadline=None, database=None)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", max_size=9), inner),
    max_leaves=12,
)


def a_message(**fields: Any) -> Message:
    return Message(**{"task": "shop.tasks.pay", "id": message.new_id(), "queue": "mail", **fields})


def without_wire(found: Message) -> dict[str, Any]:
    """Its fields but those that only remember its wire form."""
    fields = msgspec.structs.asdict(found)
    del fields["body"], fields["wire_headers"], fields["wire"]
    return {**fields, "own_headers": found.headers}


def there_and_back(sent: Message) -> Message:
    return decode(encode(sent), sent.queue)


def wire(sent: Message) -> dict[str, Any]:
    return json.loads(encode(sent))


BODY = '[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

#: As a stock Celery client sends it.
FROM_CELERY: dict[str, Any] = {
    "body": base64.b64encode(BODY.encode()).decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {
        "lang": "py",
        "task": "proj.add",
        "id": "11111111-1111-1111-1111-111111111111",
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "11111111-1111-1111-1111-111111111111",
        "parent_id": None,
        "argsrepr": "(1, 2)",
        "kwargsrepr": "{}",
        "origin": "gen7914@box",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    },
    "properties": {
        "correlation_id": "11111111-1111-1111-1111-111111111111",
        "reply_to": "33420d32-7339-3246-a392-887e0f63dcda",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": "a4aff70f-680e-468f-8f5d-9674062cbf80",
    },
}


def received(raw: dict[str, Any], *, trusted: bool = True) -> Message:
    return decode(json.dumps(raw).encode(), "celery", trusted=trusted)


def changed(part: str = "", **fields: Any) -> dict[str, Any]:
    """`FROM_CELERY` with these fields, of its headers or its properties, replaced."""
    copy = json.loads(json.dumps(FROM_CELERY))
    (copy[part] if part else copy).update(fields)
    return copy
