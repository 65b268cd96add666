"""Tasks of a class of one's own: their hooks, attributes and options, wherever they run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from jobs import Request, Task, register_task, registry, task
from jobs.exceptions import ConfigurationError, Ignore, Reject
from jobs.models import TaskResult
from jobs.testing import run_jobs
from tests.models import Run
from tests.tasks import add
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

HEARD: list[tuple[Any, ...]] = []


class Heard(Task[..., Any]):
    """Notes what its hooks are called with."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        HEARD.append(("before_start", self.request.id == task_id, list(args), kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        HEARD.append(("on_success", retval, self.request.id == task_id))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        HEARD.append(("on_retry", repr(exc), "KeyError" in str(einfo)))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        HEARD.append(("on_failure", repr(exc), einfo.exception is exc, einfo.type is type(exc)))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        HEARD.append(("after_return", status, repr(retval), einfo is None))


class AsyncHeard(Heard):
    async def before_start(self, *args: Any) -> None:
        await asyncio.sleep(0)
        super().before_start(*args)

    async def on_success(self, *args: Any) -> None:
        await asyncio.sleep(0)
        super().on_success(*args)


def does(self: Task[..., Any], how: str = "") -> str:
    if how == "retry" and not self.request.retries:
        self.retry(exc=KeyError("once"), countdown=0)
    if how == "fail":
        raise ValueError("no")
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject("no")
    return "done"


async def adoes(self: Task[..., Any], how: str = "") -> str:
    await asyncio.sleep(0)
    return does(self, how)


plain = task(base=Heard, bind=True, name="hooks.plain")(does)
atomic = task(base=Heard, bind=True, name="hooks.atomic", atomic=True)(does)
asynchronous = task(base=AsyncHeard, bind=True, name="hooks.async")(adoes)


@task(base=Heard, batch=10, batch_wait=0, name="hooks.batch")
def batch(requests: list[Request]) -> list[Any]:
    return [ValueError("no") if "fail" in r.args else "done" for r in requests]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    HEARD.clear()
    known = set(registry.tasks)
    yield
    for name in registry.tasks.keys() - known:
        del registry.tasks[name]


GOOD = [("on_success", "done", True), ("after_return", "SUCCESS", "'done'", True)]
BAD = [
    ("on_failure", "ValueError('no')", True, True),
    ("after_return", "FAILURE", "ValueError('no')", False),
]


@pytest.mark.parametrize("one", [plain, atomic, asynchronous], ids=lambda one: one.name)
def test_the_hooks_of_each_end(one: Task[..., Any]) -> None:
    for how, heard in {
        "": GOOD,
        "fail": BAD,
        "retry": [
            ("on_retry", "KeyError('once')", True),
            ("before_start", True, ["retry"], {}),
            *GOOD,
        ],
        "ignore": [],
        "reject": [],
    }.items():
        HEARD.clear()
        args = [how] if how else []
        one.delay(*args)
        run_jobs()
        expected = [("before_start", True, args, {}), *heard]
        assert expected == HEARD, how


@pytest.mark.parametrize("mode", ["worker", "threads", "apply", "eager"])
def test_wherever_it_runs(mode: str, settings: Settings) -> None:
    if mode == "eager":
        settings.JOBS = {**settings.JOBS, "ALWAYS_EAGER": True}
    if mode == "apply":
        plain.apply(("fail",))
    else:
        plain.delay("fail")
    if mode in ("worker", "threads"):
        work(**({"threads": 2} if mode == "threads" else {}))
    assert [("before_start", True, ["fail"], {}), *BAD] == HEARD


def test_each_call_of_a_batch() -> None:
    batch.delay("fail")
    batch.delay()
    work()
    begun = {tuple(h[2]) for h in HEARD if h[0] == "before_start"}
    assert begun == {("fail",), ()}
    assert [h for h in HEARD if h[0] != "before_start"] in ([*BAD, *GOOD], [*GOOD, *BAD])


def test_wrong_arguments_are_a_failure() -> None:
    loose = task(base=Heard, name="hooks.loose", typing=False)(lambda: 1)
    result = loose.delay(1, 2)
    run_jobs()
    assert type(result.result) is TypeError
    assert [h[0] for h in HEARD] == ["before_start", "on_failure", "after_return"]


class Broken(Task[..., Any]):
    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        if args:
            raise {"ignore": Ignore("before"), "fail": OSError("before")}[args[0]]

    def on_success(self, *args: Any) -> None:
        connection.set_autocommit(False)  # a transaction that it leaves open
        Run.objects.create(label="of a hook")
        raise SystemExit("of a hook")

    def after_return(self, *args: Any) -> None:
        raise RuntimeError("of a hook")


def test_what_a_hook_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Before the task, it is the attempt's end, as in Celery; afterwards it is logged."""
    broken = task(base=Broken, name="hooks.broken")(lambda *_: "done")
    results = [broken.delay(*args) for args in ([], ["ignore"], ["fail"])]
    with caplog.at_level(logging.ERROR, "jobs"):
        work()
    assert [r.state for r in results] == ["SUCCESS", "REVOKED", "FAILURE"]
    assert (results[0].result, repr(results[2].result)) == ("done", "OSError('before')")
    said = [r.getMessage() for r in caplog.records if "raised" in r.getMessage()]
    assert f"on_success of task hooks.broken[{results[0].id}] raised" in said
    assert f"after_return of task hooks.broken[{results[0].id}] raised" in said
    assert not Run.objects.filter(label="of a hook").exists()


