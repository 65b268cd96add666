import redis

from jobs.broker.scripts import PUSH_FAIR
from tests.integration.broker.helpers import of_tenant
from tests.integration.broker.lua.keys import BELL, FAIR, LISTS, METRICS
from tests.integration.broker.lua.test_claim import claim

KEYS = (LISTS[1], BELL, FAIR)


def test_each_tenant_has_a_list_and_a_turn(run, dump):
    a1, a2, b1 = of_tenant("a", 1), of_tenant("a", 2), of_tenant("b", 1)
    run(PUSH_FAIR, KEYS, 1, a1, a2, b1)
    assert dump() == {
        "{mail}:fair": {b"1": b"3"},
        "{mail}:fair:1": {b"": 0, b"a": 1, b"b": 2},
        "{mail}:fair:1:a": [a2, a1],
        "{mail}:fair:1:b": [b1],
        "{mail}:bell": [b"1", b"1", b"1"],
    }


def test_one_without_a_tenant(run, dump):
    """Only what stands before a tenant was found in it."""
    raw = b'{"jobs_fair":""}'
    run(PUSH_FAIR, KEYS, 1, raw, b'jobs_fair":"endless')
    assert dump() == {LISTS[1]: [b'jobs_fair":"endless', raw], BELL: [b"1", b"1"]}


def test_a_tenant_of_any_characters(run, client: redis.Redis):
    names = ['say "a"', "back\\slash\\", "é", "a:b", "0", "\n"]
    for n, name in enumerate(names):
        run(PUSH_FAIR, KEYS, 1, of_tenant(name, n), of_tenant(name, n))
    assert client.zcard("{mail}:fair:1") == 1 + len(names)
    for n, name in enumerate(names):
        assert claim(run, first=1 + n, limit=1)[3:] == [of_tenant(name, n)]


def test_nothing_is_left_of_tenants(run, dump):
    run(PUSH_FAIR, KEYS, 1, *(of_tenant("a", n) for n in range(3)), of_tenant("b", 0))
    claim(run, limit=3)
    assert dump()["{mail}:fair:1"] == {b"a": 3, b"": 4}
    claim(run, first=4)
    assert not [key for key in dump() if "fair" in key]


def test_counts_what_it_pushes(run, dump):
    run(PUSH_FAIR, (*KEYS, METRICS), 1, of_tenant("a", 1), of_tenant("b", 1))
    assert [*dump()[f"{METRICS}sent"].values()] == [b"2"]
