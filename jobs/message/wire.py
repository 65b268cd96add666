"""A message's form on the broker: Celery's protocol 2. The package's docstring has the format."""

from __future__ import annotations

import binascii
import contextlib
import copy
import datetime as dt
import functools
import hashlib
import hmac
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec.structs import astuple

from jobs import conf, serialization
from jobs.conf.values import LONGEST_LABEL, LONGEST_TENANT, check_label
from jobs.exceptions import BadSignature, MalformedMessage, MessageTooLarge, NotSerializable
from jobs.message import behind, foreign
from jobs.message.behind import Behind
from jobs.message.call import HEADERS, Calls, Marks, Message, is_name

_REPR_MAX = 1024
#: Upper bound on the bytes around a body when the caller gives no headers of his own.
_AROUND = 20_000
#: Bytes of a body from which on the rest of a chain is read only as far as it is needed.
_LONG = 4096
#: What is written of a call that nothing follows, as Celery has it.
NO_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: Types that msgspec and the standard library write alike. Not float: msgspec makes NaN null.
_PLAIN = frozenset({int, str, bool, type(None)})
_ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"
_plain = msgspec.json.Encoder().encode
_base64 = binascii.b2a_base64
_WRITTEN_NO_EMBED = msgspec.Raw(_plain(NO_EMBED))

# ---------------------------------------------------------------------------- to the wire

# msgspec writes its structs in a third of the time of dicts. Fields with a default are left out
# while they have it, all others are always written.


class _SentHeaders(msgspec.Struct, omit_defaults=True, gc=False):
    lang: str
    task: str
    id: str
    shadow: str | None
    eta: str | None
    expires: str | None
    group: str | None
    group_index: int | None
    retries: int
    timelimit: tuple[float | None, float | None]
    root_id: str
    parent_id: str | None
    argsrepr: str
    kwargsrepr: str
    origin: str
    ignore_result: bool | None
    replaced_task_nesting: int = 0
    jobs_ledger: bool = False
    jobs_unique: str = ""
    jobs_label: str = ""
    jobs_fair: str = ""
    jobs_shard: str = ""
    #: Which texts of arguments are the sender's own: 1 for argsrepr, 2 for kwargsrepr, 3 for both.
    jobs_shown: int = 0
    jobs_celery: bool = False
    jobs_errback: bool = False


class _SentWhere(msgspec.Struct, gc=False):
    exchange: str
    routing_key: str


class _SentProperties(msgspec.Struct, omit_defaults=True, gc=False):
    correlation_id: str
    reply_to: str
    delivery_mode: int
    delivery_info: _SentWhere
    priority: int
    body_encoding: str
    delivery_tag: str
    jobs_sig: str
    jobs_due: bool = False
    jobs_attempts: int = 0
    jobs_crashes: int = 0


class _Sent(msgspec.Struct, gc=False):
    body: str
    content_encoding: str = msgspec.field(name="content-encoding")
    content_type: str = msgspec.field(name="content-type")
    headers: msgspec.Raw
    properties: _SentProperties


def encode(message: Message) -> bytes:
    """The signed wire form.

    Raises `NotSerializable` naming the argument, or `MessageTooLarge`.
    """
    body = message.body
    if body is None:
        body = message.body = _body_of(message)
    try:
        fields = astuple(message)
        if fields[_PARTICULAR:] == _NOTHING_PARTICULAR:
            raw = _filled_in(message, body, fields[:_OWN])
        else:
            raw = _written(message, body)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(message, error) from error
    limit = conf.get().message_max_bytes
    if len(raw) > limit:
        raise MessageTooLarge(
            f"The message of task {message.task!r} has {len(raw):,} bytes; "
            f"JOBS['MESSAGE_MAX_BYTES'] allows {limit:,}. Store the data and send its key."
        )
    return raw


def _refused(message: Message, error: Exception) -> NotSerializable:
    headers = message.headers
    return NotSerializable(
        f"The headers {headers!r} of task {message.task!r} can't be sent: {error}."
    )


