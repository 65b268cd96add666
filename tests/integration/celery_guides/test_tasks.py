"""https://docs.celeryq.dev/en/stable/userguide/tasks.html"""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from django.db import transaction

from jobs import Task, chain, register_task, registry, shared_task, task
from jobs.exceptions import ConfigurationError, Reject
from tests.integration.celery_guides.blocks import Block, Refused, run
from tests.workers import dead_letters, on_redis, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

SEEN: list[Any] = []


class FailWhaleError(Exception):
    pass


class HttpError(Exception):
    def __init__(self, status_code: int, headers: Any = None, body: Any = None) -> None:
        self.status_code = status_code
        self.headers = headers
        self.body = body
        super().__init__(status_code, headers, body)


@shared_task(name="guide.tasks.add")
def add(x: int, y: int) -> int:
    logging.getLogger(__name__).info("Adding %s + %s", x, y)
    return x + y


@task(name="sum-of-two-numbers")
def named(x: int, y: int) -> int:
    return x + y


@task(name="guide.tasks.dump_context", bind=True)
def dump_context(self: Any, x: int, y: int) -> str:
    return f"{self.request.id}, args: {self.request.args!r} kwargs: {self.request.kwargs!r}"


@task(name="guide.tasks.timeline", bind=True, default_retry_delay=0)
def timeline(self: Any) -> int:
    try:
        if self.request.retries < 2:
            raise FailWhaleError("over capacity")
    except FailWhaleError as exc:
        raise self.retry(exc=exc, countdown=0)  # noqa: B904  as the guide has it
    return int(self.request.retries)


@task(
    name="guide.tasks.refresh",
    autoretry_for=(FailWhaleError,),
    max_retries=1,
    default_retry_delay=0,
)
def refresh() -> None:
    raise FailWhaleError("over capacity")


@task(name="guide.tasks.http")
def http() -> None:
    raise HttpError(404, {"a": "b"})


@task(name="guide.tasks.rejecting", bind=True)
def rejecting(self: Any) -> None:
    raise Reject("no room", requeue=False)


@task(name="guide.tasks.upload", bind=True)
def upload_files(self: Any, filenames: list[str]) -> int:
    for i, _file in enumerate(filenames):
        self.update_state(state="PROGRESS", meta={"current": i, "total": len(filenames)})
    return len(filenames)


@task(name="guide.tasks.store", ignore_result=True)
def store_page_info(info: Any, url: str) -> None:
    SEEN.append((info, url))


TASKS = (
    *(add, named, dump_context, timeline, refresh, http, rejecting, upload_files),
    store_page_info,
)

WORKS = {
    "a name": Block("name = named.name", {"name": "sum-of-two-numbers"}),
    "the request": Block(
        "r = dump_context.delay(1, y=2)\ntold = r.get()",
        {"told.partition(', ')[0] == r.id": True, "told[-6:]": "y': 2}"[-6:]},
    ),
    "retry": Block("r = timeline.delay().get()", {"r": 2}),
    "autoretry_for": Block(
        "e = refresh.delay().get(propagate=False)", {"repr(e)": "FailWhaleError('over capacity')"}
    ),
    "an exception that can be made again": Block(
        "e = http.delay().get(propagate=False)",
        {"(e.status_code, e.headers, e.body)": (404, {"a": "b"}, None)},
    ),
    "a state of its own": Block("r = upload_files.delay(['a', 'b']).get()", {"r": 2}),
    "called directly": Block("r = add(2, 2), named(2, 2)", {"r": (4, 4)}),
    "no synchronous subtasks": Block(
        "chain(add.s(1, 2), store_page_info.s('https://example.org'))()",
        {"SEEN": [(3, "https://example.org")]},
    ),
    "a result that is kept": Block(
        "r = add.apply_async((1, 2), ignore_result=False).get()", {"r": 3}
    ),
    "apply": Block("r = add.apply((1, 2)).get()", {"r": 3}),
    "after the commit": Block(
        "with transaction.atomic():\n    r = add.delay_on_commit(1, 2)\nr = r.get()", {"r": 3}
    ),
    "on_commit": Block(
        "import functools\n"
        "with transaction.atomic():\n"
        "    transaction.on_commit(functools.partial(store_page_info.delay, 1, 'a'))\n",
        {"SEEN": [(1, "a")]},
    ),
}

