"""https://docs.celeryq.dev/en/stable/userguide/canvas.html"""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobs import (
    GroupResult,
    StampingVisitor,
    chain,
    chord,
    group,
    maybe_signature,
    result_from_tuple,
    signature,
    task,
)
from tests.integration.celery_guides.blocks import Block, Refused, run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

SEEN: list[Any] = []


@task(name="guide.canvas.add")
def add(x: int, y: int, debug: bool = False) -> int:
    return x + y


@task(name="guide.canvas.mul")
def mul(x: int, y: int) -> int:
    return x * y


@task(name="guide.canvas.tsum")
def tsum(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="guide.canvas.raising")
def raising_task() -> None:
    raise KeyError("gone")


@task(name="guide.canvas.log_error")
def log_error(task_id: str) -> None:
    SEEN.append(task_id)


@task(name="guide.canvas.reset_buffers")
def reset_buffers() -> None:
    SEEN.append("reset")


@task(name="guide.canvas.log_error_of_a_request")
def log_error_of_a_request(request: Any, exc: Any, traceback: Any) -> None: ...


@task(name="guide.canvas.stamps", bind=True)
def stamps(self: Any) -> Any:
    return self.request.stamps


@task(name="guide.canvas.runs", bind=True)
def runs(self: Any, call: Any) -> Any:
    self.replace(maybe_signature(call))


@task(name="guide.canvas.returns")
def returns(what: str) -> Any:
    if what == "signature":
        return add.s(2, 2)
    return add.delay(2, 2) if what == "result" else group(add.s(2, 2), add.s(4, 4)).delay()


@task(name="guide.canvas.becomes_nothing", bind=True)
def becomes_nothing(self: Any) -> None:
    self.replace(chain())


TASKS = (
    *(add, mul, tsum, raising_task, log_error, reset_buffers, log_error_of_a_request),
    *(stamps, runs, returns, becomes_nothing),
)
TEN = "(add.s(i, i) for i in range(10))"

