"""The handles of what has been sent: of its end, with what comes before as parents."""

from __future__ import annotations

from jobs import known, workflow
from jobs.group_results import GroupResult
from jobs.results import AsyncResult, Handle
from jobs.workflow import Call


def handle_of(call: Call, parent: Handle | None = None) -> Handle:
    """Of a frozen call that follows ``parent``."""
    kind = workflow.kind(call)
    if kind == "chain":
        for part in workflow.parts(call):
            parent = handle_of(part, parent)
        assert parent is not None, "a chain is not empty"
        return parent
    if kind == "group":
        members = [handle_of(part, parent) for part in workflow.parts(call)]
        return GroupResult(workflow.options(call)["task_id"], members, parent=parent)
    if kind == "chord":
        return handle_of(workflow.body(call), handle_of(workflow.header(call), parent))
    options = workflow.options(call)
    asked = options.get("ignore_result")
    ignored = known.find(call["task"]).ignore_result if asked is None else asked
    return AsyncResult(options["task_id"], ignored=bool(ignored), parent=parent)
