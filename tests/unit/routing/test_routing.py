"""Where a call goes: patterns, bindings, routes, and who has the last word."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from jobs import (
    Task,
    conf,
    message,
    registry,
    routing,
    task,
)
from jobs.api.sending import message_of
from jobs.broker.base import lists_of
from jobs.exceptions import ConfigurationError, NoRoute, UnknownQueue
from jobs.routing.routes import Route, Routes
from jobs.routing.topics import Topics
from jobs.worker.record import following
from tests.tasks import add
from tests.unit.test_docs import DOCS

MEDIA: dict[str, Any] = {
    "EXCHANGES": {"media": "topic", "news": "fanout", "plain": "direct"},
    "QUEUES": {
        "default": {},
        "mail": {"exchange": "media", "routing_key": "mail.#"},
        "images": {"exchange": "media", "routing_key": ["image.*", "video.*.preview"]},
        "audit": {"exchange": "media", "routing_key": "#"},
        "web1": {"exchange": "news"},
        "web2": {"exchange": "news", "routing_key": "never.looked.at"},
        "one": {"exchange": "plain", "routing_key": "a"},
        "two": {"exchange": "plain", "routing_key": ("a", "b")},
        "three": {"exchange": "plain"},
    },
}


def router(**jobs: Any) -> routing.Router:
    found, problems = conf.parse(jobs)
    assert problems == []
    return routing.Router(found)


def media(exchange: str, key: str = "") -> tuple[str, ...]:
    found = router(**MEDIA).lead("t", Route(exchange=exchange, routing_key=key))
    assert (found.exchange, found.routing_key) == (exchange, key)
    return found.queues


# --------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        ("mail.new", ["mail.new"], ["mail", "mail.new.today", "", "mail.*"]),
        ("mail.*", ["mail.new", "mail.*"], ["mail", "mail.new.today", "email.new"]),
        ("mail.#", ["mail", "mail.new", "mail.new.today"], ["email.new", ""]),
        ("*.new", ["mail.new", ".new"], ["new", "mail.old", "a.b.new"]),
        ("#.new", ["new", "mail.new", "a.b.new"], ["new.mail", ""]),
        ("mail.*.#", ["mail.new", "mail.new.today"], ["mail"]),
        ("#.#.a.#.#", ["a", "b.a", "a.b", "b.a.b"], ["b", "b.c"]),
        ("#.*", ["a", "a.b"], [""]),
        ("a.#.b", ["a.b", "a.x.b", "a.b.b", "a.x.y.b"], ["a", "b", "a.b.c"]),
        ("#", ["", "a", "a.b.c"], []),
        ("*", ["a"], ["", "a.b"]),
        ("", [""], ["a"]),
        ("mail+", ["mail+"], ["maill"]),  # no regular expression
    ],
)
def test_patterns_of_topics(pattern: str, fits: list[str], not_: list[str]) -> None:
    topics = Topics([(pattern, 7)])
    assert [key for key in [*fits, *not_] if topics.find(key) == [7]] == fits


def fits(pattern: list[str], words: list[str]) -> bool:
    """What AMQP says, word for word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(fits(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and fits(pattern[1:], words[1:])


texts = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6)
keys = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(patterns=st.lists(texts, max_size=8), key=keys)
def test_many_patterns_at_once(patterns: list[list[str]], key: list[str]) -> None:
    topics = Topics((".".join(pattern), n) for n, pattern in enumerate(patterns))
    expected = [n for n, pattern in enumerate(patterns) if fits(pattern, key)]
    assert topics.find(".".join(key)) == expected


def test_patterns_that_could_fit_in_countless_ways() -> None:
    topics = Topics([(".".join(["#", "a"] * 30), 1)])
    assert topics.find(".".join(["a"] * 100)) == [1]
    assert topics.find(".".join(["a"] * 100 + ["b"])) == []


# --------------------------------------------------------------------------- exchanges


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("media", "mail.new", ("mail", "audit")),
        ("media", "image.new", ("images", "audit")),
        ("media", "video.7.preview", ("images", "audit")),
        ("media", "video.7", ("audit",)),
        ("media", "", ("audit",)),
        ("news", "", ("web1", "web2")),
        ("news", "anything", ("web1", "web2")),
        ("plain", "a", ("one", "two")),
        ("plain", "b", ("two",)),
        ("plain", "three", ("three",)),
    ],
)
def test_bindings(exchange: str, key: str, queues: tuple[str, ...]) -> None:
    assert media(exchange, key) == queues


