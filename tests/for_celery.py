"""Tasks for the tests in which Celery's clients send the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs import Task, chain, group, task
from jobs.exceptions import Ignore, Reject
from tests.models import Run


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@task
def total(numbers: list[Any]) -> Any:
    return sum(sum(one) if isinstance(one, list) else one for one in numbers)


@task
def same(value: Any) -> Any:
    return value


@task
def fail(*_args: Any, text: str = "no") -> None:
    raise ValueError(text)


@task(ignore_result=True)
def forgetful() -> int:
    return 1


@task(track_started=True)
def started_until(label: str) -> str:
    """Runs until there is a row of this label."""
    import time

    while not Run.objects.filter(label=label).exists():
        time.sleep(0.01)
    return label


@task(bind=True)
def tell_until(self: Task[..., Any], label: str) -> str:
    """Has a state of its own until there is a row of this label."""
    self.update_state(state="PROGRESS", meta={"done": 1, "é": [None]})
    started: str = started_until(label)
    return started


@task
def note(label: str) -> str:
    Run.objects.create(label=label)
    return label


@task
def noted() -> list[str]:
    return list(Run.objects.order_by("id").values_list("label", flat=True))


@task(bind=True)
def retry_until(self: Task[..., Any], label: str) -> int:
    """Is tried again until there is a row of this label."""
    if not Run.objects.filter(label=label).exists():
        raise self.retry(exc=KeyError(label), countdown=0.2, max_retries=500)
    return self.request.retries


@task(bind=True, max_retries=0)
def retry_in_vain(self: Task[..., Any]) -> None:
    raise self.retry()


@task(bind=True)
def retry_by(self: Task[..., Any], x: int, y: int = 0, *, how: dict[str, Any]) -> list[int]:
    """Is tried once more, with these arguments of `retry`."""
    if not self.request.retries:
        raise self.retry(countdown=0, **how)
    return [x, y]


@task
def reject() -> None:
    raise Reject("broken")


@task
def ignore() -> None:
    raise Ignore


@task(bind=True)
def replace_by(self: Task[..., Any], call: dict[str, Any]) -> None:
    self.replace(add.s(*call["args"]))


@task(bind=True)
def replace_times(self: Task[..., Any], count: int, before: list[int]) -> list[int]:
    """Replaces itself so many times; how often it had been replaced at each run."""
    found = [*before, self.request.replaced_task_nesting]
    if count == 0:
        return found
    self.replace(replace_times.s(count - 1, found) | same.s())
    return []  # `replace` has raised


@task(bind=True)
def replace_by_nothing(self: Task[..., Any]) -> None:
    self.replace(chain())


@task
def send_more() -> str:
    """Sends a call and a group."""
    add.delay(1, 1)
    group(add.s(n, n) for n in range(2)).delay()
    return "sent"


@task(bind=True)
def add_another(self: Task[..., Any], x: int) -> int:
    """Adds a call to its own chord."""
    self.add_to_chord(add.s(x, 100))
    return x


@task
def note_error(request: Any, error: BaseException, traceback: Any) -> str:
    """An errback of the new style."""
    text = f"{request.id} {request.kwargs} {error!r} {'in fail' in str(traceback)}"
    Run.objects.create(label=text)
    return text


@task
def write(file: str, label: str) -> str:
    """Write a line to a file, which tells how often each call was run, and where."""
    with Path(file).open("a", encoding="utf-8") as runs:
        runs.write(f"{label} here\n")
    return label


@task(bind=True)
def write_at_last(self: Task[..., Any], file: str, label: str) -> str:
    """`write`, at the second attempt."""
    if not self.request.retries:
        raise self.retry(countdown=0.5)
    return write(file, label)


@task(atomic=True)
def note_whole(label: str) -> str:
    Run.objects.create(label=label)
    return label
