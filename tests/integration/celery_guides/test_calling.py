"""https://docs.celeryq.dev/en/stable/userguide/calling.html"""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobs import chain, chord, group, send_task, signature, task
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


@task(name="guide.calling.seen_stamps", bind=True)
def seen_stamps(self: Any) -> Any:
    return self.request.stamps


@task(name="guide.calling.parent")
def parent() -> None:
    add.apply_async((1, 1), add_to_parent=False)
    add.apply_async((2, 2))


@task(name="guide.calling.old_error_handler")
def old_error_handler(request: Any, exc: Any, traceback: Any) -> None: ...


@task(name="guide.calling.hello", bind=True)
def hello(self: Any, a: int, b: int) -> str:
    self.update_state(state="PROGRESS", meta={"progress": 50})
    return f"hello world: {a + b}"


def names() -> dict[str, Any]:
    SEEN.clear()
    tasks = (add, other_task, failing, error_handler, old_error_handler, hello)
    made = {one.__name__: one for one in (*tasks, seen_stamps, parent)}
    made |= {"group": group, "chain": chain, "chord": chord}
    return {**made, "signature": signature, "send_task": send_task}


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
    "a queue of kombu's": Block(
        "from kombu import Queue\nr = add.apply_async((1, 2), queue=Queue('default'))",
        {"r.get()": 3},
    ),
    "errors of kombu": Block(
        "from kombu.exceptions import TimeoutError\n"
        "r = add.apply_async((2, 2), retry=True, retry_policy={\n"
        "    'max_retries': 3,\n"
        "    'retry_errors': (TimeoutError, ),\n"
        "})",
        {"r.get()": 4},
    ),
    "ignore_result=True": Block(
        "r = add.apply_async((1, 2), ignore_result=True)", {"r.get()": None}
    ),
    "a header": Block(
        "r = add.apply_async((1, 2), headers={'periodic_task_name': 'task_name'})", {"r.get()": 3}
    ),
    "queue, exchange and key": Block(
        "r = add.apply_async(args=[1, 2], queue='default', exchange='default', "
        "routing_key='default', priority=9)",
        {"r.get()": 3},
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
    "errback of a request": Block(
        "r = failing.apply_async((), link_error=old_error_handler.s())", {"r.state": "FAILURE"}
    ),
    "on_message": Block(
        "def on_raw_message(body):\n    told.append(body)\n"
        "told = []\n"
        "r = hello.apply_async(args=(1, 1))\n"
        "value = r.get(on_message=on_raw_message, propagate=False)",
        {
            "value": "hello world: 2",
            "(told[-1]['status'], told[-1]['result'])": ("SUCCESS", "hello world: 2"),
            "told[-1]['task_id'] == r.id": True,
        },
    ),
    "on_interval": Block(
        "told = []\n"
        "r = add.apply_async((1, 1), countdown=0.2)\n"
        "r.get(interval=0.02, on_interval=lambda: told.append(1))",
        {"len(told) > 0": True},
    ),
    "callback": Block(
        "told = []\nr = add.delay(1, 1)\nr.get(callback=lambda *given: told.append(given))",
        {"told == [(r.id, 2)]": True},
    ),
    "compression": Block("r = add.apply_async((2, 2), compression='zlib')", {"r.get()": 4}),
    "in a group": Block("r = group(add.s(1, 2)).apply_async(compression='gzip')", {"r.get()": [3]}),
    "shadow": Block(
        "r = add.apply_async((2, 2), shadow='sum')", {"(r.get(), r.name)": (4, add.name)}
    ),
    "argsrepr": Block(
        "r = add.apply_async((2, 3), argsrepr='(<secret-x>, <secret-y>)')",
        {"(r.get(), r.args)": (5, ["…", "…"])},
    ),
    "kwargsrepr": Block(
        "r = add.s(2, y=3).set(kwargsrepr=repr({'y': '****'})).delay()",
        {"(r.get(), r.args, r.kwargs)": (5, [2], {"y": "…"})},
    ),
    "stamps": Block(
        "r = seen_stamps.apply_async((), stamped_headers=['a'], a='b')",
        {"r.get()": {"a": "b"}},
    ),
    "add_to_parent": Block("r = parent.delay()\nr.get()", {"len(r.children)": 1}),
    "root_id": Block(
        "r = add.apply_async((2, 2), root_id='r', parent_id='p')\nr.get()",
        {"(r.root_id, r.parent.id)": ("r", "p")},
    ),
    "collect": Block(
        "r = add.apply_async((2, 2), link=add.s(16))\nr.get()",
        {"list(r.collect()) == [(r, 4), (r.children[0], 20)]": True},
    ),
    "collect, meanwhile": Block(
        "r = list(add.apply_async((1, 1), countdown=99).collect(intermediate=True))", {"r": []}
    ),
    "graph": Block(
        "r = add.apply_async((2, 2), link=add.s(16))\nr.get()\nchild = r.children[0]",
        {"repr(r.graph) == f'{r.id}(1)\\n     {child.id}(0)\\n{child.id}(0)'": True},
    ),
    "wait": Block("r = add.delay(1, 1)", {"r.wait()": 2}),
    "attributes": Block(
        "r = add.delay(1, y=1)\nr.get()",
        {
            "(r.name, r.args, r.kwargs)": (add.name, [1], {"y": 1}),
            "(r.retries, r.queue, r.date_done is None)": (0, "default", False),
            "bool(r.worker)": True,
        },
    ),
    "another service's": Block(
        "a = send_task('other.service.task', (1, 2), {'any': 3}, queue='high')\n"
        "b = signature('other.service.task', (1, 2), queue='high').apply_async()",
        # It is for another worker to know it.
        {"all('other.service.task' in str(one.get(propagate=False)) for one in (a, b))": True},
    ),
    "send_task": Block("r = send_task('guide.calling.add', (1, 2))", {"r.get()": 3}),
    "send_task by keywords": Block(
        "r = send_task('guide.calling.add', args=[1], kwargs={'y': 2}, countdown=0)", {"r.get()": 3}
    ),
    "forget": Block("r = add.delay(1, 2)\nr.get()\nr.forget()", {"r.state": "PENDING"}),
}

