"""The relations of a call in its workflow, on its page: parent, group, body and children, as links.

Only the page of one result asks for them, each with one index: the primary key, that of groups,
that of roots.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs import ledger, serialization
from jobs.admin.words import badge
from jobs.control import selecting
from jobs.exceptions import ChordError
from jobs.message import workflow
from jobs.models import TaskGroup, TaskResult

#: Most members, and most children, on a page: a group may have very many.
SHOWN = 50


_CHORD_ERROR = f"{ChordError.__module__}.{ChordError.__qualname__}"
#: How errors name another call: ``task[id]``.
_NAMED = re.compile(r"\[([^\[\]\s]{1,255})\]")


@dataclass(frozen=True)
class Relations:
    #: The call that sent it, or that it follows.
    parent: TaskResult | None
    #: The first members of its group, itself among them.
    members: Sequence[TaskResult]
    #: What is sent when all members of its group have ended.
    bodies: Sequence[TaskResult]
    #: The first calls that it has sent, or that follow it.
    children: Sequence[TaskResult]


def of(row: TaskResult) -> Relations:
    """The relations of this call, read once for a page."""
    kept: dict[str, Any] = vars(row)
    if "_relations" not in kept:
        rows = _rows(row)
        parent = rows.filter(pk=row.parent_id).first() if row.parent_id else None
        sent = rows.filter(root_id=row.root_id or row.pk, parent_id=row.pk)
        children = list(sent.order_by("group_id", "group_index", "id")[: SHOWN + 1])
        members: list[TaskResult] = []
        if row.group_id is not None:
            group = rows.filter(group_id=row.group_id)
            members = list(group.order_by("group_index")[: SHOWN + 1])
        bodies = _bodies(rows, row.group_id) if row.group_id is not None else []
        kept["_relations"] = Relations(parent, members, bodies, children)
    found: Relations = kept["_relations"]
    return found


def missing(row: TaskResult) -> set[str]:
    """The fields of the page that would be empty."""
    there = {
        "parent": row.parent_id is not None,
        "group": row.group_id is not None,
        "children": bool(of(row).children),
    }
    return {name for name, known in there.items() if not known}


def _bodies(rows: QuerySet[TaskResult], group_id: str) -> list[TaskResult]:
    waiting = TaskGroup.objects.using(ledger.alias()).filter(pk=group_id).first()
    if waiting is not None:
        first = workflow.start(serialization.loads(waiting.body), [[]]).calls
        tasks = {workflow.options(call)["task_id"]: call["task"] for call in first}
        known = {found.pk: found for found in rows.filter(pk__in=tasks)}
        return [known.get(pk) or TaskResult(id=pk, task=task) for pk, task in tasks.items()]
    # They have been sent, and follow the member that ended last. Look after several: members can
    # end at the same moment.
    members = TaskResult.objects.using(ledger.alias()).filter(
        group_id=group_id, finished_at__isnull=False
    )
    last = members.order_by("-finished_at").values_list("id", "root_id")[:SHOWN]
    roots = {task_id: root_id or task_id for task_id, root_id in last}
    followers = rows.filter(root_id__in=set(roots.values()), parent_id__in=list(roots))
    return [row for row in followers[: SHOWN + 1] if row.group_id != group_id]


def look_as(row: TaskResult, request: HttpRequest) -> None:
    """Remember who looks at this row: other calls are shown only as far as that person may see
    them."""
    vars(row)["_request"] = request


def seen(row: TaskResult) -> QuerySet[TaskResult]:
    """The rows that whoever looks at this one may see."""
    request = vars(row).get("_request")
    return selecting.seen_by(request, ledger.results()) if request else ledger.results()


def _rows(row: TaskResult) -> QuerySet[TaskResult]:
    return seen(row).only("id", "task", "state", "group_id", "group_index", "root_id")


# --------------------------------------------------------------------------- in HTML


def parent(row: TaskResult, site: str) -> SafeString:
    found = of(row).parent
    if found is None:
        return format_html("{} ({})", row.parent_id, _("not in the ledger any more"))
    if found.group_id is None or found.group_id == row.group_id:
        return _link(found, site)
    return format_html("{}, {}", _link(found, site), _place(found))


def group(row: TaskResult, site: str) -> SafeString:
    """Its place in the group, the bodies, and the members, folded away."""
    found = of(row)
    then = SafeString("")
    if found.bodies:
        then = format_html("<p>{} {}</p>", _("Then:"), _links(found.bodies, site))
    members = _links(found.members, site)
    details = format_html("<details><summary>{}</summary>{}</details>", _("Members"), members)
    return format_html("{}{}{}", _place(row), then, details)


def culprits(row: TaskResult, site: str) -> SafeString:
    """Links to the calls that a `ChordError` names: the members that did not succeed."""
    if row.error_type != _CHORD_ERROR:
        return SafeString("")
    named = list(dict.fromkeys(_NAMED.findall(row.error)))[:SHOWN]
    found = list(_rows(row).filter(pk__in=named))
    if not found:
        return SafeString("")
    return format_html("<p>{} {}</p>", _("Because of:"), _links(found, site))


def children(row: TaskResult, site: str) -> SafeString:
    return _links(of(row).children, site)


def _place(row: TaskResult) -> str:
    return _("member %(number)d of group %(id)s") % {
        "number": (row.group_index or 0) + 1,
        "id": row.group_id,
    }


def _links(rows: Sequence[TaskResult], site: str) -> SafeString:
    links = format_html_join("", "<li>{}</li>", ((_link(row, site),) for row in rows[:SHOWN]))
    more = _("More are not shown.") if len(rows) > SHOWN else ""
    return format_html('<ul class="jobs-relations">{}</ul>{}', links, more)


def _link(row: TaskResult, site: str) -> SafeString:
    url = reverse("admin:jobs_taskresult_change", args=[quote(row.pk)], current_app=site)
    link = '{} <a href="{}" title="{}">{}</a>'
    text = row.task if row.group_index is None else f"{row.task} {row.group_index + 1}"
    return format_html(link, badge(row), url, row.pk, text)
