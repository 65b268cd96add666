"""Send what follows recorded ends, in the transaction that records them: messages, and the bodies
of chords.

A chord's counter (`TaskGroup`) goes down by the members that have newly ended, as the upsert that
records them says. Whoever brings it to zero sends the body. So there is one body, however often a
member is run or recorded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction

from jobs import broker, conf, ledger, message, serialization
from jobs.api import results
from jobs.exceptions import ChordError, TaskFailed, shown
from jobs.ledger import publish
from jobs.ledger.refusals import is_refusal
from jobs.message import workflow
from jobs.models import TaskGroup
from jobs.states import State
from jobs.timing import clock
from jobs.worker.record.following import NO_CALL, message_of, told, unsent
from jobs.worker.record.following import shown as shown_call
from jobs.worker.record.outcome import NOTHING, Following, Member, Run, failure

log = logging.getLogger("jobs.worker")

#: Rows of results that are read at a time.
_CHUNK = 2000


def send(followings: Sequence[Following]) -> None:
    """Send what follows, but not what was sent before: a task that runs a second time would send
    the same again."""
    ids = [one.id for following in followings for one in following.messages]
    if not ids:
        return
    new = ledger.not_sent(ids)
    if len(new) < len(ids):
        new |= _sent_anew(followings, new)
    again = [f for f in followings if any(one.id in new for one in f.messages)]
    chords = [chord for following in again for chord in following.chords]
    if chords:
        ledger.open_chords(chords)
    replaced = [following.replaces for following in again if following.replaces]
    if replaced:
        ledger.forget(replaced)  # its row keeps a place for the call that ends under its id
    # A batch may hold two deliveries of one call.
    messages = {one.id: one for following in again for one in following.messages if one.id in new}
    contexts = {one.id: f.context for f in again if f.context for one in f.messages}
    publish.send(list(messages.values()), using=ledger.alias(), contexts=contexts)


def _sent_anew(followings: Sequence[Following], new: Collection[str]) -> set[str]:
    """Those of these calls, beside the new ones, that have ended in another workflow of a Celery
    client: it has sent calls of the same ids once more, and expects them to run once more.

    Their rows are deleted. A call of the same workflow was sent before; so was one that has not
    ended, and both workflows go on with its end.
    """
    known = {
        one.id: one.root_id or one.id
        for following in followings
        for one in following.messages
        if one.celery and one.id not in new
    }
    if not known:
        return set()
    before = ledger.roots(list(known), ended=True)
    found = {task_id for task_id, root in before.items() if root != known[task_id]}
    if found:
        chords = [
            chord.id
            for following in followings
            if any(one.id in found for one in following.messages)
            for chord in following.chords
        ]
        ledger.replace_ended(list(found), chords)
    return found


def join(ends: Iterable[Member], newly: Collection[str]) -> list[str]:
    """Count those of these members that have newly ended, and send or end the bodies of the chords
    that are complete. Returns the ids of the calls that have ended by that."""
    members = list({member.id: member for member in ends if member.id in newly}.values())
    ended: list[str] = []
    while members:
        followings = [_complete(group, last) for group, last in _count_down(members)]
        # The body of one chord may be a member of another.
        more = ledger.record_ends([end for f in followings for end in f.ends])
        members = [member for f in followings for member in f.members if member.id in more]
        ended += more
    return ended


def _count_down(members: Sequence[Member]) -> list[tuple[TaskGroup, Member]]:
    """Count these members as ended. Returns the chords that are complete by that, each with one of
    the members."""
    ended = Counter(member.group_id for member in members)
    last = {member.group_id: member for member in members}
    known, full, unsized = ledger.groups().count_down(ended)
    unknown = ended.keys() - known
    # Celery clients open no counters in the ledger: the first member that ends opens them.
    if opened := _open_counters([last[group_id] for group_id in unknown]):
        counted = ledger.groups().count_down({group_id: ended[group_id] for group_id in opened})
        unknown -= counted.known
        unsized += counted.unsized
        full += counted.full
    for group_id in unknown:
        where = last[group_id].id
        log.error("task %s belongs to a chord that is not counted here: %s", where, group_id)
    for group in unsized:
        size = broker.get().chord_size(group.id)
        if size and ledger.groups().set_size(group, size):
            full.append(group)
    return [(group, last[group.id]) for group in full]


def _open_counters(members: Iterable[Member]) -> list[str]:
    """Begin to count the chords of Celery clients that these are members of; their groups' ids."""
    chords = []
    for member in members:
        if member.body is None:
            continue
        try:
            chords.append(workflow.of_client(member.group_id, member.body))
        except NO_CALL as error:
            log.error(
                "task %s belongs to a chord whose body can't be sent: %s (%r)",
                member.id,
                shown_call(member.body),
                error,
            )
    if chords:
        ledger.open_chords(chords)
        log.info(
            "chords of other clients are counted, and go on when Redis has their sizes: %s",
            ", ".join(chord.id for chord in chords),
        )
    return [chord.id for chord in chords]


