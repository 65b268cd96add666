"""The workflow of a call as a graph: its calls with their states, drawn on the server as SVG.

Only the page of one result asks for it, with an index: that of roots. It is bounded, and drawn
without scripts or styles of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs import ledger, message, serialization
from jobs.admin import words
from jobs.admin.results import live, relations
from jobs.exceptions import MessageError
from jobs.message import workflow
from jobs.models import TaskResult
from jobs.states import TERMINAL

#: Most calls of a graph.
MOST = 200

#: Most messages that are read for what will follow: each may be a megabyte.
_READ = 20

#: How often lines lead to groups, and groups to lines, that are looked for.
_ROUNDS = 5

#: What a call that isn't one may raise.
_NO_CALL = (ValueError, TypeError, KeyError, LookupError, AttributeError, RecursionError)

#: In the drawing: size of a node, and the space between columns and between rows.
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 190, 46, 50, 14


@dataclass
class Node:
    id: str
    task: str
    #: None: it will be sent when what it follows has succeeded.
    row: TaskResult | None = None
    after: set[str] = field(default_factory=set)
    #: Its place in the drawing.
    column: int = 0
    line: int = 0

    @property
    def state(self) -> str:
        return str(self.row.get_state_display()) if self.row else _("not sent yet")

    @property
    def name(self) -> str:
        """The task's last name, with the place in a group."""
        short = self.task.rpartition(".")[2]
        if self.row is None or self.row.group_index is None:
            return short
        return f"{short} {self.row.group_index + 1}"


@dataclass
class Graph:
    #: In the order of the drawing: columns from left to right, each from the top.
    nodes: list[Node]
    #: Whether there are more calls.
    cut: bool = False


def of(row: TaskResult) -> Graph:
    """The workflow that this call belongs to, read once for a page."""
    kept: dict[str, Any] = vars(row)
    if "_graph" not in kept:
        kept["_graph"] = _read(row)
    found: Graph = kept["_graph"]
    return found


def _read(row: TaskResult) -> Graph:
    by_id, cut = _found(row)
    live.overlay([one for one in by_id.values() if one is not row])
    nodes = {pk: Node(pk, one.task, one) for pk, one in sorted(by_id.items())}
    for one in by_id.values():
        if one.parent_id in nodes and one.parent_id != one.pk:
            nodes[one.pk].after.add(one.parent_id)
    _join(nodes, by_id.values())
    if len(nodes) < MOST:
        _add_what_will_follow(nodes)
    return Graph(_laid_out(nodes), cut)


def _found(row: TaskResult) -> tuple[dict[str, TaskResult], bool]:
    """The calls of the workflow by id, and whether there are more.

    The members of a group that no call has sent are each the first call of a line. So lines lead to
    groups, and groups to further lines.
    """
    rows = relations.seen(row).order_by()
    rows = rows.defer("args", "kwargs", "result", "error", "traceback", "message")
    by_id = {row.pk: row}
    lines: set[str] = set()
    groups: set[str] = set()
    for _round in range(_ROUNDS):
        new_lines = {one.root_id or one.pk for one in by_id.values()} - lines
        new_groups = {one.group_id for one in by_id.values() if one.group_id} - groups
        if not new_lines and not new_groups:
            break
        lines, groups = lines | new_lines, groups | new_groups
        for asked in (
            {"root_id__in": sorted(new_lines)},
            {"pk__in": sorted(new_lines - by_id.keys())},
            {"group_id__in": sorted(new_groups)},
        ):
            if not all(asked.values()):
                continue
            # Not in an order: there may be very many, and all would have to be sorted.
            for one in rows.filter(**asked)[: MOST + 1]:
                if len(by_id) >= MOST and one.pk not in by_id:
                    return by_id, True
                by_id.setdefault(one.pk, one)
    return by_id, False


