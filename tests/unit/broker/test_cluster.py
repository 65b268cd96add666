"""On a Cluster, all keys of a queue are in one slot, whatever its name."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.broker.base import About
from jobs.broker.cluster import Cluster, slot_of
from jobs.broker.connection import Connections
from jobs.broker.redis import RedisBroker, _Keys
from jobs.conf import address
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


class Nodes(Cluster):
    """A Cluster of the nodes a and b, which have a half of the slots each."""

    def __init__(self) -> None:
        super().__init__(address.parse("redis+cluster://a:1,b:1"), 1.0)
        self.owners: list[str] = ["a", "b"]
        self.asked: list[list[str]] = []

    def _slots_by(self, hosts: Sequence[tuple[str, int]], *_: Any) -> list[Connections | None]:
        self.asked.append([host for host, _ in hosts])
        self._search_at = 0.0
        return [self._at(owner, 1) if owner else None for owner in self.owners for _ in range(8192)]

    def _search(self) -> None:
        self._search_at = 0.0
        super()._search()


def test_whether_another_node_has_taken_over() -> None:
    nodes, silent = Nodes(), SimpleNamespace(host="a", port=1)
    nodes._search()
    assert not nodes._is_replaced(silent)
    nodes.owners[0] = ""  # nobody has its slots
    assert not nodes._is_replaced(silent)
    nodes.owners[0] = "a"
    nodes._search()
    nodes.owners[0] = "c"
    assert nodes._is_replaced(silent)
    assert nodes._is_replaced(silent)


def test_a_silent_node_is_not_asked_about_itself() -> None:
    nodes = Nodes()
    nodes._search()
    nodes._is_replaced(SimpleNamespace(host="a", port=1))
    assert nodes.asked == [["a", "b"], ["b"]]
