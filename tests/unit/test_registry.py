"""The decorator, the table of tasks, and the messages that calls make."""

from __future__ import annotations

import datetime as dt
import inspect
import sys
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from pytest_django import Settings

from jobs import Task, registry, shared_task, task
from jobs.exceptions import ConfigurationError, NotSerializable, UnknownQueue
from tests.tasks import add, async_add


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "tasks", dict(registry.tasks))


# ------------------------------------------------------------------------- the decorator


def test_bare_and_with_options() -> None:
    @task
    def bare() -> str:
        """Says so."""
        return "bare"

    @task(name="renamed", queue="high", priority=3, ignore_result=True, durable=False, expires=5)
    def full() -> str:
        return "full"

    name = f"{__name__}.test_bare_and_with_options.<locals>.bare"
    assert (bare.name, bare.queue, bare.priority) == (name, "", 0)
    assert (bare.ignore_result, bare.durable, bare.bind, bare.is_async) == (
        False,
        True,
        False,
        False,
    )
    assert (full.name, full.queue, full.priority, full.expires) == ("renamed", "high", 3, 5)
    assert (full.ignore_result, full.durable) == (True, False)
    assert registry.tasks["renamed"] is full
    assert registry.tasks[name] is bare
    assert shared_task is task


def test_a_task_is_still_its_function() -> None:
    assert add(1, 2) == 3
    assert add.__name__ == "add"
    assert add.__module__ == "tests.tasks"
    assert inspect.signature(add) == inspect.signature(add.run)
    coroutine = async_add(1, 2)
    assert inspect.iscoroutine(coroutine)
    coroutine.close()
    assert async_add.is_async
    assert repr(add) == "<Task: tests.tasks.add>"


def test_bound_tasks_get_themselves() -> None:
    @task(bind=True)
    def bound(self: Task[..., Any], n: int) -> tuple[str, int]:
        return self.name, n

    assert bound(3) == (bound.name, 3)  # type: ignore[call-arg, arg-type]
    bound.check_arguments((3,), {})
    with pytest.raises(TypeError, match="too many positional"):
        bound.check_arguments((3, 4), {})


def test_two_functions_of_one_name() -> None:
    @task(name="taken")
    def one() -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"Two functions are called 'taken': .*one and .*two"
    ):

        @task(name="taken")
        def two() -> None: ...

    assert registry.tasks["taken"] is one


def test_a_module_may_be_loaded_again() -> None:
    before = registry.tasks["tests.tasks.add"]
    again = registry.task_of(before.run)
    assert registry.tasks["tests.tasks.add"] is again


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_retry"):
        task(max_retry=3)(lambda: None)  # type: ignore[call-overload]


