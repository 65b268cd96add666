"""The contract of every broker: tenants with waiting messages take turns."""

from __future__ import annotations

import datetime as dt
import time

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, given, settings

from jobs.broker.base import Broker, Outgoing, Parking, Pause, Returned, Waiting
from jobs.broker.memory import MemoryBroker
from jobs.broker.redis import RedisBroker
from jobs.broker.tenants import tenant_of
from tests.integration.broker.helpers import LEASE, claim, dead, expire, of_tenant, push, waiting

A = [of_tenant("a", n) for n in range(10)]
B = [of_tenant("b", n) for n in range(10)]


def test_they_take_turns_and_keep_their_own_order(broker: Broker) -> None:
    push(broker, *A[:4], *B[:2], of_tenant("c", 0))
    assert claim(broker) == [A[0], B[0], of_tenant("c", 0), A[1], B[1], A[2], A[3]]
    assert broker.stats("mail").waiting == 0


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_claims_of_any_size_go_on_where_the_last_one_stopped(broker: Broker, limit: int) -> None:
    push(broker, *A[:4], *B[:4])
    claimed: list[bytes] = []
    while some := claim(broker, limit, first=1 + len(claimed)):
        claimed += some
    assert claimed == [raw for pair in zip(A[:4], B[:4], strict=True) for raw in pair]


def test_a_turn_is_had_once_in_a_round(broker: Broker) -> None:
    """Also when the plain list has nothing at its turn, and there are more tenants than were
    asked."""
    push(broker, *A[:2], B[0], of_tenant("c", 0))
    assert claim(broker, 2) == [A[0], B[0]]
    assert claim(broker, 2, first=3) == [of_tenant("c", 0), A[1]]


def test_who_comes_late_is_next_after_a_round(broker: Broker) -> None:
    """With 1,000 of one tenant waiting, another's is started within two claims."""
    push(broker, *(of_tenant("a", n) for n in range(1000)))
    claim(broker, 500)
    push(broker, B[0])
    assert B[0] in claim(broker, 2, first=501)


def test_the_plain_messages_have_turns_like_a_tenant(broker: Broker) -> None:
    push(broker, b"1", b"2", b"3", b"4")
    push(broker, *A[:3], *B[:3])
    claimed = claim(broker, 20)
    assert len(claimed) == 10
    for n in range(0, 9, 3):
        assert len({tenant_of(raw) for raw in claimed[n : n + 3]}) == 3


@pytest.mark.parametrize("said", [True, None])
def test_one_sent_alone_waits_for_its_turn_too(broker: Broker, said: bool | None) -> None:
    push(broker, *A[:5])
    broker.push((Outgoing("mail", B[0], fair=said),))
    assert B[0] in claim(broker, 2)


def test_one_that_is_said_to_be_nobody_s(redis_broker: RedisBroker, client: redis.Redis) -> None:
    redis_broker.push((Outgoing("mail", b"x", fair=False),))
    redis_broker.push([Outgoing("mail", b"y", fair=False)] * 2)
    assert client.llen("mail") == 3


def test_a_higher_priority_goes_first(broker: Broker) -> None:
    push(broker, *A[:2], priority=5)
    push(broker, *B[:3], b"plain", priority=0)
    claimed = claim(broker)
    assert {*claimed[:4]} == {*B[:3], b"plain"}
    assert claimed[4:] == A[:2]


def test_what_is_due_gets_its_tenant_s_turns(broker: Broker) -> None:
    push(broker, *A[:3])
    broker.push([Outgoing("mail", raw, 0, 1.0 + n) for n, raw in enumerate(B[:2])])
    assert broker.stats("mail").due == 2
    assert [found.raw for found in broker.browse("mail", due=True)] == B[:2]
    claimed = claim(broker)
    assert {*claimed} == {*A[:3], *B[:2]}
    assert claimed.index(B[0]) < claimed.index(A[2])


def test_what_is_released_is_the_first_of_its_tenant(broker: Broker) -> None:
    push(broker, *A[:4], *B[:2])
    assert claim(broker, 3) == [A[0], B[0], A[1]]
    edited = A[1] + b" "
    assert broker.release("mail", "w1", [Returned(1), Returned(3, raw=edited)]) == 2
    claimed = claim(broker, first=4)
    assert [raw for raw in claimed if tenant_of(raw) == b"a"] == [A[0], edited, A[2], A[3]]
    assert claimed.index(B[1]) < 2


