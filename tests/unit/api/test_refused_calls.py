"""What can't be sent, stored or read by a worker is refused where it is called."""

from __future__ import annotations

import datetime as dt
import enum
import re
import uuid
from typing import Any

import pytest
from django.utils.safestring import SafeString

from jobs import (
    AsyncResult,
    Periodic,
    Task,
    chain,
    chord,
    conf,
    group,
    registry,
    task,
)
from jobs.api.sending import check as check_call
from jobs.api.sending import freeze
from jobs.exceptions import (
    ConfigurationError,
    MessageTooLarge,
    NoRoute,
    NotSerializable,
    UnknownQueue,
    WorkflowError,
)
from jobs.message import decode, encode
from jobs.running.request import current, said


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "tasks", dict(registry.tasks))


@task(name="tests.refused")
def add(x: Any = 0, y: Any = 0) -> Any:
    return x


NUL, LONE, HUGE = "a\0b", "a\ud800", 10**400
TEXTS: list[Any] = [7, 1.5, True, b"id", ["a"], {}, object(), "x" * 256, NUL, LONE]

WRONG: dict[str, list[Any]] = {
    "task_id": [*TEXTS, ""],
    "group_id": [*TEXTS, "", uuid.uuid4()],
    "group_index": [-1, 2**31, 2**70, "1", 1.0, True, float("nan")],
    "queue": TEXTS,
    "exchange": TEXTS,
    "routing_key": TEXTS,
    "priority": [-1, 10, "1", 3.0, True, [1], float("nan")],
    "headers": [5, "a", [("a", 1)], {1: 2}, {None: 1}, {"a": float("nan")}, {"a": object()}],
    "ignore_result": ["yes", 1, 0, "", []],
    "retry": ["no", 0, 1, None],
    "time_limit": ["5", 0, -1, float("nan"), float("inf"), HUGE, True, dt.timedelta(1)],
    "soft_time_limit": ["5", 0, float("inf")],
    "countdown": ["5", True, float("nan"), float("inf"), HUGE, dt.timedelta.max, [1], object()],
    "eta": ["tomorrow", 5, dt.date(2030, 1, 1), dt.datetime.max.replace(tzinfo=dt.UTC)],
    "expires": [True, float("nan"), float("inf"), HUGE, dt.timedelta.max, [1], dt.date.max],
    "using": ["nowhere", 5, "", b"default"],
    "link": [5, "a", [5], {"task": 5}, object()],
    "link_error": [5, "a", add],
    "chain": ["abc", 5, [5], {"a": 1}],
    "chord": ["abc", 5, [5]],
    "banana": [1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_options(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        encode(add.message((1,), {}, **{name: value}))
    told = str(caught.value)
    assert "tests.refused" in told or name in ("link", "link_error")
    assert name in told or name in ("link", "link_error")
    assert len(told) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("task_id", "ignore_result", "priority", "countdown", "time_limit", "banana")
        for value in WRONG[name]
        # Those are none of their own there, and seconds.
        if not (name == "task_id" and not value) and not isinstance(value, dt.timedelta)
    ],
)
def test_options_of_a_call_that_follows(name: str, value: Any) -> None:
    """Not when the worker comes to send it."""
    calls = chain(add.si(1), add.si(2).set(**{name: value}))
    with pytest.raises((TypeError, ValueError)):
        check_call(freeze(calls.as_dict(), {}), 0, {})


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"queue": "nowhere"}, UnknownQueue, "'nowhere'"),
        ({"queue": "nowhere", "routing_key": "default"}, UnknownQueue, "'nowhere'"),
        ({"exchange": "nowhere"}, NoRoute, "nowhere"),
        ({"routing_key": "nowhere"}, NoRoute, "nowhere"),
        ({"headers": {"a": LONE}}, NotSerializable, "headers"),
        ({"headers": {"a": object()}}, NotSerializable, "headers"),
        ({"headers": {"a": "x" * 2_000_000}}, MessageTooLarge, "2,000,"),
        ({"link": 5}, TypeError, "link has a int, no call"),
        ({"link": [None]}, TypeError, "link has a NoneType, no call"),
        ({"link_error": "add"}, TypeError, "link_error has a str, no call"),
        ({"link": {"task": 5}}, TypeError, "link has a dict, no call"),
    ],
)
@pytest.mark.parametrize(
    "whole",
    [
        lambda call: chain(add.si(1), call),
        lambda call: chord([add.si(1)], call),
        lambda call: group(add.si(1), chain(add.si(1), call)),
        lambda call: add.si(1).set(link=call),
        lambda call: add.si(1).set(link_error=[call]),
    ],
)
def test_a_call_that_follows_and_could_not_be_sent(
    options: dict[str, Any], kind: type[Exception], told: str, whole: Any
) -> None:
    calls = whole(add.si(2).set(**options)).as_dict()
    with pytest.raises(kind, match=re.escape(told)):
        check_call(freeze(calls, {}), 0, {})


