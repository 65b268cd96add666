from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from jobs import conf
from jobs.conf import Conf, Queue, RetryPolicy
from jobs.exceptions import ConfigurationError

THEIRS = {"foreign_workers": True}


def only_problem(**jobs: Any) -> str:
    _, [problem] = conf.parse(jobs)
    return problem


def test_nothing_set_is_right() -> None:
    assert conf.parse({}) == (Conf(), [])
    assert Conf().default_queue in Conf().queues


def test_no_settings_are_the_defaults(settings: Settings) -> None:
    settings.JOBS = {}
    assert conf.get() == Conf()


def test_every_key_may_be_set() -> None:
    values = {field.name.upper(): getattr(Conf(), field.name) for field in dataclasses.fields(Conf)}
    assert conf.parse(values) == (Conf(), [])


def test_values_arrive() -> None:
    found, problems = conf.parse(
        {
            "BROKER_URL": "redis://x",
            "EMBEDDED_DIR": Path("x"),
            "QUEUES": {"a": {}, "b": {"open": True}},
            "DEFAULT_QUEUE": "a",
            "LEASE_SECONDS": 3,
            "RETRY_POLICY": {"max_retries": 1},
        }
    )
    assert problems == []
    assert found.broker_url == "redis://x"
    assert found.queue("a") == Queue(open=False)
    assert found.queue("b") == Queue(open=True)
    assert found.lease_seconds == 3
    assert found.retry_policy == RetryPolicy(max_retries=1)


def test_a_queue_nobody_declared() -> None:
    with pytest.raises(KeyError):
        Conf().queue("x")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("BROKER", "BROKER_URL"),
        ("QUEUE", "QUEUES"),
        ("broker_url", "BROKER_URL"),
        ("LEASE_SECOND", "LEASE_SECONDS"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, meant: str) -> None:
    assert only_problem(**{key: 1}) == f"JOBS[{key!r}] is not a setting. Did you mean {meant!r}?"


def test_an_unknown_key_that_is_near_to_nothing() -> None:
    assert only_problem(XYZZY=1) == "JOBS['XYZZY'] is not a setting."


def test_keys_that_are_not_text() -> None:
    _, [problem] = conf.parse({5: 1})
    assert problem == "JOBS[5] is not a setting."


@pytest.mark.parametrize("jobs", [None, [], "redis://", 5])
def test_not_a_dict(jobs: Any) -> None:
    found, [problem] = conf.parse(jobs)
    assert found == Conf()
    assert problem == f"JOBS must be a dict, not {type(jobs).__name__}."


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("BROKER_URL", None, "must be text, not None"),
        ("BROKER_URL", 5, "must be text, not 5"),
        ("DEFAULT_QUEUE", "", "must not be empty"),
        ("TASK_MODULE", "", "must not be empty"),
        ("LEASE_SECONDS", "15", "must be a number, not '15'"),
        ("LEASE_SECONDS", True, "must be a number, not True"),
        ("LEASE_SECONDS", 0, "must be at least 1, not 0"),
        ("LEASE_SECONDS", float("nan"), "must be"),
        ("LEASE_SECONDS", float("inf"), "must be"),
        ("SOCKET_TIMEOUT", -1, "must be at least 0.1, not -1"),
        ("MESSAGE_MAX_BYTES", 10, "must be at least 1024, not 10"),
        ("MAX_TASKS_PER_CHILD", 1.5, "must be"),
        ("MAX_CRASHES", -1, "must be at least 0, not -1"),
        ("MAX_CRASHES", 0.5, "must be a whole number, not 0.5"),
        ("UNKNOWN_TASK_SECONDS", -1, "must be at least 0, not -1"),
        ("QUEUES", {}, "with at least one queue"),
        ("QUEUES", ["default"], "must be a dict of queue name → options"),
        ("QUEUES", {"default": None}, "must be a dict, not None"),
        ("QUEUES", {"default": {}, "": {}}, "has ''"),
        ("QUEUES", {"default": {}, 5: {}}, "has 5"),
        ("QUEUES", {"default": {}, "{a}": {}}, "text without braces"),
        ("QUEUES", {"default": {}, "a\x06\x163": {}}, "a queue's name is text"),
        ("QUEUES", {"default": {"opne": True}}, "'opne'. Did you mean 'open'?"),
        ("QUEUES", {"default": {"open": 1}}, "option 'open' must be True or False, not 1"),
        *(
            ("QUEUES", {"a": {"shards": n}}, f"'shards' must be 1 to 64, not {told}")
            for n, told in ((0, "0"), (-1, "-1"), (10_000, "10000"), (65, "65"))
        ),
        *(
            ("QUEUES", {"a": {"shards": n}}, f"'shards' must be a whole number, not {n!r}")
            for n in ("8", 2.0, True, None)
        ),
        ("QUEUES", {"a": {}, "b": THEIRS | {"open": True}}, "'open' is for queues of this program"),
        ("QUEUES", {"a": {}, "b": THEIRS | {"shards": 2}}, "they know one list alone"),
        ("QUEUES", {"a": THEIRS}, "must have a queue without 'foreign_workers'"),
        ("CELERY_RESULT_BACKEND", "rpc://", "must begin with redis://"),
        ("CELERY_RESULT_BACKEND", "redis+cluster://a:1", "must be the address of one Redis server"),
        ("CELERY_RESULT_BACKEND", "memory://", "must be the address of one Redis server"),
        ("RETRY_POLICY", 3, "must be a dict, not 3"),
        ("RETRY_POLICY", {"max_retry": 1}, "'max_retry'. Did you mean 'max_retries'?"),
        (
            "RETRY_POLICY",
            {"max_retries": -1},
            "'max_retries' must be a whole number from 0, or None",
        ),
        ("RETRY_POLICY", {"max_retries": True}, "'max_retries' must be a whole number"),
        ("RETRY_POLICY", {"max_retries": 1.5}, "'max_retries' must be"),
        ("RETRY_POLICY", {"interval_step": math.inf}, "'interval_step' must be a number from 0"),
        ("RETRY_POLICY", {"retry_errors": ["a"]}, "'retry_errors' must be exception classes"),
        ("RETRY_POLICY", {"interval_max": "1"}, "'interval_max' must be a number"),
    ],
)
def test_a_wrong_value_is_named_and_its_default_used(key: str, value: Any, said: str) -> None:
    found, problems = conf.parse({key: value})
    assert problems
    assert problems[0].startswith(f"JOBS[{key!r}] ")
    assert said in problems[0]
    assert found == Conf()


