"""Bad input of every kind has a defined end, and the worker goes on."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings

from jobs import AsyncResult, conf, control, message
from jobs.exceptions import (
    BadSignature,
    MessageTooLarge,
    NotSerializable,
    ResultNotSerializable,
    UnknownQueue,
)
from jobs.message import Message
from jobs.models import TaskResult
from jobs.states import State
from tests.models import Author, Run
from tests.tasks import (
    Unprintable,
    add,
    async_add,
    async_fail,
    async_fail_unprintable,
    echo,
    fail_with,
    return_object,
    return_text,
    trace,
)
from tests.workers import dead_letters, on_redis, put, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def foreign(task: str = "tests.tasks.echo", body: Any = None, **headers: Any) -> bytes:
    """A message as a producer without this project's key writes it."""
    body = [["foreign"], {}, {}] if body is None else body
    return json.dumps(
        {
            "body": body if isinstance(body, str) else json.dumps(body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": task, "id": "foreign-1", **headers},
            "properties": {"body_encoding": "utf-8"},
        }
    ).encode()


@pytest.fixture
def _open(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}, "low": {}}}


def work_and_go_on(**options: Any) -> None:
    """Run what is there, and a good task behind it."""
    good = add.delay(40, 2)
    work(**options)
    assert good.get(timeout=0) == 42
    assert on_redis() == (0, 0)


# ---------------------------------------------------------------------- what arrives


def test_not_a_message(caplog: pytest.LogCaptureFixture) -> None:
    bad = [b"not json", b"\xff\xfe\x00", b"", b"[]", b"{}", b"null", b'{"body": 1, "headers": {}}']
    for raw in bad:
        put(raw)
    work_and_go_on()
    letters = dead_letters()
    assert sorted(letter.raw for letter in letters) == sorted(bad)  # whole
    assert all(letter.reason.startswith("MalformedMessage: ") for letter in letters)
    assert TaskResult.objects.count() == 1  # the good one: nobody vouches for the others
    assert "is a dead letter: MalformedMessage" in caplog.text


def test_an_unknown_task_names_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    task_id = put_message(task="tests.tasks.ad", args=[1, 2])
    work_and_go_on()
    (letter,) = dead_letters()
    (record,) = (r for r in caplog.records if "is a dead letter" in r.getMessage())
    assert f"message tests.tasks.ad[{task_id}] of queue default" in record.getMessage()
    assert record.__dict__["task_id"] == task_id
    assert letter.reason.startswith("UnknownTask: No task 'tests.tasks.ad' is known here.")
    assert "Did you mean 'tests.tasks.add'?" in letter.reason
    row = TaskResult.objects.get(id=task_id)
    assert (row.state, row.error_type) == (State.FAILURE, "jobs.exceptions.UnknownTask")
    assert row.args == "[1,2]"


def test_a_wrong_signature(settings: Settings) -> None:
    put(foreign())
    sent = Message(task="tests.tasks.trace", id="forged", queue="default", args=["forged"])
    put(message.encode(sent).replace(b"tests.tasks.trace", b"tests.tasks.quiet_trace"))
    ours, settings.SECRET_KEY = settings.SECRET_KEY, "another"
    put(message.encode(Message(task="tests.tasks.trace", id="c", queue="default", args=["c"])))
    settings.SECRET_KEY = ours
    work_and_go_on()
    letters = dead_letters()
    assert len(letters) == 3
    for letter in letters:
        assert letter.reason.startswith("BadSignature: Not signed with this project's SECRET_KEY")
        assert "'open': True" in letter.reason
    assert Run.objects.count() == 0
    assert TaskResult.objects.count() == 1


def test_a_call_of_the_ledger_ends_though_its_signature_is_another_keys(settings: Settings) -> None:
    ours, settings.SECRET_KEY = settings.SECRET_KEY, "another"
    with transaction.atomic():
        result = (add.s(1, 2) | add.s(3)).delay()
    (first,) = TaskResult.objects.values_list("id", flat=True)
    # With the same id and another body: nobody vouches for it.
    forged = Message(task="tests.tasks.trace", id=first, queue="default", args=["forged"])
    forged_raw = message.encode(forged)
    settings.SECRET_KEY = ours
    put(forged_raw)
    work_and_go_on()
    assert len(dead_letters()) == 2
    with pytest.raises(BadSignature, match="SECRET_KEY"):
        AsyncResult(first).get(timeout=0)
    assert result.state == State.FAILURE
    assert Run.objects.count() == 0