def check(messages: Iterable[Message]) -> None:
    """Raise what encoding one of these messages would raise, with less work than encoding them all.

    Each body is encoded and kept, so that `encode` doesn't do it again.
    """
    most = conf.get().message_max_bytes - _AROUND
    for message in messages:
        if message.body is None:
            message.body = _body_of(message)
        if message.own_headers or len(message.body) > most:
            encode(message)


def _written(message: Message, body: str) -> bytes:
    """The wire form of any message with this body."""
    headers = _headers(message, *_shown(message))
    return _envelope_of(message, body, headers, sign(headers, body))


def _envelope_of(message: Message, body: str, headers: bytes, signature: str) -> bytes:
    properties = _SentProperties(
        message.id,
        "",
        2,
        _SentWhere(message.exchange, message.routing_key or message.queue),
        message.priority,
        "base64",
        # Celery only requires that it differs between attempts.
        f"{message.id}.{message.attempts_before + message.retries}",
        signature,
        message.eta is not None,
        message.attempts_before,
        message.marks.crashes,
    )
    return _plain(_Sent(body, "utf-8", "application/json", msgspec.Raw(headers), properties))


def _headers(message: Message, args: str, kwargs: str) -> bytes:
    """Celery's headers. Empty ones are written too: Flower and strict readers expect them.

    ``args``, ``kwargs``: the arguments as they are shown."""
    headers = _SentHeaders(
        "py",
        message.task,
        message.id,
        message.shadow or None,
        message.eta.isoformat() if message.eta else None,
        message.expires.isoformat() if message.expires else None,
        message.group,
        message.group_index,
        message.retries,
        message.timelimit,
        message.root_id or message.id,
        message.parent_id,
        args,
        kwargs,
        message.origin or _ORIGIN,
        message.ignore_result,
        message.replaced,
        message.ledger,
        message.unique,
        message.label,
        message.fair,
        message.shard_key,
        (message.argsrepr is not None) + 2 * (message.kwargsrepr is not None),
        message.celery,
        message.errback,
    )
    own = message.headers if message.own_headers is None else message.own_headers
    if not own:
        return _plain(headers)
    # The protocol's own names are not the caller's to set.
    others = {name: value for name, value in own.items() if name not in HEADERS}
    return _plain(msgspec.to_builtins(headers) | serialization.plain(others))


def _shown(message: Message) -> tuple[str, str]:
    """Positional arguments and keyword arguments as operators see them."""
    args, kwargs = message.argsrepr, message.kwargsrepr
    if args is None:
        args = repr(tuple(message.shown_args if message.sensitive else message.args))
        if len(args) > _REPR_MAX:
            args = _cut(args)
    if kwargs is None:
        kwargs = repr(message.shown_kwargs) if message.kwargs else "{}"
        if len(kwargs) > _REPR_MAX:
            kwargs = _cut(kwargs)
    return args, kwargs


def _cut(text: str) -> str:
    return text if len(text) <= _REPR_MAX else text[:_REPR_MAX] + "…"


# Most calls say nothing but their arguments. All that their messages have in common is written
# once, with places for what differs: to fill these in takes two thirds of the time.

_FIELDS = Message.__struct_fields__
#: Where the parts of a message begin: what each call has for itself, and what most leave as it is.
_OWN, _PARTICULAR = _FIELDS.index("id"), _FIELDS.index("eta")
_NOTHING_PARTICULAR = astuple(Message(task="", id="", queue=""))[_PARTICULAR:]


def _filled_in(message: Message, body: str, common: tuple[Any, ...]) -> bytes:
    """`_written`, for a message that says nothing particular. ``common``: what it has in common
    with others."""
    headers_form, form = _known_forms(*common)
    args, kwargs = _shown(message)
    task_id = _plain(message.id)[1:-1]
    headers: bytes = headers_form % (task_id, task_id, _plain(args), _plain(kwargs))
    signature = _signed(_keyed(conf.signing_keys()[0]), headers + b"\n" + body.encode())
    return form % (_plain(body)[1:-1], headers, task_id, task_id, signature.encode())


