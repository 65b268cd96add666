"""What a worker does with the messages of Celery's clients: the good, the strange and the bad."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django import Settings

from jobs import broker, control
from jobs.broker.celery import packed, unpacked
from jobs.conf import parse
from jobs.control import control_command, inspect_command
from jobs.control.metrics import REVOKED
from jobs.control.remote import commands
from jobs.exceptions import ConfigurationError
from jobs.message import Message
from jobs.worker.board import key
from jobs.worker.celery.events import Teller
from jobs.worker.celery.listener import Listener, listener_of
from jobs.worker.celery.state import WorkerState
from jobs.worker.child import Options
from jobs.worker.record.outcome import Done
from jobs.worker.supervisor.queues import Queues, Size
from jobs.worker.supervisor.reporter import Reporter
from tests.services import Valkey, wait_for
from tests.tasks import add

pytestmark = pytest.mark.django_db(transaction=True)

CHANNEL = "/0.celery.pidbox"
CLIENT = "00000000-0000-0000-0000-000000000001"
REPLIES = f"{CLIENT}.reply.celery.pidbox"
HOSTNAME = "celery@w"

_tickets = map(str, itertools.count(1))

Ask = Callable[..., Any]


@pytest.fixture
def listening(own_valkey: Valkey, settings: Settings) -> Iterator[Callable[..., Listener]]:
    """Starts the thread of a worker that runs nothing."""
    started: list[Listener] = []

    def start(*slots: Any, **jobs: Any) -> Listener:
        settings.JOBS = {**settings.JOBS, **jobs}
        options = Options(queues=("default",), name="w")
        queues = Queues(options, slots)
        reporter = Reporter(options, slots, queues)
        made = listener_of(WorkerState(options, slots, reporter, queues, Size(1)))
        assert made is not None
        started.append(made)
        made.start()
        if jobs["CELERY_CONTROL"] != "none":
            wait_for(lambda: subscribers(own_valkey) == 1, what="the listener")
        return made

    yield start
    for one in started:
        one.stop()
        one._thread.join(60)
        assert not one._thread.is_alive()


def subscribers(server: Valkey) -> int:
    with server.client() as client:
        return int(client.pubsub_numsub(CHANNEL)[0][1])


@pytest.fixture
def ask(own_valkey: Valkey) -> Ask:
    """Send a command as kombu does, and return the worker's answer."""

    def send(method: Any, arguments: Any = None, **fields: Any) -> Any:
        ticket = next(_tickets)
        body = {
            "method": method,
            "arguments": arguments,
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": CLIENT},
            "ticket": ticket,
            **fields,
        }
        with own_valkey.client() as client:
            client.publish(CHANNEL, packed(body, {"clock": 7}, "celery.pidbox", ""))
            found: Any = client.brpop([REPLIES], timeout=60)
            assert found, f"no answer to {method}"
            answer = unpacked(found[1])
            assert answer.headers["ticket"] == ticket
            assert answer.headers["clock"] > 7
            (said,) = answer.body.items()
            assert said[0] == HOSTNAME
            return said[1]

    return send


def cast(server: Valkey, text: bytes | str) -> None:
    """Send something to which no answer is wanted."""
    with server.client() as client:
        assert client.publish(CHANNEL, text) == 1


