"""What type checkers know of the public API. Nothing here runs: `make check` has mypy and pyright
read it. A line with an ``ignore`` is one that a user must be told about; both checkers complain if
there is no error on it.
"""

from __future__ import annotations

from typing import Any, assert_type

from jobs import (
    AsyncResult,
    EagerResult,
    GroupResult,
    Signature,
    Task,
    chain,
    chord,
    group,
    register_task,
    send_task,
    shared_task,
    task,
)


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(bind=True, max_retries=2)
def bound(self: Task[..., Any], name: str, *, loud: bool = False) -> str:
    if self.request.retries:
        raise self.retry(countdown=1)
    return name.upper() if loud else name


@shared_task(bind=True)
def unannotated_self(self, pk: int) -> None:  # type: ignore[no-untyped-def]  # as many write it
    self.progress(pk)


@task(queue="mail")
async def fetch(url: str) -> bytes:
    return url.encode()


@task(bind=True)
async def bound_fetch(self: Task[..., Any], url: str) -> bytes:
    return url.encode()


@task(batch=10)
def together(requests: list[Any]) -> None: ...


class Reported(Task[..., Any]):
    max_retries = None
    queue = "low"
    autoretry_for = (ConnectionError, OSError)
    throws = (KeyError,)
    channel = "mail"

    def report(self, text: str) -> None: ...

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None: ...

    async def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None: ...

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None: ...


class Charge(Reported):
    def run(self, order: int, *, twice: bool = False) -> str:
        return f"{self.request.id} {order} {twice}"


charge = register_task(Charge())


@register_task
class Decorated(Reported):
    def run(self) -> None: ...


@task(base=Reported, rate_limit="10/m", throws=(ValueError,), on_failure=print)
def based(a: int) -> int:
    return a


@task(base=Reported, bind=True)
def based_and_bound(self: Reported, a: int) -> int:
    self.report(self.channel)
    return a


@task(base=Reported, batch=10, channel="chat")
def based_batch(requests: list[Any]) -> None: ...


def right() -> None:
    assert_type(charge, Charge)
    charge.delay(1, twice=True)
    assert_type(based.delay(1), AsyncResult[int])
    assert_type(based_and_bound(1), int)
    assert_type(based_and_bound.delay(1), AsyncResult[int])
    assert_type(based.channel, Any)
    based.report("sent")
    based_batch.delay(1, 2)
    assert_type(add.AsyncResult("id"), AsyncResult[Any])
    assert_type(add.signature((1, 2), countdown=3), Signature)
    assert_type(add(1, b=2), int)
    assert_type(add.delay(1), AsyncResult[int])
    assert_type(add.delay(1).get(timeout=3), int)
    assert_type(add.apply_async((1, 2), countdown=3), AsyncResult[int])
    assert_type(add.apply((1, 2)), EagerResult[int])
    assert_type(add.apply((1, 2)).get(), int)
    assert_type(add.enqueue_many([(1,), {"a": 2}]), list[AsyncResult[int]])
    assert_type(bound.delay("x", loud=True), AsyncResult[str])
    assert_type(bound("x"), str)
    assert_type(unannotated_self.delay(1), AsyncResult[None])
    assert_type(fetch.delay("x"), AsyncResult[bytes])
    assert_type(fetch.apply_async(("x",)).get(), bytes)
    assert_type(bound_fetch.delay("x"), AsyncResult[bytes])
    together.delay(1, 2, anything=3)
    assert_type(AsyncResult("id"), AsyncResult[Any])
    result = AsyncResult("id")  # needs no annotation
    assert_type(result.get(), Any)


async def awaited() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(await fetch.adelay("x"), AsyncResult[bytes])
    assert_type(await (await fetch.aapply_async(("x",))).aget(), bytes)
    assert_type(await add.adelay(1), AsyncResult[int])


def composed() -> None:
    assert_type(add.s(1), Signature[int])
    assert_type(add.si(1).set(queue="low"), Signature[int])
    assert_type(add.s(1).delay(2), AsyncResult[int])
    assert_type(fetch.s("x").apply_async().get(), bytes)
    assert_type(~add.s(1, 2), int)
    assert_type(group(add.s(n) for n in range(3))(), GroupResult)
    assert_type(group(add.s(1), add.s(2)).apply_async().get(), list[Any])
    chord([add.s(1), add.s(2)], add.s())()
    chain(add.s(1, 1), add.s(2)).delay()
    assert_type(add.s(1).freeze(), AsyncResult[int])
    assert_type(add.s(1).clone((2,)), Signature[int])
    assert_type(add.s(1).on_error(add.s()).stamp(customer="x"), Signature[int])
    assert_type(group(add.s(1)).skew(), group)
    assert_type(chord([add.s(1)], add.s()).body, Signature | None)
    call = add.s(1)
    call.args = [2]
    call.kwargs["b"] = "x"
    call.options = {"queue": "low"}
    assert_type(call["task"], Any)
    assert_type(call.task, str)
    assert_type(send_task("elsewhere", (1,), queue="low"), AsyncResult[Any])
    add.delay(1).get(callback=lambda task_id, value: (task_id.upper(), value + 1))
    assert_type(GroupResult.restore("id"), GroupResult | None)
    (add.s(1, 1) | add.s(2)).apply_async(countdown=1)


def wrong() -> None:
    add.delay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add.delay(1, c=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.delay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bound.delay(loud=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bound.delay(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add.apply_async((1,), count=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.apply_async((1,), queue=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add.nothing()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    fetch.delay(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    taken: list[str] = []
    taken.append(add.delay(1).get())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@task(que="mail")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue]
def misspelt() -> None: ...