def _complete(group: TaskGroup, last: Member) -> Following:
    """Send the body of a chord or, where that can't be, end it. Returns those ends."""
    body = serialization.loads(group.body)
    try:
        # A savepoint: what the database refuses of the body must not undo the members' ends.
        with transaction.atomic(using=ledger.alias()):
            start = workflow.start(body, [_results(group, nested=last.celery)])
            messages = [
                message_of(call, last.id, last.root_id, last.celery) for call in start.calls
            ]
            for one in messages:
                message.encode(one)  # raises `SendError` where the results can't be sent
            send([Following(messages, start.chords, context=last.context)])
    except Exception as error:
        if not is_refusal(error):
            raise
        why = error
        if not isinstance(error, ChordError):
            why = ChordError(f"The results of its chord can't be sent to it: {error}")
    else:
        ledger.groups().filter(id=group.id).delete()
        return NOTHING
    try:
        with transaction.atomic(using=ledger.alias()):
            return _failed(body, last, why)
    except Exception as another:
        # The ids or errbacks of the body can't be recorded. Its last member has ended all the same.
        if not is_refusal(another):
            raise
        log.exception("the body of chord %s can neither be sent nor end: %s", group.id, why)
        ledger.groups().filter(id=group.id).delete()
        return NOTHING


def _results(group: TaskGroup, *, nested: bool = False) -> list[object]:
    """The results of all members, in their order; raises `ChordError`.

    ``nested``: a Celery client may have sent it, and so have saved which members are groups.
    """
    rows = ledger.results().filter(group_id=group.id)
    found = rows.order_by("group_index").values_list("id", "task", "state", "error", "result")
    texts: dict[str, str] = {}
    size, limit = 0, conf.get().message_max_bytes
    for task_id, task, state, error, text in found.iterator(chunk_size=_CHUNK):
        if state != State.SUCCESS:
            raise _of_member(task_id, task, state, error)
        size += len(text or "null") + 1
        if size <= limit:
            texts[task_id] = text or "null"
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
    saved = broker.get().chord_results(group.id) if nested else None
    whole = f"[{','.join(texts.values())}]" if saved is None else _as_saved(saved, texts)
    results: list[object] = serialization.loads(whole)
    return results


def _as_saved(saved: bytes, texts: Mapping[str, str]) -> str:
    """The JSON of these results (by their ids) with those of each group as a list, as a Celery
    client has saved the members; raises `ChordError` for what can't be read."""

    def text_of(result: Any) -> str:
        (task_id, _), members = result
        return texts[task_id] if members is None else f"[{','.join(map(text_of, members))}]"

    try:
        return text_of(serialization.loads(saved)["result"])
    except NO_CALL as error:
        raise ChordError(f"Which results its chord is to get can't be read: {error!r}.") from error


def _of_member(task_id: str, task: str, state: str, error: str) -> ChordError:
    """In Celery's words: with the ``repr`` of the member's exception, which is the cause."""
    if state == State.REVOKED:
        return ChordError(f"{task}[{task_id}], a member of its chord, was revoked: {error}")
    row = ledger.results().defer("message").get(id=task_id)
    why = results.rebuild(row)
    what = error if isinstance(why, TaskFailed) else shown(why, 1000)
    found = ChordError(f"{task}[{task_id}], a member of its chord, failed: {what}")
    found.__cause__ = TaskFailed("\n" + row.traceback)
    return found


def _failed(body: workflow.Call, last: Member, error: Exception) -> Following:
    """End the body and all that comes after it, and send its errbacks."""
    firsts = workflow.start(body, [[]]).calls
    if not firsts:
        return NOTHING  # a group of nothing
    run = Run("", clock.now().timestamp())
    ended = failure(message_of(firsts[0], last.id, last.root_id), b"", run, error)
    if last.celery and workflow.kind(body) == "group":
        # Celery's clients get the member's own exception then.
        rows = ledger.results().filter(group_id=last.group_id, state=State.FAILURE)
        columns = "result", "error_type", "error", "traceback"
        if own := rows.order_by("group_index").values(*columns).first():
            ended = ended._replace(**own)
    ends, members = unsent(body, ended, celery=last.celery)
    ends = [one._replace(traceback=ended.traceback) for one in ends]
    for one in workflow.that_fail(body):
        errbacks = workflow.listed(workflow.options(one).get("link_error"))
        own = {"args": one.get("args") or (), "kwargs": one.get("kwargs") or {}}
        failed = message_of({**one, **own}, last.id, last.root_id, last.celery)
        after = told(failed, errbacks, error)
        send([after._replace(context=last.context)])
        ends += after.ends
        members += after.members
    return Following(ends=ends, members=members)
