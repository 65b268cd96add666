"""One call of a task, and its form on the broker: Celery's protocol 2, signed.

Start reading here. The format is described at
https://docs.celeryq.dev/en/stable/internals/protocol.html. What this program adds, Celery's
workers pass by:

headers     ``jobs_ledger``   true: the call has a row in the ledger since it was sent
            ``jobs_unique``   the name of its unique lock
            ``jobs_label``    its label
            ``jobs_fair``     its tenant; brokers find it by `jobs.broker.tenants.MARK`
            ``jobs_shard``    the key that chooses its shard
            ``jobs_celery``   true: a Celery client has sent it, or a call that it follows
            ``jobs_errback``  true: it is an errback that takes request, exception and traceback
            ``jobs_after``    on its way to Celery's workers: what follows it, JSON as base64
properties  ``jobs_sig``      HMAC-SHA256 (hex) over the headers and the body
            ``jobs_attempts`` how many attempts it had before a person ran it again; absent: 0
            ``jobs_crashes``  how many times a worker vanished while it held this message
            ``jobs_due``      true: the broker sees to the eta, by its own clock
            ``jobs_permit``   the time that is kept for it by a rate limit (Unix seconds)
            ``jobs_killed``   why its process was killed: see `Killed`
            ``jobs_unknown_since``  when a worker first didn't know the task (Unix seconds)

The signature is over the headers as they are written here: without white space, in this order,
and without ``redelivered``, which a Celery worker that shares the queue adds when it puts a
message back. What lies in the properties is set on foreign messages too, for which nobody vouches.
"""

from jobs.message.call import (
    HIDDEN,
    LONGEST,
    NO_MARKS,
    UNMARKED,
    Calls,
    Killed,
    Marks,
    Message,
    checked_id,
    derived_id,
    first_attempt,
    hidden_by_sender,
    id_at,
    id_time,
    is_name,
    new_id,
    next_attempt,
    note_sent,
    sent_by,
    spread,
)
from jobs.message.handing import for_celery
from jobs.message.wire import (
    EncodedCalls,
    are_plain,
    check,
    decode,
    encode,
    is_same,
    mark,
    mark_redelivered,
    shard_key_of,
    task_of,
)

__all__ = [
    "HIDDEN",
    "LONGEST",
    "NO_MARKS",
    "UNMARKED",
    "Calls",
    "EncodedCalls",
    "Killed",
    "Marks",
    "Message",
    "are_plain",
    "check",
    "checked_id",
    "decode",
    "derived_id",
    "encode",
    "first_attempt",
    "for_celery",
    "hidden_by_sender",
    "id_at",
    "id_time",
    "is_name",
    "is_same",
    "mark",
    "mark_redelivered",
    "new_id",
    "next_attempt",
    "note_sent",
    "sent_by",
    "shard_key_of",
    "spread",
    "task_of",
]