WORKS = {
    "by name": Block(
        "r = signature('guide.canvas.add', args=(2, 2), countdown=0).apply_async()",
        {"r.get()": 4},
    ),
    "signature": Block(
        "s = add.signature((2, 2), {'debug': True}, countdown=10)",
        {"s.args": (2, 2), "s.kwargs": {"debug": True}, "s.options": {"countdown": 10}},
    ),
    "subtask": Block("s = add.subtask((2, 2), countdown=10)", {"s.options": {"countdown": 10}}),
    "called": Block("r = add(2, 2), add.s(2, 2)()", {"r": (4, 4)}),
    "delay": Block("r = add.delay(2, 2).get()", {"r": 4}),
    "options": Block(
        "a = add.signature((2, 2), {'debug': True}, countdown=0).apply_async().get()\n"
        "b = add.s(2, 2).set(countdown=0).delay().get()\n"
        "c = add.signature((2, 2), countdown=1000).apply_async(countdown=0).get()",
        {"(a, b, c)": (4, 4, 4)},
    ),
    "partial": Block(
        "partial = add.s(2)\nr = partial.delay(4).get(), partial.apply_async((4,)).get()",
        {"r": (6, 6)},
    ),
    "keywords": Block(
        "s = add.s(2, 2)\n"
        "r = s.delay(debug=True).get(), s.apply_async(kwargs={'debug': True}).get()",
        {"r": (4, 4)},
    ),
    "clone": Block(
        "s = add.s(2).clone(args=(4,), kwargs={'debug': True})",
        {"(s.args, s.kwargs)": ((4, 2), {"debug": True})},
    ),
    "immutable": Block(
        "add.apply_async((2, 2), link=reset_buffers.signature(immutable=True))\n"
        "add.apply_async((2, 2), link=reset_buffers.si())",
        {"SEEN": ["reset", "reset"]},
    ),
    "immutable signature": Block(
        "s = add.signature((2, 2), immutable=True)", {"s.immutable": True}
    ),
    "~": Block("sig = add.s(2, 2)\nr = ~sig", {"r": 4}),
    "link": Block("r = add.apply_async((2, 2), link=add.s(8))", {"r.children[0].get()": 12}),
    "chain": Block("r = chain(add.s(2, 2), add.s(4), add.s(8))().get()", {"r": 16}),
    "|": Block("r = (add.s(2, 2) | add.s(4) | add.s(8))().get()", {"r": 16}),
    "independent": Block(
        "res = (add.si(2, 2) | add.si(4, 4) | add.si(8, 8))()\nres.get()",
        {"res.get(), res.parent.get(), res.parent.parent.get()": (16, 8, 4)},
    ),
    "group": Block(f"r = group{TEN}().get(timeout=5)", {"r": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]}),
    "chord": Block(f"r = chord({TEN}, tsum.s())().get()", {"r": 90}),
    "immutable body": Block(
        f"chord({TEN}, reset_buffers.si()).apply_async().get()", {"SEEN": ["reset"]}
    ),
    "partial chain": Block("c1 = (add.s(4) | mul.s(8))\nr = c1(16).get()", {"r": 160}),
    "chain of chains": Block(
        "c2 = (add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)))\nr = c2().get()", {"r": 352}
    ),
    "group | call": Block(f"c3 = (group{TEN} | tsum.s())\nr = c3().get()", {"r": 90}),
    "call | group": Block(
        "res = (add.s(4, 4) | group(add.si(i, i) for i in range(3)))()\nr = res.get()",
        {"r": [0, 2, 4], "res.parent.get()": 8},
    ),
    "call | group, keywords": Block(
        "r = (add.s() | group(mul.s(2), mul.s(3))).delay(x=1, y=2).get()", {"r": [6, 9]}
    ),
    "children": Block(
        "res = add.apply_async((2, 2), link=mul.s(16))\nres.get()",
        {"res.get(), len(res.children), res.children[0].get()": (4, 1, 64)},
    ),
    "on_error": Block(
        "r = raising_task.s().on_error(log_error.s()).delay()", {"SEEN == [r.id]": True}
    ),
    "on_error twice": Block(
        "s = raising_task.s().on_error(log_error.s())\nr = s.on_error(reset_buffers.si()).delay()",
        {"sorted(SEEN, key=len) == ['reset', r.id]": True, "len(s.options['link_error'])": 2},
    ),
    "s.link": Block(
        "s = add.s(2, 2)\ns.link(mul.s(4))\ns.link(mul.s(8))\nr = s.delay()",
        {"sorted(one.get() for one in r.children)": [16, 32]},
    ),
    "s.link_error": Block(
        "s = raising_task.s()\ns.link_error(log_error.s())\nr = s.delay()",
        {"SEEN == [r.id]": True},
    ),
    "group.link_error": Block(
        "g = group(add.s(2, 2), raising_task.s())\ng.link_error(log_error.s())\nr = g.delay()",
        {"SEEN == [r.children[1].id]": True},
    ),
    "collect": Block(
        "res = chain(add.s(4, 4), mul.s(8), mul.s(10))()\nres.get()",
        {"[value for _, value in res.parent.parent.collect()]": [8, 64, 640]},
    ),
    "link_error": Block(
        "r = raising_task.apply_async((), link_error=log_error.s())", {"SEEN == [r.id]": True}
    ),
    "parents": Block(
        "res = chain(add.s(4, 4), mul.s(8), mul.s(10))()\nres.get()",
        {"res.get(), res.parent.get(), res.parent.parent.get()": (640, 64, 8)},
    ),
    "apply_async": Block(
        "r = (add.s(2, 2) | mul.s(8) | mul.s(10)).apply_async().get()", {"r": 320}
    ),
    "group of a list": Block(
        "job = group([add.s(2, 2), add.s(4, 4), add.s(8, 8)])\n"
        "result = job.apply_async()\nr = result.get()",
        {
            "r": [4, 8, 16],
            "result.ready(), result.successful(), result.failed()": (True, True, False),
            "result.completed_count(), result.waiting()": (3, False),
        },
    ),
    "options of join": Block(
        "result = group([add.s(2, 2), add.s(4, 4)]).apply_async()\n"
        "r = result.join(timeout=5, interval=0.1, no_ack=True, callback=None)\n"
        "s = sorted(result.iterate(interval=0.1, no_ack=True))\n"
        "result.revoke(terminate=True, signal='SIGKILL')",
        {"(r, s)": ([4, 8], [4, 8])},
    ),
    "group in a chain": Block(
        "r = chain(add.s(2, 2), group(mul.s(1), mul.s(2)), tsum.s())().get()", {"r": 12}
    ),
    "chord of a list": Block(
        "callback = tsum.s()\nheader = [add.s(i, i) for i in range(10)]\n"
        "r = chord(header)(callback).get()",
        {"r": 90},
    ),
    "failed chord": Block(
        "c = chord([add.s(4, 4), raising_task.s(), add.s(8, 8)], tsum.s())\n"
        "result = c()\ne = result.get(propagate=False)",
        {"type(e).__name__": "ChordError"},
    ),
    "body.on_error": Block(
        "c = (group([raising_task.s()]) | tsum.s().on_error(log_error.s())).delay()",
        {"SEEN == [c.id]": True},
    ),
    "map": Block("r = ~tsum.map([list(range(10)), list(range(100))])", {"r": [45, 4950]}),
    "starmap": Block("r = ~add.starmap(zip(range(3), range(3)))", {"r": [0, 2, 4]}),
    "starmap, later": Block(
        "r = add.starmap(zip(range(3), range(3))).apply_async(countdown=0).get()",
        {"r": [0, 2, 4]},
    ),
    "chunks": Block("r = add.chunks(zip(range(4), range(4)), 2)().get()", {"r": [[0, 2], [4, 6]]}),
    "chunks, sent": Block(
        "r = add.chunks(zip(range(4), range(4)), 2).apply_async().get()",
        {"r": [[0, 2], [4, 6]]},
    ),
    "chunks.group": Block(
        "group = add.chunks(zip(range(4), range(4)), 2).group()\nr = group().get()",
        {"r": [[0, 2], [4, 6]]},
    ),
    "callbacks": Block(
        "s = add.s(2, 2)\ns.add_callback(mul.s(4))\nr = s.delay()\nr.get()",
        {"r.children[0].get()": 16},
    ),
    "errback of a request": Block(
        "r = add.s(2, 2).on_error(log_error_of_a_request.s()).delay()", {"r.get()": 4}
    ),
    "joined": Block(
        "told = []\nresult = group([add.s(2, 2), add.s(4, 4)]).apply_async()\n"
        "r = result.join(callback=lambda *given: told.append(given))\n"
        "s = result.join_native(on_message=told.append)\n"
        "t = sorted(meta['result'] for _, meta in result.iter_native())",
        {
            "(r, s, t, len(told))": ([4, 8], [4, 8], [4, 8], 4),
            "told[1] == (result[1].id, 8)": True,
            "sorted(one['result'] for one in told[2:])": [4, 8],
        },
    ),
    "saved": Block(
        "result = group([add.s(2, 2), add.s(4, 4)]).apply_async()\n"
        "result.save()\n"
        "saved = GroupResult.restore(result.id)\n"
        "r = saved.get(), len(saved), saved[0] == result[0]\n"
        "result.delete()\n"
        "s = GroupResult.restore('nowhere')",
        {"(r, s)": (([4, 8], 2, True), None)},
    ),
    "freeze": Block(
        "s = add.si(2, 2)\nfrozen = s.freeze()\n"
        "g = group(s, add.si(3, 3))\n"
        "g.stamp(stamp='your_custom_stamp')\n"
        "res = g.apply_async()",
        {"(res.get(), frozen.get(), res[0] == frozen)": ([4, 6], 4, True)},
    ),
    "frozen compositions": Block(
        "c = add.s(2, 2) | group(mul.s(1), mul.s(2)) | tsum.s()\n"
        "frozen = c.freeze()\nr = c.delay()",
        {"(r == frozen, frozen.get(), frozen.parent.get())": (True, 12, [4, 8])},
    ),
    "stamps": Block(
        "class MonitoringIdStampingVisitor(StampingVisitor):\n"
        "    def on_signature(self, sig, **headers) -> dict:\n"
        "        return {'monitoring_id': 'abc', 'stamped_headers': ['monitoring_id']}\n"
        "c = chain(stamps.si(), group(stamps.si(), stamps.si()))\n"
        "c.stamp(visitor=MonitoringIdStampingVisitor(), header='value')\n"
        "r = c().get()",
        {"r": [{"header": "value", "monitoring_id": "abc"}] * 2},
    ),
    "stamps of callbacks": Block(
        "class CustomStampingVisitor(StampingVisitor):\n"
        "    def on_signature(self, sig, **headers) -> dict:\n"
        "        return {'header': 'value'}\n"
        "    def on_callback(self, callback, **header) -> dict:\n"
        "        return {'on_callback': True}\n"
        "    def on_errback(self, errback, **header) -> dict:\n"
        "        return {'on_errback': True}\n"
        "my_sig = add.s(2, 2)\nmy_sig.link(stamps.si())\n"
        "my_sig.stamp(visitor=CustomStampingVisitor())\n"
        "r = my_sig.apply_async()\nr.get()",
        {"r.children[0].get()": {"header": "value", "on_callback": True}},
    ),
    "graph": Block(
        "import io\n"
        "res = chain(add.s(4, 4), mul.s(8), mul.s(10))()\nres.get()\n"
        "graph = res.parent.parent.graph\nfh = io.StringIO()\ngraph.to_dot(fh)",
        {
            "len(graph)": 3,
            "str(graph).splitlines()[0] == f'{res.parent.parent.id}(2)'": True,
            'f\'"{res.parent.id}" -> "{res.id}"\' in fh.getvalue()': True,
        },
    ),
    "iterdeps": Block(
        "res = chain(add.s(4, 4), mul.s(8))()\nres.get()\nr = list(res.parent.iterdeps())",
        {"r == [(None, res.parent), (res.parent, res)]": True},
    ),
    "as_tuple": Block(
        "import json\nres = (add.s(4, 4) | group(mul.s(1), mul.s(2)))()\n"
        "back = result_from_tuple(json.loads(json.dumps(res.as_tuple())))",
        {
            "(back.get(), back.parent.get())": ([8, 16], 8),
            "back.as_list() == res.as_list() == [one.id for one in res]": True,
            "back[0].as_list() == [back[0].id, res.parent.id]": True,
        },
    ),
    "maybe_signature": Block(
        "from jobs import maybe_signature\nr = maybe_signature(dict(add.s(2, 2))).delay()",
        {"r.get()": 4},
    ),
    "imports": Block(
        "from jobs import chunks, subtask, xmap, xstarmap\n"
        "r = [~xmap(tsum.s(), [[1], [2]]), ~xstarmap(add.s(), [(1, 2)]),\n"
        "     ~chunks(add.s(), [(1, 2), (3, 4)], 1), ~subtask('guide.canvas.add', (1, 2))]",
        {"r": [[1, 2], [3], [[3], [7]], 3]},
    ),
    "kinds": Block(
        "r = [isinstance(add.s(2) | add.s(3), chain),\n"
        "     isinstance(group(add.s(2)) | tsum.s(), chord),\n"
        "     isinstance(group(), group), isinstance(add.s(2), dict)]",
        {"r": [True] * 4},
    ),
    "JSON and back": Block(
        "import json\n"
        "s = chord([add.s(2, 2), add.s(4, 4)], tsum.s())\n"
        "r = signature(json.loads(json.dumps(s))).delay().get()",
        {"r": 12},
    ),
    "items": Block(
        "s = add.s(2, 2)\ns['kwargs']['debug'] = True\ns.args = (3, 4)\n"
        "s.options['countdown'] = 0\nr = s.delay().get()",
        {"(r, s['task'], s['args'])": (7, "guide.canvas.add", (3, 4))},
    ),
    "replace": Block(
        "s = add.s(2, 2).replace(args=(3, 4), options={'countdown': 0})\nr = s.delay().get()",
        {"r": 7},
    ),
    "set_immutable": Block(
        "s = add.s(2, 2)\ns.set_immutable(True)\nr = (mul.s(5, 5) | s)().get()", {"r": 4}
    ),
    "apply": Block("r = add.s(2).apply((3,)).get()", {"r": 5}),
    "as an argument": Block(
        "r = runs.delay(add.s(2, 2) | mul.s(3)).get()\n"
        "s = runs.delay(chord([add.s(1, 1)], tsum.s())).get()",
        {"(r, s)": (12, 2)},
    ),
    "as a result": Block(
        "a = signature(returns.delay('signature').get()).delay().get()\n"
        "b = result_from_tuple(returns.delay('result').get()).get()\n"
        "c = result_from_tuple(returns.delay('group').get()).get()",
        {"(a, b, c)": (4, 4, [4, 8])},
    ),
    "results": Block(
        "r = add.delay(2, 2)\nr.get()\ns = group(add.s(2, 2), raising_task.si()).delay()\n"
        "t = s.get(propagate=False)",
        {
            "r.maybe_throw(), r.ready(), r.successful(), r.failed()": (4, True, True, False),
            "r.status, r.state, r.info": ("SUCCESS", "SUCCESS", 4),
            "(t[0], type(t[1]), s.failed(), s.completed_count())": (4, KeyError, True, 1),
        },
    ),
    "how they look": Block(
        "r = [repr(add.s(2, 2) | mul.s(8)), repr(group(add.s(2, 2), add.s(4, 4)))]",
        {
            "r": [
                "guide.canvas.add(2, 2) | guide.canvas.mul(8)",
                "group([guide.canvas.add(2, 2), guide.canvas.add(4, 4)])",
            ]
        },
    ),
    "collect, meanwhile": Block(
        "res = add.apply_async((2, 2), link=mul.s(16))\nres.get()\n"
        "r = [value for result, value in res.collect(intermediate=True)]",
        {"r[0]": 4},
    ),
    "errback of a signature": Block(
        "r = raising_task.signature((), link_error=log_error.s()).delay()", {"SEEN == [r.id]": True}
    ),
    "chord of a generator": Block(
        "r = chord(add.s(i, i) for i in range(10))(tsum.s()).get()", {"r": 90}
    ),
    "joined by itself": Block(
        "r = maybe_signature(tsum.s()).delay(group([add.s(2, 2)])().join()).get()", {"r": 4}
    ),
    "skewed and sent": Block(
        "group = add.chunks(zip(range(4), range(4)), 2).group()\n"
        "r = group.skew(start=0, stop=0.1, step=0.1)().get()",
        {"r": [[0, 2], [4, 6]]},
    ),
    "skew": Block(
        "group = add.chunks(zip(range(4), range(4)), 1).group()\ng = group.skew(start=1, stop=3)",
        {"[call.options['countdown'] for call in g]": [1, 2, 3, 3]},
    ),
}

