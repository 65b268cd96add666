"""https://docs.celeryq.dev/en/stable/userguide/routing.html"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jobs import (
    conf,
    message,
    registry,
    routing,
    task,
)
from jobs.exceptions import ConfigurationError, UnknownQueue
from jobs.message import Message, new_id
from tests.integration.celery_guides.blocks import Refused

#: What the guide has as ``task_queues``, with its exchanges.
JOBS: dict[str, Any] = {
    "EXCHANGES": {
        "tasks": "topic",
        "media": "direct",
        "mediatasks": "direct",
        "video": "topic",
        "broadcast_tasks": "fanout",
    },
    "DEFAULT_EXCHANGE": "tasks",
    "QUEUES": {
        "default": {"routing_key": "task.#"},
        "feeds": {},
        "web": {},
        "feed_tasks": {"routing_key": "feed.#"},
        "regular_tasks": {"routing_key": "task.regular"},
        "image_tasks": {"exchange": "mediatasks", "routing_key": "image.compress"},
        # Two bindings of one queue.
        "media": {"exchange": "media", "routing_key": ["media.video", "media.image"]},
        "video": {"exchange": "video", "routing_key": "video.#"},
        # A queue of each machine, for ``Broadcast("broadcast_tasks")``.
        "machine1": {"exchange": "broadcast_tasks"},
        "machine2": {"exchange": "broadcast_tasks"},
    },
}


def route_task(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
    if name == "myapp.tasks.compress_video":
        return {"exchange": "video", "exchange_type": "topic", "routing_key": "video.compress"}
    return None


VIDEO = {"queue": "video", "routing_key": "video.compress"}
FEEDS = [
    ("feed.tasks.*", {"queue": "feeds"}),
    ("web.tasks.*", {"queue": "web"}),
    (re.compile(r"(video|image)\.tasks\..*"), {"queue": "media"}),
]


ROUTES: list[tuple[Any, str, list[str], tuple[str, str] | None]] = [
    ({"feed.tasks.import_feed": {"queue": "feeds"}}, "feed.tasks.import_feed", ["feeds"], None),
    ({"feed.tasks.*": {"queue": "feeds"}}, "feed.tasks.any", ["feeds"], None),
    ({"feed.tasks.*": {"queue": "feeds"}}, "web.tasks.any", ["default"], None),
    ((FEEDS,), "feed.tasks.one", ["feeds"], None),
    ((FEEDS,), "web.tasks.one", ["web"], None),
    ((FEEDS,), "video.tasks.one", ["media"], None),
    ((FEEDS,), "image.tasks.one", ["media"], None),
    ((FEEDS,), "audio.tasks.one", ["default"], None),
    (
        {"feeds.tasks.import_feed": {"queue": "feed_tasks", "routing_key": "feed.import"}},
        "feeds.tasks.import_feed",
        ["feed_tasks"],
        ("", "feed.import"),
    ),
    ((route_task,), "myapp.tasks.compress_video", ["video"], ("video", "video.compress")),
    (
        (f"{__name__}.route_task",),
        "myapp.tasks.compress_video",
        ["video"],
        ("video", "video.compress"),
    ),
    ([route_task, {"other": VIDEO}], "other", ["video"], ("", "video.compress")),
    (
        {"myapp.tasks.compress_video": {**VIDEO, "priority": 9}},
        "myapp.tasks.compress_video",
        ["video"],
        ("", "video.compress"),
    ),
    (
        {"tasks.reload_cache": {"exchange": "broadcast_tasks"}},
        "tasks.reload_cache",
        ["machine1", "machine2"],
        ("broadcast_tasks", ""),
    ),
    ({"t": {"queue": "web", "serializer": "json", "delivery_mode": 2}}, "t", ["web"], None),
]


@pytest.mark.parametrize(("routes", "name", "queues", "info"), ROUTES)
def test_routes(routes: Any, name: str, queues: list[str], info: tuple[str, str] | None) -> None:
    found, problems = conf.parse({**JOBS, "TASK_ROUTES": routes})
    assert problems == []
    address, priority = routing.Router(found).find(name, (), {}, {}, None)
    assert list(address.queues) == queues
    assert (address.exchange, address.routing_key) == (info or ("", queues[0]))
    assert priority == (9 if "priority" in str(routes) else 0)
    sent = Message(task=name, id=new_id(), queue="")
    address.write(sent)
    told = json.loads(message.encode(sent))["properties"]["delivery_info"]
    assert told == {"exchange": address.exchange, "routing_key": address.routing_key or queues[0]}


@pytest.mark.parametrize(
    "options",
    [
        {"exchange": "media", "routing_key": "media.video"},
        {"exchange": "media", "routing_key": "media.image"},
    ],
)
def test_a_queue_with_several_bindings(options: dict[str, str]) -> None:
    found, _ = conf.parse(JOBS)
    router = routing.Router(found)
    assert router.find("t", (), {}, options, None)[0].queues == ("media",)


REFUSED = {
    "priority": Refused("{'t': {'queue': 'video', 'priority': 10}}", "0 to 9, not 10"),
    "serializer": Refused("{'t': {'queue': 'video', 'serializer': 'pickle'}}", "always JSON"),
    "no option": Refused("{'t': {'quue': 'video'}}", "Did you mean 'queue'?"),
    "undeclared": Refused("{'t': {'queue': 'vidoe'}}", "Did you mean 'video'?"),
    "Broadcast": Refused(
        "__import__('jobs').Broadcast", "an exchange of the kind fanout", guide=True
    ),
    "Queue": Refused("__import__('jobs').Queue", "JOBS['QUEUES']"),
}


@pytest.mark.parametrize("block", REFUSED.values(), ids=REFUSED)
def test_it_says_what_to_write_instead(block: Refused) -> None:
    kombu = pytest.importorskip("kombu")
    names = {"Queue": kombu.Queue}
    try:
        found, _ = conf.parse({**JOBS, "TASK_ROUTES": eval(block.code, names)})
        routing.Router(found).find("t", (), {}, {}, None)
    except (ConfigurationError, UnknownQueue, ImportError) as error:
        assert block.told in str(error)  # noqa: PT017
    else:
        pytest.fail("it is taken")


#: ``task_queues``, a route, and the queue to which it leads.
TASK_QUEUES: list[tuple[str, dict[str, str], str]] = [
    ("[Queue('default'), Queue('feeds', routing_key='feed.#')]", {"queue": "feeds"}, "feeds"),
    (
        "(Queue('default', routing_key='task.#'), Queue('feed_tasks', routing_key='feed.#'))",
        {"routing_key": "feed.import"},
        "feed_tasks",
    ),
    (
        "[Queue('default'), Queue('image_tasks', exchange=Exchange('mediatasks', "
        "type='direct'), routing_key='image.compress')]",
        {"exchange": "mediatasks", "routing_key": "image.compress"},
        "image_tasks",
    ),
    (
        "[Queue('default'), Queue('media', [binding(media, routing_key='media.video'), "
        "binding(media, routing_key='media.image')])]",
        {"exchange": "media", "routing_key": "media.image"},
        "media",
    ),
    (
        "[Queue('default'), Queue('video', Exchange('video', type='topic'), 'video.#', "
        "queue_arguments={'x-max-priority': 10})]",
        {"exchange": "video", "exchange_type": "topic", "routing_key": "video.hd.compress"},
        "video",
    ),
]


@pytest.mark.parametrize(("queues", "route", "found"), TASK_QUEUES)
def test_queues_of_kombu(queues: str, route: dict[str, str], found: str) -> None:
    kombu = pytest.importorskip("kombu")
    media = kombu.Exchange("media", type="direct")
    names = {"Queue": kombu.Queue, "Exchange": kombu.Exchange, "binding": kombu.binding}
    raw = {
        "QUEUES": eval(queues, {**names, "media": media}),
        "EXCHANGES": {"tasks": "topic"},
        "DEFAULT_EXCHANGE": "tasks",
        "TASK_ROUTES": {"t": route, "u": {"queue": kombu.Queue(found)}},
    }
    settings, problems = conf.parse(raw)
    assert problems == []
    for name in ("t", "u"):
        assert routing.Router(settings).find(name, (), {}, {}, None)[0].queues == (found,)


@pytest.mark.parametrize(
    ("queues", "told"),
    [
        ("[Broadcast('broadcast_tasks')]", "a queue for each machine"),
        ("[Queue('a', [binding(Exchange('x')), binding(Exchange('y'))])]", "several exchanges"),
        ("['default']", "must be a dict of queue name"),
    ],
)
def test_queues_that_can_not_be_declared(queues: str, told: str) -> None:
    kombu = pytest.importorskip("kombu")
    names = {"Queue": kombu.Queue, "Exchange": kombu.Exchange, "binding": kombu.binding}
    names["Broadcast"] = pytest.importorskip("kombu.common").Broadcast
    _, (problem, *_others) = conf.parse({"QUEUES": eval(queues, names)})
    assert told in problem


def test_options_of_a_task() -> None:
    @task(name="guide.routing.task", queue="default", exchange="default", routing_key="default")
    def decorated() -> None: ...

    try:
        assert decorated.message((), {}, priority=0).queue == "default"
    finally:
        del registry.tasks["guide.routing.task"]
