"""The decorator, the table of tasks, and the messages that calls make."""

from __future__ import annotations

import datetime as dt
import functools
import importlib
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from pytest_django import Settings

from jobs import (
    Task,
    checks,
    registry,
    shared_task,
    task,
)
from jobs.api.task import task_of
from jobs.exceptions import ConfigurationError, NotSerializable, UnknownQueue
from jobs.running.request import current
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
    again = task_of(before.run)
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


def test_what_calls_without_options_share_follows_task_and_settings(settings: Settings) -> None:
    @task(name="plain")
    def plain(*args: int) -> None: ...

    first, second = plain.message((1,), {}), plain.message((2, 3), {})
    assert (first.args, second.args) == ([1], [2, 3])
    assert first.id != second.id
    assert (first.queue, first.ignore_result) == ("default", False)
    plain.ignore_result = True
    assert plain.message((), {}).ignore_result
    plain.expires = 10
    assert plain.message((), {}).expires
    plain.expires = None
    assert plain.message((), {}).expires is None
    settings.JOBS = {"QUEUES": {"mail": {}}, "DEFAULT_QUEUE": "mail"}
    assert plain.message((), {}).queue == "mail"
    token = current.set((first, "worker"))
    try:
        assert plain.message((), {}).parent_id == first.id
    finally:
        current.reset(token)
    assert plain.message((), {}).parent_id is None


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


# ------------------------------------------------------------------------- of one name


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Imports a module of this text; a second time, it loads the module again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: set[str] = set()
    (tmp_path / "wrappers.py").write_text(
        textwrap.dedent(
            """
            import functools
            def audited(function):
                def inner(*args, **kwargs): return function(*args, **kwargs)
                return inner
            def wrapped(function):
                @functools.wraps(function)
                def inner(*args, **kwargs): return function(*args, **kwargs)
                return inner
            def maker(label, **options):
                @task(**options)
                def made(): return label
                return made
            from jobs import task
            """
        )
    )

    def load(text: str, name: str = "their_tasks") -> Any:
        header = "from jobs import task\nfrom wrappers import audited, maker, wrapped\n"
        path = tmp_path / f"{name}.py"
        path.write_text(header + textwrap.dedent(text))
        os.utime(path, (len(made), len(made)))  # or the first one's bytecode is taken
        made.add(name)
        importlib.invalidate_caches()
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    yield load
    for name in [*made, "wrappers"]:
        sys.modules.pop(name, None)


SAME_NAMES = {
    "redefined": "@task\ndef add(): return 1\n@task\ndef add(): return 2",
    "bare decorator": "@task\n@audited\ndef one(): ...\n@task\n@audited\ndef two(): ...",
    "factory": "red = maker('red')\nblue = maker('blue')",
    "loop": "for label in 'ab': maker(label)",
    "loop of functions": "for label in 'ab':\n    @task\n    def made(): return label",
    "lambdas": "one, two = task(lambda: 1), task(lambda: 2)",
    "one name": "one = maker('a', name='x')\ntwo = maker('b', name='x')",
    "class bodies": (
        "def make():\n    class A:\n        @task\n        def f(): ...\nmake()\nmake()"
    ),
    "other options": "def f(): ...\na = task(f)\nb = task(queue='low')(f)",
    "exec": "for label in 'ab': exec('@task\\ndef made(): ...')",
    "async": "for _ in 'ab':\n    @task\n    async def made(): ...",
}


@pytest.mark.parametrize("text", SAME_NAMES.values(), ids=SAME_NAMES)
def test_the_second_of_one_name_is_refused_with_both_places(
    module: Callable[..., Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"their_tasks\.py:\d+ and .*py:\d+") as refused:
        module(text)
    assert "@task(name=…)" in str(refused.value)


def test_the_second_is_refused_in_another_module_too(module: Callable[..., Any]) -> None:
    module("@task\n@audited\ndef one(): ...")
    with pytest.raises(ConfigurationError, match=r"their_tasks\.py:3 and .*others\.py:3"):
        module("@task\n@audited\ndef one(): ...", "others")


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("@task\ndef add(): return 1", "\n\n@task\ndef add(): return 2"),
        ("@task\n@audited\ndef one(): ...", "@task\n@audited\ndef one(): ..."),
        ("@task(name='a')\n@audited\ndef one(): ...", "@task(name='a')\n@audited\ndef one(): ..."),
        ("red = maker('red')", "red = maker('red')"),
        ("one = task(lambda: 1)", "one = task(lambda: 2)"),
        ("def f(): ...\na = task(f)\nb = task(f)", "def f(): ...\na = task(queue='low')(f)"),
    ],
)
def test_a_module_that_is_loaded_again_replaces_its_tasks(
    module: Callable[..., Any], text: str, again: str
) -> None:
    module(text)
    before = set(registry.tasks.values())
    module(again)
    assert len(set(registry.tasks.values()) - before) == 1