@pytest.mark.parametrize(
    ("exchange", "key", "told"),
    [
        (
            "plain",
            "c",
            "the direct exchange 'plain' with the routing key 'c', which JOBS['QUEUES']",
        ),
        ("plain", "thre", "binds no queue with. Did you mean 'three'?"),
        ("plain", "", "the direct exchange 'plain' without a routing_key."),
        ("plain", "a.#", "the routing key 'a.#'"),
        (
            "medai",
            "x",
            "the exchange 'medai', which JOBS['EXCHANGES'] does not declare. Did you mean",
        ),
        ("", "imagse", "declares no queue for. Did you mean 'images'?"),
    ],
)
def test_what_leads_nowhere_names_the_nearest(exchange: str, key: str, told: str) -> None:
    with pytest.raises(NoRoute) as caught:
        media(exchange, key)
    assert str(caught.value).startswith("Task 't' can't be sent to the ")
    assert told in str(caught.value)


def test_an_exchange_nothing_is_bound_to() -> None:
    lonely = router(EXCHANGES={"news": "fanout"})
    with pytest.raises(NoRoute, match=r"'news', to which JOBS\['QUEUES'\] binds no queue"):
        lonely.lead("t", Route(exchange="news"))


def test_a_queue_can_always_be_reached_by_its_name() -> None:
    found = router(**MEDIA)
    for name in MEDIA["QUEUES"]:
        assert found.lead("t", Route(queue=name)) == ((name,), "", name)
        assert found.lead("t", Route(routing_key=name)).queues == (name,)


