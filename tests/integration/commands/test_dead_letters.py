"""`manage.py jobs_dead_letters`."""

from __future__ import annotations

import io
import itertools

import pytest
from pytest_django import Settings

from jobs import broker
from tests.integration.commands.helpers import fail, run
from tests.models import Run
from tests.tasks import trace
from tests.workers import dead_letters, on_redis, put, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


#: Of deliveries: none is used twice.
_numbers = itertools.count(1)


def bury(*labels: str, queue: str = "default", reason: str = "not today") -> list[str]:
    """Make dead letters of new calls; their keys."""
    port, keys = broker.get(), []
    for label in labels:
        trace.apply_async((label,), queue=queue)
        ((number, _),) = port.claim(queue, "undertaker", next(_numbers), 1, 60).messages
        assert port.dead_letter(queue, "undertaker", number, reason, "undertaker")
        keys.append(port.dead_letters(queue, 1)[0].key)
    return keys


def rest(queue: str = "default") -> list[str]:
    return [letter.key for letter in dead_letters(queue)]


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What a person types."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_the_list(settings: Settings) -> None:
    (low,) = bury("c", queue="low")
    first, second = bury("a", "b")
    listed = [line.split() for line in run("jobs_dead_letters").splitlines()]
    assert [(line[0], line[1]) for line in listed] == [
        ("default", second),
        ("default", first),
        ("low", low),
    ]
    assert all(line[4].startswith("tests.tasks.trace[") for line in listed)
    assert all(line[5:] == ["not", "today"] for line in listed)
    (only,) = run("jobs_dead_letters", "low").splitlines()
    assert low in only


def test_what_cannot_be_read_is_listed() -> None:
    put(b"not json")
    work()
    assert "? MalformedMessage" in run("jobs_dead_letters")


def test_a_long_list_is_cut() -> None:
    keys = bury(*"abcde")
    lines = run("jobs_dead_letters", "--count", "2").splitlines()
    assert [line.split()[1] for line in lines[:2]] == [keys[4], keys[3]]
    assert lines[2:] == ["default: … 3 more"]
    assert len(run("jobs_dead_letters", "--count", "5").splitlines()) == 5


def test_nothing_to_list() -> None:
    assert run("jobs_dead_letters") == ""


def test_one_put_back() -> None:
    first, second = bury("a", "b")
    assert run("jobs_dead_letters", "--requeue", first) == "1 message is back on its queue.\n"
    assert rest() == [second]
    work()
    assert Run.objects.get().label == "a"


def test_all_put_back_in_their_order() -> None:
    bury(*map(str, range(150)))
    bury("x", queue="low")
    printed = run("jobs_dead_letters", "--requeue", "all")
    assert printed == "151 messages are back on their queues.\n"
    assert (rest(), rest("low")) == ([], [])
    work()
    labels = Run.objects.order_by("id").values_list("label", flat=True)
    assert [label for label in labels if label != "x"] == [str(n) for n in range(150)]


def test_all_of_one_queue() -> None:
    bury("a")
    bury("x", queue="low")
    run("jobs_dead_letters", "low", "--requeue", "all")
    assert (len(rest()), rest("low")) == (1, [])


def test_one_deleted_after_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bury("a", "b")
    answer(monkeypatch, "y\n")
    printed = run("jobs_dead_letters", "--discard", first)
    assert printed.endswith("1 dead letter deleted.\n")
    assert rest() == [second]
    assert on_redis() == (0, 0)


@pytest.mark.parametrize("text", ["\n", "n\n", "why?\n"])
def test_not_deleted_unless_sure(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (key,) = bury("a")
    answer(monkeypatch, text)
    assert fail("jobs_dead_letters", "--discard", key)[2] == "Nothing was deleted."
    assert rest() == [key]


def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = bury("a")
    answer(monkeypatch, "")
    assert "--yes" in fail("jobs_dead_letters", "--discard", "all")[2]
    assert rest() == [key]


def test_all_deleted_without_a_question() -> None:
    bury("a", "b")
    printed = run("jobs_dead_letters", "--discard", "all", "--yes")
    assert printed == "2 dead letters deleted.\n"
    assert rest() == []
    assert run("jobs_dead_letters", "--discard", "all") == "0 dead letters deleted.\n"


@pytest.mark.parametrize("what", ["--requeue", "--discard"])
@pytest.mark.parametrize("key", ["1-1", "nonsense", "(1", "*"])
def test_a_key_that_is_none(what: str, key: str) -> None:
    status, _, wrong = fail("jobs_dead_letters", what, key)
    assert (status, wrong) == (1, f"There is no dead letter '{key}' in high, default, low.")


def test_an_undeclared_queue() -> None:
    assert "Did you mean 'default'?" in fail("jobs_dead_letters", "defualt")[2]


def test_the_broker_is_away(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "redis://127.0.0.1:1/0"}
    assert "can't be used" in fail("jobs_dead_letters")[2]
