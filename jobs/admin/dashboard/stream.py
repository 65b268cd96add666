"""Tells an open page when to ask again, by Server-Sent Events."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user
from django.db import close_old_connections
from django.http import HttpRequest

from jobs.control.snapshot import Snapshot, latest

#: Seconds between two looks at the shared snapshot.
LOOK = 1.0

#: Looks between two checks whether the person is still signed in and may see the page.
CHECK = 5

#: Looks after which the stream ends; the browser connects again by itself.
MOST = 600


async def changes(
    request: HttpRequest, may_look: Callable[[HttpRequest], bool]
) -> AsyncIterator[bytes]:
    """An event whenever the snapshot has changed, for as long as the person may look."""
    seen: object = None
    for n in range(MOST):
        if n % CHECK == 0 and not await sync_to_async(_may_still)(request, may_look):
            yield b"event: over\ndata: -\n\n"
            return
        # Not in the thread that all views of this request share: it would wait for the broker.
        shown = _shown(await sync_to_async(latest, thread_sensitive=False)())
        # A comment keeps the connection open, and shows a page that has gone.
        yield b"data: -\n\n" if n and shown != seen else b":\n\n"
        seen = shown
        await asyncio.sleep(LOOK)


def _shown(taken: Snapshot) -> object:
    """What of a snapshot is on the page: not the time when it was taken."""
    return taken.queues, taken.paused_tasks, taken.problem, taken.reports.keys()


def _may_still(request: HttpRequest, may_look: Callable[[HttpRequest], bool]) -> bool:
    """Ask again, with the session and the user as they are now."""
    close_old_connections()
    now = copy.copy(request)
    session = getattr(request, "session", None)
    if session is not None:
        now.session = type(session)(session.session_key)
        now.user = get_user(now)
    return may_look(now)