def _join(nodes: dict[str, Node], rows: Iterable[TaskResult]) -> None:
    """Draw the body of a chord behind all members, not only behind the last one that ended."""
    groups: defaultdict[str, list[TaskResult]] = defaultdict(list)
    followers: defaultdict[str, list[TaskResult]] = defaultdict(list)
    by_id = {row.pk: row for row in rows}
    for row in by_id.values():
        if row.group_id:
            groups[row.group_id].append(row)
        parent = by_id.get(row.parent_id or "")
        if parent and parent.group_id and parent.group_id != row.group_id:
            followers[parent.group_id].append(row)
    for group_id, behind in followers.items():
        members = groups[group_id]
        # Callbacks of members follow several of them, and need not wait for all.
        if len({row.parent_id for row in behind}) > 1 or len(members) < 2:
            continue
        ends = [member.finished_at for member in members if member.state in TERMINAL]
        last = max((end for end in ends if end), default=None)
        for row in behind:
            if len(ends) == len(members) and (last is None or row.created_at >= last):
                nodes[row.pk].after |= {member.pk for member in members}


def _add_what_will_follow(nodes: dict[str, Node]) -> None:
    """Add the calls that the messages and chords of this workflow hold."""
    followed = {before for node in nodes.values() for before in node.after}
    waiting = [
        node.id
        for node in nodes.values()
        if node.row and node.row.state not in TERMINAL and node.id not in followed
    ]
    sent = ledger.results().filter(pk__in=waiting[:_READ]).exclude(message=b"")
    for task_id, queue, raw in sent.values_list("pk", "queue", "message"):
        try:
            embed = message.decode(bytes(raw), queue, trusted=True).embed
            ends = [task_id]
            for call in reversed(embed.get("chain") or ()):
                ends = _place(call, ends, nodes)
        except (MessageError, *_NO_CALL):
            continue
    groups = {node.row.group_id for node in nodes.values() if node.row and node.row.group_id}
    waiting_groups = ledger.groups().filter(id__in=sorted(groups)[:_READ])
    for group_id, body in waiting_groups.values_list("id", "body"):
        members = [n.id for n in nodes.values() if n.row and n.row.group_id == group_id]
        try:
            _place(serialization.loads(body), members, nodes)
        except _NO_CALL:
            continue


def _place(call: workflow.Call, before: Sequence[str], nodes: dict[str, Node]) -> list[str]:
    """Add a call's tasks behind these; returns the ids of its last ones."""
    what, ends = workflow.kind(call), list(before)
    if what == "chain":
        for part in workflow.parts(call):
            ends = _place(part, ends, nodes)
        return ends
    if what == "group":
        return [one for part in workflow.parts(call) for one in _place(part, before, nodes)]
    if what == "chord":
        return _place(workflow.body(call), _place(workflow.header(call), before, nodes), nodes)
    task_id = str(workflow.options(call)["task_id"])
    if task_id not in nodes and len(nodes) >= MOST:
        return ends
    node = nodes.setdefault(task_id, Node(task_id, str(call["task"])))
    node.after |= {one for one in before if one != task_id}
    ends = [task_id]
    for part in reversed(workflow.options(call).get("chain") or ()):
        ends = _place(part, ends, nodes)
    return ends


def _laid_out(nodes: dict[str, Node]) -> list[Node]:
    """The nodes with their places: each in a column behind all that it follows."""
    for _turn in range(len(nodes)):  # a ring, which only forged rows have, ends it as well
        moved = False
        # The members of a group stand one below the other.
        groups: defaultdict[str, int] = defaultdict(int)
        for node in nodes.values():
            if node.row is not None and node.row.group_id:
                groups[node.row.group_id] = max(groups[node.row.group_id], node.column)
        for node in nodes.values():
            behind = max((nodes[one].column + 1 for one in node.after), default=0)
            if node.row is not None and node.row.group_id:
                behind = max(behind, groups[node.row.group_id])
            if behind > node.column:
                node.column, moved = min(behind, len(nodes)), True
        if not moved:
            break
    columns: defaultdict[int, list[Node]] = defaultdict(list)
    for node in nodes.values():
        columns[node.column].append(node)
    found = []
    for _column, those in sorted(columns.items()):
        those.sort(key=lambda node: _order(node, nodes))
        for line, node in enumerate(those):
            node.line = line
        found += those
    # The first calls stand beside what follows each of them.
    lines: dict[str, int] = {}
    for node in found:
        for one in node.after:
            lines[one] = min(lines.get(one, node.line), node.line)
    for line, node in enumerate(sorted(columns[0], key=lambda n: lines.get(n.id, n.line))):
        node.line = line
    return sorted(found, key=lambda node: (node.column, node.line))


