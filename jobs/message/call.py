"""One call of a task, as a value: its message, its id, and the options that it is sent with."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict, TypeGuard, cast

import msgspec
from django.db import connections

from jobs import conf, serialization
from jobs.conf import RetryPolicy
from jobs.conf.values import (
    check_label,
    check_place,
    check_priority,
    check_text,
    check_time_limit,
    check_whole,
    check_yes_or_no,
    moment,
    place_name,
    seconds_ahead,
    tenant,
)
from jobs.exceptions import shown
from jobs.message.behind import Behind
from jobs.timing import clock
from jobs.timing.clock import aware

#: Stands where a sensitive argument would.
HIDDEN = "…"

#: What `mark` is given to take back what workers have noted on a message.
UNMARKED = {"jobs_crashes": 0, "jobs_killed": "", "jobs_unknown_since": 0.0}

#: Names of headers that are the protocol's, not the caller's own.
HEADERS = frozenset(
    {
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"),
        *("ignore_result", "redelivered", "compression", "replaced_task_nesting"),
        "jobs_after",
        "jobs_ledger",
        "jobs_celery",
        "jobs_errback",
        "jobs_label",
        "jobs_fair",
        "jobs_shard",
        "jobs_shown",
        "jobs_unique",
    }
)


class Killed(enum.StrEnum):
    """Why a message is not run, or not run on: the supervisor ended the process that ran it, or an
    operator purged it."""

    TIME_LIMIT = "time limit"
    REVOKED = "revoked"
    PURGED = "purged"


class Marks(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What workers, supervisors and operators have noted on a message since it was sent.

    The signature doesn't cover marks, and the next attempt starts without any."""

    #: A worker has held it before.
    redelivered: bool = False
    #: How many workers vanished while they held it.
    crashes: int = 0
    #: A value of `Killed`: it was ended from outside, and is not to be run.
    killed: str = ""
    #: When a worker first failed to find the task (Unix seconds); 0: never.
    unknown_since: float = 0.0
    #: The start time that a rate limit reserves for it (Unix seconds), or 0.
    permit: float = 0.0


#: The marks of most messages: nothing has been noted. One object, so that none has to be made.
NO_MARKS = Marks()


class Message(msgspec.Struct, kw_only=True, gc=False):
    """One call of a task: what its sender said of it, and the marks it got on its way."""

    # What many calls of a task have in common. `wire` reads these three parts as they stand here.

    task: str
    queue: str
    #: Where it was sent; the exchange is empty when a queue was named. Both are empty in a message
    #: that was claimed: it belongs to its queue.
    exchange: str = ""
    routing_key: str = ""
    #: From 0, the most urgent, to 9, as Celery has it on Redis.
    priority: int = 0
    ignore_result: bool | None = None
    #: A word of the caller's own, to find the call by; empty: none.
    label: str = ""
    #: The ledger has had a row of it since it was sent.
    ledger: bool = False

    # What each call has for itself.

    id: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    #: What follows the task, in Celery's terms: callbacks, errbacks, chain, chord.
    embed: dict[str, Any] = {}
    #: Arguments whose values are shown nowhere: their names and, as text, their positions.
    sensitive: frozenset[str] = frozenset()
    #: Further queues that get it, each as a message of its own; see `spread`.
    copies: tuple[str, ...] = ()
    #: The broker keeps it until its eta, by the broker's clock.
    held: bool = False
    #: The wire form of args, kwargs and embed, kept so that sending it again needs no encoding.
    body: str | None = None
    #: All headers, as they were received, and the whole wire form.
    wire_headers: bytes = b""
    wire: bytes = b""

    # What most calls leave as it is.

    #: Not before.
    eta: dt.datetime | None = None
    #: Not after: it ends as REVOKED.
    expires: dt.datetime | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: Attempts since it was sent, or last run again by a person; `max_retries` limits them.
    retries: int = 0
    #: Attempts before a person ran it again.
    attempts_before: int = 0
    #: Hard and soft, in seconds.
    timelimit: tuple[float | None, float | None] = (None, None)
    #: The caller's own; None: still within `wire_headers`, see `headers`.
    own_headers: dict[str, Any] | None = {}
    #: The name of its unique lock; empty: it is not unique.
    unique: str = ""
    #: How often a call has been replaced by `Task.replace` until this one took its place.
    replaced: int = 0
    #: Whose call it is: tenants of a queue take turns. Empty: nobody's.
    fair: str = ""
    #: Calls with equal keys are on the same shard of a queue; empty: on any.
    shard_key: str = ""
    #: The name under which Celery's tools show it; empty: the task's.
    shadow: str = ""
    #: Texts that are shown in place of its arguments, all of which are hidden then; None: the
    #: arguments are shown.
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    #: ``name@host`` of the sender.
    origin: str | None = None
    marks: Marks = NO_MARKS
    #: A Celery client has sent it, or a call that it follows: its end is written into Celery's
    #: keys, too.
    celery: bool = False
    #: An errback that takes ``(request, exc, traceback)``: its first three arguments stand for
    #: these; see `jobs.worker.record.errbacks`.
    errback: bool = False

    @property
    def attempt(self) -> int:
        """The number of its next or present attempt, from 1."""
        return self.attempts_before + self.retries + 1

    @property
    def shown_args(self) -> list[Any]:
        """The positional arguments, with sensitive ones hidden."""
        if self.argsrepr is not None:
            return [HIDDEN] * len(self.args)
        if not self.sensitive:
            return self.args
        return [HIDDEN if str(n) in self.sensitive else v for n, v in enumerate(self.args)]

    @property
    def shown_kwargs(self) -> dict[str, Any]:
        """The keyword arguments, with sensitive ones hidden."""
        if self.kwargsrepr is not None:
            return dict.fromkeys(self.kwargs, HIDDEN)
        if not self.sensitive:
            return self.kwargs
        return {k: HIDDEN if k in self.sensitive else v for k, v in self.kwargs.items()}

    @property
    def headers(self) -> dict[str, Any]:
        """The caller's own headers."""
        if self.own_headers is None:
            try:
                found = serialization.loads(self.wire_headers)
            except ValueError:  # what only looks like a tagged value
                found = msgspec.json.decode(self.wire_headers, type=dict[str, Any])
            self.own_headers = {k: v for k, v in found.items() if k not in HEADERS}
        return self.own_headers


