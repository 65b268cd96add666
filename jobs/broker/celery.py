"""Where Celery's clients give commands to workers and watch them, and the form of what they send.

Commands come by PUBLISH, to all workers at once. A worker pushes its answers to a list of the
client's. Events go out by PUBLISH, and whoever isn't there misses them. All names, and the form of
messages, are kombu's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: Celery's names of its exchanges. On Redis, the first two are channels.
PIDBOX = "celery.pidbox"
EVENTS = "celeryev"
REPLIES = "reply.celery.pidbox"

#: A header of commands that this program gives to Celery's workers, and that its own leave alone.
OURS = "jobs"


class Broadcast(NamedTuple):
    """What a client has sent to all workers."""

    body: Mapping[str, Any]
    headers: Mapping[str, Any]


class CeleryChannels(ABC):
    """The channels of one database. Each thread has connections of its own."""

    @abstractmethod
    def listen(self) -> contextlib.AbstractContextManager[Callable[[float], Broadcast | None]]:
        """Receive what clients send from the moment the context is entered: call with the seconds
        to wait for the next one. The call raises `ValueError` for one that can't be read."""

    @abstractmethod
    def order(self, method: str, arguments: Mapping[str, Any]) -> None:
        """Give a command to all of Celery's workers; nobody answers."""

    @abstractmethod
    def answer(self, client: str, answer: Any, headers: Mapping[str, Any]) -> None:
        """Answer a client. Raises `ValueError` for a name that no client of Celery has."""

    @abstractmethod
    def tell(self, kind: str, events: Any, hostname: str) -> int:
        """Publish one event or a list of them, such as of the kind "task.multi". How many clients
        have heard it, but for those on replicas of the server."""


def packed(body: Any, headers: Mapping[str, Any], exchange: str, key: str) -> bytes:
    """A message as kombu puts it on Redis."""
    properties = {
        "delivery_mode": 1,
        "delivery_info": {"exchange": exchange, "routing_key": key},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": dict(headers),
        "properties": properties,
    }
    return json.dumps(message).encode()


def unpacked(text: bytes) -> Broadcast:
    """A message that anybody can have written who reaches the server. Raises `ValueError`."""
    try:
        message = json.loads(text)
        if message.get("content-type") != "application/json":
            raise ValueError(f"it is {message.get('content-type')!r} instead of JSON")
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        body, headers = json.loads(body), message.get("headers") or {}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no message of Celery's: {error!r}") from error
    if not isinstance(body, dict) or not isinstance(headers, dict):
        raise ValueError("it is no message of Celery's")
    return Broadcast(body, headers)