def _order(node: Node, nodes: dict[str, Node]) -> tuple[Any, ...]:
    """Where a node stands in its column: members of a group by their places, others behind what
    they follow."""
    if node.row is not None and node.row.group_id:
        return -1, node.row.group_id, node.row.group_index or 0, node.id
    return min((nodes[one].line for one in node.after), default=0), "", 0, node.id


# --------------------------------------------------------------------------- in HTML


def drawn(row: TaskResult, site: str) -> SafeString:
    """The drawing, and the same as a list."""
    graph = of(row)
    places = {node.id: node for node in graph.nodes}
    lines = [
        (_line(places[before], node),) for node in graph.nodes for before in sorted(node.after)
    ]
    width = max(_right(node) for node in graph.nodes)
    height = max(_top(node) + _HEIGHT for node in graph.nodes) + 2
    cut = format_html('<p class="jobs-quiet">{}</p>', _("More calls are not shown."))
    return format_html(
        '<div class="jobs-scroll jobs-graph" tabindex="0" role="group" aria-label="{}">'
        '<svg width="{}" height="{}" viewBox="0 0 {} {}">{}{}</svg></div>'
        "<details><summary>{}</summary>{}</details>{}",
        _("Workflow, drawn"),
        width + 2,
        height,
        width + 2,
        height,
        format_html_join("", '<path class="jobs-edge" d="{}"/>', lines),
        format_html_join("", "{}", ((_box(node, row, site),) for node in graph.nodes)),
        _("As a list"),
        _listed(graph.nodes, places, row, site),
        cut if graph.cut else "",
    )


def _left(node: Node) -> int:
    return 1 + node.column * (_WIDTH + _ACROSS)


def _right(node: Node) -> int:
    return _left(node) + _WIDTH


def _top(node: Node) -> int:
    return 1 + node.line * (_HEIGHT + _DOWN)


def _line(before: Node, node: Node) -> str:
    """From the right side of one to the left side of the other."""
    x, y = _right(before), _top(before) + _HEIGHT // 2
    to_x, to_y = _left(node), _top(node) + _HEIGHT // 2
    return f"M{x} {y}C{x + 25} {y} {to_x - 25} {to_y} {to_x} {to_y}"


def _box(node: Node, row: TaskResult, site: str) -> SafeString:
    left, top, name = _left(node), _top(node), node.name
    state = node.row.state.lower() if node.row else "unsent"
    box = format_html(
        '<g class="jobs-node jobs-node-{}{}"><title>{}</title>'
        '<rect x="{}" y="{}" width="{}" height="{}" rx="6"/>'
        '<text x="{}" y="{}" class="jobs-node-name">{}</text><text x="{}" y="{}">{}</text></g>',
        state,
        " jobs-node-this" if node.id == row.pk else "",
        f"{node.task} {node.id}",
        left,
        top,
        _WIDTH,
        _HEIGHT,
        left + 10,
        top + 19,
        name if len(name) <= 24 else f"{name[:23]}…",
        left + 10,
        top + 36,
        node.state,
    )
    if node.row is None:
        return box
    return format_html(
        '<a href="{}" aria-label="{}"{}>{}</a>',
        _url(node, site),
        f"{name}: {node.state}",
        SafeString(' aria-current="page"') if node.id == row.pk else "",
        box,
    )


def _listed(
    nodes: Sequence[Node], places: dict[str, Node], row: TaskResult, site: str
) -> SafeString:
    items = []
    for node in nodes:
        title = format_html('<span title="{}">{}</span>', node.id, node.task)
        if node.row is not None and node.id != row.pk:
            text = '<a href="{}" title="{}">{}</a>'
            title = format_html(text, _url(node, site), node.id, node.task)
        state = words.badge(node.row) if node.row else node.state
        after = ", ".join(sorted(places[one].name for one in node.after)[:5])
        if len(node.after) > 5:
            after = _("%(names)s and %(n)d more") % {"names": after, "n": len(node.after) - 5}
        said = _("after %(names)s") % {"names": after} if after else ""
        items.append((state, title, said))
    text = '<li>{} {} <span class="jobs-quiet">{}</span></li>'
    return format_html('<ol class="jobs-relations">{}</ol>', format_html_join("", text, items))


def _url(node: Node, site: str) -> str:
    return reverse("admin:jobs_taskresult_change", args=[quote(node.id)], current_app=site)