# Typed, since 1 and True are equal, and written differently.
@functools.lru_cache(maxsize=512, typed=True)
def _known_forms(*common: Any) -> tuple[bytes, bytes]:
    return _forms(Message(id="", **dict(zip(_FIELDS[:_OWN], common, strict=True))))


def _forms(blank: Message) -> tuple[bytes, bytes]:
    """Headers and envelope of messages that have all but ids and arguments in common with this one,
    with a %b in each place that is filled in: id, root id, arguments; body, headers, twice the id,
    signature."""
    task_id, root_id, args, kwargs, body, headers, signature = _PLACES
    blank.id, blank.root_id = task_id, root_id
    written = _headers(blank, args, kwargs), _envelope_of(blank, body, headers.encode(), signature)
    forms = [text.replace(b"%", b"%%") for text in written]
    for place in (f'"{args}"', f'"{kwargs}"', task_id, root_id, body, headers, signature):
        forms = [text.replace(place.encode(), b"%b") for text in forms]
    return forms[0], forms[1]


#: Texts that stand in these places at first. They are random, so that no name contains them.
_PLACES = tuple(os.urandom(16).hex() for _ in range(7))


class EncodedCalls:
    """The wire forms of calls. All calls are checked at once, and each is encoded when its turn
    comes, in two thirds of the time that `encode` takes. They can be gone through again."""

    def __init__(self, calls: Calls) -> None:
        """Raises what `encode` raises for any of them. Not for calls that have headers of the
        caller's own, or arguments that are hidden: see `are_plain`."""
        common = calls.common
        most = conf.get().message_max_bytes - _AROUND
        self._own = calls.own
        self._bodies: list[bytes] = []
        for own in calls.own:
            _, args, kwargs = own
            body = _encode_body(common.task, args, kwargs, common.embed)
            if len(body) > most:
                encode(*Calls(common, [own]).messages())
            self._bodies.append(body)
        fields = astuple(common)
        try:
            if fields[_PARTICULAR:] == _NOTHING_PARTICULAR:
                self._forms = _known_forms(*fields[:_OWN])
            else:
                self._forms = _forms(copy.copy(common))
            #: None: that of each is its own id.
            self._root_id = _plain(common.root_id)[1:-1] if common.root_id else None
        except (TypeError, ValueError, RecursionError) as error:
            raise _refused(common, error) from error

    def __iter__(self) -> Iterator[bytes]:
        (headers_form, form), root_id = self._forms, self._root_id
        keyed = _keyed(conf.signing_keys()[0])
        for (task_id, args, kwargs), body in zip(self._own, self._bodies, strict=True):
            written_id = task_id.encode()
            root = written_id if root_id is None else root_id
            shown, named = repr(args), repr(kwargs) if kwargs else "{}"
            if len(shown) + len(named) > _REPR_MAX:
                shown, named = _cut(shown), _cut(named)
            headers = headers_form % (written_id, root, _plain(shown), _plain(named))
            signature = _signed(keyed, headers + b"\n" + body).encode()
            yield form % (body, headers, written_id, written_id, signature)


def are_plain(calls: Calls) -> bool:
    """Whether `EncodedCalls` takes them: they have no headers of the caller's own, all of their
    arguments are shown, and each is one message."""
    common = calls.common
    shown = common.argsrepr is None and common.kwargsrepr is None and not common.sensitive
    return shown and not common.own_headers and not common.copies


def _body_of(message: Message) -> str:
    return _encode_body(message.task, message.args, message.kwargs, message.embed).decode()


def _encode_body(
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] | None = None,
) -> bytes:
    # Several times as fast, for arguments that are plain keys. What follows the call has arguments
    # of its own, of any type, which only `dumps` is trusted to write.
    if (
        not embed
        and _PLAIN.issuperset(map(type, args))
        and (not kwargs or _PLAIN.issuperset(map(type, kwargs.values())))
    ):
        try:  # `contextlib.suppress` would be a fifth of the whole
            return _base64(_plain((args, kwargs, _WRITTEN_NO_EMBED)), newline=False)
        except (ValueError, OverflowError):
            pass  # a number or a text that only `dumps` can write
    try:
        if embed and isinstance(rest := embed.get("chain"), Behind):
            parts = [serialization.dumps(value) for value in (args, kwargs)]
            others = serialization.dumps({k: v for k, v in embed.items() if k != "chain"})
            text = f'[{parts[0]},{parts[1]},{others[:-1]},"chain":{rest.text()}}}]'
        else:
            text = serialization.dumps([args, kwargs, embed or NO_EMBED])
    except (TypeError, ValueError, RecursionError) as error:
        _name_culprit([(task, args, kwargs), *_calls(embed)], error)
    return _base64(text.encode(), newline=False)