def test_what_a_vanished_consumer_held(broker: Broker) -> None:
    push(broker, *A[:3], *B[:1])
    claim(broker, 10)
    expire(broker, "w1")
    push(broker, *B[1:3])
    assert broker.reclaim("mail", "w1", lambda n, raw: Returned(n)) == 4
    claimed = claim(broker, by="w2")
    assert [raw for raw in claimed if tenant_of(raw) == b"a"] == A[:3]
    assert [raw for raw in claimed if tenant_of(raw) == b"b"] == B[:3]


def test_a_retry_becomes_ready_among_its_tenant_s(broker: Broker) -> None:
    push(broker, *A[:2])
    claim(broker, 1)
    assert broker.retry("mail", "w1", 1, B[0], 0, time.time() - 1)
    assert {*claim(broker, first=2)} == {A[1], B[0]}


def test_dead_letters_that_are_put_back(broker: Broker) -> None:
    dead(broker, [A[0], B[0]])
    push(broker, *A[1:4])
    for letter in broker.dead_letters("mail", 10):
        assert broker.requeue("mail", letter.key)
    assert claim(broker, 2)[1] == B[0]
    assert claim(broker, first=3) == [A[2], A[3], A[0]]


def test_a_bell_for_each(broker: Broker) -> None:
    push(broker, *A[:2])
    for _ in range(2):
        assert broker.wait(["mail"], 0.1) == "mail"
    assert broker.wait(["mail"], 0) is None
    assert broker.stirring(["mail", "post"]) == ["mail"]
    claim(broker)
    assert broker.stirring(["mail"]) == []


def test_a_pause_and_its_end(broker: Broker) -> None:
    push(broker, *A[:2], *B[:2])
    broker.pause("mail", Pause("", "ada", "", dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
    assert claim(broker) == []
    assert broker.resume("mail")
    assert broker.wait(["mail"], 0.1) == "mail"
    broker.pause("mail", Pause("task", "ada", "", dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
    assert len(claim(broker)) == 4
    assert len(broker.park("mail", "w1", [Parking(n, 0, "task") for n in (1, 2, 3)])) == 3
    assert claim(broker, first=5) == []
    assert broker.resume("mail", "task")
    assert len(claim(broker, first=5)) == 3


# ---------------------------------------------------------------------- operators


def test_operators_see_and_take_them(broker: Broker) -> None:
    push(broker, b"plain", *A[:3], *B[:1])
    push(broker, *A[3:5], priority=9)
    assert broker.stats("mail").waiting == 7
    (survey,) = broker.survey(["mail"])
    assert survey.stats.waiting == 7
    assert len(survey.next_ones) == 2
    every = {b"plain", *A[:5], *B[:1]}
    assert {*broker.scan("mail")} == every
    found = list(broker.browse("mail", due=False))
    assert {one.raw for one in found} == every
    assert {one.raw for one in found if one.priority} == {*A[3:5]}
    assert broker.pick("mail", "o", 1, LEASE, Waiting(A[1], 0))
    assert not broker.pick("mail", "o", 2, LEASE, Waiting(A[1], 0))
    assert broker.pick("mail", "o", 2, LEASE, Waiting(B[0], 0))
    taken = broker.take("mail", "o", 3, 2, LEASE)
    assert {one.raw for one in taken} <= {b"plain", A[0], A[2]}
    assert len(broker.take("mail", "o", 5, 10, LEASE)) == 3
    assert broker.stats("mail")[:2] == (0, 7)


def test_pages_are_in_the_order_of_claims(broker: Broker) -> None:
    push(broker, *A[:5], *B[:2], *(of_tenant("c", n) for n in range(3)))
    push(broker, b"last", *B[2:4], priority=9)
    every = broker.peek("mail", 0, 100)
    for start in range(14):
        for count in (1, 2, 5, 20):
            assert broker.peek("mail", start, count) == every[start : start + count]
    assert broker.peek("mail", 10**16, 5) == []
    assert [one.raw for one in every] == waiting(broker)


def test_a_message_that_waits_twice(broker: Broker) -> None:
    push(broker, A[0], A[0])
    assert broker.stats("mail").waiting == 2
    assert claim(broker) == [A[0], A[0]]


def test_nothing_is_left_on_the_server(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, *(of_tenant(str(n), n) for n in range(300)))
    found = list(redis_broker.browse("mail", due=False))
    assert len({one.raw for one in found}) == 300
    for number, one in enumerate(found[:100], 1):
        assert redis_broker.pick("mail", "o", number, LEASE, one)
    assert len(redis_broker.take("mail", "o", 101, 50, LEASE)) == 50
    assert len(claim(redis_broker, 150)) == 150
    assert not [key for key in client.keys("*") if b"fair" in key]


def test_a_worker_that_does_not_know_tenants(
    redis_broker: RedisBroker, client: redis.Redis
) -> None:
    """It puts back on the plain list what it was given; all is run, and found by operators."""
    push(redis_broker, A[1], B[0])
    client.lpush("mail", A[0])
    assert redis_broker.stats("mail").waiting == 3
    assert redis_broker.pick("mail", "o", 1, LEASE, Waiting(A[0], 0))
    client.lpush("mail", A[0])
    assert {*claim(redis_broker)} == {A[0], A[1], B[0]}


def test_somebody_else_s_key_loses_nothing(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, A[0])
    claim(redis_broker)
    client.set("{mail}:fair:0", "somebody else's")
    with pytest.raises(Exception, match="WRONGTYPE"):
        redis_broker.release("mail", "w1", [Returned(1)])
    assert redis_broker.held("mail", "w1", [1]) == {1}
    with pytest.raises(Exception, match="WRONGTYPE"):
        push(redis_broker, A[1], b"plain")
    client.delete("{mail}:fair:0")
    assert redis_broker.release("mail", "w1", [Returned(1)]) == 1
    assert {*claim(redis_broker, first=2)} == {A[0], b"plain"}


def test_a_full_server_can_be_worked_off(redis_broker: RedisBroker, client: redis.Redis) -> None:
    push(redis_broker, *A[:3], *B[:2])
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exception, match="memory"):
            push(redis_broker, A[5])
        assert len(claim(redis_broker, 3)) == 3
        assert redis_broker.release("mail", "w1", [Returned(1)]) == 1
        assert len(claim(redis_broker, first=4)) == 3
    finally:
        client.config_set("maxmemory", 0)


# ---------------------------------------------------------------------- whatever is done

steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", ""]), st.integers(0, 5))
    | st.tuples(st.just("claim"), st.integers(1, 4))
    | st.tuples(st.just("release"), st.integers(1, 3)),
    max_size=40,
)
how = settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])