def test_what_it_can_not_obey_stops_nothing(
    listening: Callable[..., Listener], ask: Ask, own_valkey: Valkey
) -> None:
    listening(CELERY_CONTROL="all")
    mine = {"method": "revoke", "arguments": {"task_id": "of-nobody"}}
    for body in (
        {**mine, "destination": ["celery@other"]},
        {**mine, "destination": HOSTNAME},
        {**mine, "pattern": "celery@o*", "matcher": "glob"},
        {**mine, "pattern": ".*", "matcher": "pcre"},  # might take hours
    ):
        cast(own_valkey, packed(body, {}, "celery.pidbox", ""))
    for text in (b"", b"[]", b"\xff\xff", "[" * 10_000, packed([1], {}, "x", "")):
        cast(own_valkey, text)
    assert ask("ping", destination=[HOSTNAME]) == {"ok": "pong"}
    assert ask("ping", pattern="celery@*", matcher="glob") == {"ok": "pong"}
    assert ask("revoked") == []
    assert "knows no command" in ask("no_such")["error"]
    assert "knows no command" in ask(["a list"])["error"]
    assert "by name, not as [1]" in ask("ping", [1])["error"]
    assert "TypeError" in ask("query_task", {"no": 1})["error"]
    assert "ValueError" in ask("revoke", {"task_id": ["x" * 300]})["error"]
    assert "TypeError" in ask("revoke", {"task_id": 5})["error"]
    assert "ValueError" in ask("revoke_by_stamped_headers", {"headers": "a=b"})["error"]
    assert "seconds" in ask("time_limit", {"task_name": add.name, "soft": "often"})["error"]
    assert ask("time_limit", {"task_name": add.name, "soft": 1.5}) == {
        "ok": "time limits set successfully"
    }
    items = {"taskinfoitems": ["soft_time_limit", "time_limit"]}
    assert f"{add.name} [soft_time_limit=1.5]" in ask("registered", items)
    # Options and plain attributes; no methods, properties or objects.
    others = {"taskinfoitems": ["acks", "acks_late", "options", "request", "delay"]}
    assert f"{add.name} [acks=late acks_late=True]" in ask("registered", others)
    assert "ok" in ask("time_limit", {"task_name": add.name, "soft": 0})
    assert add.name in ask("registered", items)
    assert "not declared" in ask("add_consumer", {"queue": "no-such"})["error"]
    assert "already" in ask("add_consumer", {"queue": "default"})["ok"]
    assert "not consuming" in ask("cancel_consumer", {"queue": "low"})["ok"]
    assert "the only one" in ask("cancel_consumer", {"queue": "default"})["error"]
    assert "from 1 to 10" in ask("pool_grow", {"n": 10})["error"]
    assert "from 1 to 10" in ask("pool_shrink")["error"]
    for wrong in ("1", 1.5, True, None, [1]):
        for command in ("pool_grow", "pool_shrink"):
            assert "a whole number of processes" in ask(command, {"n": wrong})["error"]
    for wrong in (5, None, ["default"], {"a": 1}):
        assert "is not declared" in ask("add_consumer", {"queue": wrong})["error"]
        assert ask("time_limit", {"task_name": wrong, "soft": 1}) == {"error": "unknown task"}
    assert "as it is told" in ask("autoscale", {"max": 3, "min": 1})["error"]
    assert "UnknownWorker" not in str(ask("shutdown"))  # a sentence: it has not reported
    # A key's name is made of what a client calls itself.
    strange = {"routing_key": "default", "exchange": "reply.celery.pidbox"}
    for routing_key in ("a.b", "x" * 65, "", None, {"a": 1}):
        body = {"method": "ping", "reply_to": {**strange, "routing_key": routing_key}}
        cast(own_valkey, packed(body, {}, "celery.pidbox", ""))
    assert ask("ping") == {"ok": "pong"}
    with own_valkey.client() as client:
        names = [key for key in client.scan_iter() if key.endswith(b".pidbox")]
    assert set(names) <= {REPLIES.encode()}


def test_looking_only(listening: Callable[..., Listener], ask: Ask) -> None:
    listening(CELERY_CONTROL="inspect")
    changing = [name for name, command in commands.items() if command.changes]
    assert {"revoke", "terminate", "shutdown", "rate_limit", "pool_restart"} < {*changing}
    for name in changing:
        assert "only be looked at" in ask(name, {"task_id": "an-id"})["error"]
    assert control.inspect.revoked() == []
    assert ask("hello", {"from_node": "celery@theirs"})["revoked"] == []
    assert "set JOBS['CELERY_EVENTS']" in ask("enable_events")["error"]
    assert ask("disable_events") == {"ok": "task events already disabled"}
    control.revoke("an-id")
    assert ask("revoked") == ["an-id"]


def test_what_is_claimed_and_what_runs(listening: Callable[..., Listener], ask: Ask) -> None:
    ran, held, waits = (add.delay(n, n) for n in range(3))
    broker.get().claim("default", "w/1.1", 1, 2, 60)
    broker.get().claim("default", "other/1.1", 1, 1, 60)
    slot = SimpleNamespace(
        consumer="w/1.1",
        process=SimpleNamespace(pid=7),
        processed=0,
        running=lambda: [(key("default", 1), time.monotonic() - 2)],
    )
    listening(slot, CELERY_CONTROL="inspect")
    (active,) = ask("active")
    assert (active["id"], active["args"], active["worker_pid"]) == (ran.id, [0, 0], 7)
    assert active["time_start"] == pytest.approx(time.time() - 2, abs=60)
    assert ask("active", {"safe": True})[0]["args"] == "[0,0]"
    assert [one["id"] for one in ask("reserved")] == [held.id]
    found = ask("query_task", {"ids": [ran.id, held.id, waits.id]})
    assert {name: state for name, (state, _) in found.items()} == {
        ran.id: "active",
        held.id: "reserved",
    }


