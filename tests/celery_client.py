"""What Celery's clients send: https://docs.celeryq.dev/en/stable/internals/protocol.html"""

from __future__ import annotations

import json
from typing import Any


def celery_message(task_id: str, task: str, args: list[Any], **fields: Any) -> bytes:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    embed |= fields.pop("embed", {})
    message = {
        "body": json.dumps([args, {}, embed]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": task, "id": task_id, **fields},
        "properties": {"body_encoding": "utf-8"},
    }
    return json.dumps(message).encode()


def celery_call(task: str, task_id: str, *args: Any, **options: Any) -> dict[str, Any]:
    options["task_id"] = task_id
    kwargs: dict[str, Any] = {}
    return {"task": task, "args": list(args), "kwargs": kwargs, "options": options}
