"""What follows recorded ends, in the transaction that records them: messages, and chords' bodies.

A chord's counter (`TaskGroup`) goes down by the members that have newly ended, which the upsert
that records them says; whoever brings it to zero sends the body. So there is one body, however
often a member is run or recorded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from django.db import (
    transaction,
)

from jobs import (
    broker,
    conf,
    ledger,
    message,
    serialization,
)
from jobs.api import results
from jobs.exceptions import (
    ChordError,
    TaskFailed,
    shown,
)
from jobs.ledger import publish
from jobs.ledger.outcomes import Record
from jobs.ledger.refusals import is_refusal
from jobs.message import workflow
from jobs.message.workflow import Counted
from jobs.models import TaskGroup, TaskResult
from jobs.models.groups import TaskGroupQuerySet
from jobs.states import State
from jobs.timing import clock
from jobs.worker.record.following import (
    NO_CALL,
    message_of,
    told,
    unsent,
)
from jobs.worker.record.following import shown as shown_call
from jobs.worker.record.outcome import Following, Member, Run, failure

log = logging.getLogger("jobs.worker")


def open_counters(members: Iterable[Member]) -> list[str]:
    """Begin to count the chords of these members, one member each; the groups that are counted."""
    chords = [chord for member in members if (chord := _counted(member))]
    if chords:
        ledger.open_chords(chords)
        log.info(
            "chords of other clients are counted, and go on when Redis has their sizes: %s",
            ", ".join(chord.id for chord in chords),
        )
    return [chord.id for chord in chords]


def _counted(member: Member) -> Counted | None:
    if member.body is None:
        return None
    try:
        return workflow.of_client(member.group_id, member.body)
    except NO_CALL as error:
        log.error(
            "task %s belongs to a chord whose body can't be sent: %s (%r)",
            member.id,
            shown_call(member.body),
            error,
        )
        return None


def with_sizes(groups: Sequence[TaskGroup]) -> list[TaskGroup]:
    """Ask for the sizes of these, which were counted down just now; those that are complete."""
    complete = []
    for group in groups:
        size = broker.get().chord_size(group.id)
        if size and TaskGroup.objects.using(ledger.alias()).set_size(group, size):
            complete.append(group)
    return complete


#: Rows of results that are read at a time.
_CHUNK = 2000


def send(followings: Sequence[Following]) -> None:
    """Send what follows, but for what was sent before: run a second time, a task would send the
    same again."""
    ids = [one.id for following in followings for one in following.messages]
    if not ids:
        return
    new = ledger.not_sent(ids)
    again = [f for f in followings if any(one.id in new for one in f.messages)]
    chords = [chord for following in again for chord in following.chords]
    if chords:
        ledger.open_chords(chords)
    replaced = [following.replaces for following in again if following.replaces]
    if replaced:
        ledger.forget(replaced)  # its row keeps the place for the one that ends under its id
    # A batch may hold two deliveries of one call.
    messages = {one.id: one for following in again for one in following.messages if one.id in new}
    publish.send(list(messages.values()), using=ledger.alias())


def join(ends: Iterable[Member], newly: Collection[str]) -> list[str]:
    """Count those of these members that have newly ended, and do what comes when they were the last
    of their chords. Ids of the calls that have ended by that."""
    members = list({member.id: member for member in ends if member.id in newly}.values())
    ended: list[str] = []
    while members:
        last = {member.group_id: member for member in members}
        full = _count_down(Counter(member.group_id for member in members), last)
        followings = [_complete(group, last[group.id]) for group in full]
        # The body of one may be a member of another.
        more = ledger.record_ends([end for f in followings for end in f.ends])
        members = [member for f in followings for member in f.members if member.id in more]
        ended += more
    return ended


def _count_down(ended: Mapping[str, int], last: Mapping[str, Member]) -> list[TaskGroup]:
    """``ended``: group → how many of its members have newly ended; ``last``: group → one of them.
    The groups whose members have all ended now."""
    known, full, unsized = _groups().count_down(ended)
    unknown = ended.keys() - known
    if unknown and (opened := open_counters([last[name] for name in unknown])):
        counted = _groups().count_down({name: ended[name] for name in opened})
        unknown -= counted.known
        unsized += counted.unsized
        full += counted.full
    for name in unknown:
        log.error("task %s belongs to a chord that is not counted here: %s", last[name].id, name)
    return full + with_sizes(unsized)


def _complete(group: TaskGroup, last: Member) -> Following:
    """Send the body; what is returned are ends alone."""
    body = serialization.loads(group.body)
    try:
        # A savepoint: what the database refuses of it is the body's affair, and no member's.
        with transaction.atomic(using=ledger.alias()):
            send([_body(body, _results(group), last)])
    except Exception as error:
        if not is_refusal(error):
            raise
        return _failed_if_it_can(group, body, last, _chord_error(error))
    _groups().filter(id=group.id).delete()
    return Following()


def _body(body: workflow.Call, results: list[object], last: Member) -> Following:
    """Raises `SendError` where the results can't be sent."""
    start = workflow.start(body, [results])
    messages = [message_of(call, last.id, last.root_id) for call in start.calls]
    for one in messages:
        message.encode(one)
    return Following(messages, start.chords)


