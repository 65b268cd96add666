"""What was promised, and what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import connection

from jobs import broker, conf
from jobs.broker.base import DeadLetter
from jobs.exceptions import BrokerUnavailable
from jobs.models import TaskResult
from jobs.states import TERMINAL, State
from tests.storm import users
from tests.storm.failovers import Failover
from tests.storm.models import Effect, End, Sent

#: Kinds whose effects are promised to happen exactly once.
ATOMIC = ("atomic", "atomic_flaky")


class Noted(NamedTuple):
    """What the senders know. Ids, with their kinds."""

    promised: dict[str, str]
    #: Those of them that were sent outside a transaction.
    outside: set[str]
    #: The send outside a transaction raised, or its process was killed: it may run.
    possible: dict[str, str]
    rolled_back: set[str]


def noted(logs: Iterable[Path]) -> Noted:
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    said: dict[str, dict[str, str]] = {"outside": {}, "trying": {}, "rolled-back": {}}
    for became, *sent in lines:
        for kind, _, id_ in (word.partition(":") for word in sent):
            said.setdefault(became, {})[id_] = kind
    promised = dict(Sent.objects.values_list("id", "kind")) | said["outside"]
    possible = said["trying"] | promised
    return Noted(promised, set(said["outside"]), possible, set(said["rolled-back"]))


def left() -> int | None:
    """How much still waits, runs or is due, as messages and as calls without an end; None while
    nobody can be asked."""
    try:
        queues = [broker.get().stats(queue) for queue in conf.get().queues]
        messages = sum(q.waiting + q.in_flight + q.due for q in queues)
        return messages + TaskResult.objects.exclude(state__in=TERMINAL).count()
    except BrokerUnavailable:
        pass  # this process's connections were cut as well
    except DatabaseError:
        connection.close()
    return None


def without_replica(known: Noted, failovers: Sequence[Failover]) -> Noted:
    """Without the calls that may be lost: no replica had received them when it took over, and they
    were sent outside a transaction, so that only the broker knew them."""
    left_something = set(TaskResult.objects.values_list("id", flat=True))
    left_something |= set(Effect.objects.values_list("task", flat=True))
    lost = {
        id_
        for id_ in known.outside - left_something
        if any(failover.may_lose(id_) for failover in failovers)
    }
    promised = {id_: kind for id_, kind in known.promised.items() if id_ not in lost}
    return known._replace(promised=promised, outside=known.outside - lost)


def violations(known: Noted) -> dict[str, list[str]]:
    """Promise → ids of the tasks for which it was broken."""
    states = dict(TaskResult.objects.values_list("id", "state"))
    effects = Counter(Effect.objects.values_list("task", flat=True))
    atomic = Counter(Effect.objects.filter(kind__in=ATOMIC).values_list("task", flat=True))
    ends = Counter(End.objects.values_list("task", flat=True))
    return {
        "lost": [
            i for i, kind in known.promised.items() if _is_lost(kind, states.get(i), effects[i])
        ],
        # P9: what was accepted has an end; only a quiet task has none outside a transaction.
        "without an end": [
            i
            for i, kind in known.promised.items()
            if states.get(i) not in TERMINAL and not (kind == "quiet" and i not in states)
        ],
        "touched by another": list(
            TaskResult.objects.filter(error_type__endswith=".Touched").values_list("id", flat=True)
        ),
        "recorded twice": [i for i, count in ends.items() if count > 1],
        "rolled back, but run": sorted((effects.keys() | states.keys()) - known.possible.keys()),
        "atomic effects doubled": [i for i, count in atomic.items() if count > 1],
        "atomic effect without its result": [i for i in atomic if states.get(i) != State.SUCCESS],
        "atomic result without its effect": [
            i
            for i, kind in known.possible.items()
            if kind in ATOMIC and states.get(i) == State.SUCCESS and not atomic[i]
        ],
        "dead letters": [
            letter.reason
            for queue in conf.get().queues
            for letter in broker.get().dead_letters(queue, 1000)
            if _kind_of(letter) not in users.KINDS
        ],
    }


def _kind_of(letter: DeadLetter) -> str:
    return str(json.loads(letter.raw)["headers"]["task"]).rpartition(".")[2]


def _is_lost(kind: str, state: str | None, effects: int) -> bool:
    """Whether a promised task hasn't ended as it should have."""
    if kind in users.KINDS:
        return False  # they may end in any way: see "without an end"
    if kind == "broken":
        return state != State.FAILURE
    if kind == "quiet":  # outside a transaction it has no row
        return state not in (None, State.SUCCESS) or not effects
    return state != State.SUCCESS or not effects


def ran_again() -> int:
    """How many tasks left their effect more than once, which only atomic ones promise not to."""
    return sum(n > 1 for n in Counter(Effect.objects.values_list("task", flat=True)).values())