@pytest.mark.parametrize(
    "whole",
    [
        lambda one, other: chain(one, other),
        lambda one, other: group(one, other),
        lambda one, other: chord([one, other], add.s()),
        lambda one, other: chord([one], other),
        lambda one, other: chain(one, add.si(1), group(add.si(1), other)),
    ],
)
def test_two_calls_under_one_id(whole: Any) -> None:
    """Only one of them would run, and a chord would wait for the other."""
    calls = whole(add.si(1).set(task_id="twice"), add.si(2).set(task_id="twice"))
    with pytest.raises(WorkflowError, match="Two of the calls have the id 'twice'"):
        freeze(calls.as_dict(), {})


@pytest.mark.parametrize("args", ["ab", b"ab", 5, {1: 2}, {1}, iter([1]), (x for x in ())])
def test_arguments_that_are_no_sequence(args: Any) -> None:
    with pytest.raises(TypeError, match=r"tests\.refused.*args must be a tuple or a list"):
        add.message(args, {})


@pytest.mark.parametrize("kwargs", [[("x", 1)], "x", 5, {1: 2}, {"x"}])
def test_keywords_that_are_none(kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"tests\.refused"):
        add.message((), kwargs)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {1, 2},
        object(),
        {1: "a", "1": "b"},
        {(1,): 2},
        dt.timedelta(1),
        10**5000,
        add,
        type,
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_that_have_no_form(value: Any) -> None:
    with pytest.raises(NotSerializable, match=r"tests\.refused"):
        encode(add.message((value,), {}))


@pytest.mark.parametrize("policy", [{"max_retrys": 3}, {"errback": print}, {"max_retries": -1}])
def test_it_is_said_in_sentences(policy: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"[^.?][.?]$"):
        add.message((), {}, retry_policy=policy)
    with pytest.raises(ConfigurationError, match=r"[^.?][.?]$"):
        Task(lambda: None, name="made", retry_kwargs=policy)


class Queue(enum.StrEnum):
    DEFAULT = "default"


@pytest.mark.parametrize("value", [SafeString("default"), Queue.DEFAULT])
@pytest.mark.parametrize("name", ["task_id", "group_id", "queue", "routing_key"])
def test_a_kind_of_text_is_text(name: str, value: str) -> None:
    made = decode(encode(add.message((value,), {}, **{name: value})), "default")
    assert "default" in (made.id, made.group, made.queue)
    assert made.args == ["default"]


