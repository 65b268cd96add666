import pytest
import redis

from jobs.broker.scripts import PERMITS
from tests.integration.broker.lua.keys import RATE

MINUTE = 60_000_000


@pytest.fixture
def micros(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000_000 + int(micros)


def ask(run, *before, interval=MINUTE, burst=1, longest=-1, unused=0):
    now, *answers = run(PERMITS, (RATE,), interval, burst, longest, unused, *before)
    return [at and at - now for at in answers]


def test_a_burst_then_times_an_interval_apart(run, dump, micros: int):
    answers = ask(run, 0, 0, 0, 0, 0, burst=3)
    assert answers[:3] == [0, 0, 0]
    # Those that wait begin with two thirds of the burst in hand.
    first = MINUTE + 2 * MINUTE * 2 / 3
    assert answers[3:] == pytest.approx([first, first + MINUTE], abs=2)
    kept = {name: int(value) for name, value in dump()[RATE].items()}
    assert kept[b"granted"] == pytest.approx(micros + 3 * MINUTE, abs=10_000_000)
    assert kept[b"reserved"] == pytest.approx(micros + first + 2 * MINUTE, abs=10_000_000)


def test_who_comes_first_does_not_pass_those_that_wait(run, client: redis.Redis, micros: int):
    client.hset(RATE, mapping={"granted": micros, "reserved": micros + MINUTE})
    assert ask(run, 0)[0] > MINUTE // 2
    assert ask(run, micros - 1) == [0]


def test_what_nobody_has_come_for_in_its_time(run, client: redis.Redis, micros: int):
    client.hset(RATE, mapping={"granted": micros - MINUTE, "reserved": micros + MINUTE})
    assert ask(run, 0)[0] == 0
    assert ask(run, 0)[0] > 0


def test_late_by_less_than_an_interval_is_on_time(run, client: redis.Redis, micros: int):
    before = micros - MINUTE // 2
    assert ask(run, before) == [0]
    assert int(client.hget(RATE, "granted")) == before + MINUTE


def test_late_by_more_is_not(run, client: redis.Redis, micros: int):
    assert ask(run, micros - 3 * MINUTE, micros - 3 * MINUTE)[0] == 0
    assert int(client.hget(RATE, "granted")) >= micros + MINUTE


def test_a_faster_rate_counts_in_its_own_intervals(run, dump, micros: int):
    ask(run, 0, 0, interval=100 * MINUTE)
    ask(run, interval=MINUTE)
    kept = {name: int(value) for name, value in dump()[RATE].items()}
    assert kept[b"interval"] == MINUTE
    assert kept[b"granted"] == pytest.approx(micros + MINUTE, abs=10_000_000)
    assert kept[b"reserved"] == pytest.approx(micros + 2 * MINUTE, abs=10_000_000)


def test_to_a_slower_one_they_stay(run, dump):
    ask(run, 0, 0)
    before = dump()[RATE]
    ask(run, interval=100 * MINUTE)
    assert dump()[RATE] == {**before, b"interval": b"%d" % (100 * MINUTE)}


def test_who_is_called_early_takes_a_permit_of_now(run, client: redis.Redis, micros: int):
    assert ask(run, micros + 100 * MINUTE) == [0]
    granted = int(client.hget(RATE, "granted"))
    assert granted == pytest.approx(micros + MINUTE, abs=10_000_000)


def test_what_is_not_used_is_given_back(run):
    assert ask(run, 0, 0, burst=2) == [0, 0]
    assert ask(run, burst=2, unused=1) == []
    assert ask(run, 0, 0, burst=2)[0] == 0
    assert ask(run, 0, burst=2)[0] > 0


def test_nothing_is_kept_for_who_would_not_wait(run, dump):
    ask(run, 0)
    before = dump()
    assert ask(run, 0, longest=1_000_000)[0] > 0
    assert dump() == before


def test_it_goes_when_it_says_nothing_any_more(run, client: redis.Redis):
    ask(run, 0, 0, 0)
    assert 2 * 60_000 < client.pttl(RATE) <= 3 * 60_000
