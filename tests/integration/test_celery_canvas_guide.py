"""Forms of Celery's guide to its canvas: each works, or raises a sentence that says what to write
instead (https://docs.celeryq.dev/en/stable/userguide/canvas.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs import AsyncResult, GroupResult, Task, chain, chord, group, signature, task
from jobs.exceptions import ChordError, WorkflowError
from tests.models import Run
from tests.tasks import echo, fail
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task
def add(x: int, y: int, debug: bool = False) -> int:
    return x + y


@task
def mul(x: int, y: int) -> int:
    return x * y


@task
def xsum(numbers: list[int]) -> int:
    return sum(numbers)


@task
def create_user(username: str, email: str = "") -> str:
    return username


@task
def import_contacts(user: str) -> str:
    return f"contacts of {user}"


@task
def reset_buffers() -> None:
    Run.objects.create(label="reset")


@task
def log_error(task_id: str) -> None:
    error = AsyncResult[Any](task_id)
    Run.objects.create(label=f"{error.state}: {error.result!r}")


@task
def log_result(value: Any) -> None:
    Run.objects.create(label=f"result {value}")


@task(bind=True)
def is_replaced_by(self: Task[..., Any], form: dict[str, Any]) -> None:
    self.replace(signature(form))


@pytest.fixture(autouse=True)
def _a_worker_whenever_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (AsyncResult, GroupResult):
        method: Any = kind.get

        def wait(*args: Any, method: Any = method, **kwargs: Any) -> Any:
            work()
            return method(*args, **kwargs)

        monkeypatch.setattr(kind, "get", wait)


partial = (add.s(4) | mul.s(8),)[0]

VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    "by name": (lambda: signature(add.name, args=(2, 2), countdown=0).delay(), 4),
    "signature": (lambda: add.signature((2, 2), countdown=0).apply_async(), 4),
    "keywords": (lambda: add.s(2, 2, debug=True).delay(), 4),
    "set": (lambda: add.s(2, 2).set(countdown=0).delay(), 4),
    "partial": (lambda: add.s(2).delay(4), 6),
    "partial with apply_async": (lambda: add.s(2).apply_async((4,)), 6),
    "more keywords": (lambda: add.s(2, 2).delay(debug=True), 4),
    "keywords of apply_async": (lambda: add.s(2, 2).apply_async(kwargs={"debug": True}), 4),
    "args None": (lambda: add.s(2, 2).apply_async(None, None), 4),
    "other options": (lambda: add.signature((2, 2), countdown=99).apply_async(countdown=0), 4),
    "clone": (lambda: add.s(2).clone(args=(4,), kwargs={"debug": True}).delay(), 6),
    "immutable link": (
        lambda: add.apply_async((2, 2), link=reset_buffers.signature(immutable=True)),
        4,
    ),
    "si link": (lambda: add.apply_async((2, 2), link=reset_buffers.si()), 4),
    "immutable with more": (lambda: add.si(2, 2).delay(9), 4),
    "immutable with keywords": (lambda: add.si(2, 2).apply_async((9,), {"y": 9}), 4),
    "chain": (lambda: chain(add.s(2, 2), add.s(4), add.s(8))(), 16),
    "pipes": (lambda: (add.s(2, 2) | add.s(4) | add.s(8))(), 16),
    "immutable chain": (lambda: (add.si(2, 2) | add.si(4, 4) | add.si(8, 8))(), 16),
    "group": (lambda: group(add.s(i, i) for i in range(4))(), [0, 2, 4, 6]),
    "chord": (lambda: chord((add.s(i, i) for i in range(4)), xsum.s())(), 12),
    "chord(header)(body)": (lambda: chord(add.s(i, i) for i in range(4))(xsum.s()), 12),
    "immutable body": (lambda: chord([add.s(1, 1)], add.si(1, 2)).apply_async(), 3),
    "partial chain": (lambda: partial(16), 160),
    "chains combined": (lambda: (add.s(4, 16) | mul.s(2) | partial)(), 352),
    "upgraded to a chord": (lambda: (group(add.s(i, i) for i in range(4)) | xsum.s())(), 12),
    "group after a call": (
        lambda: (create_user.s() | group(import_contacts.s(), echo.s())).delay(
            username="artv", email="a@v.com"
        ),
        ["contacts of artv", "artv"],
    ),
    "immutable group": (
        lambda: (add.s(4, 4) | group(add.si(i, i) for i in range(3)))(),
        [0, 2, 4],
    ),
    "group of groups": (lambda: group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3))(), [2, 4, 6]),
    "chord behind a chord": (
        lambda: (group(add.s(1, 1), add.s(2, 2)) | group(xsum.s(), xsum.s()) | xsum.s())(),
        12,
    ),
    "chords in chords": (
        lambda: chord([chord([add.s(1, 1), add.s(2, 2)], xsum.s()), add.s(3, 3)], xsum.s())(),
        12,
    ),
    "chain |= call": (lambda: _or_is().delay(), 7),
    "map": (lambda: xsum.map([list(range(10)), list(range(100))]).delay(), [45, 4950]),
    "starmap": (lambda: add.starmap(zip(range(3), range(3), strict=True)).delay(), [0, 2, 4]),
    "starmap later": (lambda: add.starmap([(1, 1)]).apply_async(countdown=0), [2]),
    "chunks": (
        lambda: add.chunks(zip(range(4), range(4), strict=True), 2)(),
        [[0, 2], [4, 6]],
    ),
    "chunks as a group": (
        lambda: add.chunks(((i, i) for i in range(4)), 2).group().skew(start=0, stop=0)(),
        [[0, 2], [4, 6]],
    ),
    "maps in a group": (lambda: (group(xsum.map([[1], [2]]), xsum.map([[3]])))(), [[1, 2], [3]]),
    "a map in a chain": (lambda: (xsum.map([[1], [2]]) | xsum.s()).delay(), 3),
    "frozen": (lambda: (add.s(2, 2) | add.s(2)).set(task_id="the-end").delay(), 6),
    "the dict of one": (lambda: signature(dict(add.s(2, 2))).delay(), 4),
    "the dict of a chord": (lambda: signature(dict(chord([add.s(1, 1)], xsum.s()))).delay(), 2),
    "as an argument": (lambda: is_replaced_by.delay(add.s(2, 2) | add.s(1)), 5),
    "on_error": (lambda: add.s(2, 2).on_error(log_error.s()).delay(), 4),
}


def _or_is() -> Any:
    call: Any = add.s(1, 2)
    call |= add.s(4)
    return call


@pytest.mark.parametrize("form", VALUES)
def test_it_works(form: str) -> None:
    made, value = VALUES[form]
    assert made().get(timeout=0) == value


def test_calling_it_here_and_waiting_for_it() -> None:
    assert add.s(2, 2)() == 4
    assert ~add.s(2, 2) == 4
    assert ~xsum.map([[1], [2]]) == [1, 2]
    assert ~(add.s(2, 2) | mul.s(2)) == 8
    assert ~group(add.s(1, 1), add.s(2, 2)) == [2, 4]


def test_fields() -> None:
    call = add.signature((2, 2), {"debug": True}, countdown=10)
    assert (call.args, call.kwargs, call.options) == ((2, 2), {"debug": True}, {"countdown": 10})
    assert repr(add.s(2, 2, debug=True)) == f"{add.name}(2, 2, debug=True)"


def test_parents_and_children() -> None:
    result = chain(add.s(4, 4), mul.s(8), mul.s(10))()
    assert result.get(timeout=0) == 640
    assert result.parent.get(timeout=0) == 64
    first = AsyncResult[Any](result.parent.parent.id)
    assert first.get(timeout=0) == 8
    linked = add.apply_async((2, 2), link=mul.s(16))
    assert linked.get(timeout=0) == 4
    assert [one.get(timeout=0) for one in linked.children] == [64]
    assert [value for _, value in linked.collect()] == [4, 64]


def labels() -> list[str]:
    return sorted(Run.objects.values_list("label", flat=True))


def test_links_of_all_kinds() -> None:
    call = add.s(2, 2)
    call.link(mul.s(4))
    call.link([log_result.s(), reset_buffers.si()])
    call.delay()
    several = add.s(1, 1) | add.s(1)
    several.link(log_result.s())  # of its last
    several.apply_async()
    joined = chord([add.s(1, 1), add.s(2, 2)], xsum.s())
    joined.link(log_result.s())  # of its body
    joined.apply_async()
    work()
    assert labels() == ["reset", "result 3", "result 4", "result 6"]


def test_errbacks_of_all_kinds() -> None:
    add.apply_async((1, "x"), link_error=[log_error.s(), reset_buffers.si()])
    several = fail.si("in a chain") | add.s(1)
    several.link_error(log_error.s())
    several.delay()
    beside = group(fail.s("in a group"), fail.s("in a group"))
    beside.link_error((log_error.s(), reset_buffers.si()))
    beside.delay()
    joined = chord([fail.s("in a header"), add.s(1, 1)], xsum.s().on_error(log_error.s()))
    result = joined()
    work()
    found = labels()
    assert found.count("reset") == 3
    assert sum("in a chain" in one for one in found) == 1
    assert sum("in a group" in one for one in found) == 2
    assert sum("ChordError" in one for one in found) == 1
    with pytest.raises(ChordError, match="in a header"):
        result.get(timeout=0)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a group's link": (
        lambda: group(add.s(1, 1), add.s(2, 2)).link(xsum.s()),
        WorkflowError,
        r"write group \| call",
    ),
    "link of a sent group": (
        lambda: group(add.s(1, 1), add.s(2, 2)).apply_async(link=xsum.s()),
        WorkflowError,
        r"write group \| call",
    ),
    "a chord without a body": (lambda: chord([add.s(1, 1)])(), WorkflowError, r"chord\(header, b"),
    "a chain of nothing": (lambda: chain().delay(), WorkflowError, "a chain needs a call"),
    "what is no call": (lambda: chain(add.s(1, 1), add).delay(), TypeError, r"write task\.s\(…\)"),
    "too many arguments": (
        lambda: (add.si(2, 2) | add.si(4, 4) | add.s(8, 8, True)).delay(),
        TypeError,
        r"it gets none with si\(…\)",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_it_says_what_to_write_instead(form: str) -> None:
    make, kind, told = REFUSED[form]
    with pytest.raises(kind, match=told):
        make()