def check_turns(broker: Broker, plan: list[tuple[str, int]]) -> None:
    """Between two claims of a tenant's message, each tenant that has one waiting all the time has
    its turn; what a tenant sends keeps its order; and none is lost."""
    queue = f"q{time.perf_counter_ns()}"
    wait: dict[bytes, list[bytes]] = {}
    since: dict[bytes, set[bytes]] = {}
    number, sent, first = 1, 0, {}
    for what, count in [*plan, ("claim", 500)]:
        if what == "claim":
            claimed = broker.claim(queue, "w", number, count, LEASE).messages
            assert len(claimed) == min(count, sum(map(len, wait.values())))
            for number_, raw in claimed:
                tenant = tenant_of(raw)
                assert wait[tenant].pop(0) == raw
                assert not since.get(tenant), (tenant, since)
                for passed in since.values():
                    passed.discard(tenant)
                if not wait[tenant]:
                    del wait[tenant]
                    since.pop(tenant, None)
                # All that wait now have their turns before it has the next one.
                else:
                    since[tenant] = {*wait} - {tenant}
                first[number_] = raw
            number += len(claimed)
        elif what == "release":
            back = list(first.items())[-count:]
            broker.release(queue, "w", [Returned(n) for n, _ in back])
            for n, raw in reversed(back):
                wait.setdefault(tenant_of(raw), []).insert(0, raw)
                del first[n]
        else:
            raws = [of_tenant(what, n) for n in range(sent, sent + count)]
            sent += count
            broker.push([Outgoing(queue, raw) for raw in raws])
            if raws:
                wait.setdefault(tenant_of(raws[0]), []).extend(raws)
    assert not wait
    assert broker.stats(queue).waiting == 0


@how
@given(plan=steps)
def test_every_tenant_has_its_turn_in_memory(plan: list[tuple[str, int]]) -> None:
    check_turns(MemoryBroker(), plan)


@how
@given(plan=steps)
def test_every_tenant_has_its_turn(redis_broker: RedisBroker, plan: list[tuple[str, int]]) -> None:
    check_turns(redis_broker, plan)