CLASSES = {
    "instantiation": Block(
        """
class NaiveAuthenticateServer(Task):
    name = "guide.tasks.authenticate"

    def __init__(self):
        self.users = {'george': 'password'}

    def run(self, username, password):
        try:
            return self.users[username] == password
        except KeyError:
            return False

authenticate = register_task(NaiveAuthenticateServer())
r = authenticate.delay('george', 'password').get()
""",
        {"r": True},
    ),
    "per task usage": Block(
        """
class DatabaseTask(Task):
    _db = None

    @property
    def db(self):
        if self._db is None:
            self._db = SEEN
        return self._db

@task(base=DatabaseTask, bind=True, name="guide.tasks.process_rows")
def process_rows(self: task):
    for row in ("a", "b"):
        self.db.append(row)

process_rows.delay().get()
""",
        {"SEEN": ["a", "b"]},
    ),
    "handlers": Block(
        """
class MyTask(Task):

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        SEEN.append('{0!r} failed: {1!r}'.format(task_id, exc))

@task(base=MyTask, name="guide.tasks.my_failing_task")
def my_failing_task():
    raise KeyError()

r = my_failing_task.delay()
e = r.get(propagate=False)
""",
        {"SEEN == [f'{r.id!r} failed: KeyError()']": True},
    ),
    "the logger and the state": Block(
        "from jobs import get_task_logger, states, current_task\n"
        "logger = get_task_logger(__name__)\n"
        "r = [states.state('PROGRESS') > states.STARTED, bool(current_task)]\n"
        "r += [add.AsyncResult('x').id]",
        {"r": [True, False, "x"]},
    ),
}

REFUSALS = (TypeError, AttributeError, ImportError, ConfigurationError)
REFUSED = {
    "wrong arguments": Refused("add.delay(8)", "missing a required argument: 'y'"),
    "task.get_logger": Refused("add.get_logger()", "logging.getLogger(__name__)"),
    "Celery": Refused("from jobs import Celery", "there is no app", guide=True),
    "app": Refused("add.app.conf", "there is no app", guide=True),
    "backend": Refused("add.backend.get('x')", "jobs.models.TaskResult"),
    "a class that isn't registered": Refused(
        "class Mine(Task):\n    def run(self): ...\nMine().delay()",
        "mine = jobs.register_task(Mine())",
    ),
    "a mistake of its own": Refused("add.dely(1, 2)", "no attribute 'dely'"),
}


def names() -> dict[str, Any]:
    SEEN.clear()
    made = {one.run.__name__: one for one in TASKS}
    space = {"chain": chain, "task": task, "Task": Task, "register_task": register_task}
    return {**made, **space, "transaction": transaction, "SEEN": SEEN, "__name__": "guide.tasks"}


@pytest.mark.parametrize("block", [*WORKS.values(), *CLASSES.values()], ids=[*WORKS, *CLASSES])
def test_it_works(block: Block) -> None:
    space = names()
    known = set(registry.tasks)
    try:
        run(block.code, space)
    finally:
        for name in registry.tasks.keys() - known:
            del registry.tasks[name]
    for expression, value in block.then.items():
        assert eval(expression, {**space, "SEEN": SEEN}) == value


@pytest.mark.parametrize("block", REFUSED.values(), ids=REFUSED)
def test_it_says_what_to_write_instead(block: Refused) -> None:
    with pytest.raises(REFUSALS, match=re.escape(block.told)):
        run(block.code, names())


def test_what_is_rejected_is_a_dead_letter() -> None:
    rejecting.delay()
    work()
    assert [letter.reason for letter in dead_letters()] == ["Reject: no room"]
    assert on_redis() == (0, 0)


@task(name="guide.tasks.requeues", bind=True)
def requeues(self: Any) -> Any:
    return self.request.delivery_info["redelivered"]


@task(name="guide.tasks.render_scene", bind=True, acks_late=True)
def render_scene(self: Any, path: str) -> None:
    try:
        raise MemoryError(path)
    except MemoryError as exc:
        raise Reject(exc, requeue=False)  # noqa: B904  as the guide has it


def test_what_is_rejected_with_an_exception() -> None:
    render_scene.delay("scene.blend")
    work()
    assert [letter.reason for letter in dead_letters()] == ["Reject: scene.blend"]
    assert Reject("no", True).requeue


def test_delivery_info() -> None:
    result = requeues.delay()
    work()
    assert result.get(timeout=0) is False


def test_what_asks_for_attributes_gets_an_answer() -> None:
    """Celery's names are refused by an `AttributeError`, which ``hasattr`` understands."""
    assert not hasattr(add, "app")
    assert not hasattr(add.s(1, 2), "election")
    assert not hasattr(add.delay(1, 2), "then")
    assert getattr(add, "backend", None) is None
