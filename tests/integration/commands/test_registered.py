"""`jobs_inspect registered` against workers that the test plays; tests/e2e has real ones."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from jobs import broker
from jobs.control import inspect
from jobs.control.workers import Act, Answer, Command
from tests.integration.commands.helpers import fail, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker_url")]

Play = Callable[..., None]


@pytest.fixture
def play() -> Iterator[Play]:
    """Plays workers that report on the queue default, and answer with these names; None: they
    don't answer. "": they can't say."""
    done = threading.Event()
    threads: list[threading.Thread] = []

    def play(**known: Sequence[str] | str | None) -> None:
        for name in known:
            said = {"consumers": [f"{name}/1"], "queues": ["default"]}
            broker.get().renew("default", [f"{name}/1"], 60)
            broker.get().report("default", name, json.dumps(said).encode())

        def work() -> None:
            while not done.is_set():
                for name, tasks in known.items():
                    if tasks is None:
                        continue
                    for text in broker.get().take_commands("default", name):
                        command = Command.loads(text)
                        assert command
                        assert command.act is Act.TASKS
                        answer = Answer(bool(tasks), "\n".join(tasks))
                        broker.get().answer("default", command.id, answer.dumps(), 60)
                done.wait(0.01)
            broker.get().close()

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield play
    done.set()
    for thread in threads:
        thread.join()


def test_all_know_the_same(play: Play) -> None:
    here = inspect.registered()
    play(a=here, b=here)
    err = io.StringIO()
    assert run("jobs_inspect", "registered", err=err).splitlines() == here
    assert err.getvalue() == ""


def test_they_differ(play: Play) -> None:
    here = inspect.registered()
    first, second, *rest = here
    play(a=[first, "shop.new", *rest], b=[first, *rest], **{f"w{n}": here for n in range(3)})
    err = io.StringIO()
    lines = run("jobs_inspect", "registered", err=err).splitlines()
    assert f"{second}: not known to a, b" in lines
    assert "shop.new: not known to b, w0, w1, w2" in lines
    assert first in lines
    assert err.getvalue() == (
        "2 tasks are not known everywhere: some process runs other code than the rest.\n"
    )
    told = json.loads(run("jobs_inspect", "registered", "--json"))
    assert (told["workers"], told["silent"]) == (["a", "b", "w0", "w1", "w2"], [])
    by_name = {task["name"]: task for task in told["tasks"]}
    assert by_name["shop.new"] == {"name": "shop.new", "workers": ["a"], "here": False}
    assert by_name[second] == {"name": second, "workers": ["w0", "w1", "w2"], "here": True}


def test_all_run_other_code_than_here(play: Play) -> None:
    first, *rest = inspect.registered()
    play(**{f"w{n}": ["shop.new", *rest] for n in range(7)})
    lines = run("jobs_inspect", "registered").splitlines()
    assert f"{first}: no worker knows it" in lines
    assert "shop.new: not known here, where this command runs" in lines


def test_many_lack_one(play: Play) -> None:
    first, *rest = here = inspect.registered()
    play(a=here, **{f"w{n}": rest for n in range(7)})
    lines = run("jobs_inspect", "registered").splitlines()
    assert f"{first}: not known to w0, w1, w2, w3, w4 and 2 more" in lines


def test_some_do_not_answer(play: Play) -> None:
    here = inspect.registered()
    play(a=here, b=None, c="")
    err = io.StringIO()
    lines = run("jobs_inspect", "registered", "--timeout", "0.5", err=err).splitlines()
    assert lines == here
    assert err.getvalue() == "These workers have not answered: b, c.\n"
    told = json.loads(run("jobs_inspect", "registered", "--timeout", "0.5", "--json"))
    assert (told["workers"], told["silent"]) == (["a"], ["b", "c"])


def test_there_is_no_worker_on_the_queue(play: Play) -> None:
    play(a=["shop.new"])
    err = io.StringIO()
    lines = run("jobs_inspect", "registered", "low", err=err).splitlines()
    assert lines == inspect.registered()
    assert err.getvalue() == "No worker has told its tasks; these are the ones known here.\n"
    assert "not declared" in fail("jobs_inspect", "registered", "nowhere")[2]