def test_a_class_as_a_task() -> None:
    class Adds(Heard):
        """Adds."""

        name = "hooks.adds"
        max_retries = 7
        default_retry_delay = 0
        autoretry_for = (KeyError,)
        acks_late = False

        def __init__(self) -> None:
            self.calls = 0  # without a call of super()

        def run(self, x: int, y: int = 0) -> int:
            self.calls += 1
            if not self.request.retries:
                raise KeyError("once")
            return x + y

    with pytest.raises(AttributeError, match=r"adds = jobs\.register_task\(Adds\(\)\)"):
        Adds().delay(1)
    adds = register_task(Adds())
    assert (adds.name, adds.max_retries, adds.acks_late, adds.__doc__) == (
        *("hooks.adds", 7, False),
        "Adds.",
    )
    with pytest.raises(TypeError, match=r"hooks\.adds\(x, y=0\) missing a required argument: 'x'"):
        adds.delay()
    result = adds.delay(1, y=2)
    run_jobs()
    assert (result.get(timeout=0), adds.calls) == (3, 2)
    assert [h[0] for h in HEARD[1:3]] == ["on_retry", "before_start"]
    with pytest.raises(KeyError):  # called directly: self.request tells so
        adds(1, 2)
    register_task(Adds)  # again, as when its module is loaded again

    @register_task
    class Decorated(Task[..., Any]):
        def run(self) -> str:
            return self.name

    assert Decorated() == f"{__name__}.test_a_class_as_a_task.<locals>.Decorated"


def test_what_a_class_must_not_be() -> None:
    class Empty(Task[..., Any]):
        pass

    class Odd(Task[..., Any]):
        max_retries = -1

        def on_failure(self, exc: BaseException) -> None: ...  # type: ignore[override]

        def run(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"has a method run\(self, …\)"):
        register_task(Empty())
    with pytest.raises(ConfigurationError, match="Decorate a function by @task"):
        register_task(add.run)
    with pytest.raises(ConfigurationError, match="max_retries must be"):
        register_task(Odd())
    with pytest.raises(ConfigurationError, match=r"on_failure is called with \(exc, task_id, args"):
        task(base=Odd, max_retries=1, name="hooks.odd")(lambda: None)
    with pytest.raises(ConfigurationError, match=r"base must be a subclass of jobs\.Task, not <cl"):
        task(base=object)(lambda: None)
    with pytest.raises(ConfigurationError, match="base must be a subclass"):
        task(base=add)(lambda: None)


class Wrapped(Task[..., Any]):
    """As projects write it that set something up around each task."""

    abstract = True
    database = "default"
    retry_backoff = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ["wrapped", self.database, super().__call__(*args, **kwargs)]

    def on_replace(self, sig: Any) -> Any:
        HEARD.append(("on_replace", sig.task))
        return super().on_replace(sig)


def noted(self: Any, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
    HEARD.append((self.name, repr(exc)))


def test_what_the_decorator_gives() -> None:
    """Hooks of its own, values for attributes of the class, and options that win over its."""
    one = task(
        base=Wrapped, name="hooks.given", database="other", retry_backoff=False, on_failure=noted
    )(lambda fails=False: 1 // (not fails))
    assert (one.retry_backoff, one.options.retry_backoff) == (False, False)
    results = [one.delay(), one.delay(True)]
    run_jobs()
    assert results[0].result == ["wrapped", "other", 1]
    assert [h[0] for h in HEARD] == ["hooks.given"]
    with pytest.raises(ConfigurationError, match="'databse' is no option of a task"):
        task(base=Wrapped, databse="other")(lambda: None)


def test_on_replace() -> None:
    def replaced(self: Any) -> Any:
        return self.replace(add.s(1, 2))

    result = task(base=Wrapped, bind=True, name="hooks.replaced")(replaced).delay()
    run_jobs()
    assert (result.get(timeout=0), HEARD) == (3, [("on_replace", "tests.tasks.add")])


def test_errors_that_are_expected_or_kept(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise KeyError("expected")

    expected = task(name="hooks.expected", throws=(LookupError,))(fails)
    kept = task(name="hooks.kept", ignore_result=True, store_errors_even_if_ignored=True)(fails)
    results = [expected.delay(), kept.delay()]
    with caplog.at_level(logging.INFO, "jobs"):
        run_jobs()
    rows = dict(TaskResult.objects.values_list("id", "state"))
    assert rows == {results[0].id: "FAILURE", results[1].id: "FAILURE"}
    told = {r.levelname: r for r in caplog.records if "failed" in r.getMessage()}
    assert (told["INFO"].args or ("",))[0] == "hooks.expected"
    assert [bool(told[level].exc_info) for level in ("INFO", "ERROR")] == [False, True]