def _results(group: TaskGroup) -> list[object]:
    """Those of all members, in their order; raises `ChordError`."""
    rows = TaskResult.objects.using(ledger.alias()).filter(group_id=group.id)
    found = rows.order_by("group_index").values_list("id", "task", "state", "error", "result")
    texts, size, limit = [], 0, conf.get().message_max_bytes
    for task_id, task, state, error, text in found.iterator(chunk_size=_CHUNK):
        if state != State.SUCCESS:
            raise _of_member(task_id, task, state, error)
        size += len(text or "null") + 1
        if size <= limit:
            texts.append(text or "null")
    if size > limit:
        raise ChordError(
            f"The {group.size:,} results of its chord have {size:,} bytes; "
            f"JOBS['MESSAGE_MAX_BYTES'] allows {limit:,}. Store the data, and return keys."
        )
    if len(texts) < group.size:
        raise ChordError(
            f"{group.size - len(texts):,} of the {group.size:,} results of its chord are not in "
            "the ledger any more."
        )
    results: list[object] = serialization.loads(f"[{','.join(texts)}]")
    return results


def _of_member(task_id: str, task: str, state: str, error: str) -> ChordError:
    """As Celery words it, by the ``repr`` of the member's exception, which is its cause."""
    if state == State.REVOKED:
        return ChordError(f"{task}[{task_id}], a member of its chord, was revoked: {error}")
    row = TaskResult.objects.using(ledger.alias()).defer("message").get(id=task_id)
    why = results.rebuild(row)
    what = error if isinstance(why, TaskFailed) else shown(why, 1000)
    found = ChordError(f"{task}[{task_id}], a member of its chord, failed: {what}")
    found.__cause__ = TaskFailed("\n" + row.traceback)
    return found


def _chord_error(error: Exception) -> ChordError:
    if isinstance(error, ChordError):
        return error
    return ChordError(f"The results of its chord can't be sent to it: {error}")


def _failed_if_it_can(
    group: TaskGroup, body: workflow.Call, last: Member, error: ChordError
) -> Following:
    """`_failed`; nothing, but a line in the log, where the body's ids or errbacks are such that
    not even that can be recorded. The member that came last has ended all the same."""
    try:
        with transaction.atomic(using=ledger.alias()):
            return _failed(body, last, error)
    except Exception as another:
        if not is_refusal(another):
            raise
        log.exception("the body of chord %s can neither be sent nor end: %s", group.id, error)
        _groups().filter(id=group.id).delete()
        return Following()


def _failed(body: workflow.Call, last: Member, error: ChordError) -> Following:
    """The body, and all behind it, end; its errbacks are told."""
    firsts = workflow.start(body, [[]]).calls
    if not firsts:
        return Following()  # a group of nothing
    ended = _end(firsts[0], last, error)
    ends, members = unsent(body, ended)
    ends = [one._replace(traceback=ended.traceback) for one in ends]
    for first in firsts:
        errbacks = workflow.listed(workflow.options(first).get("link_error"))
        after = told(message_of(first, last.id, last.root_id), errbacks)
        send([after])
        ends += after.ends
        members += after.members
    return Following(ends=ends, members=members)


def _end(first: workflow.Call, last: Member, error: ChordError) -> Record:
    sent = message_of(first, last.id, last.root_id)
    run = Run("", clock.now().timestamp())
    return failure(sent, b"", run, error)


def _groups() -> TaskGroupQuerySet:
    return TaskGroup.objects.using(ledger.alias())
