"""Arguments arrive as they were given, wherever in a composition they stand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy
from hypothesis import given, settings

from jobs import (
    Signature,
    chain,
    chord,
    group,
    message,
    serialization,
    signature,
    task,
)
from jobs.exceptions import NotSerializable
from jobs.message import Message, workflow
from jobs.worker.record.following import (
    after_end,
    after_success,
    message_of,
)
from jobs.worker.record.outcome import Run


@task(name="tests.types.first")
def first(number: int = 0) -> int:
    return number


@task(name="tests.types.typed")
def typed(*args: Any, **kwargs: Any) -> None:
    pass


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.integers(),
    st.floats(allow_nan=False).filter(lambda number: abs(number) != float("inf")),
)
tagged = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(timezones=st.just(dt.UTC) | st.none()),
    st.dates(),
    st.times(),
    st.uuids(),
    st.binary(),
    st.just(gettext_lazy("Yes")),
)
values = st.recursive(
    plain | tagged, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
arguments = st.lists(values, min_size=1, max_size=4)


def arrives(sent: Message) -> Message:
    return message.decode(message.encode(sent), sent.queue)


def followers(sent: Message, *, failed: bool = False) -> list[Message]:
    """What a worker sends after this message, as it arrives at the next."""
    if failed:
        following = after_end(arrives(sent), b"", Run("w", 0.0), ValueError("no"))
    else:
        following = after_success(arrives(sent), 1)
    bodies = [serialization.loads(serialization.dumps(one.body)) for one in following.chords]
    found = [arrives(one) for one in following.messages]
    for body in bodies:  # as the ledger keeps it until the header has ended
        for call in workflow.start(body, [[]]).calls:
            found.append(arrives(message_of(call, "before", "root")))
    return found


def linked(call: Signature) -> list[Message]:
    return followers(first.message((1,), {}, link=call))


def in_errback(call: Signature) -> list[Message]:
    return followers(first.message((1,), {}, link_error=[call]), failed=True)


def in_chain(call: Signature) -> list[Message]:
    return followers(first.message((1,), {}, chain=[call.as_dict()]))


def in_json_form(call: Signature) -> list[Message]:
    form = serialization.loads(serialization.dumps(call.as_dict()))
    return in_chain(signature(form))


def late_in_chain(call: Signature) -> list[Message]:
    sent = first.message((1,), {}, chain=[call.as_dict(), first.si().as_dict()])
    (between,) = followers(sent)
    return followers(between)


PLACES: dict[str, Callable[[Signature], list[Message]]] = {
    "link": linked,
    "errback": in_errback,
    "chain": in_chain,
    "JSON form": in_json_form,
    "late in a chain": late_in_chain,
    "group": lambda call: in_chain(group(call, call)),
    "header": lambda call: in_chain(chord([call, call], first.si())),
    "body": lambda call: in_chain(chord([first.si(), first.si()], call)),
    "chain in a group": lambda call: in_chain(group(chain(call, first.si()), first.si())),
}


@settings(max_examples=20, deadline=None)
@given(args=arguments, kwargs=st.dictionaries(st.text(min_size=1), values, max_size=2))
def test_as_a_plain_calls(args: list[Any], kwargs: dict[str, Any]) -> None:
    """In every place; to make up the arguments takes longer than to look."""
    alone = arrives(typed.message(args, kwargs))
    for place, sent_from in PLACES.items():
        found = [one for one in sent_from(typed.si(*args, **kwargs)) if one.task == typed.name]
        assert found, place
        for one in found:
            assert repr((one.args, one.kwargs)) == repr((alone.args, alone.kwargs)), place


@pytest.mark.parametrize("place", ["link", "link_error", "chain"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, object()])
def test_what_has_no_form_is_refused_at_the_call(place: str, value: Any) -> None:
    call = typed.s(value)
    following = {place: [call.as_dict()] if place == "chain" else call}
    with pytest.raises(NotSerializable, match=r"^argument 1 of task 'tests\.types\.typed'"):
        message.encode(first.message((1,), {}, **following))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(values)
def test_headers(value: Any) -> None:
    got = arrives(first.message((1,), {}, headers={"own": value})).headers
    alone = arrives(typed.message((value,), {})).args
    assert repr(got) == repr({"own": alone[0]})


def test_headers_that_have_no_form_are_refused() -> None:
    for value in (float("nan"), {1}, SimpleLazyObject(object)):
        with pytest.raises(NotSerializable, match="headers"):
            message.encode(first.message((1,), {}, headers={"own": value}))


def test_a_foreign_header_that_only_looks_like_a_tag_is_left_as_it_is() -> None:
    sent = first.message((1,), {}, headers={"own": {"__type__": "x", "__value__": 1}})
    assert arrives(sent).headers == {"own": {"__type__": "x", "__value__": 1}}