def test_it_listens_again_when_the_server_is_back(
    listening: Callable[..., Listener], ask: Ask, own_valkey: Valkey
) -> None:
    listening(CELERY_CONTROL="inspect")
    assert ask("ping") == {"ok": "pong"}
    own_valkey.restart()
    wait_for(lambda: subscribers(own_valkey) == 1, what="the listener")
    assert ask("ping") == {"ok": "pong"}


def test_events_are_sent_while_somebody_listens(
    listening: Callable[..., Listener], own_valkey: Valkey
) -> None:
    with own_valkey.client() as client, closing(client.pubsub()) as heard:
        heard.psubscribe("/0.celeryev/*")
        listener = listening(CELERY_CONTROL="none", CELERY_EVENTS=True)

        def events() -> Iterator[dict[str, Any]]:
            while True:
                found = heard.get_message(ignore_subscribe_messages=True, timeout=60)
                if found is not None:
                    assert found["type"] == "pmessage"
                    whole = json.loads(found["data"])
                    yield from _events_of(whole)

        came = events()
        online, beat = next(came), next(came)
        assert (online["type"], beat["type"]) == ("worker-online", "worker-heartbeat")
        assert online["hostname"] == HOSTNAME
        assert beat["clock"] > online["clock"]
        listener._state.beat.set()  # what the command `heartbeat` does, at the next look
        assert next(came)["type"] == "worker-heartbeat"
        call = Message(task=add.name, id="an-id", queue="default")
        teller = Teller("w/1.1")
        teller.tell([Done("default", 1, counts=REVOKED, call=call)])
        found = next(one for one in came if one["type"] == "task-revoked")
        assert (found["uuid"], found["hostname"]) == ("an-id", HOSTNAME)
        assert teller._heard
        listener.stop()
        assert next(one for one in came if one["type"] == "worker-offline")
        heard.punsubscribe()
        wait_for(lambda: client.pubsub_numpat() == 0)
    teller.tell([Done("default", 1, counts=REVOKED, call=call)])
    assert not teller._heard


def _events_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    body = json.loads(base64.b64decode(whole["body"]))
    return body if isinstance(body, list) else [body]


@pytest.mark.parametrize("decorator", [control_command, inspect_command])
def test_own_commands(
    decorator: Any, listening: Callable[..., Listener], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("doubled", "twice", "halved"):
        monkeypatch.setitem(commands, name, commands["ping"])
        del commands[name]

    @decorator(name="doubled", alias="twice", signature="[N=1]", args=[("n", int)])
    def double(state: WorkerState, n: int = 1) -> dict[str, int]:
        return {state.worker: 2 * n}

    @inspect_command(name="halved")
    def halve(state: WorkerState) -> set[int]:
        return {1}

    listening(CELERY_CONTROL="all")
    assert "TypeError" in ask("halved")["error"]  # what JSON can't hold
    assert ask("doubled") == {"w": 2}
    assert ask("twice", {"n": 4}) == {"w": 8}
    with pytest.raises(ConfigurationError, match="are called 'ping'"):

        @decorator
        def ping(state: WorkerState) -> None: ...


def test_a_full_list_of_answers_grows_no_more(
    listening: Callable[..., Listener], own_valkey: Valkey
) -> None:
    with own_valkey.client() as client:
        client.rpush(REPLIES, *["x"] * 10_000)
        listening(CELERY_CONTROL="inspect")
        body = {"method": "ping", "reply_to": {"routing_key": CLIENT}}
        cast(own_valkey, packed(body, {}, "celery.pidbox", ""))
        cast(
            own_valkey, packed({**body, "reply_to": {"routing_key": "b"}}, {}, "celery.pidbox", "")
        )
        wait_for(lambda: client.exists("b.reply.celery.pidbox"))
        assert client.llen(REPLIES) == 10_000


def test_settings_that_make_no_sense() -> None:
    cluster = {"BROKER_URL": "redis+cluster://localhost:7000"}
    assert not parse(cluster)[1]
    for more in ({"CELERY_CONTROL": "inspect"}, {"CELERY_EVENTS": True}):
        (problem,) = parse({**cluster, **more})[1]
        assert "Cluster" in problem
    (problem,) = parse({"CELERY_CONTROL": True})[1]
    assert problem == ("""JOBS['CELERY_CONTROL'] must be "none", "inspect" or "all", not True.""")