def _name_culprit(
    calls: Sequence[tuple[str, Iterable[Any], Mapping[str, Any]]], error: Exception
) -> NoReturn:
    """Raise `NotSerializable` that names the argument of one of these calls; the first is sent, the
    others follow it."""
    for task, args, kwargs in calls:
        named = [(f"argument {n}", value) for n, value in enumerate(args, 1)]
        named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
        for name, value in named:
            try:
                serialization.dumps(value)
            except (TypeError, ValueError, RecursionError) as culprit:
                hint = " Pass its primary key instead." if hasattr(value, "pk") else ""
                raise NotSerializable(
                    f"{name} of task {task!r}, a {type(value).__name__}, "
                    f"can't be sent: {culprit}.{hint}"
                ) from error
    raise NotSerializable(f"task {calls[0][0]!r} can't be sent: {error}") from error


def _calls(found: Any) -> Iterator[tuple[str, Iterable[Any], dict[str, Any]]]:
    """Every call within what follows a message, innermost first: name, args and kwargs."""
    inside: Iterable[Any] = ()
    if isinstance(found, dict):
        inside = found.values()
    elif isinstance(found, list):
        inside = found
    for one in inside:
        yield from _calls(one)
    if isinstance(found, dict) and isinstance(found.get("task"), str):
        yield found["task"], found.get("args") or (), found.get("kwargs") or {}


# -------------------------------------------------------------------------- from the wire


