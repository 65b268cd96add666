"""What a running call knows of itself, under Celery's names, and what it can ask for its next
attempt."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pytest_django import Settings

from jobs import Task, chain, chord, signals, task
from jobs.exceptions import Retry
from jobs.models import TaskResult
from jobs.testing import run_jobs
from tests.tasks import add, collect, fail
from tests.workers import on_redis, put_message, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

FIELDS = [
    *("args", "argsrepr", "called_directly", "callbacks", "chain", "chord", "correlation_id"),
    *("delivery_info", "errbacks", "eta", "expires", "group", "group_index", "headers", "hostname"),
    *("id", "ignore_result", "is_eager", "kwargs", "kwargsrepr", "lang", "origin", "parent_id"),
    *("properties", "replaced_task_nesting", "reply_to", "retries", "root_id", "shadow", "stamps"),
    *("soft_time_limit", "stamped_headers", "task", "time_limit", "timelimit"),
]

SEEN: list[dict[str, Any]] = []


@task(bind=True)
def asks(self: Task[..., Any], *args: Any, **kwargs: Any) -> int:
    SEEN.append({name: self.request.get(name) for name in FIELDS})
    assert self.request.get("no_such", 5) == 5
    return 1


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def test_all_that_celerys_request_has() -> None:
    sent = asks.apply_async(
        (1,),
        {"x": 2},
        link=add.s(1),
        link_error=collect.si([1]),
        priority=3,
        time_limit=30,
        soft_time_limit=20,
        headers={"tenant": "one"},
        expires=dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
    )
    run_jobs()
    (seen,) = SEEN
    assert seen["origin"].startswith("gen")
    assert {**seen, "origin": ""} == {
        "args": [1],
        "argsrepr": "(1,)",
        "called_directly": False,
        "callbacks": [seen["callbacks"][0]],
        "chain": None,
        "chord": None,
        "correlation_id": sent.id,
        "delivery_info": {
            "exchange": "",
            "routing_key": "default",
            "priority": 3,
            "redelivered": False,
        },
        "errbacks": [seen["errbacks"][0]],
        "eta": None,
        "expires": dt.datetime(2099, 1, 1, tzinfo=dt.UTC),
        "group": None,
        "group_index": None,
        "headers": {"tenant": "one"},
        "hostname": seen["hostname"],
        "id": sent.id,
        "ignore_result": False,
        "is_eager": False,
        "kwargs": {"x": 2},
        "kwargsrepr": "{'x': 2}",
        "lang": "py",
        "origin": "",
        "parent_id": None,
        "properties": {
            "correlation_id": sent.id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "default"},
            "priority": 3,
            "body_encoding": "base64",
            "delivery_tag": f"{sent.id}.0",
        },
        "replaced_task_nesting": 0,
        "reply_to": "",
        "retries": 0,
        "root_id": sent.id,
        "shadow": None,
        "soft_time_limit": 20.0,
        "stamped_headers": None,
        "stamps": {},
        "task": asks.name,
        "time_limit": 30.0,
        "timelimit": (30.0, 20.0),
    }
    assert (seen["callbacks"][0]["task"], seen["errbacks"][0]["task"]) == (add.name, collect.name)


def test_in_a_composition() -> None:
    chain(asks.si(), add.s(2), add.s(3)).delay()
    chord([asks.si()], collect.s()).delay()
    asks.delay(sent="alone")
    run_jobs()
    in_chain = next(one for one in SEEN if one["chain"])
    in_chord = next(one for one in SEEN if one["chord"])
    alone = next(one for one in SEEN if one["kwargs"])
    assert [one["args"] for one in in_chain["chain"]] == [[3], [2]]  # the next one last
    assert in_chord["chord"]["task"] == collect.name
    assert (alone["chain"], alone["chord"], alone["callbacks"]) == (None, None, None)


def test_where_it_runs_eagerly(settings: Settings) -> None:
    asks.apply()
    asks.delay()
    run_jobs()  # a worker in the test's thread
    settings.JOBS = {**settings.JOBS, "ALWAYS_EAGER": True}
    asks.delay()
    asks()
    assert [one["is_eager"] for one in SEEN] == [True, False, True, False]
    assert SEEN[0]["delivery_info"]["is_eager"]
    assert [one["called_directly"] for one in SEEN] == [False, False, False, True]
    direct = SEEN[-1]
    assert (direct["delivery_info"], direct["properties"], direct["callbacks"]) == (None,) * 3


def test_a_message_through_an_exchange(settings: Settings) -> None:
    settings.JOBS = {
        **settings.JOBS,
        "EXCHANGES": {"media": "topic"},
        "QUEUES": {"default": {"exchange": "media", "routing_key": "video.#"}},
    }
    asks.apply_async(exchange="media", routing_key="video.short")
    run_jobs()
    assert SEEN[0]["delivery_info"] == {
        "exchange": "media",
        "routing_key": "video.short",
        "priority": 0,
        "redelivered": False,
    }


@task(bind=True, max_retries=3)
def again(self: Task[..., Any], *args: Any) -> Any:
    request = self.request
    SEEN.append({"queue": request.queue, "retries": request.retries, "headers": request.headers})
    if not request.retries:
        options = {"queue": "high", "priority": 9, "headers": {"b": 2}, "soft_time_limit": 9}
        # By position, as in Celery's signature.
        told = self.retry(("next",), None, KeyError("once"), False, None, 0, 5, **options)
        assert isinstance(told, Retry)
        assert told.when == 0
        return "of no account"
    delivery = request.delivery_info or {}
    return [*args, request.queue, delivery["priority"], request.headers, request.soft_time_limit]


@pytest.mark.parametrize("mode", ["worker", "run_jobs", "apply"])
def test_the_next_attempt_on_another_queue(mode: str) -> None:
    expected = ["next", "high", 9, {"a": 1, "b": 2}, 9.0]
    if mode == "apply":
        assert again.apply(headers={"a": 1}).get() == expected
        return
    result = again.apply_async(headers={"a": 1})
    if mode == "worker":
        work(["default"])
        row = TaskResult.objects.get()
        assert (row.state, row.queue, row.attempts) == ("RETRY", "high", 1)
        assert (on_redis("default"), on_redis("high")[0]) == ((0, 0), 1)
        work(["high"])
    else:
        run_jobs()
    row = TaskResult.objects.get()
    assert (row.state, row.queue, row.attempts) == ("SUCCESS", "high", 2)
    assert result.get(timeout=0) == expected
    assert (on_redis("default"), on_redis("high")) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"queue": "no_such"}, "'no_such' is not declared"),
        ({"priority": 10}, "priority must be 0"),
        ({"link": add.s(1)}, "no option 'link'"),
        ({"expires": "x"}, "expires must be"),
    ],
)
def test_what_the_next_attempt_cant_have(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        again.retry(**options)


def test_signature_from_request() -> None:
    @task(bind=True, name="request.copies")
    def copies(self: Task[..., Any], n: int) -> Any:
        if n:
            return self.signature_from_request(args=[n - 1], countdown=0).delay().id
        return [self.request.headers, self.request.queue, self.AsyncResult("x").id]

    first = copies.apply_async((1,), queue="low", headers={"a": 1})
    run_jobs()
    assert TaskResult.objects.exclude(id=first.id).get().result == '[{"a":1},"low","x"]'


def test_of_a_celery_client(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "QUEUES": {"default": {"open": True}}}
    put_message(task=asks.name, own_headers={"stamped_headers": ["on"], "stamps": {"on": ["call"]}})
    run_jobs()
    assert (SEEN[0]["stamped_headers"], SEEN[0]["stamps"]) == (["on"], {"on": ["call"]})


def test_signals_under_celerys_names() -> None:
    heard: list[tuple[Any, ...]] = []
    names = ["before_task_publish", "after_task_publish", "task_prerun", "task_postrun"]
    names += ["task_success"]
    names += ["task_failure", "task_retry", "task_revoked", "worker_process_init"]
    receivers = []
    for name in names:

        def hear(name: str = name, **named: Any) -> None:
            heard.append((name, named))

        getattr(signals, name).connect(hear)
        receivers.append((name, hear))
    try:
        add.delay(1, 2)
        fail.delay("no")
        again.delay()
        add.apply_async((1, 2), expires=0.0)
        work()
    finally:
        for name, hear in receivers:
            getattr(signals, name).disconnect(hear)
    told = {name: [n for name_, n in heard if name_ == name] for name in names}
    counts = {name: len(found) for name, found in told.items()}
    assert counts["before_task_publish"] == counts["after_task_publish"] == 4
    assert counts["task_prerun"] == counts["task_postrun"] == 4
    assert (counts["task_success"], counts["task_failure"], counts["task_retry"]) == (2, 1, 1)
    states = sorted((one["state"], repr(one["retval"])) for one in told["task_postrun"])
    assert [state for state, _ in states] == ["FAILURE", "RETRY", "SUCCESS", "SUCCESS"]
    assert ("SUCCESS", "3") in states
    assert told["task_failure"][0]["sender"] is fail
    assert "no" in str(told["task_failure"][0]["einfo"])
    assert told["task_retry"][0]["request"].retries == 0
    assert told["task_revoked"][0]["expired"] is True
    assert told["task_revoked"][0]["request"].task == add.name
    assert counts["worker_process_init"] == 1
