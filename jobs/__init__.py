"""Background jobs for Django: Redis dispatches, the database is the ledger.

    from jobs import task

    @task
    def send_invoice(pk): ...

    send_invoice.delay(order.pk)

The names below are the public API. They load at first use, since Django imports this package
before models can load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.canvas import Signature as Signature
    from jobs.canvas import chain as chain
    from jobs.canvas import chord as chord
    from jobs.canvas import group as group
    from jobs.canvas import signature as signature
    from jobs.cron import crontab as crontab
    from jobs.declaring import Periodic as Periodic
    from jobs.group_results import GroupResult as GroupResult
    from jobs.periodic import add_periodic_task as add_periodic_task
    from jobs.registry import Task as Task
    from jobs.registry import shared_task as shared_task
    from jobs.registry import task as task
    from jobs.request import Request as Request
    from jobs.results import AsyncResult as AsyncResult
    from jobs.results import allow_join_result as allow_join_result
    from jobs.states import State as State

__version__ = "0.1.0"

_PUBLIC = {
    "AsyncResult": "jobs.results",
    "GroupResult": "jobs.group_results",
    "Periodic": "jobs.declaring",
    "Request": "jobs.request",
    "Signature": "jobs.canvas",
    "State": "jobs.states",
    "Task": "jobs.registry",
    "add_periodic_task": "jobs.periodic",
    "allow_join_result": "jobs.results",
    "chain": "jobs.canvas",
    "chord": "jobs.canvas",
    "crontab": "jobs.cron",
    "group": "jobs.canvas",
    "shared_task": "jobs.registry",
    "signature": "jobs.canvas",
    "task": "jobs.registry",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604  all of them strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        celery_names = importlib.import_module("jobs.celery_names")
        if instead := celery_names.MODULE.get(name):
            # What `from jobs import …` says of an AttributeError would leave out the text.
            raise ImportError(f"{name!r} isn't in {__name__!r}: {instead}. {celery_names.PAGE}.")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