#: The bounds are those of the ledger's columns, so that whatever is decoded can be recorded.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Other = Annotated[str, msgspec.Meta(max_length=255)]
_Label = Annotated[str, msgspec.Meta(max_length=LONGEST_LABEL)]
_Tenant = Annotated[str, msgspec.Meta(max_length=LONGEST_TENANT)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
_Moment = Annotated[float, msgspec.Meta(ge=-1.0, le=1e11)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


# Fields stand in the order in which they are written: msgspec looks for each name first at the
# place behind the one before.


class _Headers(msgspec.Struct, gc=False):
    task: _Name
    id: _Name
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: _Other | None = None
    group_index: _Index | None = None
    retries: _Count | None = None
    timelimit: tuple[_Seconds | None, _Seconds | None] | None = None
    root_id: _Other | None = None
    parent_id: _Other | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: _Count | None = None
    jobs_ledger: bool = False
    jobs_unique: str = ""
    jobs_label: _Label = ""
    jobs_fair: _Tenant = ""
    jobs_shard: _Other = ""
    jobs_shown: int = 0
    jobs_celery: bool = False
    jobs_errback: bool = False
    jobs_after: str = ""
    redelivered: bool | None = None
    compression: str | None = None


class _Texts(msgspec.Struct):
    """The texts of arguments, which are seldom needed."""

    argsrepr: str = ""
    kwargsrepr: str = ""


class _Properties(msgspec.Struct, gc=False):
    priority: int | None = None
    body_encoding: str | None = None
    jobs_sig: str = ""
    jobs_due: bool = False
    jobs_attempts: _Count = 0
    jobs_crashes: _Count = 0
    jobs_killed: str = ""
    jobs_unknown_since: float = 0.0
    jobs_permit: _Moment = 0.0


class _Envelope(msgspec.Struct, gc=False):
    body: str
    headers: msgspec.Raw
    properties: _Properties = msgspec.field(default_factory=_Properties)
    content_type: str = msgspec.field(name="content-type", default="application/json")


def decode(raw: bytes, queue: str, trusted: bool = False) -> Message:
    """The message of a wire form that was found in this queue.

    Raises `MalformedMessage`, or `BadSignature` unless ``trusted`` (the queue is open to
    producers that can't sign).
    """
    try:
        envelope = _envelope.decode(raw)
        wire_headers = bytes(envelope.headers)
        if trusted and not envelope.properties.jobs_sig and _is_of_another_form(wire_headers):
            envelope = _in_this_form(envelope, wire_headers)
            wire_headers = bytes(envelope.headers)
        headers = _read_headers.decode(envelope.headers)
        if not trusted and not verify(envelope.properties.jobs_sig, wire_headers, envelope.body):
            raise BadSignature(
                f"Not signed with this project's SECRET_KEY (queue {queue!r}). Was it sent with "
                "another one? Give all processes the same SECRET_KEY and, when it was changed, "
                "put the former one into SECRET_KEY_FALLBACKS; then put the message back. Only "
                "if programs without this project's key are meant to send here, such as clients "
                "of Celery, is the queue to be opened, and then to whoever can write to Redis: "
                f"JOBS['QUEUES'][{queue!r}] = {{'open': True}}."
            )
        named = f"{headers.task}{headers.id}{headers.root_id}{headers.parent_id}{headers.group}"
        if "\0" in named or "\0" in headers.jobs_label:
            for name in ("task", "id", "root_id", "parent_id", "group", "jobs_label"):
                if "\0" in (getattr(headers, name) or ""):  # PostgreSQL can't store it in a text
                    raise ValueError(f"{name!r} must be plain text")
        return _message(raw, envelope, headers, wire_headers, queue, trusted)
    except (ValueError, ArithmeticError, RecursionError) as error:  # DecodeError is a ValueError
        malformed = MalformedMessage(f"Not a message in Celery's format: {error}.")
        malformed.call = _call_of_malformed(raw, queue, trusted)
        raise malformed from error


def _is_of_another_form(headers: bytes) -> bool:
    return headers.find(b'"task"') < 0 or headers.find(b'"compression"') >= 0


def _in_this_form(envelope: _Envelope, headers: bytes) -> _Envelope:
    """What a Celery client has written, not compressed, and in version 2 of the protocol. Raises
    `ValueError`."""
    others = msgspec.json.decode(headers, type=dict[str, Any])
    body = envelope.body.encode()
    if envelope.properties.body_encoding == "base64":
        body = binascii.a2b_base64(body, strict_mode=True)
    if method := others.pop("compression", None):
        body = foreign.uncompressed(body, method, conf.get().message_max_bytes)
    if "task" not in others and body[:1] == b"{":
        others, body = foreign.to_version_2(others, body)
    return msgspec.structs.replace(
        envelope,
        headers=msgspec.Raw(_plain(others)),
        body=_base64(body, newline=False).decode(),
        properties=msgspec.structs.replace(envelope.properties, body_encoding="base64"),
    )


def task_of(raw: bytes, queue: str) -> str:
    """The name of the task in a wire form, whoever signed it; empty when that can't be read.

    Much quicker than `decode`, for lists that count messages by task.
    """
    try:
        task = _read_task.decode(raw).headers.task
        return "" if "\0" in task else task
    except (ValueError, RecursionError):
        pass
    try:
        return decode(raw, queue, trusted=True).task  # with lone surrogates, for example
    except MalformedMessage:
        return ""


def shard_key_of(raw: bytes) -> str:
    """The key in a wire form that chooses its shard; empty when it has none."""
    if b'"jobs_shard"' not in raw:
        return ""
    try:
        return _read_shard_key.decode(raw).headers.jobs_shard
    except (ValueError, RecursionError):
        return ""


def _message(
    raw: bytes,
    envelope: _Envelope,
    headers: _Headers,
    wire_headers: bytes,
    queue: str,
    trusted: bool,
) -> Message:
    args, kwargs, embed = _decode_body(envelope, headers, trusted)
    body = envelope.body
    if envelope.properties.body_encoding != "base64":
        body = _base64(body.encode(), newline=False).decode()  # as it is sent again
    # Only what is most often given, since with all fields making it takes five times as long.
    made = Message(
        task=headers.task,
        id=headers.id,
        queue=queue,
        args=args,
        kwargs=kwargs,
        ignore_result=headers.ignore_result,
        root_id=headers.root_id,
        origin=headers.origin,
        own_headers=None,
        body=body,
        wire_headers=wire_headers,
        wire=raw,
    )
    if embed:
        made.embed = embed
    if headers.eta:
        made.eta = _moment(headers.eta)
    if headers.expires:
        made.expires = _moment(headers.expires)
    if headers.retries:
        made.retries = headers.retries
    if headers.timelimit:
        made.timelimit = headers.timelimit
    if headers.parent_id is not None:
        made.parent_id = headers.parent_id
    if headers.group is not None:
        made.group = headers.group
    if headers.group_index is not None:
        made.group_index = headers.group_index
    if headers.jobs_ledger:
        made.ledger = True
    if headers.jobs_unique:
        made.unique = headers.jobs_unique
    if headers.jobs_label:
        made.label = headers.jobs_label
    if headers.jobs_fair:
        made.fair = headers.jobs_fair
    if headers.jobs_shard:
        made.shard_key = headers.jobs_shard
    if headers.shadow:
        made.shadow = headers.shadow
    if headers.replaced_task_nesting:
        made.replaced = headers.replaced_task_nesting
    if headers.jobs_shown:
        texts = msgspec.json.decode(wire_headers, type=_Texts)
        if headers.jobs_shown & 1:
            made.argsrepr = texts.argsrepr
        if headers.jobs_shown & 2:
            made.kwargsrepr = texts.kwargsrepr
    properties = envelope.properties
    # This project signs what it sends to open queues, too.
    if headers.jobs_celery or (trusted and not properties.jobs_sig):
        made.celery = True
    if headers.jobs_errback:
        made.errback = True
    if headers.jobs_after:  # it was on its way to Celery's workers
        after = binascii.a2b_base64(headers.jobs_after, strict_mode=True)
        made.embed = _checked_embed(serialization.loads(after))
        made.body = None
    if properties.priority:
        made.priority = _priority(properties.priority)
    if properties.jobs_attempts:
        made.attempts_before = properties.jobs_attempts
    if properties.jobs_due:
        made.held = True
    if (
        headers.redelivered
        or properties.jobs_crashes
        or properties.jobs_killed
        or properties.jobs_unknown_since
        or properties.jobs_permit
    ):
        made.marks = Marks(
            redelivered=bool(headers.redelivered),
            crashes=properties.jobs_crashes,
            killed=properties.jobs_killed,
            unknown_since=properties.jobs_unknown_since,
            permit=properties.jobs_permit,
        )
    return made


def _decode_body(
    envelope: _Envelope, headers: _Headers, foreign: bool
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """``foreign``: whether nobody has looked at the signature, if there is one."""
    if envelope.content_type != "application/json":
        raise ValueError(f"content type {envelope.content_type!r}; only application/json is read")
    if headers.compression:
        raise ValueError("it is compressed, which is not read")
    text: str | bytes = envelope.body
    if envelope.properties.body_encoding == "base64":
        text = binascii.a2b_base64(envelope.body, strict_mode=True)
        if text.find(b"__type__") < 0:  # no value is tagged: see `serialization`
            try:
                args, kwargs, _ = _read_alone.decode(text)
            except (msgspec.DecodeError, RecursionError):
                pass  # read below, or refused there
            else:
                return args, kwargs, {}
    # Whoever signs has written the chain, or has read all of it before. What others have written
    # may hold a call that can't be read. That must show now: later it would end the process.
    long = len(text) > _LONG and (not foreign or _is_ours(envelope))
    if long and (found := _decode_chained(text)):
        return found
    try:
        args, kwargs, embed = serialization.loads(text)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the body is not [args, kwargs, embed]: {error}") from error
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        raise ValueError("the body is not [args, kwargs, embed]")
    return args, kwargs, {} if embed is None else _checked_embed(embed)


def _checked_embed(embed: Any) -> dict[str, Any]:
    """What follows a call; empty for nothing. Raises `ValueError`."""
    if not isinstance(embed, dict) or not any(embed.values()):
        return {}
    for name in ("callbacks", "errbacks", "chain"):
        found = embed.get(name)
        if found and not (isinstance(found, list) and all(isinstance(c, dict) for c in found)):
            raise ValueError(f"{name!r} is not a list of calls")
    return embed


class _Alone(msgspec.Struct, gc=False):
    """What a body has of a call that nothing follows. To read it as a dict, and to look whether it
    is one, would take twice as long."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _Embed(msgspec.Struct):
    callbacks: list[msgspec.Raw] | None = None
    errbacks: list[msgspec.Raw] | None = None
    chain: list[msgspec.Raw] | None = None
    chord: msgspec.Raw | None = None


def _decode_chained(text: str | bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    """The body of a call that a chain follows, of which only the other parts are read. None: it is
    to be read as any other."""
    loads = serialization.loads
    try:
        args, kwargs, embed = _read_chained.decode(text)
        rest = behind.read(embed.chain or ())
        values = loads(bytes(args)), loads(bytes(kwargs))
        callbacks = embed.callbacks and [loads(bytes(one)) for one in embed.callbacks]
        errbacks = embed.errbacks and [loads(bytes(one)) for one in embed.errbacks]
        chord = embed.chord and loads(bytes(embed.chord))
    except (ValueError, RecursionError):
        return None
    calls = [*(callbacks or ()), *(errbacks or ())]
    if not (rest and isinstance(values[0], list) and isinstance(values[1], dict)):
        return None
    if not all(isinstance(call, dict) for call in calls):
        return None
    followed = {"callbacks": callbacks, "errbacks": errbacks, "chain": rest, "chord": chord}
    return (*values, followed)


class _Task(msgspec.Struct):
    task: _Name


class _Named(msgspec.Struct):
    """A message of which only the task's name is read."""

    headers: _Task


class _ShardKey(msgspec.Struct):
    jobs_shard: _Other = ""


class _Sharded(msgspec.Struct):
    """A message of which only the key is read that chooses its shard."""

    headers: _ShardKey


class _Found(msgspec.Struct):
    """An envelope that may be malformed: only the bytes that the signature covers are read."""

    headers: msgspec.Raw


def _call_of_malformed(raw: bytes, queue: str, trusted: bool) -> Message | None:
    """What can be read of a malformed message: which call it is, and what waits for its end.

    None when its signature is wrong or its id can't be read.
    """
    try:
        # msgspec may have refused lone surrogates, which the standard library reads.
        found = json.loads(raw)
        headers, body, told = found["headers"], found.get("body"), found.get("properties")
        told = told if isinstance(told, dict) else {}
        if not trusted:
            signed = bytes(msgspec.json.decode(raw, type=_Found).headers)
            if not (isinstance(body, str) and verify(str(told.get("jobs_sig")), signed, body)):
                return None
            headers = json.loads(signed)
        name, task_id = headers.get("task"), headers.get("id")
        if not is_name(task_id):
            return None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    call = Message(task=name if is_name(name) else "?", id=task_id, queue=queue, own_headers={})
    call.ledger = headers.get("jobs_ledger") is True
    call.celery = headers.get("jobs_celery") is True or (trusted and not told.get("jobs_sig"))
    if headers.get("ignore_result") in (True, False):
        call.ignore_result = headers["ignore_result"]
    for field, header in (("root_id", "root_id"), ("parent_id", "parent_id"), ("group", "group")):
        if is_name(headers.get(header)):
            setattr(call, field, headers[header])
    with contextlib.suppress(TypeError, ValueError):
        check_label(headers.get("jobs_label", ""))
        call.label = headers.get("jobs_label", "")
    index = headers.get("group_index")
    if isinstance(index, int) and 0 <= index < 2**31:
        call.group_index = int(index)
    with contextlib.suppress(ValueError, ArithmeticError, RecursionError, TypeError):
        form = str(told.get("body_encoding") or "")
        envelope = _Envelope(body, msgspec.Raw(), _Properties(body_encoding=form))
        known = _Headers(call.task, call.id)
        call.args, call.kwargs, call.embed = _decode_body(envelope, known, foreign=True)
    return call


def is_same(raw: bytes, other: bytes) -> bool:
    """Whether two wire forms are of one message: body and signature are equal, whatever has been
    noted on one of them since."""
    try:
        one, another = _envelope.decode(raw), _envelope.decode(other)
    except (ValueError, RecursionError):
        return False
    return (one.body, one.properties.jobs_sig) == (another.body, another.properties.jobs_sig)


def mark_redelivered(raw: bytes, *, crashed: bool) -> tuple[bytes, int]:
    """Note on a message that a worker has held it: the new wire form, and its priority.

    ``crashed``: that worker vanished. A signature stays valid. Raises `MalformedMessage`.
    """
    with editing(raw) as envelope:
        properties = envelope.setdefault("properties", {})
        envelope["headers"]["redelivered"] = True
        properties.setdefault("delivery_info", {})["redelivered"] = True
        if crashed:
            properties["jobs_crashes"] = properties.get("jobs_crashes", 0) + 1
        return _plain(envelope), _priority(properties.get("priority"))


def mark(raw: bytes, **properties: Any) -> bytes:
    """The wire form with these properties, which the signature doesn't cover."""
    with editing(raw) as envelope:
        envelope.setdefault("properties", {}).update(properties)
        return _plain(envelope)


@contextlib.contextmanager
def editing(raw: bytes) -> Iterator[dict[str, Any]]:
    """A wire form as a dict. Raises `MalformedMessage`, also for what the ``with`` block doesn't
    find in it."""
    try:
        yield msgspec.json.decode(raw, type=dict[str, Any])
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise MalformedMessage(f"Not a message in Celery's format: {error!r}.") from error


def _priority(value: int | None) -> int:
    return min(max(int(value), 0), 9) if value else 0


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    try:
        moment = moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} lies outside the years 1 to 9999") from error
    # It must lie between those years in every time zone.
    return min(max(moment, _FIRST), _LAST)


_FIRST = dt.datetime(2, 1, 1, tzinfo=dt.UTC)
_LAST = dt.datetime(9998, 12, 31, tzinfo=dt.UTC)
_envelope = msgspec.json.Decoder(_Envelope)
_read_alone = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Alone | None])
_read_chained = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, _Embed])
_read_headers = msgspec.json.Decoder(_Headers)
_read_task = msgspec.json.Decoder(_Named)
_read_shard_key = msgspec.json.Decoder(_Sharded)