@pytest.mark.parametrize("priority", [-1, 10, True, "high", 1.5])
def test_priorities(priority: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be 0 \(first\) to 9"):
        task(priority=priority)(lambda: None)


def test_tasks_of_apps_are_found() -> None:
    assert "tests.tasks.add" in registry.tasks
    assert "tests.tasks" in sys.modules


# ------------------------------------------------------------------------- the message


def test_defaults_and_options() -> None:
    @task(queue="low", priority=5, expires=dt.timedelta(minutes=1))
    def one(n: int, text: str = "") -> None: ...

    made = one.message((1,), {"text": "x"})
    assert (made.task, made.queue, made.priority) == (one.name, "low", 5)
    assert (made.args, made.kwargs) == ([1], {"text": "x"})
    assert made.eta is None
    assert made.expires is not None
    assert 50 < (made.expires - timezone.now()).total_seconds() <= 60
    other = one.message(
        (1,), {}, queue="high", priority=0, task_id="x", ignore_result=True, headers={"a": 1}
    )
    assert (other.queue, other.priority, other.id, other.ignore_result) == ("high", 0, "x", True)
    assert other.headers == {"a": 1}


def test_the_default_queue(settings: Settings) -> None:
    assert add.message((1, 2), {}).queue == "default"
    settings.JOBS = {"QUEUES": {"mail": {}}, "DEFAULT_QUEUE": "mail"}
    assert add.message((1, 2), {}).queue == "mail"
    with pytest.raises(UnknownQueue, match="'default'"):
        add.message((1, 2), {}, queue="default")


def test_when() -> None:
    now = timezone.now()
    eta = now + dt.timedelta(hours=1)
    later = add.message((1, 2), {}, countdown=60).eta
    assert later is not None
    assert 59 < (later - now).total_seconds() < 62
    assert add.message((1, 2), {}, eta=eta).eta == eta
    assert add.message((1, 2), {}, countdown=0).eta is not None
    assert add.message((1, 2), {}, expires=eta).expires == eta
    with pytest.raises(TypeError, match="countdown and eta"):
        add.message((1, 2), {}, countdown=1, eta=eta)


@pytest.mark.parametrize(
    "options", [{"countdown": 3600}, {"eta": timezone.now() + dt.timedelta(hours=1)}, {}]
)
@pytest.mark.parametrize("expires", [7200, 7200.0, dt.timedelta(hours=2)])
def test_expiry_counts_from_the_sending_as_in_celery(options: Any, expires: Any) -> None:
    @task(name="short.lived", expires=expires)
    def short_lived() -> None: ...

    del registry.tasks["short.lived"]
    for sent in (
        add.message((1, 2), {}, expires=expires, **options),
        short_lived.message((), {}, **options),
    ):
        assert sent.expires is not None
        assert 7190 < (sent.expires - timezone.now()).total_seconds() <= 7200


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_a_naive_moment_is_in_the_zone_of_the_project(settings: Settings, zone: str) -> None:
    settings.TIME_ZONE = zone
    naive = dt.datetime(2030, 1, 1, 8)  # noqa: DTZ001
    meant = naive.replace(tzinfo=ZoneInfo(zone))
    with timezone.override("Pacific/Kiritimati"):  # a visitor's is not asked
        sent = add.message((1, 2), {}, eta=naive, expires=naive)
        assert (sent.eta, sent.expires) == (meant, meant)
        options = add.s(1, 2).set(eta=naive, expires=naive).as_dict()["options"]
        assert [dt.datetime.fromisoformat(text) for text in options.values()] == [meant, meant]


def functions() -> dict[str, Callable[..., Any]]:
    def optional(a: Any, b: Any = 1) -> None: ...
    def keyword(a: Any, *, b: Any) -> None: ...
    def many(*args: Any) -> None: ...
    def named(**kwargs: Any) -> None: ...
    def positional(a: Any, /, b: Any) -> None: ...

    return {f.__name__: f for f in (optional, keyword, many, named, positional)}


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "fits"),
    [
        ("optional", (), {}, False),
        ("optional", (1,), {}, True),
        ("optional", (1, 2), {}, True),
        ("optional", (1, 2, 3), {}, False),
        ("optional", (1,), {"b": 2}, True),
        ("optional", (1,), {"a": 2}, False),
        ("optional", (), {"a": 2}, True),
        ("keyword", (1,), {}, False),
        ("keyword", (1, 2), {}, False),
        ("keyword", (1,), {"b": 2}, True),
        ("many", (1,) * 9, {}, True),
        ("many", (), {"a": 1}, False),
        ("named", (), {"a": 1}, True),
        ("named", (1,), {}, False),
        ("positional", (1, 2), {}, True),
        ("positional", (), {"a": 1, "b": 2}, False),
    ],
)
def test_arguments_are_checked_as_python_does(
    function: str, args: tuple[Any, ...], kwargs: dict[str, Any], fits: bool
) -> None:
    run = functions()[function]
    made = Task(run)
    if fits:
        made.check_arguments(args, kwargs)
        run(*args, **kwargs)
    else:
        with pytest.raises(TypeError, match=rf"^Task .*{function}\("):
            made.check_arguments(args, kwargs)
        with pytest.raises(TypeError):
            run(*args, **kwargs)


def test_arguments_are_copied() -> None:
    args, headers = [1, 2], {"a": 1}
    made = add.message(args, {}, headers=headers)
    args.append(3)
    headers["b"] = 2
    assert (made.args, made.headers) == ([1, 2], {"a": 1})


def test_a_bad_argument_is_named_before_anything_is_sent() -> None:
    with pytest.raises(NotSerializable, match=r"argument 2 of task 'tests\.tasks\.add', a object"):
        add.delay(1, object())  # type: ignore[arg-type]