class Calls(NamedTuple):
    """Calls of one task that have all but ids and arguments in common. Where nothing is to be done
    with each message, none is made."""

    #: The message of any of them, without id and arguments.
    common: Message
    #: The id of each, made by `new_id`, and its positional and keyword arguments.
    own: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]]

    def messages(self) -> list[Message]:
        """The message of each."""
        # `copy.copy` looks for this method, for longer than it takes.
        anew = self.common.__copy__  # type: ignore[attr-defined]
        made = []
        for task_id, args, kwargs in self.own:
            one: Message = anew()
            one.id, one.args, one.kwargs = task_id, [*args], {**kwargs}
            made.append(one)
        return made


#: Id of a call of Celery's clients that runs in this process → the calls that it has sent: the id
#: and the group of each. There may be many, so their messages are not kept.
sent_by: dict[str, list[tuple[str, str | None]]] = {}


def note_sent(messages: Sequence[Message]) -> None:
    """Note these messages with the calls in `sent_by` that have sent them."""
    for one in messages:
        if (made := sent_by.get(one.parent_id or "")) is not None:
            made.append((one.id, one.group))


def next_attempt(
    sent: Message,
    *,
    eta: dt.datetime,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Message:
    """The message of the call's next attempt, with these arguments if any are given."""
    following = msgspec.structs.replace(
        sent,
        retries=sent.retries + 1,
        eta=eta,
        parent_id=sent.id,
        own_headers=sent.headers,
        marks=NO_MARKS,
    )
    if args is not None or kwargs is not None:
        following.args = sent.args if args is None else list(args)
        following.kwargs = sent.kwargs if kwargs is None else dict(kwargs)
        following.body = None
    return following


def first_attempt(sent: Message, attempts_before: int = 0) -> Message:
    """The message of the same call with all its retries again: due at once, without an end.

    ``attempts_before``: how many attempts it has had.
    """
    return msgspec.structs.replace(
        sent,
        retries=0,
        attempts_before=attempts_before,
        eta=None,
        expires=None,
        sensitive=sent.sensitive or hidden_by_sender(sent),
        own_headers=sent.headers,
        marks=NO_MARKS,
    )


def spread(sent: Message) -> list[Message]:
    """One message for each queue that a message is for.

    Those for further queues are calls of their own, with ids made from the first one's, so that
    each is run and recorded once. What follows the call follows the first only.
    """
    made = int((id_time(sent.id) or 0) * 1000)
    copies = [
        msgspec.structs.replace(
            sent,
            id=id_at(made, hashlib.sha256(f"{sent.id}>{queue}".encode()).digest()),
            queue=queue,
            copies=(),
            embed={},
            root_id=sent.root_id or sent.id,
            group=None,
            group_index=None,
            unique="",
            body=None,
        )
        for queue in sent.copies
    ]
    return [msgspec.structs.replace(sent, copies=()), *copies]


def protocol_headers(sent: Message) -> dict[str, Any]:
    """All headers of a message that was received, the protocol's own included."""
    return msgspec.json.decode(sent.wire_headers or b"{}", type=dict[str, Any])


def protocol_properties(sent: Message) -> dict[str, Any]:
    """The properties of a message that was received, without this program's own."""
    envelope = msgspec.json.decode(sent.wire or b"{}", type=dict[str, Any])
    found = envelope.get("properties") or {}
    return {name: value for name, value in found.items() if not name.startswith("jobs_")}


def hidden_by_sender(sent: Message) -> frozenset[str]:
    """All arguments of a message if its sender hid any of them, else none. For a task that isn't
    known here: nothing tells which arguments were hidden."""
    found = protocol_headers(sent)
    shown = f"{found.get('argsrepr')}{found.get('kwargsrepr')}"
    if repr(HIDDEN) not in shown:
        return frozenset()
    return frozenset([*map(str, range(len(sent.args))), *sent.kwargs])


# --------------------------------------------------------------------------------------------- ids

#: Seconds since 1970 that no datetime can hold.
_YEAR_10000 = 253_402_300_800


#: Most characters of an id, and of any other name that is stored.
LONGEST = 255


def is_name(value: object) -> TypeGuard[str]:
    """Whether it can be stored as the id of a call or a group, or as a task's name."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False  # a lone surrogate
    return True


def checked_id(value: object) -> str:
    """The id of a call as text, from text or a UUID. Raises `TypeError` or `ValueError` for what
    can't be the id of any call."""
    if isinstance(value, uuid.UUID):
        return str(value)
    check_text("The id of a call", value)
    return cast(str, value)


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): ids sort by time, so rows arrive in index order. Those
    that a process makes one after the other sort in this order, also within a millisecond."""
    global _stamp
    now, stamp = time.time_ns() // 1_000_000, _stamp
    # A clock that is set back by less than a second is waited for.
    if now > stamp[0] or now < stamp[0] - 1000:
        stamp = _stamp = _stamped(now)
    try:
        return stamp[1] + _tails.pop()
    except IndexError:
        first = next(_counters)
        if first == "0":  # the counter begins anew, so the time must go on
            stamp = _stamp = _stamped(stamp[0] + 1)
        _tails.extend(_new_tails(first))
        return stamp[1] + _tails.pop()


def _stamped(milliseconds: int) -> tuple[int, str]:
    digits = f"{milliseconds:012x}"
    return milliseconds, f"{digits[:8]}-{digits[8:]}-"


#: What the end of an id looks like, and one more character to part it from the next; where it has
#: random digits, the first of which is one of four, since the variant is there.
_TAIL = b"7000-8000-000000000000 "
_DIGITS = [n for n, digit in enumerate(_TAIL) if n > 4 and digit in b"08"]
_VARIANTS = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
#: The last two digits of the counter, which are the same in each 256 ids; backwards, since `pop`
#: takes the last one first.
_COUNTS = [
    "".join(digits).encode()
    for digits in zip(*(f"{n:02x}" for n in range(255, -1, -1)), strict=True)
]


def _new_tails(first: str) -> list[str]:
    """What follows the time in an id, for 256 of them: the version, a counter of three digits (RFC
    9562, 6.2, method 1) that begins with this one, the variant and random bits.

    Asking the operating system once for each id would double the cost of making one, and so would
    putting together each for itself: so all get their first digits, then all their second ones.
    """
    noise = os.urandom(8 * 256).hex().encode()
    tails = bytearray(_TAIL * 256)
    tails[1 :: len(_TAIL)] = first.encode() * 256
    tails[2 :: len(_TAIL)], tails[3 :: len(_TAIL)] = _COUNTS
    for n, place in enumerate(_DIGITS):
        digits = noise[n::16]
        tails[place :: len(_TAIL)] = digits if n else digits.translate(_VARIANTS)
    return tails.decode().split()


#: Ready for one id each. A list's `pop` and `extend` are atomic.
_tails: list[str] = []
#: The first digits of the counter, in turn.
_counters = itertools.cycle("0123456789abcdef")
#: The millisecond of the last id, and its text: many ids of a bulk share one.
_stamp = (-1, "")
# What two processes would otherwise share after a fork.
os.register_at_fork(after_in_child=_tails.clear)


def id_at(milliseconds: int, noise: bytes) -> str:
    """The id of this time (since 1970), with these ten bytes in place of random ones."""
    value = milliseconds << 80 | int.from_bytes(noise[:10])
    value = value & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62  # version, variant
    return str(uuid.UUID(int=value))


def derived_id(task_id: str, what: str) -> str:
    """The id of something that a call leads to: always the same for the same call."""
    noise = hashlib.sha256(f"{task_id}/{what}".encode()).digest()
    made = id_time(task_id) or time.time()
    return id_at(int(made * 1000), noise)


def id_time(task_id: str) -> float | None:
    """When a version 7 id was made (seconds since 1970); None for another kind of id."""
    if len(task_id) != 36 or task_id[14] != "7":
        return None
    try:
        seconds = int(task_id[:8] + task_id[9:13], 16) / 1000
    except ValueError:
        return None
    return seconds if 0 <= seconds < _YEAR_10000 else None


# -------------------------------------------------------------------------- the options of sending

#: Seconds from now, a span, or a moment.
When = float | dt.timedelta | dt.datetime


class SharedOptions(TypedDict, total=False):
    """Options that the calls of a bulk may share; `Send` says what they mean."""

    countdown: float | dt.timedelta | None
    eta: dt.datetime | None
    expires: When | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    label: str | None
    fair: str | int | uuid.UUID | None
    shard_key: str | None
    headers: Mapping[str, Any] | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    shadow: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    add_to_parent: bool
    root_id: str | None
    parent_id: str | None
    using: str | None
    retry: bool
    retry_policy: Mapping[str, Any] | None
    link: Any
    link_error: Any


class SendOptions(SharedOptions, total=False):
    """Options of ``apply_async``; `Send` says what they mean."""

    task_id: str | uuid.UUID | None
    chain: Sequence[Mapping[str, Any]] | None
    group_id: str | None
    group_index: int | None
    chord: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Options of ``apply_async``. `checked` raises for wrong ones; a worker that sends the calls of
    foreign clients takes them as they are."""

    #: Seconds from now, or a timedelta; not before.
    countdown: float | None = None
    #: Not before; a naive moment is in the project's time zone. Give this or ``countdown``.
    eta: dt.datetime | None = None
    #: After this it isn't run, but ends as REVOKED. A span counts from the sending, as in Celery,
    #: not from ``eta``; a naive moment is in the project's time zone.
    expires: When | None = None
    queue: str | None = None
    #: Where it goes if no queue is given: to the queues bound to the exchange with this key. The
    #: default is the task's exchange, or JOBS["DEFAULT_EXCHANGE"]. With a queue, both only travel
    #: along in ``delivery_info``.
    exchange: str | None = None
    routing_key: str | None = None
    #: 0 (first) to 9.
    priority: int | None = None
    #: An id of your own: text of 1 to 255 characters, or a UUID. A second call with the same id is
    #: skipped only if the first has ended before it starts.
    task_id: str | None = None
    #: A word of your own to find the call by, one line of 200 characters at most; "" for none.
    #: Default: the task's.
    label: str | None = None
    #: Whose call it is, in at most 200 characters: tenants with calls on a queue take turns. "" for
    #: none. Default: as the task's ``fair_by`` says.
    fair: str | int | uuid.UUID | None = None
    #: On a queue with shards, calls with equal keys go to the same one, and are claimed in the
    #: order in which they were sent. Text of 1 to 255 characters; "" for none. Default: as the
    #: task's ``shard_by`` says.
    shard_key: str | None = None
    #: The caller's own, for ``self.request.headers``.
    headers: Mapping[str, Any] | None = None
    ignore_result: bool | None = None
    #: Seconds, in place of the task's; see `jobs.api.options.Options`.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: The name under which Celery's tools show the call.
    shadow: str | None = None
    #: Texts that are shown in place of its arguments, which are hidden everywhere then.
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    #: Whether a task that sends it is its parent.
    add_to_parent: bool = True
    #: In place of the ids of the task that sends it, and of the first in its line of parents.
    root_id: str | None = None
    parent_id: str | None = None
    #: Alias of the database whose transaction counts; default: the ledger's.
    using: str | None = None
    #: One call (`jobs.Signature`) or several, sent with its result when it has succeeded.
    link: Any = None
    #: The same, sent with its id when it has failed.
    link_error: Any = None
    #: JSON forms of the calls that follow it in a chain, the next one last.
    chain: Sequence[Mapping[str, Any]] | None = None
    #: The group that it is a member of, and its place there.
    group_id: str | None = None
    group_index: int | None = None
    #: JSON form of the body of the chord whose header that group is.
    chord: Mapping[str, Any] | None = None
    #: False: don't try again when the broker is away.
    retry: bool = True
    #: Keys that replace those of JOBS["RETRY_POLICY"] for this sending.
    retry_policy: Mapping[str, Any] | None = None

    def checked(self) -> Send:
        """Return self. Raises `TypeError` or `ValueError` for wrong options."""
        for name in ("queue", "exchange", "routing_key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                object.__setattr__(self, name, value := place_name(value))
            check_place(name, value)
        check_kinds(self)
        if self.countdown is not None and self.eta is not None:
            raise TypeError("countdown and eta are given; give one of them")
        if self.retry_policy is not None:
            try:
                conf.options_of(RetryPolicy, self.retry_policy)
            except (TypeError, ValueError) as error:
                raise type(error)(f"retry_policy {error}") from None
        if self.priority is not None and (
            isinstance(self.priority, bool) or self.priority not in range(10)
        ):
            raise ValueError(f"priority must be 0 (first) to 9, not {self.priority!r}")
        for name in ("time_limit", "soft_time_limit"):
            check_time_limit(name, getattr(self, name))
        return self

    def due(self) -> dt.datetime | None:
        """When it may start; None: at once."""
        if self.countdown is not None:
            return clock.now() + dt.timedelta(seconds=self.countdown)
        return self.eta and aware(self.eta)

    def policy(self) -> RetryPolicy | None:
        """How often to try while the broker is away; None: as the settings say."""
        if not self.retry:
            return RetryPolicy(max_retries=0)
        if not self.retry_policy:
            return None
        checked = conf.options_of(RetryPolicy, self.retry_policy)
        given = {name: getattr(checked, name) for name in self.retry_policy}
        return dataclasses.replace(conf.get().retry_policy, **given)


#: Names of `Send`'s options.
OPTIONS = frozenset(field.name for field in dataclasses.fields(Send))

#: Those that a schedule can have besides its fields: each of its runs has an id of its own, and
#: none is part of a workflow.
SCHEDULED = OPTIONS - {
    *("queue", "exchange", "routing_key", "priority", "expires", "headers"),
    *("task_id", "chain", "chord", "group_id", "group_index"),
}

#: No options: most calls are sent with these.
PLAINLY = Send()


def end(expires: When) -> dt.datetime:
    """The moment after which a call sent now isn't run any more."""
    if isinstance(expires, dt.datetime):
        return aware(expires)
    span = expires if isinstance(expires, dt.timedelta) else dt.timedelta(seconds=expires)
    return clock.now() + span


def stamped(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with stamps among the headers: in Celery's form of a call they are options of
    their own, whose names are in ``stamped_headers``. Values stay as they are given, as in Celery;
    sets become lists."""
    names = options.get("stamped_headers")
    if not isinstance(names, list | tuple | set | frozenset) or not names:
        return {k: v for k, v in options.items() if k != "stamped_headers"}
    left = {k: v for k, v in options.items() if k != "stamped_headers" and k not in names}
    stamps = {
        name: list(value) if isinstance(value := options[name], set | frozenset | tuple) else value
        for name in names
        if name in options
    }
    own = left.get("headers")
    left["headers"] = {
        **(own if isinstance(own, Mapping) else {}),
        "stamped_headers": list(names),
        "stamps": stamps,
    }
    return left


#: Options that are ids.
_IDS = ("task_id", "group_id", "root_id", "parent_id")


def check_kinds(send: Send) -> None:
    """Raise `TypeError` or `ValueError` for options of the wrong kind: later, in a worker or in the
    database, the caller could not be told."""
    put = object.__setattr__
    if isinstance(send.task_id, uuid.UUID):
        put(send, "task_id", str(send.task_id))
    for name in (*_IDS, "queue", "exchange", "routing_key"):
        value = getattr(send, name)
        if value is not None and (value != "" or name in _IDS):
            check_text(name, value)
            if type(value) is not str:  # safe text, a member of an enum: JSON takes str alone
                put(send, name, str.__str__(value))
    if send.label is not None:
        check_label(send.label)
        put(send, "label", str.__str__(send.label))
    if send.fair is not None:
        put(send, "fair", tenant("fair", send.fair))
    if send.shard_key:
        check_text("shard_key", send.shard_key)
        put(send, "shard_key", str.__str__(send.shard_key))
    elif send.shard_key is not None and send.shard_key != "":
        raise TypeError(f"shard_key must be text, not {shown(send.shard_key)}")
    if send.group_index is not None:
        check_whole("group_index", send.group_index, 0, 2**31 - 1, ", or None")
    check_priority(send.priority)
    if send.countdown is not None:
        put(send, "countdown", seconds_ahead("countdown", send.countdown))
    if send.eta is not None:
        moment("eta", send.eta)
    if isinstance(send.expires, dt.datetime):
        moment("expires", send.expires)
    elif send.expires is not None:
        seconds_ahead("expires", send.expires)
    if send.ignore_result is not None:
        check_yes_or_no("ignore_result", send.ignore_result)
    check_yes_or_no("retry", send.retry)
    check_yes_or_no("add_to_parent", send.add_to_parent)
    for name in ("shadow", "argsrepr", "kwargsrepr"):
        if (value := getattr(send, name)) is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be text, not {shown(value)}")
    if send.headers is not None:
        if not isinstance(send.headers, Mapping):
            raise TypeError(f"headers must be a dict, not {shown(send.headers)}")
        for name in send.headers:
            if not isinstance(name, str):
                raise TypeError(f"headers must have names that are text, not {shown(name)}")
    if send.using is not None and send.using not in connections.settings:
        raise ValueError(
            f"using must be an alias in DATABASES, not {shown(send.using)}."
            f"{conf.nearest(str(send.using), connections.settings)}"
        )
    if send.chord is not None and not isinstance(send.chord, Mapping):
        raise TypeError(f"chord must be the JSON form of a call, not {shown(send.chord)}")
    if send.chain is not None and (
        not isinstance(send.chain, list | tuple)
        or not all(isinstance(one, Mapping) for one in send.chain)
    ):
        raise TypeError(f"chain must be JSON forms of calls, not {shown(send.chain)}; write a | b")


# ------------------------------------------------------------------------- making messages


class Defaults(Protocol):
    """What a task says of its calls."""

    expires: Any
    ignore_result: bool
    label: str
    sensitive: frozenset[str]


_NOTHING = frozenset[str]()


def _rest(chain: Sequence[Mapping[str, Any]] | None) -> Sequence[Mapping[str, Any]] | None:
    if not chain:
        return None
    return chain if isinstance(chain, Behind) else list(chain)


def new_message(
    name: str,
    task: Defaults | None,
    send: Send,
    queue: str = "",
    priority: int = 0,
    parent_id: str | None = None,
    root_id: str | None = None,
) -> Message:
    """The message of a call but for its arguments, and its id if ``send`` names none.

    What the options of the call leave open, its task says; None: a task that isn't known here.
    ``send.link`` and the like have JSON forms by now. ``priority``: if the call names none.
    """
    expires, ignored = send.expires, send.ignore_result
    if task is not None:
        expires = task.expires if expires is None else expires
        ignored = task.ignore_result if ignored is None else ignored
    # Only what is most often given: with all fields, making it would take four times as long.
    made = Message(
        task=name,
        id=send.task_id or "",
        queue=queue,
        priority=priority if send.priority is None else send.priority,
        ignore_result=ignored,
        root_id=root_id,
        parent_id=parent_id,
        sensitive=_NOTHING if task is None else task.sensitive,
    )
    if sent_by and parent_id in sent_by:
        made.celery = True
    if expires is not None:
        made.expires = end(expires)
    if task is not None and task.label:
        made.label = task.label
    if send is PLAINLY:
        return made
    if send.label is not None:
        made.label = send.label
    if send.fair:
        made.fair = str(send.fair)
    if send.shard_key:
        made.shard_key = send.shard_key
    if send.shadow:
        made.shadow = send.shadow
    made.argsrepr, made.kwargsrepr = send.argsrepr, send.kwargsrepr
    if send.parent_id is not None or not send.add_to_parent:
        made.parent_id = send.parent_id
    if send.root_id is not None:
        made.root_id = send.root_id
    made.eta = send.due()
    made.group, made.group_index = send.group_id, send.group_index
    made.timelimit = (send.time_limit, send.soft_time_limit)
    if send.headers:
        made.own_headers = dict(send.headers)
    if send.link or send.link_error or send.chain or send.chord:
        made.embed = {
            "callbacks": send.link or None,
            "errbacks": send.link_error or None,
            "chain": _rest(send.chain),
            "chord": send.chord,
        }
    return made
