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
    from jobs.api.compositions import Signature as Signature
    from jobs.api.compositions import chain as chain
    from jobs.api.compositions import chord as chord
    from jobs.api.compositions import chunks as chunks
    from jobs.api.compositions import group as group
    from jobs.api.compositions import maybe_signature as maybe_signature
    from jobs.api.compositions import signature as signature
    from jobs.api.compositions import subtask as subtask
    from jobs.api.compositions import xmap as xmap
    from jobs.api.compositions import xstarmap as xstarmap
    from jobs.api.results import AsyncResult as AsyncResult
    from jobs.api.results import EagerResult as EagerResult
    from jobs.api.results import GroupResult as GroupResult
    from jobs.api.results import allow_join_result as allow_join_result
    from jobs.api.results import result_from_tuple as result_from_tuple
    from jobs.api.stamping import StampingVisitor as StampingVisitor
    from jobs.api.task import Task as Task
    from jobs.api.task import current_task as current_task
    from jobs.api.task import register_task as register_task
    from jobs.api.task import send_task as send_task
    from jobs.api.task import shared_task as shared_task
    from jobs.api.task import task as task
    from jobs.logs import get_task_logger as get_task_logger
    from jobs.running.request import Request as Request
    from jobs.schedules.declared import add_periodic_task as add_periodic_task
    from jobs.states import State as State
    from jobs.timing.celery import crontab as crontab
    from jobs.timing.celery import schedule as schedule
    from jobs.timing.periodic import Periodic as Periodic

__version__ = "0.1.0"

_PUBLIC = {
    "AsyncResult": "jobs.api.results",
    "EagerResult": "jobs.api.results",
    "GroupResult": "jobs.api.results",
    "Periodic": "jobs.timing.periodic",
    "Request": "jobs.running.request",
    "Signature": "jobs.api.compositions",
    "StampingVisitor": "jobs.api.stamping",
    "State": "jobs.states",
    "Task": "jobs.api.task",
    "add_periodic_task": "jobs.schedules.declared",
    "allow_join_result": "jobs.api.results",
    "chain": "jobs.api.compositions",
    "chord": "jobs.api.compositions",
    "chunks": "jobs.api.compositions",
    "crontab": "jobs.timing.celery",
    "current_task": "jobs.api.task",
    "get_task_logger": "jobs.logs",
    "group": "jobs.api.compositions",
    "register_task": "jobs.api.task",
    "maybe_signature": "jobs.api.compositions",
    "result_from_tuple": "jobs.api.results",
    "schedule": "jobs.timing.celery",
    "send_task": "jobs.api.task",
    "shared_task": "jobs.api.task",
    "signature": "jobs.api.compositions",
    "subtask": "jobs.api.compositions",
    "task": "jobs.api.task",
    "xmap": "jobs.api.compositions",
    "xstarmap": "jobs.api.compositions",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604  all of them strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        celery_names = importlib.import_module("jobs.message.celery_names")
        if instead := celery_names.MODULE.get(name):
            # What `from jobs import …` says of an AttributeError would leave out the text.
            raise ImportError(f"{name!r} isn't in {__name__!r}: {instead}. {celery_names.PAGE}.")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