def test_a_message_under_the_id_of_another_call_does_not_end_it(settings: Settings) -> None:
    with transaction.atomic():
        result = add.apply_async((1, 2), countdown=600)
    ours, settings.SECRET_KEY = settings.SECRET_KEY, "another"
    forged = message.encode(
        Message(task="tests.tasks.add", id=result.id, queue="default", args=[1, 2])
    )
    settings.SECRET_KEY = ours
    put(forged)
    work_and_go_on()
    assert len(dead_letters()) == 1
    assert result.state == State.PENDING


def test_a_rotated_key_is_still_good(settings: Settings) -> None:
    old = settings.SECRET_KEY
    result = add.delay(1, 2)
    settings.SECRET_KEY_FALLBACKS = [old]
    settings.SECRET_KEY = "a new one"
    work()
    assert result.get(timeout=0) == 3


@pytest.mark.usefixtures("_open")
def test_unsigned_on_an_open_queue() -> None:
    put(foreign())
    work_and_go_on()
    row = TaskResult.objects.get(id="foreign-1")
    assert (row.state, row.result, dead_letters()) == (State.SUCCESS, '"foreign"', [])
    put(foreign(), queue="low")
    work()
    assert len(dead_letters("low")) == 1


@pytest.mark.usefixtures("_open")
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(foreign(body='[[NaN], {"x": {"__type__": "no"}}, {}]'), id="NaN tagged"),
        pytest.param(foreign(body="[[NaN], {}, {}]"), id="NaN, as Celery writes it"),
        pytest.param(foreign(body=f"[[{'[' * 900}{']' * 900}], {{}}, {{}}]"), id="deep"),
        pytest.param(foreign(body=r'[["\ud800"], {}, {}]'), id="lone surrogate"),
        pytest.param(foreign(id="ffffffff-ffff-7fff-bfff-ffffffffffff"), id="far future id"),
        pytest.param(foreign(id="-0000001-0000-7fff-bfff-ffffffffffff"), id="odd id"),
        pytest.param(foreign(eta="0001-01-01T00:00:00+14:00"), id="eta before all time"),
        pytest.param(
            foreign(eta="9999-12-31T23:59:59-14:00", expires="2001-01-01T00:00:00"),
            id="eta after all time",
        ),
        pytest.param(foreign(retries=10**30), id="huge count"),
        pytest.param(foreign(timelimit="ab"), id="odd limits"),
        pytest.param(foreign(body=[["x"], {"self": 1}, {}]), id="argument called self"),
        pytest.param(foreign(task="tests.tasks.async_add", body="[[NaN, 1], {}, {}]"), id="async"),
    ],
)
def test_odd_messages_on_an_open_queue_stop_nothing(raw: bytes) -> None:
    """Each has an end: a recorded outcome or a dead letter. None ends the process."""
    put(raw)
    work_and_go_on()
    assert len(dead_letters()) + TaskResult.objects.exclude(task="tests.tasks.add").count() >= 1


def test_arguments_that_do_not_fit_on_arrival() -> None:
    few = put_message(task="tests.tasks.add", args=[1])
    odd = put_message(task="tests.tasks.async_add", kwargs={"a": 1, "c": 2})
    work_and_go_on()
    reasons = sorted(letter.reason for letter in dead_letters())
    assert len(reasons) == 2
    assert reasons[0].startswith("WrongArguments: Task tests.tasks.add(a")
    assert "missing a required argument: 'b'" in reasons[0]
    rows = TaskResult.objects.filter(id__in=[few, odd])
    assert {(r.state, r.error_type) for r in rows} == {
        (State.FAILURE, "jobs.exceptions.WrongArguments")
    }


def test_a_type_error_inside_the_task_is_not_the_messages_fault() -> None:
    result = add.delay(1, "x")  # type: ignore[arg-type]
    work_and_go_on()
    assert dead_letters() == []
    with pytest.raises(TypeError, match="unsupported operand"):
        result.get(timeout=0)


def test_a_dead_letter_runs_when_its_reason_is_gone(settings: Settings) -> None:
    put(foreign("tests.tasks.trace"))
    work()
    (letter,) = dead_letters()
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}}}
    assert control.requeue("default", letter.key)
    work()
    assert list(Run.objects.values_list("label", flat=True)) == ["foreign"]
    assert dead_letters() == []