REFUSED = {
    "group.link": Refused("group(add.s(2, 2)).link(add.s())", "write group | call", guide=True),
    "chain().delay()": Refused("chain().delay()", "a chain needs a call at least"),
    "replaced by nothing": Refused(
        "becomes_nothing.delay().get()", "Cannot replace with an empty chain"
    ),
    "join(a mistake)": Refused("group(add.s(2, 2)).delay().join(intervall=1)", "no option"),
    "revoke(signal)": Refused("group(add.s(2, 2)).delay().revoke(signal='SIGUSR1')", "is killed"),
    "collect too early": Refused("list(add.s(2, 2).set(countdown=99).delay().collect())", "wait"),
    "result_from_tuple": Refused("result_from_tuple('x')", "not the tuple of a result"),
    "a stamp called as an option": Refused("add.s(2, 2).stamp(queue='x')", "another name"),
    "apply of a composition": Refused("group(add.s(2, 2)).apply()", "run_jobs()"),
    "a mistake of its own": Refused("add.s(2, 2).dely()", "no attribute 'dely'"),
}


def names() -> dict[str, Any]:
    SEEN.clear()
    made = {one.__name__: one for one in TASKS}
    made |= {"group": group, "chain": chain, "chord": chord, "signature": signature}
    made |= {"GroupResult": GroupResult, "StampingVisitor": StampingVisitor}
    made |= {"maybe_signature": maybe_signature}
    return {**made, "result_from_tuple": result_from_tuple}


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
