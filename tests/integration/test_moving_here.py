"""docs/coming-from-others.md with the real RQ, Huey and Dramatiq, on one Redis with this program.
What they still have runs the same code, and what they would run later is moved.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from jobs import AsyncResult, broker
from jobs.models import TaskResult
from tests.project import ROOT
from tests.services import missing
from tests.workers import hasten, work

PAGE = ROOT / "docs" / "coming-from-others.md"
MODULES = ("shop", "drain_rq", "move_rq", "move_huey", "move_dramatiq")

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("own_tasks")]


@pytest.fixture(autouse=True)
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as made:
        yield made


@pytest.fixture
def old(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The package that the test's name names, and the files of its section, ready to import."""
    name = request.function.__name__.removeprefix("test_")
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed")
    section = re.search(rf"^## {name}$(.*?)^## ", PAGE.read_text(), re.M | re.S | re.I)
    assert section is not None
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", section[1], re.M | re.S)
    assert len(blocks) > 1
    for file, code in blocks:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    for module in [it for it in sys.modules if it.partition(".")[0] in MODULES]:
        del sys.modules[module]


def moved() -> Any:
    """What the call returns that was moved here, once it is due."""
    broker.get()
    hasten()
    work()
    return AsyncResult(TaskResult.objects.get().pk).get(timeout=0)


def test_rq(old: Any, client: redis.Redis) -> None:
    queue = old.Queue(connection=client)
    from shop.tasks import send_invoice

    waiting = queue.enqueue("shop.tasks.send_invoice", 7)
    queue.enqueue_in(dt.timedelta(days=9), "shop.tasks.send_invoice", 8)
    import drain_rq
    import move_rq

    assert drain_rq.left(queue) == 2
    old.SimpleWorker([queue], connection=client).work(burst=True)
    assert waiting.return_value() == send_invoice(7)

    move_rq.move(queue)
    assert drain_rq.left(queue) == 0
    assert moved() == "invoice 8"


def test_huey(old: Any, broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop" / "huey_app.py").write_text(
        f"from huey import RedisHuey\nhuey = RedisHuey('old', url={broker_url!r})\n"
    )
    from shop import tasks
    from shop.huey_app import huey

    tasks._huey_send_invoice(7)
    tasks._huey_send_invoice.schedule((8,), delay=86_400)
    sent = huey.dequeue()
    assert sent.name == "send_invoice"
    assert huey.execute(sent) == "invoice 7"
    huey.execute(huey.dequeue())  # it isn't due: the worker puts it into the schedule

    import move_huey

    assert huey.scheduled_count() == 1
    move_huey.move(huey)
    assert huey.scheduled_count() == huey.pending_count() == 0
    assert moved() == "invoice 8"


def test_dramatiq(old: Any, broker_url: str) -> None:
    from dramatiq.brokers.redis import RedisBroker

    theirs = RedisBroker(url=broker_url)
    old.set_broker(theirs)
    from shop import tasks

    seen: list[Any] = []

    class Note(old.Middleware):  # type: ignore[misc]  # known when it runs
        def after_process_message(self, _: Any, message: Any, **ended: Any) -> None:
            seen.append((message.actor_name, ended["result"]))

    theirs.add_middleware(Note())
    tasks._dramatiq_send_invoice.send(7)
    worker = old.Worker(theirs, worker_threads=1)
    worker.start()
    theirs.join("default")
    worker.stop()
    assert seen == [("send_invoice", "invoice 7")]

    import move_dramatiq

    tasks._dramatiq_send_invoice.send_with_options(args=(8,), delay=86_400_000)
    move_dramatiq.move(theirs, "default")
    assert not theirs.client.keys("dramatiq:default*")
    assert moved() == "invoice 8"
    theirs.close()