# -------------------------------------------------------------------------- at the call


def test_arguments_that_do_not_fit_at_the_call() -> None:
    with pytest.raises(
        TypeError, match=r"^Task tests\.tasks\.add\(a.*missing a required argument: 'b'"
    ):
        add.delay(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'c'"):
        add.delay(1, 2, c=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="too many positional arguments"):
        add.apply_async((1, 2, 3))
    assert on_redis() == (0, 0)


def test_arguments_without_a_form_in_json() -> None:
    author = Author.objects.create(name="Ann")
    with pytest.raises(
        NotSerializable,
        match=r"argument 1 of task 'tests\.tasks\.echo', a Author, .*Pass its primary key instead",
    ):
        echo.delay(author)
    with pytest.raises(NotSerializable, match="argument 'b' of task"):
        add.delay(1, b=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        echo.delay({1, 2})
    with pytest.raises(NotSerializable):
        echo.delay(float("nan"))
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(NotSerializable):
        echo.delay(deep)
    assert on_redis() == (0, 0)


def test_a_queue_that_nobody_declared() -> None:
    with pytest.raises(
        UnknownQueue,
        match=r"Task 'tests\.tasks\.add' can't be sent to queue 'hihg', which JOBS\['QUEUES'\] "
        r"does not declare\. Did you mean 'high'\?",
    ):
        add.apply_async((1, 2), queue="hihg")


def test_a_message_above_the_limit(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "MESSAGE_MAX_BYTES": 2000}
    with pytest.raises(MessageTooLarge, match=r"'tests\.tasks\.echo' has [\d,]+ bytes; .* 2,000"):
        echo.delay("x" * 2000)
    assert on_redis() == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 1, "eta": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
        {"priority": 10},
        {"priority": "high"},
        {"retry_policy": {"max_tries": 3}},
        {"retry_policy": {"interval_max": float("inf")}},
        {"retry_policy": {"retry_errors": ("TimeoutError",)}},
        {"queue": "default", "routing_key": "k" * 256},
    ],
)
def test_wrong_options_of_a_call(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        add.apply_async((1, 2), **options)
    assert on_redis() == (0, 0)


def test_an_error_of_kombu_is_a_wrong_option() -> None:
    errors = pytest.importorskip("kombu.exceptions")
    with pytest.raises((TypeError, ValueError)):
        add.apply_async((1, 2), retry_policy={"retry_errors": (errors.OperationalError,)})
    assert on_redis() == (0, 0)


# --------------------------------------------------------------------------- results


def test_results_that_cannot_be_stored(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "RESULT_MAX_BYTES": 100}
    conf.get()
    thing, large, fits = return_object.delay(), return_text.delay(200), return_text.delay(98)
    work_and_go_on()
    with pytest.raises(ResultNotSerializable, match=r"returned a object that can't be stored"):
        thing.get(timeout=0)
    with pytest.raises(ResultNotSerializable, match=r"returned 202 bytes of JSON; .* allows 100"):
        large.get(timeout=0)
    assert thing.state == large.state == State.FAILURE
    assert fits.get(timeout=0) == "x" * 98


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
def test_an_exception_that_cannot_be_printed(options: dict[str, Any]) -> None:
    result = fail_with.delay("unprintable")
    in_loop = async_fail_unprintable.delay()
    work_and_go_on(**options)
    for one in (result, in_loop):
        assert one.state == State.FAILURE
        with pytest.raises(Unprintable):
            one.get(timeout=0)
        assert TaskResult.objects.get(id=one.id).error == (
            "<Unprintable without a text: its __str__ raises RuntimeError>"
        )


def test_failures_on_the_event_loop() -> None:
    failed, fine = async_fail.delay("async"), async_add.delay(1, 2)
    work_and_go_on()
    assert fine.get(timeout=0) == 3
    with pytest.raises(ValueError, match="async"):
        failed.get(timeout=0)


def test_the_first_failure_leaves_the_others_alone() -> None:
    trace.delay("before")
    fail_with.delay("cause")
    trace.delay("after")
    work_and_go_on()
    assert list(Run.objects.values_list("label", flat=True)) == ["before", "after"]