# ----------------------------------------------------------------------------------- the signature


def sign(headers: bytes, body: str, key: bytes | None = None) -> str:
    """HMAC-SHA256 over headers and body as they are written, in hex.

    ``key``: by default the project's present one.
    """
    return _signed(_keyed(key or conf.signing_keys()[0]), headers + b"\n" + body.encode())


def _signed(keyed: tuple[hashlib._Hash, hashlib._Hash], text: bytes) -> str:
    before, after = keyed
    before, after = before.copy(), after.copy()
    before.update(text)
    after.update(before.digest())
    return after.hexdigest()


@functools.cache
def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC (RFC 2104), each with the key already in it. The objects of `hmac`
    take half as long again, and its `digest`, which prepares the key each time, twice as long."""
    padded = key.ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def verify(signature: str, headers: bytes, body: str) -> bool:
    """Whether this project signed the message; a ``redelivered`` that a Celery worker has added
    since does not matter."""
    if not signature.isascii():
        return False
    if _is_signed(signature, headers, body):
        return True
    # The worker that put it back wrote the headers anew: sign them as they were at first.
    original = msgspec.json.decode(headers, type=dict[str, Any])
    original.pop("redelivered", None)
    return _is_signed(signature, msgspec.json.encode(original), body)


def _is_ours(envelope: _Envelope) -> bool:
    return verify(envelope.properties.jobs_sig, bytes(envelope.headers), envelope.body)


def _is_signed(signature: str, headers: bytes, body: str) -> bool:
    # A loop: a generator costs as much as the comparison.
    for key in conf.signing_keys():
        if hmac.compare_digest(sign(headers, body, key), signature):
            return True
    return False
