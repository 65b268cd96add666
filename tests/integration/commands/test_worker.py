"""`jobs_worker` against a worker that the test plays; tests/e2e/test_workers.py has real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.core.management.base import CommandError

from jobs import broker
from jobs.control.workers import Act, Answer, Command
from tests.integration.commands.helpers import run
from tests.services import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker_url")]


@pytest.fixture
def answers() -> Iterator[list[Answer]]:
    """What worker "w" will answer, one after the other."""
    given: list[Answer] = []
    done = threading.Event()
    broker.get().report("default", "w", b"{}")

    def work() -> None:
        while not done.is_set():
            for text in broker.get().take_commands("default", "w"):
                command = Command.loads(text)
                assert command
                assert command.by == "ada"
                answer = given.pop(0)
                broker.get().answer("default", command.id, answer.dumps(), 60)
            done.wait(0.01)
        broker.get().close()

    thread = threading.Thread(target=work)
    thread.start()
    yield given
    done.set()
    thread.join()


ABOUT_QUEUES = (Act.ADD_QUEUE, Act.CANCEL_QUEUE)


@pytest.mark.parametrize(
    "act", [act for act in Act if act not in (Act.STACK, Act.TASKS, *ABOUT_QUEUES)]
)
def test_it_does_what_was_asked(answers: list[Answer], act: Act) -> None:
    answers.append(Answer(True))
    assert run("jobs_worker", act, "w", "--by", "ada") == "Worker w does what was asked.\n"
    assert answers == []


@pytest.mark.parametrize("act", ABOUT_QUEUES)
def test_its_queues_change(answers: list[Answer], act: Act) -> None:
    answers.append(Answer(True))
    printed = run("jobs_worker", act, "w", "low", "--by", "ada")
    assert printed == "Worker w does what was asked.\n"
    with pytest.raises(CommandError, match="Name a queue"):
        run("jobs_worker", act, "w")
    with pytest.raises(CommandError, match="Name a queue"):
        run("jobs_worker", "quiet", "w", "low")
    with pytest.raises(CommandError, match=r"'lo' is not declared .* 'low'"):
        run("jobs_worker", act, "w", "lo")


def test_stacks_are_printed(answers: list[Answer]) -> None:
    answers.append(Answer(True, "", (("w", "File a"), ("w/1", "File b"))))
    assert run("jobs_worker", "stack", "w", "--by", "ada") == "w\nFile a\nw/1\nFile b\n"


def test_tasks_are_printed(answers: list[Answer]) -> None:
    answers.append(Answer(True, "shop.pay\nshop.ship"))
    assert run("jobs_worker", "tasks", "w", "--by", "ada") == "shop.pay\nshop.ship\n"


def test_it_can_t(answers: list[Answer]) -> None:
    answers.append(Answer(False, "no module named shop"))
    with pytest.raises(CommandError, match="no module named shop"):
        run("jobs_worker", "restart", "w", "--by", "ada")


def test_it_doesn_t_answer() -> None:
    broker.get().report("default", "w", b"{}")
    with pytest.raises(CommandError, match="hasn't answered"):
        run("jobs_worker", "quiet", "w", "--timeout", "0")
    wait_for(lambda: len(broker.get().take_commands("default", "w")) == 1)


def test_there_is_no_such_worker() -> None:
    broker.get().report("default", "mail-1", b"{}")
    with pytest.raises(CommandError, match=r"No worker 'mail-2' .* Did you mean 'mail-1'"):
        run("jobs_worker", "quiet", "mail-2")
