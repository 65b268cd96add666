"""What is composed of calls, as plain dicts in Celery's JSON form: what starts, and what follows.

Pure, and the same for who sends and for the worker that goes on. A call is a dict with the keys of
`task`; the kinds ``chain``, ``group`` and ``chord`` have their parts in its keyword arguments
(https://docs.celeryq.dev/en/stable/userguide/canvas.html). Nothing here changes what it is given.

`freeze` brings a call into the one form that the rest understands: every task has its id; a chain's
parts are tasks, but for its last; what stands in a group ends in one task.
"""

from jobs.workflow.forms import (
    ACCUMULATE,
    Call,
    body,
    chain,
    chord,
    group,
    header,
    kind,
    last,
    listed,
    options,
    parts,
    task,
    tasks,
    with_options,
)
from jobs.workflow.freezing import freeze
from jobs.workflow.spreading import spread
from jobs.workflow.starting import Counted, Start, member, of_client, start, tasks_in_place

__all__ = [
    "ACCUMULATE",
    "Call",
    "Counted",
    "Start",
    "body",
    "chain",
    "chord",
    "freeze",
    "group",
    "header",
    "kind",
    "last",
    "listed",
    "member",
    "of_client",
    "options",
    "parts",
    "spread",
    "start",
    "task",
    "tasks",
    "tasks_in_place",
    "with_options",
]