REFUSED = {
    "no option of get": Refused("add.delay(1, 1).get(on_mesage=print)", "'on_message'"),
    "serializer": Refused("add.apply_async((2, 2), serializer='pickle')", "always JSON"),
    "a pool of connections": Refused("add.app.pool.acquire(block=True)", "there is no app"),
    "get_publisher": Refused("add.get_publisher(None)", "task.enqueue_many"),
    "publisher": Refused(
        "add.apply_async((2, 2), publisher=object())", "JOBS['BROKER_URL']", guide=True
    ),
    "connection": Refused("add.apply_async((2, 2), connection=object())", "JOBS['BROKER_URL']"),
    "producer": Refused("add.apply_async((2, 2), producer=object())", "JOBS['BROKER_URL']"),
    "reply_to": Refused("add.apply_async((2, 2), reply_to='me')", "by their ids"),
    "undeclared queue": Refused(
        "add.apply_async((1, 2), queue='priority.high')", "not declare", guide=True
    ),
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
    "in a link": Refused(
        "add.apply_async((2, 2), link=add.s(1).set(serializer='pickle'))", "always JSON"
    ),
    "in a chain": Refused(
        "(add.s(2, 2) | add.s(1).set(countdwon=1)).delay()", "Did you mean 'countdown'?"
    ),
    "in a body": Refused(
        "chord([add.s(2, 2)], other_task.s().set(producer=1)).delay()", "JOBS['BROKER_URL']"
    ),
    "signal": Refused("add.delay(1, 1).revoke(terminate=True, signal='SIGUSR1')", "is killed"),
    "then": Refused("add.delay(1, 1).then(print)", "write link= at the call, or a chain"),
    "collect too early": Refused(
        "list(add.apply_async((1, 1), countdown=99).collect())", "has not ended: wait for it"
    ),
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
