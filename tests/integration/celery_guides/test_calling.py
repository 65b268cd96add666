"""https://docs.celeryq.dev/en/stable/userguide/calling.html"""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobs import chain, chord, group, signature, task
from jobs.exceptions import BrokerUnavailable
from tests.integration.celery_guides.blocks import Block, Refused, run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

SEEN: list[Any] = []


@task(name="guide.calling.add")
def add(x: int, y: int) -> int:
    return x + y


@task(name="guide.calling.other")
def other_task(result: Any = None) -> None:
    SEEN.append(result)


@task(name="guide.calling.failing")
def failing() -> None:
    raise KeyError("gone")


@task(name="guide.calling.error_handler")
def error_handler(task_id: str) -> None:
    SEEN.append(task_id)


@task(name="guide.calling.old_error_handler")
def old_error_handler(request: Any, exc: Any, traceback: Any) -> None: ...


@task(name="guide.calling.hello", bind=True)
def hello(self: Any, a: int, b: int) -> str:
    self.update_state(state="PROGRESS", meta={"progress": 50})
    return f"hello world: {a + b}"


def names() -> dict[str, Any]:
    SEEN.clear()
    tasks = (add, other_task, failing, error_handler, old_error_handler, hello)
    made = {one.__name__: one for one in tasks}
    return {**made, "group": group, "chain": chain, "chord": chord, "signature": signature}


WORKS = {
    "delay": Block("r = add.delay(2, y=2)", {"r.get(timeout=0)": 4}),
    "apply_async": Block("r = add.apply_async(args=[2], kwargs={'y': 2})", {"r.get()": 4}),
    "signature": Block("r = add.s(2, y=2).apply_async()", {"r.get()": 4}),
    "link": Block("r = add.apply_async((2, 2), link=add.s(16))", {"r.children[0].get()": 20}),
    "link_error": Block(
        "r = failing.apply_async((), link_error=error_handler.s())", {"SEEN == [r.id]": True}
    ),
    "links": Block(
        "r = add.apply_async((2, 2), link=[add.s(16), other_task.s()])",
        {"SEEN": [4], "sorted(c.get() or 0 for c in r.children)": [0, 20]},
    ),
    "progress": Block(
        "r = hello.apply_async(args=(1, 1)).get(propagate=False)", {"r": "hello world: 2"}
    ),
    "countdown": Block("r = add.apply_async((2, 2), countdown=0.1).get()", {"r": 4}),
    "eta": Block(
        "from datetime import datetime, timedelta, timezone\n"
        "tomorrow = datetime.now(timezone.utc) + timedelta(days=1)\n"
        "r = add.apply_async((2, 2), eta=tomorrow)",
        {"r.state": "PENDING"},
    ),
    "expires": Block("r = add.apply_async((10, 10), expires=60)", {"r.get()": 20}),
    "expires, a moment": Block(
        "from datetime import datetime, timedelta, timezone\n"
        "kwargs = {}\n"
        "r = add.apply_async((10, 10), kwargs, "
        "expires=datetime.now(timezone.utc) + timedelta(days=1))",
        {"r.get()": 20},
    ),
    "expires before the countdown": Block(
        "r = add.apply_async((2, 2), countdown=0.2, expires=0.1)\ne = r.get(propagate=False)",
        {"r.state": "REVOKED"},
    ),
    "no retry": Block("r = add.apply_async((2, 2), retry=False)", {"r.get()": 4}),
    "retry_policy": Block(
        "r = add.apply_async((2, 2), retry=True, retry_policy={\n"
        "    'max_retries': 3,\n"
        "    'interval_start': 0,\n"
        "    'interval_step': 0.2,\n"
        "    'interval_max': 0.2,\n"
        "    'retry_errors': None,\n"
        "})",
        {"r.get()": 4},
    ),
    "retry_errors": Block(
        "r = add.apply_async((2, 2), retry=True, retry_policy={\n"
        "    'max_retries': 3,\n"
        "    'retry_errors': (TimeoutError, ),\n"
        "})",
        {"r.get()": 4},
    ),
    "OperationalError": Block(
        "try:\n    add.delay(2, 2)\nexcept add.OperationalError as exc:\n    print(exc)",
    ),
    "serializer": Block("r = add.apply_async((10, 10), serializer='json')", {"r.get()": 20}),
    "group": Block(
        "numbers = [(2, 2), (4, 4), (8, 8), (16, 16)]\n"
        "r = group(add.s(i, j) for i, j in numbers).apply_async().get()",
        {"r": [4, 8, 16, 32]},
    ),
    "queue": Block("r = add.apply_async((1, 2), queue='default')", {"r.get()": 3}),
    "ignore_result=False": Block(
        "r = add.apply_async((1, 2), ignore_result=False)", {"r.get()": 3}
    ),
    "what changes nothing": Block(
        "r = add.apply_async((1, 2), connection=None, producer=None, add_to_parent=True, "
        "delivery_mode=2, shadow=None, compression=None, reply_to='', stamped_headers=[], "
        "mandatory=False, immediate=False, exchange_type='direct')",
        {"r.get(interval=0.1, no_ack=True, follow_parents=True)": 3},
    ),
    "further options of results": Block(
        "r = add.apply_async((1, 2))\n"
        "r.revoke(terminate=True, signal='SIGKILL', wait=False, connection=None)",
        {"r.task_id == r.id": True},
    ),
    "forget": Block("r = add.delay(1, 2)\nr.get()\nr.forget()", {"r.state": "PENDING"}),
}