def test_a_module_that_failed_to_load_is_loaded_again(module: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        module("@task\ndef add(): return 1\n1 / 0")
    assert module("@task\ndef add(): return 2").add() == 2


def test_a_module_of_two_names(module: Callable[..., Any], tmp_path: Path) -> None:
    module("@task\ndef add(): ...")
    assert checks.check_imports() == []
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "__init__.py").write_text(f"__path__.append({str(tmp_path)!r})")
    importlib.invalidate_caches()
    importlib.import_module("project.their_tasks")
    (found,) = checks.check_imports()
    assert found.id == "jobs.W008"
    assert "'project.their_tasks.add' and 'their_tasks.add'" in found.msg


def test_decorators_with_wraps_and_names_of_their_own(module: Callable[..., Any]) -> None:
    loaded = module(
        """
        @task
        @wrapped
        def one(): return 1
        @task
        @wrapped
        def two(): return 2
        red, blue = maker("red", name="red"), maker("blue", name="blue")
        """
    )
    assert [made() for made in (loaded.one, loaded.two, loaded.red, loaded.blue)] == [
        *(1, 2, "red", "blue")
    ]
    assert loaded.one.name == "their_tasks.one"


def test_a_function_that_is_called_later_makes_its_task_anew() -> None:
    def make(n: int) -> Task[..., Any]:
        @task
        def one() -> int:
            return n

        return one

    assert [make(n)() for n in range(2)] == [0, 1]


# ------------------------------------------------------------------------- what can be one


class Callables:
    def __call__(self) -> str:
        return "called"

    def method(self) -> str:
        return "method"

    @classmethod
    def of_the_class(cls) -> str:
        return "class"


class AsyncCallable:
    async def __call__(self) -> str:
        return "awaited"


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (3, "only a function"),
        ("name", "only a function"),
        (None.__class__, "a class is no task"),
        (Callables, "a class is no task"),
        (property(lambda self: 1), "only a function"),
        (classmethod(lambda cls: 1), "only a function"),
        (functools.partial(pow, 2), "no name of its own"),
        (Callables(), "no name of its own"),
        (Callables().method, "no name of its own"),
        (Callables.of_the_class, "no name of its own"),
        (add, "that is a task already"),
    ],
)
def test_what_no_worker_could_find_is_refused(run: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        task()(run)


def test_a_name_makes_a_task_of_anything_that_can_be_called() -> None:
    made = {
        name: task(name=name)(run)
        for name, run in {
            "partial": functools.partial(pow, 2),
            "object": Callables(),
            "bound": Callables().method,
            "class": Callables.of_the_class,
            "builtin": len,
        }.items()
    }
    assert [made[name]() for name in ("object", "bound", "class")] == [
        *("called", "method", "class")
    ]
    assert (made["partial"](3), made["builtin"]([1, 2])) == (8, 2)
    with pytest.raises(ConfigurationError, match="doesn't say what arguments"):
        task(name="max")(max)
    assert not made["object"].is_async
    assert task(name="async object")(AsyncCallable()).is_async
    assert task(name="async partial")(functools.partial(async_add.run, 1)).is_async


def test_methods_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="stands in a class"):

        class Mailer:
            @task
            def send(self, to: str) -> None: ...

    class Works:
        @staticmethod
        @task
        def static(n: int) -> int:
            return n

        @task
        @staticmethod
        def inside(n: int) -> int:
            return n

        @task(bind=True)
        def bound(self: Task[..., Any], n: int) -> int:  # type: ignore[misc]
            return n

    assert [one(3) for one in (Works.static, Works.inside, Works.bound)] == [3, 3, 3]  # type: ignore[call-arg, arg-type]


def run_script(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])]),
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )


def test_the_script_that_was_started(tmp_path: Path) -> None:
    (tmp_path / "shop_tasks.py").write_text(
        "import django\ndjango.setup()\nfrom jobs import task\n"
        "@task\ndef add(): ...\n"
        "if __name__ == '__main__':\n"
        "    import shop_tasks\n    from jobs import registry\n"
        "    print(add.name, registry.tasks[add.name] is shop_tasks.add)\n"
    )
    as_script = run_script(tmp_path, "shop_tasks.py")
    assert "stands in the script that was started" in as_script.stderr
    assert run_script(tmp_path, "-m", "shop_tasks").stdout == "shop_tasks.add True\n"
    named = "from jobs import task; print(task(name='shop.add')(lambda: 1).name)"
    assert run_script(tmp_path, "-c", f"import django; django.setup(); {named}").stdout.strip() == (
        "shop.add"
    )


def test_what_is_typed_into_a_shell(tmp_path: Path) -> None:
    typed = "from jobs import task\n@task\ndef f(): ...\n"
    shell = run_script(tmp_path, "-m", "django", "shell", "-c", typed)
    assert "typed into a shell" in shell.stderr
    again = typed.replace("@task", "@task(name='shop.f')")
    assert run_script(tmp_path, "-m", "django", "shell", "-c", again).returncode == 0


def test_attributes_of_the_function_hide_nothing_of_its_task() -> None:
    def run() -> None: ...

    run.retry, run.delay, run.owner = "tenacity's", "celery's", "shop"  # type: ignore[attr-defined]
    made = task(run)
    assert made.owner == "shop"  # type: ignore[attr-defined]
    assert callable(made.retry)
    assert callable(made.delay)