def test_the_default_exchange() -> None:
    found = router(
        EXCHANGES={"media": "topic"},
        DEFAULT_EXCHANGE="media",
        QUEUES={"default": {}, "mail": {"routing_key": "mail.*"}},
    )
    assert found.lead("t", Route(routing_key="mail.x")) == (("mail",), "media", "mail.x")
    with pytest.raises(NoRoute, match="'default'"):  # no key: not bound
        found.lead("t", Route(routing_key="default"))


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ({"EXCHANGES": {"a": "headers"}}, "a kind is 'direct', 'topic', 'fanout'"),
        ({"EXCHANGES": {"a": "topics"}}, "Did you mean 'topic'?"),
        ({"EXCHANGES": {"": "topic"}}, "an exchange's name is text"),
        ({"EXCHANGES": ["a"]}, "must be a dict of exchange name → kind"),
        ({"QUEUES": {"default": {"exchange": 5}}}, "option 'exchange' must be text, not 5"),
        ({"QUEUES": {"default": {"routing_key": 5}}}, "must be text or a list of texts, not 5"),
        ({"QUEUES": {"default": {"routing_key": [5]}}}, "must be text or a list of texts"),
        ({"QUEUES": {"default": {"rooting_key": "a"}}}, "Did you mean 'routing_key'?"),
        ({"CREATE_MISSING_QUEUES": "yes"}, "must be True or False, not 'yes'"),
        ({"PRIORITY_STEPS": []}, "must be whole numbers from 0 to 9, ascending, the first"),
        ({"PRIORITY_STEPS": [1, 2]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": [0, 3, 3]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": [0, 6, 3]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": range(11)}, "must be whole numbers"),
        ({"PRIORITY_STEPS": [0, "3"]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": [0, 1.5]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": [False, 1]}, "must be whole numbers"),
        ({"PRIORITY_STEPS": "0369"}, "must be whole numbers"),
        ({"PRIORITY_STEPS": 4}, "must be whole numbers"),
    ],
)
def test_settings_of_the_wrong_kind(jobs: dict[str, Any], told: str) -> None:
    found, [problem] = conf.parse(jobs)
    assert told in problem
    assert found == conf.Conf()


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ({"DEFAULT_EXCHANGE": "medai"}, "'medai', which JOBS['EXCHANGES'] does not declare. Did"),
        ({"QUEUES": {"default": {"exchange": "medai"}}}, "Did you mean 'media'?"),
        ({"QUEUES": {"default": {"routing_key": "a"}}}, "has a routing_key and no exchange"),
        (
            {"QUEUES": {"default": {"exchange": "media", "routing_key": "é" * 128}}},
            "a routing_key of more than 255 bytes",
        ),
    ],
)
def test_bindings_that_can_not_be(jobs: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        router(EXCHANGES={"media": "topic"}, **jobs)


# --------------------------------------------------------------------------- TASK_ROUTES


def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
    return {"x.one": "by_function", "x.two": {"queue": "q", "priority": 3}}.get(name)


@pytest.mark.parametrize(
    ("routes", "name", "expected"),
    [
        ({"x.one": "q"}, "x.one", Route("q")),
        ({"x.one": "q"}, "x.on", Route()),
        ({"x.one": {"queue": "q", "priority": 0}}, "x.one", Route("q", priority=0)),
        ({"x.*": "glob", "x.one": "exact"}, "x.one", Route("exact")),
        ({"x.*": "glob", "x.one": "exact"}, "x.two", Route("glob")),
        ({"x.?ne": "glob"}, "x.one", Route("glob")),
        ({"x.[ab]": "glob"}, "x.b", Route("glob")),
        ({"x.*": "first", "x.o*": "second"}, "x.one", Route("first")),
        ({re.compile(r"x\.(one|two)"): "re"}, "x.two", Route("re")),
        ({re.compile(r"one"): "re"}, "x.one", Route()),  # from the beginning, as in Celery
        ([("x.*", "a"), ("y.*", "b")], "y.one", Route("b")),
        (([("x.*", "a"), (re.compile("y"), {"queue": "b"})],), "y.one", Route("b")),
        ([{"y": "a"}, {"x.one": "b"}], "x.one", Route("b")),
        (("x.*", "y.*"), "x.one", None),
        ({"x.one": {"exchange": "e", "routing_key": "k"}}, "x.one", Route("", "e", "k")),
        ((), "x.one", Route()),
        (None, "x.one", Route()),
    ],
)
def test_forms_of_routes(routes: Any, name: str, expected: Route | None) -> None:
    if expected is None:  # dotted paths of functions that aren't there
        with pytest.raises(ConfigurationError, match=r"'x\.\*'"):
            Routes(routes)
        return
    assert Routes(routes).of(name) == ((), expected)


@pytest.mark.parametrize(
    "routes",
    [
        by_function,
        "tests.unit.routing.test_routing.by_function",
        [by_function],
        (by_function, {"x.*": "m"}),
    ],
)
def test_functions_are_asked_at_the_call(routes: Any) -> None:
    queues = {"default": {}, "by_function": {}, "q": {}, "m": {}}
    found = router(QUEUES=queues, TASK_ROUTES=routes)
    assert found.find("x.one", (), {}, {}, None) == ((("by_function",), "", "by_function"), 0)
    assert found.find("x.two", (), {}, {}, None) == ((("q",), "", "q"), 3)
    after = "m" if isinstance(routes, tuple) else "default"
    assert found.find("x.three", (), {}, {}, None)[0].queues == (after,)


def test_functions_after_what_decides_are_not_asked() -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    routes = Routes([{"x.*": "m"}, never])
    assert routes.of("x.one").functions == ()
    assert routes.of("y").functions == (never,)


class Named:
    """As kombu's queues and exchanges are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return "<Named>"


class OldRouter:
    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {"queue": "mail", "routing_key": "mail.old"} if task == "shop.mail.old" else None


@pytest.mark.parametrize("router", [OldRouter(), f"{__name__}.OldRouter"])
def test_routers_as_classes_are_asked(router: Any) -> None:
    (function,) = Routes(router).of("shop.mail.old").functions
    assert function("shop.mail.old", (), {}, {}, task=None) == {
        "queue": "mail",
        "routing_key": "mail.old",
    }
    assert function("shop.other", (), {}, {}, task=None) is None


def test_a_kind_of_exchange_is_no_option_of_a_call() -> None:
    said = {"exchange": "video", "exchange_type": "topic", "routing_key": "video.compress"}
    route = Routes({"t": said}).of("t").route
    assert route == Route("", "video", "video.compress")


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ({"t": 5}, "a route is a queue's name or a dict, not 5"),
        ({"t": {"quue": "a"}}, "no option 'quue'. Did you mean 'queue'?"),
        ({"t": {"queue": 5}}, "queue must be text, not 5"),
        ({"t": {"queue": "a", "priority": 10}}, "priority must be 0 to 9, not 10"),
        ({"t": {"queue": "a", "priority": True}}, "priority must be 0 to 9, not True"),
        ({"t": {"queue": Named("a")}}, "queue must be text, not <Named>; write its name, 'a'"),
        ({"t": {"routing_key": "k" * 256}}, "routing_key has more than 255 bytes"),
        ({"t": {"exchange": "b", "exchange_type": "header"}}, "exchange_type must be one of"),
        ([("a", "b", "c")], "must be a pair"),
        ([["a"]], "must be a pair"),
        ({"": "q"}, "must be a pair"),
        ({5: "q"}, "must be a pair"),
        (5, "must be a dict, a list of pairs, a function"),
        ([None], "must be a dict, a list of pairs, a function"),
        ("tests.gone.router", "'tests.gone.router'"),
        ("tests.unit.routing.test_routing.MEDIA", "which is no function"),
    ],
)
def test_routes_that_can_not_be(routes: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        Routes(routes)


# --------------------------------------------------------------------------- who decides


@pytest.mark.parametrize(
    ("call", "decorator", "settings_", "expected"),
    [
        (Route(), Route(), Route(), Route()),
        (Route("c"), Route("d"), Route("s"), Route("c")),
        (Route(), Route("d"), Route("s"), Route("d")),
        (Route(), Route(), Route("s"), Route("s")),
        (Route("c"), Route("", "e", "k"), Route("s"), Route("c")),
        (Route("", "e", "k"), Route("d"), Route("s"), Route("", "e", "k")),
        (Route("", "", "k"), Route("", "e", "d"), Route("s"), Route("", "e", "k")),
        (Route("", "e"), Route("", "f", "d"), Route("s"), Route("", "e", "d")),
        (Route("", "", "k"), Route("d"), Route("", "e"), Route("", "", "k")),
        (Route("", "", "k"), Route(), Route("", "e", "s"), Route("", "e", "k")),
        (Route(priority=1), Route("d", priority=2), Route(priority=3), Route("d", priority=1)),
        (Route("c"), Route("d", priority=2), Route(priority=3), Route("c", priority=2)),
        (Route("c"), Route("d"), Route(priority=3), Route("c", priority=3)),
        (Route("c", priority=0), Route("d", priority=2), Route(), Route("c", priority=0)),
    ],
)
def test_precedence(call: Route, decorator: Route, settings_: Route, expected: Route) -> None:
    assert call.over(decorator.over(settings_)) == expected


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Task[Any, Any]:
    monkeypatch.setattr(registry, "tasks", {})

    @task(name="shop.noted", exchange="media", routing_key="mail.new", priority=4)
    def noted(n: int = 0, tenant: str = "") -> None: ...

    return noted


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Task[Any, Any]:
    """A task whose decorator says nothing of where it goes."""
    monkeypatch.setattr(registry, "tasks", {})

    @task(name="shop.silent")
    def silent(n: int = 0, tenant: str = "") -> None: ...

    return silent


def test_from_the_settings_over_the_decorator_to_the_call(
    noted: Task[Any, Any], silent: Task[Any, Any], settings: Settings
) -> None:
    settings.JOBS = MEDIA
    sent = noted.message((), {})
    assert (sent.queue, sent.copies, sent.priority) == ("mail", ("audit",), 4)
    assert noted.message((), {}, routing_key="video.1").queue == "audit"
    assert (silent.message((), {}).queue, silent.message((), {}).priority) == ("default", 0)
    settings.JOBS = {**MEDIA, "TASK_ROUTES": {"shop.*": {"queue": "one", "priority": 9}}}
    sent = silent.message((), {})
    assert (sent.queue, sent.copies, sent.exchange, sent.priority) == ("one", (), "", 9)
    sent = noted.message((), {})
    assert (sent.queue, sent.copies, sent.priority) == ("mail", ("audit",), 4)
    sent = noted.message((), {}, exchange="plain", routing_key="a", priority=0)
    assert (sent.queue, sent.copies, sent.priority) == ("one", ("two",), 0)
    settings.JOBS = {"TASK_ROUTES": {}}
    with pytest.raises(NoRoute, match="'media'"):
        noted.message((), {})
    assert noted.message((), {}, queue="default").queue == "default"


def test_a_function_sees_the_arguments_of_each_call(
    noted: Task[Any, Any], silent: Task[Any, Any], settings: Settings
) -> None:
    seen = []

    def by_tenant(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        seen.append((name, args, kwargs, options.get("queue"), task))
        return {"queue": kwargs["tenant"], "priority": 2} if "tenant" in kwargs else None

    settings.JOBS = {**MEDIA, "TASK_ROUTES": by_tenant}
    sent = silent.message((1,), {"tenant": "one"})
    assert (sent.queue, sent.copies, sent.priority) == ("one", (), 2)
    assert silent.message((1,), {}, queue="three", priority=1).queue == "three"
    assert noted.message((1,), {"tenant": "one"}).queue == "mail"
    assert [call[:4] for call in seen] == [
        ("shop.silent", [1], {"tenant": "one"}, None),
        ("shop.silent", [1], {}, "three"),
        ("shop.noted", [1], {"tenant": "one"}, None),
    ]
    assert seen[0][4] is silent


@pytest.mark.parametrize("answer", [5, {"quue": "a"}, {"queue": "gone"}, ZeroDivisionError()])
def test_a_function_that_fails(settings: Settings, answer: Any) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    settings.JOBS = {"TASK_ROUTES": broken}
    with pytest.raises((NoRoute, UnknownQueue), match=r"^Task 'tests\.tasks\.add' can't be sent"):
        add.message((1, 2), {})


ALONG: list[Any] = [
    ({"queue": "mail", "routing_key": "asyn"}, ("", "asyn")),
    ({"queue": "mail", "exchange": "news"}, ("news", "mail")),
    ({"queue": "mail", "exchange": "nowhere", "routing_key": "a.b"}, ("nowhere", "a.b")),
]


@pytest.mark.parametrize(("options", "info"), ALONG)
@pytest.mark.parametrize("who", ["call", "task", "settings", "function", "signature", "link"])
def test_a_queue_decides_and_the_rest_goes_along(
    options: Any,
    info: tuple[str, str],
    who: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "tasks", dict(registry.tasks))
    said = {**options, "priority": 2}
    routes: Any = {"settings": {"along.*": said}, "function": lambda *args, **_: said}.get(who, {})
    settings.JOBS = {**MEDIA, "TASK_ROUTES": routes}

    @task(name="along.sent", **(said if who == "task" else {}))
    def along() -> None: ...

    monkeypatch.setitem(registry.tasks, along.name, along)
    if who == "signature":
        sent = message_of(along.s().set(task_id="an-id", **said).as_dict())
    elif who == "link":
        sent = following.message_of(along.s().set(task_id="an-id", **said).as_dict(), "p", "r")
    else:
        sent = along.message((), {}, **(said if who == "call" else {}))
    assert (sent.queue, sent.copies, sent.priority) == ("mail", (), 2)
    properties = json.loads(message.encode(sent))["properties"]
    assert properties["delivery_info"] == dict(zip(("exchange", "routing_key"), info, strict=True))


def test_who_names_another_queue_takes_nothing_of_it(settings: Settings) -> None:
    route = {"queue": "mail", "exchange": "media", "routing_key": "mail.new"}
    settings.JOBS = {**MEDIA, "TASK_ROUTES": {"*": route}}
    sent = add.message((1, 2), {}, queue="one")
    assert (sent.queue, sent.exchange, sent.routing_key or sent.queue) == ("one", "", "one")
    sent = add.message((1, 2), {}, exchange="plain", routing_key="a")
    assert (sent.queue, sent.copies, sent.exchange) == ("one", ("two",), "plain")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"queue": "mail", "exchange": "media", "routing_key": "mail.new"}, ""),
        ({"queue": "mail", "routing_key": "mail.new"}, ""),
        ({"queue": "mail", "routing_key": "mail"}, ""),
        ({"queue": "default", "routing_key": "default"}, ""),
        ({"queue": "web2", "routing_key": "anything"}, ""),
        ({"queue": "two", "routing_key": "b"}, ""),
        ({"queue": "one"}, ""),
        ({"queue": "one", "routing_key": "b"}, "the routing key 'b', while the queue is bound"),
        ({"queue": "default", "routing_key": "x"}, "the routing key 'x', while the queue"),
        ({"queue": "mail", "exchange": "news"}, "exchange 'news', while the queue is bound to"),
        ({"queue": "default", "exchange": "news"}, "the queue is bound to no exchange"),
    ],
)
def test_a_key_that_contradicts_the_queue_is_doubtful(options: Any, why: str) -> None:
    found = router(**MEDIA, TASK_ROUTES={"shop.*": options})
    told = list(found.doubts([]))
    assert len(told) == bool(why)
    if why:
        assert told[0].startswith("JOBS['TASK_ROUTES']: 'shop.*' is for the queue ")
        assert why in told[0]

    class Decorated:
        name, route = "t", Route(**options)

    assert [one.split("'")[1] for one in router(**MEDIA).doubts([Decorated()])] == ["t"] * len(told)


def test_undeclared_queues(settings: Settings) -> None:
    with pytest.raises(UnknownQueue):
        add.message((1, 2), {}, queue="new")
    settings.JOBS = {"CREATE_MISSING_QUEUES": True}
    assert add.message((1, 2), {}, queue="new").queue == "new"
    assert conf.get().queue("new") == conf.Queue()
    with pytest.raises(UnknownQueue):
        add.message((1, 2), {}, queue="{new}")


# --------------------------------------------------------------------------- copies


def sent_to(*queues: str, **fields: Any) -> message.Message:
    first, *copies = queues
    return message.Message(task="t", queue=first, copies=tuple(copies), **fields)


def test_each_further_queue_gets_a_call_of_its_own() -> None:
    sent = sent_to("a", "b", "c", id=message.new_id(), args=[1], group="g", priority=3)
    sent.embed = {"chain": [{"task": "u"}]}
    first, *copies = message.spread(sent)
    assert (first.id, first.queue, first.copies, first.embed) == (sent.id, "a", (), sent.embed)
    assert [copy.queue for copy in copies] == ["b", "c"]
    assert len({sent.id, *(copy.id for copy in copies)}) == 3
    for copy in copies:
        assert (copy.root_id, copy.args, copy.priority) == (sent.id, [1], 3)
        assert (copy.embed, copy.group) == ({}, None)
        assert message.id_time(copy.id) == message.id_time(sent.id)


@pytest.mark.parametrize(
    "task_id", ["chosen by the caller", "01890000-0000-7000-8000-000000000000"]
)
def test_the_same_call_makes_the_same_ids(task_id: str) -> None:
    once, again = (
        message.spread(sent_to("a", "b", id=task_id)),
        message.spread(sent_to("a", "b", id=task_id)),
    )
    assert [m.id for m in once] == [m.id for m in again]


# --------------------------------------------------------------------------- the page


def test_patterns_of_the_page() -> None:
    text = (DOCS / "routing.md").read_text()
    rows = re.findall(r"^\| `([\w.*#]+)` \| (`.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    for pattern, fitting, others in rows:
        topics = Topics([(pattern, 1)])
        assert all(topics.find(key) for key in re.findall(r"`(.*?)`", fitting)), pattern
        assert not any(topics.find(key) for key in re.findall(r"`(.*?)`", others)), pattern


def test_priorities_of_the_page() -> None:
    text = (DOCS / "routing.md").read_text()
    rows = re.findall(r"^\| `\[([\d, ]+)\]`.*? \| (\d+) \| ([\d |]+) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for listed, count, cells in rows:
        steps = [int(step) for step in listed.split(", ")]
        assert len(steps) == int(count)
        assert [steps[n] for n in lists_of(steps)] == [int(cell) for cell in cells.split(" | ")]