def test_queues_of_celery_s_workers() -> None:
    queues = {"default": {}, "theirs": THEIRS}
    assert conf.parse({"QUEUES": queues})[1] == []
    problem = only_problem(QUEUES=queues, DEFAULT_QUEUE="theirs")
    assert problem.startswith("JOBS['DEFAULT_QUEUE'] is 'theirs', which Celery's workers work")
    problem = only_problem(QUEUES=queues, BROKER_URL="redis+cluster://a:1")
    assert problem.startswith("JOBS['QUEUES'] has 'foreign_workers' for 'theirs': Celery's workers")


def test_a_default_queue_that_is_not_declared() -> None:
    problem = only_problem(QUEUES={"high": {}, "low": {}}, DEFAULT_QUEUE="hihg")
    assert problem == (
        "JOBS['DEFAULT_QUEUE'] is 'hihg', which JOBS['QUEUES'] does not declare. "
        "Did you mean 'high'?"
    )


def test_all_problems_are_told(settings: Settings) -> None:
    settings.JOBS = {"LEASE": 1, "GRACE_SECONDS": "x"}
    with pytest.raises(ConfigurationError, match=r"'LEASE'.*'GRACE_SECONDS'"):
        conf.get()


def test_settings_that_change_are_read_again(settings: Settings) -> None:
    settings.JOBS = {"LEASE_SECONDS": 7}
    assert conf.get().lease_seconds == 7
    assert conf.get() is conf.get()
    settings.JOBS = {"LEASE_SECONDS": 8}
    assert conf.get().lease_seconds == 8


def test_settings_can_not_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Conf().lease_seconds = 1  # type: ignore[misc]


def test_pauses() -> None:
    assert list(RetryPolicy().pauses()) == pytest.approx([0.0, 0.2, 0.2])
    policy = RetryPolicy(max_retries=4, interval_start=1, interval_step=2, interval_max=4)
    assert list(policy.pauses()) == [1, 3, 4, 4]
    assert list(RetryPolicy(max_retries=0).pauses()) == []


@pytest.mark.parametrize(
    "steps",
    [(0, 0.2, 0.2), (0, 0.2, 1), (0, 0.15, 0.2), (1, 2, 4), (3, 1, 2), (1, 0, 5), (0, 0, 0)],
)
def test_pauses_for_ever_are_those_of_kombu(steps: tuple[float, float, float]) -> None:
    kombu = pytest.importorskip("kombu.utils.functional")
    start, step, most = steps
    policy = RetryPolicy(None, start, step, most)
    kombus: list[float] = []

    def again(error: BaseException, intervals: Iterator[float], retries: int) -> float:
        kombus.append(next(intervals))
        return 0.0

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        kombu.retry_over_time(
            fail,
            ValueError,
            errback=again,
            max_retries=30,
            interval_start=start,
            interval_step=step,
            interval_max=most,
        )
    assert list(itertools.islice(policy.pauses(), 30)) == pytest.approx(kombus)


def test_keys_for_signing(settings: Settings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
    new, old = conf.signing_keys()
    assert len(new) == 32
    assert new != old
    assert b"new" not in new
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old", []
    assert conf.signing_keys() == (old,)