REFUSED = {
    "errback of a request": Refused(
        "failing.apply_async((), link_error=old_error_handler.s())",
        "It gets the id of the call that failed in front of its own arguments",
    ),
    "on_message": Refused(
        "hello.apply_async(args=(1, 1)).get(on_message=print, propagate=False)", "result.follow()"
    ),
    "on_interval": Refused("add.delay(1, 1).get(on_interval=print)", "give get() a timeout"),
    "callback": Refused("add.delay(1, 1).get(callback=print)", "use what get() returns"),
    "no option of get": Refused("add.delay(1, 1).get(on_mesage=print)", "'on_message'"),
    "compression": Refused("add.apply_async((2, 2), compression='zlib')", "send its key"),
    "serializer": Refused("add.apply_async((2, 2), serializer='pickle')", "always JSON"),
    "a pool of connections": Refused("add.app.pool.acquire(block=True)", "there is no app"),
    "get_publisher": Refused("add.get_publisher(None)", "task.enqueue_many"),
    "publisher": Refused("add.apply_async((2, 2), publisher=object())", "JOBS['BROKER_URL']"),
    "connection": Refused("add.apply_async((2, 2), connection=object())", "JOBS['BROKER_URL']"),
    "producer": Refused("add.apply_async((2, 2), producer=object())", "JOBS['BROKER_URL']"),
    "shadow": Refused("add.apply_async((2, 2), shadow='sum')", "headers={…}"),
    "stamps": Refused("add.apply_async((2, 2), stamped_headers=['a'], a='b')", "headers={…}"),
    "argsrepr": Refused("add.apply_async((2, 3), argsrepr='(<secret>)')", "@task(sensitive=[…])"),
    "set(kwargsrepr)": Refused("add.s(2, y=3).set(kwargsrepr='{}').delay()", "sensitive=[…]"),
    "add_to_parent": Refused("add.apply_async((2, 2), add_to_parent=False)", "its children"),
    "reply_to": Refused("add.apply_async((2, 2), reply_to='me')", "by their ids"),
    "undeclared queue": Refused("add.apply_async((1, 2), queue='priority.high')", "not declare"),
    "typing error": Refused("add.apply_async((1, 2), countdwon=3)", "Did you mean 'countdown'?"),
    "policy": Refused(
        "add.apply_async((2, 2), retry_policy={'max_tries': 3})",
        "retry_policy has the unknown option 'max_tries'. Did you mean 'max_retries'?",
    ),
    "on_revive": Refused(
        "add.apply_async((2, 2), retry_policy={'errback': print})", "unknown option 'errback'"
    ),
    "retry_errors of kombu": Refused(
        # Kombu need not be installed.
        "OperationalError = type('Error', (Exception,), {'__module__': 'kombu.exceptions'})\n"
        "add.apply_async((2, 2), retry_policy={'retry_errors': (OperationalError,)})",
        "which nothing here raises; write ConnectionError",
    ),
    "wrong arguments": Refused("add.delay(8)", "missing a required argument: 'y'"),
    "bulk": Refused("add.enqueue_many([(1, 2)], serializer='yaml')", "always JSON"),
    "in a group": Refused("group(add.s(1, 2)).apply_async(compression='gzip')", "send its key"),
    "in a link": Refused(
        "add.apply_async((2, 2), link=add.s(1).set(serializer='pickle'))", "always JSON"
    ),
    "in a chain": Refused(
        "(add.s(2, 2) | add.s(1).set(countdwon=1)).delay()", "Did you mean 'countdown'?"
    ),
    "in a body": Refused(
        "chord([add.s(2, 2)], other_task.s().set(shadow='x')).delay()", "headers={…}"
    ),
    "signal": Refused("add.delay(1, 1).revoke(terminate=True, signal='SIGUSR1')", "is killed"),
    "then": Refused("add.delay(1, 1).then(print)", "write link= at the call, or a chain"),
    "collect too early": Refused(
        "list(add.apply_async((1, 1), countdown=99).collect())", "has not ended: wait for it"
    ),
    "graph": Refused("add.delay(1, 1).graph", "result.parent and result.children"),
    "wait": Refused("add.delay(1, 1).wait()", "write result.get()"),
    "date_done": Refused("add.delay(1, 1).date_done", "finished_at"),
    "a mistake of its own": Refused("add.delay(1, 1).reday()", "no attribute 'reday'"),
}


@pytest.mark.parametrize("block", WORKS.values(), ids=WORKS)
def test_it_works(block: Block) -> None:
    space = names()
    run(block.code, space)
    for expression, value in block.then.items():
        assert eval(expression, {**space, "SEEN": SEEN}) == value


@pytest.mark.parametrize("block", REFUSED.values(), ids=REFUSED)
def test_it_says_what_to_write_instead(block: Refused) -> None:
    with pytest.raises(Exception, match=re.escape(block.told)):
        run(block.code, names())


def test_the_error_of_a_broker_that_is_away_has_celerys_name() -> None:
    assert add.OperationalError is BrokerUnavailable