def test_what_is_accepted() -> None:
    known = uuid.uuid4()
    assert add.message((), {}, task_id=known).id == str(known)
    assert add.message((), {}, task_id="x" * 255, queue=None, exchange="").id == "x" * 255
    assert add.message((), {}, countdown=dt.timedelta(seconds=5)).eta is not None
    assert add.message((), {}, countdown=-5).eta is not None
    assert add.message([1], {"y": 2}).args == [1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": 5}, "name must be text, not 5"),
        ({"name": "x" * 256}, "name must have 1 to 255 characters, not 256"),
        ({"name": NUL}, "name must not contain NUL"),
        ({"name": LONE}, "name has no form in UTF-8"),
        ({"queue": 5}, "queue must be text"),
        ({"bind": "yes"}, "bind must be True or False, not 'yes'"),
        ({"ignore_result": "yes"}, "ignore_result must be True or False"),
        ({"durable": 0}, "durable must be True or False"),
        ({"expires": "soon"}, "expires must be seconds or a timedelta"),
        ({"expires": float("nan")}, "expires must be at most 1000 years"),
        ({"priority": 3.0}, "priority must be 0 (first) to 9, not 3.0"),
        ({"max_crashes": -1}, "max_crashes must be 0 to"),
        ({"max_crashes": "3"}, "max_crashes must be a whole number"),
        ({"sensitive": "x"}, "sensitive must be a list of names"),
        ({"batch_wait": "1"}, "batch_wait must be a number of seconds"),
        ({"batch": 2.0}, "batch must be 1 to 1000 calls"),
        ({"max_retries": "3"}, "max_retries must be a whole number, or None for no limit"),
        ({"max_retries": float("inf")}, "max_retries must be a whole number"),
        ({"max_retries": -1}, "max_retries must be 0 to 1,000,000, or None"),
        ({"default_retry_delay": dt.timedelta(1)}, "must be a number of seconds, like 86400"),
        ({"default_retry_delay": None}, "default_retry_delay must be seconds"),
        ({"default_retry_delay": float("inf")}, "default_retry_delay must be at most"),
        ({"retry_backoff": "2"}, "retry_backoff must be seconds"),
        ({"retry_backoff": -2}, "retry_backoff must be at least 0"),
        ({"retry_backoff_max": float("nan")}, "retry_backoff_max must be at most"),
        ({"retry_jitter": "no"}, "retry_jitter must be True or False"),
        ({"retry_when": 5}, "retry_when must be a function, not 5"),
        ({"autoretry_for": "ValueError"}, "autoretry_for must be an exception class, or a tuple"),
        ({"autoretry_for": ["ValueError"]}, "'ValueError' is none"),
        ({"autoretry_for": [ValueError()]}, "is none"),
        ({"autoretry_for": (e for e in [ValueError])}, "autoretry_for must be an exception class"),
        ({"autoretry_for": dict}, "is none"),
        ({"autoretry_for": None}, "autoretry_for must be an exception class"),
        ({"dont_autoretry_for": 5}, "dont_autoretry_for must be an exception class"),
        ({"retry_kwargs": 5}, "retry_kwargs must be a dict"),
        ({"retry_kwargs": {"eta": 5}}, "retry_kwargs has 'eta'; it takes max_retries and"),
        ({"retry_kwargs": {"max_retries": 5}, "max_retries": 4}, "give it once"),
        ({"max_retrys": 1}, "'max_retrys' is no option of a task. Did you mean 'max_retries'?"),
        ({"acks_lat": True}, "Did you mean 'acks_late'?"),
        ({"max_retrys": 1}, "docs/reference/tasks.md has all options"),
        ({"acks_late": "yes"}, "acks_late must be True or False"),
        ({"acks_late": True, "acks": "early"}, "contradict"),
        ({"serializer": "pickle"}, "serializer='pickle' can't be followed here: messages and"),
        ({"compression": "gzip"}, "messages are not compressed"),
        ({"track_started": "yes"}, "track_started must be True or False"),
        ({"reject_on_worker_lost": "yes"}, "reject_on_worker_lost must be True or False"),
        ({"reject_on_worker_lost": True, "max_crashes": 0}, "contradict"),
        ({"acks_on_failure_or_timeout": False}, "raise Reject"),
        ({"store_errors_even_if_ignored": 1}, "store_errors_even_if_ignored must be True or"),
        ({"pydantic": "yes"}, "pydantic must be True or False"),
        ({"pydantic_context": 1}, "pydantic_context must be a dict, not 1"),
        ({"typing": "no"}, "typing must be True or False, not 'no'"),
        ({"throws": (KeyError(),)}, "throws must be an exception class"),
        ({"annotations": {"rate_limit": 1}}, "write the options themselves"),
        ({"on_failure": "print"}, "on_failure must be a function, not 'print'"),
        ({"trail": "yes"}, "it must be True or False"),
    ],
)
def test_options_of_the_decorator(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Task(lambda x: x, **{"name": "made", **options})
    assert told in str(caught.value)
    assert "__init__" not in str(caught.value)


def test_options_of_the_decorator_that_are_celerys() -> None:
    made: Task[..., Any] = Task(
        lambda x: x,
        name="made",
        acks_late=False,
        serializer="json",
        compression=None,
        track_started=False,
        reject_on_worker_lost=True,
        trail=False,
        send_events=False,
        shared=True,
        lazy=False,
        typing=True,
        pydantic=False,
        throws=(),
        queue=None,
        rate_limit=None,
        ignore_result=None,
        autoretry_for=[ValueError, KeyError],
        dont_autoretry_for=UnicodeError,
        retry_kwargs={"max_retries": 7, "countdown": 2},
    )  # type: ignore[call-arg, arg-type, misc, typeddict-item, typeddict-unknown-key]
    assert made.acks_early
    assert made.options.autoretry_for == (ValueError, KeyError)
    assert made.options.dont_autoretry_for == (UnicodeError,)
    assert (made.max_retries, made.default_retry_delay) == (7, 2)
    assert made.options.delay(ValueError(), 0) == 2
    assert made.options.delay(UnicodeError(), 0) is None
    assert Task(lambda x: x, name="made", autoretry_for={OSError}).options.autoretry_for == (
        OSError,
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"queue": 5}, "queue must be text"),
        ({"queue": NUL}, "queue must not contain NUL"),
        ({"name": "x" * 300}, "name must have 1 to 255 characters"),
        ({"name": 5}, "name must be text"),
        ({"description": 5}, "description must be text"),
        ({"priority": "x"}, "priority must be 0 (first) to 9"),
        ({"kwargs": {1: 2}}, "kwargs must have names that are text, not 1"),
        ({"headers": {None: 2}}, "headers must have names that are text"),
        ({"expires": float("nan")}, "expires must be at most"),
        ({"jitter": float("inf")}, "jitter must be at most"),
        ({"schedule": float("nan")}, "schedule must be seconds"),
    ],
)
def test_options_of_a_schedule(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Periodic(**{"schedule": 60, **options})
    assert told in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 7, "", b"id", object()])
def test_a_handle_of_nothing(wrong: Any) -> None:
    with pytest.raises(ValueError, match="The id of a call is text"):
        AsyncResult(wrong)
    known = uuid.uuid4()
    assert AsyncResult(known).id == str(known)  # type: ignore[arg-type]


def test_a_state_of_another_call() -> None:
    token = current.set((add.message((), {}, task_id="id-1"), "w/1"))
    try:
        add.update_state(task_id="id-1", state="SUCCESS", meta=1)
        assert said.pop("id-1") == ("SUCCESS", 1)
        with pytest.raises(ValueError, match="only a call's own worker gives it"):
            add.update_state(task_id="id-2", state="SUCCESS")
    finally:
        current.reset(token)


@pytest.mark.parametrize("name", ["x" * 256, NUL, LONE])
def test_names_of_queues(name: str) -> None:
    (problem,) = conf.parse({"QUEUES": {"default": {}, name: {}}})[1]
    assert "a queue's name" in problem
