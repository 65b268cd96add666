"""On a Cluster, all keys of a queue are in one slot, whatever its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.broker.base import About
from jobs.broker.cluster import slot_of
from jobs.broker.redis import RedisBroker, _Keys
from jobs.exceptions import ConfigurationError

names = st.text(st.sampled_from("{}:%am"), min_size=1, max_size=6) | st.text(min_size=1)
prefixes = st.sampled_from(["", "shop:", "}", "a}:"])


def keys_of(prefix: str, queue: str) -> set[str]:
    keys = _Keys(prefix, (0, 3, 6, 9), True, True, queue)
    return {
        *keys.lists,
        *(value for value in vars(keys).values() if isinstance(value, str)),
        *(key for keys in (*keys.push, keys.schedule) for key in keys),
        *(keys.inflight("w1"), keys.claimed("w1"), keys.taken("w1"), keys.commands("w1")),
        *(keys.note(About.PROGRESS, "id-1"), keys.answer("c1")),
    }


@given(prefix=prefixes, queue=names)
def test_all_keys_of_a_queue_are_in_one_slot(prefix: str, queue: str) -> None:
    assert len({slot_of(key) for key in keys_of(prefix, queue)}) == 1


@given(queues=st.sets(names, min_size=2, max_size=6))
def test_no_two_queues_share_a_key(queues: set[str]) -> None:
    every = [key for queue in queues for key in keys_of("", queue)]
    assert len(set(every)) == len(every)


def test_a_prefix_that_would_hide_the_names() -> None:
    with pytest.raises(ConfigurationError, match=r"KEY_PREFIX'\] has a \{"):
        RedisBroker("redis+cluster://127.0.0.1:1", prefix="{}")
    RedisBroker("redis://127.0.0.1:1", prefix="{}")
