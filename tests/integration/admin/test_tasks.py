"""The page of the tasks, one task's page, the form that runs it, and its rate."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from jobs import broker, control, message, registry, task
from jobs.admin.tasks.form import RunForm
from jobs.control import inspect, metrics
from jobs.control.metrics import Range
from tests.integration.admin.conftest import row, staff
from tests.integration.admin.test_hostile import VALUES, asked, some
from tests.tasks import add, fail
from tests.workers import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]

LIST = "/admin/jobs/tasks/"

#: The parameters of the task `typed`, with a value for those that need one.
TYPED = {"name": "a", "count": "1"} | dict.fromkeys(
    ("share", "loud", "day", "at", "price", "label", "token", "items", "anything"), ""
)


@pytest.fixture
def typed() -> Iterator[Any]:
    """A task with a parameter of each kind."""

    @task(name="tests.typed", max_retries=7, rate_limit="5/m", sensitive=["token"])
    def typed(
        name: str,
        count: int,
        share: float = 0.5,
        loud: bool = False,
        day: dt.date | None = None,
        at: dt.datetime | None = None,
        price: decimal.Decimal = decimal.Decimal("1.50"),
        label: str = "<none>",
        *,
        token: str = "hunter2",
        items: list[int] | None = None,
        anything: Any = None,
    ) -> None:
        """Does <everything> with types."""

    yield typed
    del registry.tasks["tests.typed"]


def told(client: Client, url: str = LIST) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def said(response: Any) -> list[str]:
    return [str(m) for m in get_messages(response.wsgi_request)]


def sent() -> list[tuple[Any, Any]]:
    """Arguments of what waits on the default queue."""
    found = [one.raw for one in broker.get().browse("default", due=False)]
    calls = [message.decode(raw, "default") for raw in found]
    return [(call.args, call.kwargs) for call in calls]


def fields(**values: Any) -> dict[str, str]:
    return {f"arg-{name}": value for name, value in values.items()}


# ------------------------------------------------------------------------------ looking


def test_every_task_is_listed(root: Client, typed: Any) -> None:
    listed = root.get(LIST).context["rows"]
    assert [found.name for found in listed] == sorted(registry.tasks)[:100]
    page = told(root, f"{LIST}?q=TESTS.TYPED")
    assert "1 task" in page
    assert "max_retries=7" in page
    assert "rate_limit=5/m" in page
    assert "tests.integration.admin.test_tasks:" in page
    assert "/admin/jobs/taskresult/?task=tests.typed" in page
    assert add.name not in page


def test_many_tasks_have_pages(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.admin.tasks.admin._PAGE", 2)
    names, url, seen = sorted(registry.tasks), f"{LIST}?q=", list[str]()
    for _ in range((len(names) + 1) // 2):
        response = root.get(url)
        seen += [found.name for found in response.context["rows"]]
        url = f"{LIST}?q=&after={response.context['after']}"
    assert seen == names
    assert response.context["after"] == ""


def test_numbers_are_those_of_the_metrics(root: Client) -> None:
    for n in range(3):
        add.delay(n, n)
    fail.delay("x")
    work()
    day = metrics.by_task(Range.DAY)
    assert (day[add.name].succeeded, day[fail.name].failed) == (3, 1)
    listed = root.get(f"{LIST}?q=tests.tasks.").context["rows"]
    rows = {found.name: found for found in listed}
    assert (rows[add.name].in_hour, rows[add.name].in_day, rows[add.name].success) == (
        3,
        3,
        "100 %",
    )
    assert (rows[fail.name].in_day, rows[fail.name].success) == (1, "0 %")
    assert rows[add.name].p95
    page = told(root, f"{LIST}task/{add.name}/")
    assert "<meter" in page
    assert "100 %" in page


def test_the_last_failure_is_linked(root: Client) -> None:
    long_ago = timezone.now() - dt.timedelta(hours=5)
    values = {"state": "FAILURE", "error_type": "builtins.ValueError", "task": add.name}
    row(id="0001", finished_at=long_ago, **values)
    last = row(id="0002", **values)
    row(id="0003", task=add.name)
    for url in (f"{LIST}?q={add.name}", f"{LIST}task/{add.name}/"):
        page = told(root, url)
        assert f"/admin/jobs/taskresult/{last.pk}/change/" in page
        assert "/admin/jobs/taskresult/0001/change/" not in page
        assert "ValueError" in page


def test_what_a_task_s_page_shows(root: Client, typed: Any) -> None:
    control.pause_task(typed.name, by="ada", why="it <hurts>")
    control.rate_limit(typed.name, "9/h", by="bob")
    page = told(root, f"{LIST}task/{typed.name}/")
    assert "Does &lt;everything&gt; with types." in page
    assert "(name: str, count: int, share: float = 0.5," in page
    assert "token: str = …" in page
    assert "paused by ada" in page
    assert "it &lt;hurts&gt;" in page
    assert "9/h, set by bob" in page
    assert "/admin/jobs/queues/resume-task/tests.typed/" in page
    assert "hunter2" not in page
    assert "paused" in told(root, f"{LIST}?q=typed")


def test_no_such_task(root: Client) -> None:
    for url in ("task/nothing/", "run/nothing/", "rate/nothing/", "task/a%00b/"):
        assert root.get(f"{LIST}{url}").status_code == 404


def test_the_list_costs_the_same_for_many_rows(
    root: Client, django_assert_max_num_queries: Any
) -> None:
    for n in range(30):
        row(id=f"{n:04}", state="FAILURE", task=add.name)
    with django_assert_max_num_queries(6):
        root.get(LIST)


# ------------------------------------------------------------------------------ running


def test_the_form_has_a_field_for_each_parameter(root: Client, typed: Any) -> None:
    kinds = {name: type(field).__name__ for name, field in RunForm(typed).fields.items()}
    assert kinds == {
        "arg-name": "CharField",
        "arg-count": "IntegerField",
        "arg-share": "FloatField",
        "arg-loud": "TypedChoiceField",
        "arg-day": "DateField",
        "arg-at": "DateTimeField",
        "arg-price": "DecimalField",
        "arg-label": "CharField",
        "arg-token": "CharField",
        "arg-items": "JsonField",
        "arg-anything": "JsonField",
        "queue": "ChoiceField",
        "countdown": "FloatField",
    }
    page = told(root, f"{LIST}run/{typed.name}/")
    assert "Default: 0.5" in page
    assert 'value="&lt;none&gt;"' in page
    assert "hunter2" not in page


def test_values_have_their_types(root: Client, typed: Any) -> None:
    values = fields(
        name=" ada ",
        count="3",
        share="0.25",
        loud="True",
        day="2026-03-01",
        at="2026-03-01 12:30",
        price="9.90",
        label="",
        token="s3cret",
        items="[1, 2]",
        anything='{"__type__": "date", "__value__": "2026-01-02"}',
    )
    response = root.post(f"{LIST}run/{typed.name}/", values)
    assert response["Location"] == f"{LIST}task/{typed.name}/"
    ((args, kwargs),) = sent()
    assert args == []
    zone = timezone.get_default_timezone()
    assert kwargs.pop("at") == dt.datetime(2026, 3, 1, 12, 30, tzinfo=zone)
    assert kwargs == {
        "name": " ada ",
        "count": 3,
        "share": 0.25,
        "loud": True,
        "day": dt.date(2026, 3, 1),
        "price": decimal.Decimal("9.90"),
        "label": "",
        "token": "s3cret",
        "items": [1, 2],
        "anything": dt.date(2026, 1, 2),
    }
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.object_repr) == (typed.name, f"task “{typed.name}”")
    (call,) = inspect.waiting("default")
    assert call.id in entry.change_message
    assert "count=3" in entry.change_message
    assert "s3cret" not in entry.change_message
    assert call.id in said(response)[0]


def test_what_is_left_empty_has_its_default(root: Client, typed: Any) -> None:
    root.post(f"{LIST}run/{typed.name}/", fields(name="", count="1", label="<none>"))
    assert sent() == [([], {"name": "", "count": 1, "label": "<none>"})]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"name": "a"}, "This field is required."),
        ({"name": "a", "count": "1.5"}, "Enter a whole number."),
        ({"name": "a", "count": "1", "day": "yesterday"}, "Enter a valid date."),
        ({"name": "a", "count": "1", "items": "[1"}, "Enter a valid JSON."),
        ({"name": "a", "count": "1", "items": "[" * 100_000}, "nested more than"),
        ({"name": "a", "count": "1", "items": "9" * 5000}, "too many digits"),
        (
            {"name": "a", "count": "1", "items": '{"__type__": "date", "__value__": 1}'},
            "is not a known tagged value",
        ),
        ({"name": "a\0b", "count": "1"}, "Null characters are not allowed."),
    ],
)
def test_a_wrong_value_is_told_beside_its_field(
    root: Client, typed: Any, values: dict[str, str], error: str
) -> None:
    page = root.post(f"{LIST}run/{typed.name}/", fields(**values)).content.decode()
    assert error in page
    assert sent() == []
    assert not LogEntry.objects.exists()


def test_a_secret_is_not_shown_again(root: Client, typed: Any) -> None:
    page = root.post(f"{LIST}run/{typed.name}/", fields(name="a", token="s3cret")).content.decode()
    assert "This field is required." in page
    assert "s3cret" not in page


def test_queue_and_countdown(root: Client) -> None:
    values = {**fields(a="1", b="2"), "queue": "low", "countdown": "600"}
    root.post(f"{LIST}run/{add.name}/", values)
    (call,) = inspect.due("low")
    assert (call.task, json.loads(call.kwargs)) == (add.name, {"a": 1, "b": 2})
    page = root.post(f"{LIST}run/{add.name}/", {**fields(a="1", b="2"), "queue": "nowhere"})
    assert "Select a valid choice." in page.content.decode()
    page = root.post(f"{LIST}run/{add.name}/", {**fields(a="1", b="2"), "countdown": "nan"})
    assert page.status_code == 200


def test_positional_and_any_number_of_arguments(root: Client) -> None:
    @task(name="tests.many")
    def many(first: int, /, second: int = 2, *rest: int, **more: int) -> None: ...

    try:
        url = f"{LIST}run/tests.many/"
        root.post(url, fields(first="1"))
        root.post(url, fields(first="1", rest="[3, 4]", more='{"x": 5}'))
        assert sent() == [([1], {}), ([1, 2, 3, 4], {"x": 5})]
        assert "Write a JSON list" in root.post(url, fields(first="1", rest="7")).content.decode()
        assert "JSON object" in root.post(url, fields(first="1", more="7")).content.decode()
    finally:
        del registry.tasks["tests.many"]


def test_what_its_function_takes_is_checked(root: Client) -> None:
    @task(name="tests.kw")
    def kw(a: int = 1, **more: int) -> None: ...

    try:
        sent_twice = fields(a="1", more='{"a": 2, "": 1}')
        assert root.post(f"{LIST}run/tests.kw/", sent_twice).status_code in (200, 302)
    finally:
        del registry.tasks["tests.kw"]


def test_the_broker_is_away(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.exceptions import BrokerUnavailable

    def away(*args: Any, **kwargs: Any) -> Any:
        raise BrokerUnavailable("gone for lunch")

    for verb in ("push", "paused_of"):
        monkeypatch.setattr(broker.get(), verb, away)
    assert "gone for lunch" in told(root)
    page = root.post(f"{LIST}run/{add.name}/", fields(a="1", b="2")).content.decode()
    assert "gone for lunch" in page
    assert not LogEntry.objects.exists()


# ------------------------------------------------------------------------------ the rate


def test_the_rate_is_changed_and_reset(root: Client) -> None:
    url = f"{LIST}rate/{add.name}/"
    response = root.post(url, {"rate": "10/m", "burst": "3"})
    assert response["Location"] == f"{LIST}task/{add.name}/"
    found = control.rate_limits()[add.name]
    assert (found.rate, found.burst, found.by) == ("10/m", 3, "user0")
    root.post(url, {"rate": "", "burst": ""})
    assert control.rate_limits() == {}
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        f"Task “{add.name}” has the rate 10/m.",
        f"Task “{add.name}” has the rate of its code.",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"rate": "often"},
        {"rate": "1/d"},
        {"rate": "1/s", "burst": "x"},
        {"rate": "1/s", "burst": "0"},
        {"rate": "unlimited", "burst": "3"},
        {"rate": "9" * 5000},
        {"rate": "1/s", "burst": "٣"},
    ],
)
def test_a_wrong_rate(root: Client, values: dict[str, str]) -> None:
    response = root.post(f"{LIST}rate/{add.name}/", values)
    assert len(said(response)) == 1
    assert control.rate_limits() == {}
    assert not LogEntry.objects.exists()


# ------------------------------------------------------------------------------ permissions


def test_who_may_look_and_act() -> None:
    page, run_url, rate_url = (f"{LIST}{what}/{add.name}/" for what in ("task", "run", "rate"))
    assert Client().get(LIST).status_code == 302
    stranger = staff("jobs.view_taskresult")
    assert {stranger.get(url).status_code for url in (LIST, page, run_url, rate_url)} == {403}
    looker = staff("jobs.view_queues")
    shown = told(looker, page)
    for button in ("jobs-run", "jobs-rate", "jobs-pause"):
        assert f'id="{button}"' not in shown
    assert looker.get(run_url).status_code == 403
    for client in (looker, staff("jobs.manage_queues"), staff("jobs.rate_tasks")):
        assert client.post(run_url, fields(a="1", b="2")).status_code == 403
    for client in (looker, staff("jobs.manage_queues"), staff("jobs.run_tasks")):
        assert client.post(rate_url, {"rate": "1/s"}).status_code == 403
    assert (sent(), control.rate_limits()) == ([], {})
    assert staff("jobs.run_tasks").post(run_url, fields(a="1", b="2")).status_code == 302
    assert staff("jobs.rate_tasks").post(rate_url, {"rate": "1/s"}).status_code == 302
    assert (len(sent()), len(control.rate_limits())) == (1, 1)


def test_acts_need_the_token(root: Client) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = root.cookies
    for what in ("run", "rate"):
        assert careful.post(f"{LIST}{what}/{add.name}/", {"rate": "1/s"}).status_code == 403
    assert control.rate_limits() == {}


# ------------------------------------------------------------------------------ hostile values


# With every version, test_hostile.py has some of these values for each page and field.


@pytest.mark.one_version
@pytest.mark.parametrize("field", [*(f"arg-{n}" for n in TYPED), "queue", "countdown"])
def test_hostile_values_of_the_form(root: Client, typed: Any, field: str) -> None:
    usual = "".join(f"&arg-{n}={v}" for n, v in TYPED.items() if field != f"arg-{n}" and v)
    for value in some(field, 10):
        assert not asked(root, "post", f"{LIST}run/{typed.name}/", f"{field}={value}{usual}")


@pytest.mark.one_version
@pytest.mark.usefixtures("short_lists")
def test_hostile_values_elsewhere(root: Client) -> None:
    wrong = [
        asked(root, "post", f"{LIST}rate/{add.name}/", f"{name}={value}&{besides}")
        for name, besides in (("rate", ""), ("burst", "rate=1/s"), ("why", "rate=1/s"))
        for value in VALUES
    ]
    wrong += [asked(root, "get", LIST, f"{name}={v}") for name in ("q", "after") for v in VALUES]
    for value in VALUES:
        place = value.replace("+", "%20")
        for what in ("task", "run", "rate"):
            wrong += [asked(root, how, f"{LIST}{what}/{place}/") for how in ("get", "post")]
    assert not [text for text in wrong if text]
