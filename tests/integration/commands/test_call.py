"""`manage.py jobs_call` and `jobs_result`."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from jobs import broker
from jobs.control import inspect
from jobs.models import TaskResult
from jobs.testing import worker
from tests.integration.commands.helpers import fail, run
from tests.tasks import add, echo, quiet_trace, return_text, trace
from tests.tasks import fail as failing
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


def test_a_call_is_sent_and_its_result_shown() -> None:
    task_id = run("jobs_call", add.name, "--args", "[1]", "-k", '{"b": 2}').strip()
    assert fail("jobs_result", task_id) == (
        3,
        "",
        f"Nothing is recorded of {task_id}: it has not ended yet, or there is no such call.",
    )
    work()
    printed = run("jobs_result", task_id, "--wait")
    facts = dict(line.split("  ", 1) for line in printed.splitlines())
    assert {name: text.strip() for name, text in facts.items()} == {
        "call": f"{add.name}[{task_id}]",
        "queue": "default",
        "state": "SUCCESS",
        "result": "3",
        "attempts": "1",
        **{name: facts[name].strip() for name in ("worker", "sent", "started", "finished")},
    }


def test_as_json() -> None:
    told = json.loads(run("jobs_call", echo.name, "--args", '[{"a": [1.5, null]}]', "--json"))
    assert told == {"id": told["id"], "task": echo.name}
    status, printed, _ = fail("jobs_result", told["id"], "--json")
    found = json.loads(printed)
    assert (status, found["state"], found["task"]) == (3, "PENDING", None)
    work()
    done = json.loads(run("jobs_result", told["id"], "--json"))
    assert list(done) == list(found)
    row = TaskResult.objects.get()
    assert done["finished_at"] == row.finished_at.isoformat() if row.finished_at else None
    assert (done["state"], done["result"]) == ("SUCCESS", {"a": [1.5, None]})
    assert (done["attempts"], done["worker"], done["error"]) == (1, row.worker, "")


def test_one_that_fails() -> None:
    task_id = run("jobs_call", failing.name, "--args", '["no luck"]').strip()
    work()
    error = "builtins.ValueError: no luck"
    status, printed, wrong = fail("jobs_result", task_id)
    assert (status, wrong) == (
        1,
        f"{failing.name}[{task_id}] has failed: {error}",
    )
    assert f"error       {error}" in printed
    assert printed.rstrip().endswith("ValueError: no luck")
    assert "Traceback" in printed
    status, printed, _ = fail("jobs_result", task_id, "--json")
    found = json.loads(printed)
    assert (status, found["error"], found["result"]) == (1, "no luck", None)


def test_one_that_was_revoked() -> None:
    task_id = run("jobs_call", add.name, "--args", "[1, 2]").strip()
    run("jobs_revoke", task_id)
    work()
    assert fail("jobs_result", task_id)[::2] == (1, f"{add.name}[{task_id}] was revoked.")


def test_waiting_for_the_result() -> None:
    err = io.StringIO()
    with worker():
        assert run("jobs_call", add.name, "--args", "[1, 2]", "--wait", "60", err=err) == "3\n"
        task_id = TaskResult.objects.get().id
        assert err.getvalue() == f"{add.name}[{task_id}] is sent.\n"
        told = json.loads(run("jobs_call", add.name, "--args", "[1, 2]", "--wait", "--json"))
        assert (told["state"], told["result"]) == ("SUCCESS", 3)
        status, printed, wrong = fail("jobs_call", failing.name, "-a", '["no luck"]', "--wait")
        assert (status, printed) == (1, "")
        assert wrong.endswith("has failed: builtins.ValueError: no luck")
        assert "keeps no result" in fail("jobs_call", quiet_trace.name, "-a", '["a"]', "--wait")[2]


def test_waiting_too_long() -> None:
    status, printed, wrong = fail("jobs_call", add.name, "--args", "[1, 2]", "--wait", "0.01")
    assert (status, printed) == (3, "")
    assert wrong.endswith("has not ended within 0.01 seconds.")
    assert fail("jobs_result", "nobody", "--wait", "0")[0] == 3


def test_an_end_by_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(broker.get(), "listen", press)
    status, _, wrong = fail("jobs_result", "a", "--wait")
    assert (status, wrong) == (130, "Waiting has ended; call a goes on. See jobs_result.")


def test_options_of_the_call() -> None:
    run("jobs_call", trace.name, "-a", '["a"]', "--queue", "low", "--priority", "3", "--label", "x")
    (call,) = inspect.waiting("low")
    assert (call.args, call.priority, call.label) == ('["a"]', 3, "x")
    run("jobs_call", trace.name, "-a", '["b"]', "--countdown", "600")
    run("jobs_call", trace.name, "-a", '["c"]', "--eta", "2100-01-01T12:00")
    soon, later = inspect.due("default")
    assert soon.due
    assert later.due
    assert 500 < (soon.due - timezone.now()).total_seconds() <= 600
    assert later.due == dt.datetime(2100, 1, 1, 12, tzinfo=timezone.get_default_timezone())
    for expires in ("0.001", "2020-01-01"):
        task_id = run("jobs_call", trace.name, "-a", '["d"]', "--expires", expires).strip()
        work()
        assert fail("jobs_result", task_id)[::2] == (1, f"{trace.name}[{task_id}] was revoked.")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["tests.tasks.ad"], "There is no task 'tests.tasks.ad'. Did you mean tests.tasks.add"),
        (["hold_interpreter"], "Did you mean tests.tasks.hold_interpreter? jobs_inspect"),
        (["???"], "There is no task '???'. jobs_inspect registered lists all."),
        ([add.name], "missing a required argument: 'a'"),
        ([add.name, "-a", "[1, 2, 3]"], "too many positional arguments"),
        ([add.name, "-a", "[1, 2]", "-k", '{"c": 1}'], "got an unexpected keyword argument"),
        ([add.name, "-a", "[1, 2"], "--args is not JSON (Expecting ',' delimiter"),
        ([add.name, "-a", "1"], '--args must be a list, such as [1, "a"], not 1.'),
        ([add.name, "-a", "(1, 2)"], "--args is not JSON"),
        ([add.name, "-k", "[]"], '--kwargs must be an object, such as {"n": 1}, not [].'),
        ([add.name, "-a", "[" * 100_000], "--args is not JSON"),
        ([add.name, "-a", "[1, 2]", "--queue", "lwo"], "Did you mean 'low'?"),
        ([add.name, "-a", "[1, 2]", "--priority", "10"], "priority must be 0 (first) to 9, not 10"),
        ([add.name, "-a", "[1, 2]", "--eta", "soon"], "--eta must be a time such as"),
        ([add.name, "-a", "[1, 2]", "--eta", "2026-13-01T00:00"], "--eta must be a time such as"),
        ([add.name, "-a", "[1, 2]", "--expires", "soon"], "--expires must be a time such as"),
        ([add.name, "-a", "[1, 2]", "--countdown", "1", "--eta", "2100-01-01T12:00"], "countdown"),
        ([add.name, "-a", "[1, 2]", "--countdown", "nan"], "countdown"),
        ([add.name, "-a", "[1, 2]", "--label", " x"], "label must be one line"),
        ([add.name, "-a", "[1, 2]", "--wait", "soon"], "'soon' is not a number of seconds"),
        ([add.name, "-a", "[1, 2]", "--wait", "-1"], "'-1' is not a number of seconds"),
        ([return_text.name, "-a", '["' + "x" * 2_000_000 + '"]'], "bytes"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], told: str) -> None:
    status, printed, wrong = fail("jobs_call", *args)
    assert (status, printed) == (1, "")
    assert told in wrong
    assert len(wrong.splitlines()) == 1
    assert broker.get().stats("default").waiting == 0


def test_the_broker_is_away(settings: Settings) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": "redis://localhost:1/0"}
    status, _, wrong = fail("jobs_call", add.name, "-a", "[1, 2]")
    assert (status, "can't be used" in wrong) == (1, True)
