"""Connections to the nodes of a Cluster, as `Connections` to one server.

Each command goes to the node that has the slot of its key, which is its second word; a script, to
the node of its first key. One call may need several nodes: all are sent their commands before any
answer is read. redis-py finds the nodes and their slots.

A node answers MOVED or ASK when it no longer has a slot, and has done nothing then: the command is
sent to the node that it names. When a node is away, the slots are asked for again before the next
call: another node may have them by then. While a node is silent, they are asked for now and then.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import redis
from redis.cluster import ClusterNode, NodesManager
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)

from jobs.broker.connection import (
    NO_CLUSTER,
    Arg,
    Command,
    Connections,
    Ready,
    Run,
    WaitPolicies,
    answer_of,
    client,
    evalsha,
    in_our_words,
    milliseconds,
    packed,
    write,
)
from jobs.conf.address import Address
from jobs.exceptions import BrokerUnavailable

#: After so many answers that name another node, one command is given up.
_HOPS = 5

#: Seconds for which a search for the nodes counts: one that found them, one that didn't.
_FOUND, _NOT_FOUND = 0.2, 0.5
#: Seconds that one node has to answer in such a search.
_SEARCH = 1.0
#: Seconds for which a node that was away is asked only if no other one answers.
_AVOIDED = 10.0

#: Most lists that a thread waits for, each on a connection of its own; others are looked at once
#: in so many seconds, and so are the nodes.
_BELLS, _LOOK = 32, 1.0

#: Answers after which a command is sent once more, and nothing has been done.
_AGAIN = (AskError, NoScriptError)  # `MovedError` is a kind of `AskError`

_Nodes = list[Connections | None]


class _Asked(NamedTuple):
    """A command with the key that says where it goes."""

    key: str
    command: Command
    #: The script that it runs.
    run: Run | None = None


class _Sent(NamedTuple):
    """One command on its way to a node; the answer to the last of these words counts."""

    node: Connections
    commands: tuple[Command, ...]


@functools.lru_cache(maxsize=10_000)
def slot_of(key: str) -> int:
    return key_slot(key.encode())


class Cluster:
    """Connections of this process to one Cluster."""

    def __init__(self, where: Address, timeout: float) -> None:
        #: Without user and password.
        self.address = str(where)
        self._where = where
        self._timeout = timeout
        self._nodes: dict[tuple[str, int], Connections] = {}
        self._policies = WaitPolicies()
        #: Nodes that were away → until when to ask others first (monotonic).
        self._avoided: dict[tuple[str, int], float] = {}
        #: Slot → its node; empty before the first use.
        self._slots: _Nodes = []
        #: The nodes that have slots; perhaps one that has none any more.
        self._having: list[Connections] = []
        #: Whether a node was away, so that another one may have its slots.
        self._stale = False
        #: When to search again (monotonic), and why the last search failed.
        self._search_at = 0.0
        self._said = ""
        self._lock, self._lock_pid = threading.Lock(), os.getpid()

    # ------------------------------------------------------------------ as `Connections`

    def call(self, *command: Arg) -> Any:
        return self._checked(self.try_calls([command])[0])

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        return [self._checked(answer) for answer in self.try_calls(commands)]

    def try_calls(self, commands: Sequence[Command]) -> list[Any]:
        return self._exchange([[_Asked(str(command[1]), command) for command in commands]])

    def run(self, script: Any, keys: Sequence[str], *args: Arg) -> Any:
        return self.run_all([(script, keys, args)])[0]

    def run_all(self, runs: Sequence[Run]) -> list[Any]:
        return [self._checked(answer) for answer in self.try_all(runs)] if runs else []

    def try_all(self, runs: Sequence[Run]) -> list[Any]:
        if len(runs) > 1:
            return self._exchange([_asked(runs)])
        # Most calls: one script of one queue.
        node = self._node(runs[0][1][0])
        try:
            answers = node.try_all(runs)
        except BrokerUnavailable as error:
            self._note_away(error, node)
            raise
        return self._exchange([_asked(runs)]) if isinstance(answers[0], AskError) else answers

    def try_ready(self, ready: Ready, arg: bytes) -> Any:
        node = self._node(ready.keys[0])
        try:
            answer = node.try_ready(ready, arg)
        except BrokerUnavailable as error:
            self._note_away(error, node)
            raise
        if isinstance(answer, AskError):
            return self.try_all([(ready.script, ready.keys, (arg,))])[0]
        return answer

    def try_parts(self, parts: Iterable[Sequence[Run]], then: Command = ()) -> list[Any]:
        runs: list[Run] = []

        def asked() -> Iterator[list[_Asked]]:
            for part in parts:
                runs.extend(part)
                yield _asked(part)

        answers = self._exchange(asked())
        return [*answers, self._least(runs, then)] if then else answers

    def _least(self, runs: Sequence[Run], then: Command) -> Any:
        """The least of the numbers that a command answers on the nodes of these scripts, which have
        run just now; or an error."""
        keys = {self._node(run[1][0]): run[1][0] for run in runs}
        before = [node.current for node in keys]
        try:
            said = self._exchange([[_Asked(key, then) for key in keys.values()]])
        except BrokerUnavailable as error:
            return error
        for node, connection, answer in zip(keys, before, said, strict=True):
            if isinstance(answer, Exception):
                return answer
            if connection is None or node.current is not connection:
                # The command is about what its own connection has sent.
                return redis.ConnectionError("the connection was lost meanwhile")
        return min(said, default=0)

    def everywhere(self, *commands: Command) -> list[list[Any]]:
        """The answers of each node that has slots to commands without a key."""
        nodes = self._masters()
        sent = [_Sent(node, (command,)) for node in nodes for command in commands]
        answers = iter([self._checked(answer) for answer in self._round([sent])])
        return [list(itertools.islice(answers, len(commands))) for _ in nodes]

    def clocks(self, keys: Sequence[str]) -> list[int]:
        """What the clocks of these keys' nodes say, in milliseconds."""
        answers = self._exchange([[_Asked(key, ("TIME",)) for key in keys]])
        return [milliseconds(self._checked(answer)) for answer in answers]

    def try_timed(self, commands: Sequence[Command]) -> tuple[list[Any], list[int]]:
        keys = [str(command[1]) for command in commands]
        asked = [_Asked(key, command) for key, command in zip(keys, commands, strict=True)]
        answers = self._exchange([asked, [_Asked(key, ("TIME",)) for key in keys]])
        clocks = [milliseconds(self._checked(answer)) for answer in answers[len(keys) :]]
        return answers[: len(keys)], clocks

    def briefly(self, *, insist: bool) -> contextlib.AbstractContextManager[None]:
        return self._policies.briefly(insist=insist)

    def passing_over(self) -> contextlib.AbstractContextManager[None]:
        return self._policies.briefly(insist=False)

    def block(self, timeout: float, *command: Arg, then: Run | None = None) -> Any:
        node = self._node(str(command[1]))
        with self._watched(node):
            first, *others = node.try_block(timeout, command, then)
        if isinstance(first, AskError):
            self._moved(first, node)
            first = None  # it has waited for no time, which is allowed
        self._checked(first)
        if then is None:
            return first
        (answer,) = others
        if isinstance(answer, _AGAIN):
            return self.run_all([then])[0]
        return self._checked(answer)

    def popped(self, keys: Sequence[str], timeout: float) -> list[str]:
        """Wait until one of these lists has an element, and pop that. The keys of those that gave
        one: several if they did so in the same moment.

        The keys are in different slots, so that each one needs a connection of its own. If there
        are many, only the first ones have one, and the others are looked at now and then.
        """
        if len(keys) == 1:
            answer = self.block(timeout, "BLPOP", keys[0], 0)
            return [answer[0].decode()] if answer else []
        by_node: dict[Connections, list[str]] = {}
        for key in keys[:_BELLS]:
            by_node.setdefault(self._node(key), []).append(key)
        waiting: list[tuple[Connections, Any]] = []
        try:
            with self._watched():
                for node, its_keys in by_node.items():
                    with self._watched(node):
                        for n, key in enumerate(its_keys):
                            connection = node.waiting(n)
                            waiting.append((node, connection))
                            write(connection, packed([("BLPOP", key, 0)])[0])
                rang = set(self._await(waiting, keys[_BELLS:], timeout))
                for node in by_node:
                    node.unblock([connection for one, connection in waiting if one is node])
                answers = [answer_of(connection) for _node, connection in waiting]
        except BaseException as error:
            for node, _ in waiting:
                node.forget_waiting()  # an answer must not be read as that to the next command
            if isinstance(error, RedisError | OSError) and not isinstance(error, BrokerUnavailable):
                raise self.translated(error) from error
            raise
        for (node, _), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, AskError):
                self._moved(answer, node)
            elif isinstance(answer, Exception):
                node.forget_waiting()
                self._checked(answer)
            elif answer:
                rang.add(answer[0].decode())
        return [key for key in keys if key in rang]

    def _await(
        self, waiting: Sequence[tuple[Connections, Any]], others: Sequence[str], timeout: float
    ) -> list[str]:
        """Wait until an answer has come on one of these nodes' connections, or one of the other
        lists has an element, which is popped. The keys of these."""
        asked = select.poll()
        for _node, connection in waiting:
            asked.register(connection._sock, select.POLLIN)
        # One of each node.
        by_node = dict(waiting)
        ends = time.monotonic() + max(timeout, 0.0)
        while True:
            if others:
                found = self.calls([("LPOP", key) for key in others])
                if rang := [key for key, one in zip(others, found, strict=True) if one]:
                    return rang
            left = max(0.0, ends - time.monotonic())
            pause = min(left, _LOOK)
            if asked.poll(pause * 1000) or pause == left:
                return []
            for node, connection in by_node.items():
                with self._watched(node):
                    node.give_sign(connection)

    def subscribe(self, channels: Sequence[str]) -> Any:
        with self._watched():
            return self._near().subscribe(channels)

    @contextlib.contextmanager
    def listen(self, channel: str) -> Iterator[Any]:
        with contextlib.ExitStack() as entered:
            with self._watched():
                connection = entered.enter_context(self._near().listen(channel))
            yield connection

    def close(self) -> None:
        """Disconnect this thread."""
        for node in list(self._nodes.values()):
            node.close()

    def translated(self, error: Exception) -> Exception:
        said = in_our_words(error, self.address)
        if isinstance(said, BrokerUnavailable):
            said.partly = True
        return said

    # ------------------------------------------------------------------ several nodes

    def _exchange(self, parts: Iterable[Sequence[_Asked]]) -> list[Any]:
        """The answers in order; errors that servers answer, and that of a node that is away, are
        returned as values. Each part is sent as soon as it is made. Raises `BrokerUnavailable` if
        all nodes that were asked are away."""
        asked: list[_Asked] = []

        def sent() -> Iterator[list[_Sent]]:
            for part in parts:
                asked.extend(part)
                yield [_Sent(self._node(one.key), (one.command,)) for one in part]

        nodes: list[Connections] = []
        answers = self._round(sent(), nodes)
        for _ in range(_HOPS):
            places = [n for n, answer in enumerate(answers) if isinstance(answer, _AGAIN)]
            if not places:
                break
            again = [self._again(asked[n], answers[n], nodes[n]) for n in places]
            for n, one, answer in zip(places, again, self._round([again]), strict=True):
                nodes[n], answers[n] = one.node, answer
        if any(isinstance(answer, ClusterDownError | TryAgainError) for answer in answers):
            self._stale = True
        return answers

    def _again(self, asked: _Asked, answer: Exception, node: Connections) -> _Sent:
        """What is sent after an answer that a node gave instead of doing what it was asked."""
        if isinstance(answer, AskError):
            named = self._moved(answer, node)
            # To ASK, the slot is on its way: only this command goes there.
            first = () if isinstance(answer, MovedError) else (("ASKING",),)
            return _Sent(named, (*first, asked.command))
        assert asked.run is not None
        script, keys, args = asked.run
        return _Sent(node, (("EVAL", script.text, len(keys), *keys, *args),))

    def _round(
        self, parts: Iterable[Sequence[_Sent]], nodes: list[Connections] | None = None
    ) -> list[Any]:
        """Send commands to their nodes, then read all the answers, which come in the same order.
        ``nodes``: gets the node of each command."""
        #: Node → the places of its commands, and how many answers come to each.
        places: dict[Connections, list[tuple[int, int]]] = {}
        away: dict[Connections, BrokerUnavailable] = {}
        count = itertools.count()
        answers: dict[int, Any] = {}
        try:
            for part in parts:
                going_on = set(places)
                to_send: dict[Connections, list[Command]] = {}
                for node, commands in part:
                    to_send.setdefault(node, []).extend(commands)
                    places.setdefault(node, []).append((next(count), len(commands)))
                    if nodes is not None:
                        nodes.append(node)
                for node, its_commands in to_send.items():
                    if node not in away:
                        try:
                            node.post((packed(its_commands),), going_on=node in going_on)
                        except BrokerUnavailable as error:
                            away[node] = error
                            self._avoid(node)
            for node, its_places in places.items():
                try:
                    said = iter(() if node in away else node.collect(_sum(its_places)))
                except BrokerUnavailable as error:
                    away[node] = error
                    self._avoid(node)
                for place, number in its_places:
                    if node in away:
                        answers[place] = _cause(away[node])
                    else:
                        *_, answers[place] = itertools.islice(said, number)
        except BaseException:
            for node in places:
                node.abandon()  # an unread answer may be left: a time limit strikes anywhere
            raise
        if away:
            self._stale = True
            if len(away) == len(places):
                first = next(iter(away.values()))
                self._note_away(first)
                raise first
        return [answers[place] for place in range(len(answers))]

    def _checked(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise self.translated(answer) from answer
        return answer

    # ------------------------------------------------------------------ which node

    def _node(self, key: str) -> Connections:
        """The node that has a key."""
        if self._stale or not self._slots:
            self._search()
        node = self._slots[slot_of(key)]
        if node is None:
            self._stale = True
            nobody = f"Redis at {self.address} can't be used: no node has slot {slot_of(key)}"
            raise self.translated(BrokerUnavailable(nobody))
        return node

    def _masters(self) -> list[Connections]:
        """All nodes that have slots."""
        if self._stale or not self._slots:
            self._search()
        return self._having

    def _near(self) -> Connections:
        """The node that this process subscribes on. What is published on any node is heard on all
        of them, and processes are spread over them."""
        masters = self._masters()
        return masters[os.getpid() % len(masters)]

    @contextlib.contextmanager
    def _watched(self, node: Connections | None = None) -> Iterator[None]:
        """If a node is away in this block, look for the nodes before the next call. ``node``: the
        one that is asked."""
        try:
            yield
        except (BrokerUnavailable, RedisError, OSError) as error:
            self._note_away(error, node)
            raise

    def _note_away(self, error: Exception, node: Connections | None = None) -> None:
        self._stale = True
        if node is not None:
            self._avoid(node)
        if isinstance(error, BrokerUnavailable):
            error.partly = True

    def _avoid(self, node: Connections) -> None:
        self._avoided[node.host, node.port] = time.monotonic() + _AVOIDED

    def _is_replaced(self, connection: Any) -> bool:
        """Whether another node has the slots of the one that this connection leads to, which is
        silent."""
        node = self._at(connection.host, connection.port)
        if node not in self._slots:
            return True  # another thread has found out
        slot = self._slots.index(node)
        self._avoid(node)
        self._stale = True
        self._search()
        return self._slots[slot] not in (node, None)

    def _moved(self, answer: AskError, asked: Connections) -> Connections:
        """The node that an answer names; to MOVED, it has the slot from now on."""
        host = answer.host or asked.host  # without a host, it is on the same one
        node = self._at(host, int(answer.port))
        if isinstance(answer, MovedError):
            self._slots[int(answer.slot_id)] = node
            if node not in self._having:
                self._having = [*self._having, node]
        return node

    def _at(self, host: str, port: int) -> Connections:
        node = self._nodes.get((host, port))
        if node is None:
            scheme = "rediss" if self._where.tls else "redis"
            where = replace(self._where, scheme=scheme, hosts=((host, port),))
            made = Connections(
                where, self._timeout, replaced=self._is_replaced, policies=self._policies
            )
            node = self._nodes.setdefault((host, port), made)
        return node

    def _search(self) -> None:
        """Ask any node which of them has which slots. Raises `BrokerUnavailable` if none answers
        and none was ever found; later, what was found before counts until another answers."""
        if self._lock_pid != os.getpid():
            # A fork: another thread may have held it in the parent.
            self._lock, self._lock_pid = threading.Lock(), os.getpid()
        with self._lock:
            if time.monotonic() < self._search_at:
                if self._slots:
                    return
                raise BrokerUnavailable(self._said)
            try:
                self._slots = self._found()
                having = {node for node in self._slots if node is not None}
                self._having = sorted(having, key=lambda node: node.address)
                self._stale = False
                self._search_at = time.monotonic() + _FOUND
            except (RedisClusterException, RedisError, OSError) as error:
                self._search_at = time.monotonic() + _NOT_FOUND
                if not self._slots:
                    away = self._not_found(error)
                    self._said = str(away)
                    raise away from error

    def _found(self) -> _Nodes:
        """Slot → its node."""
        kind, options = client(self._where)
        del options["host"], options["port"]
        seconds = min(self._timeout, _SEARCH)
        known = dict.fromkeys([*self._nodes, *self._where.hosts])
        now = time.monotonic()
        there = [one for one in known if self._avoided.get(one, 0.0) <= now]
        try:
            return self._slots_by(there or list(known), kind, options, seconds)
        except (RedisClusterException, RedisError, OSError):
            if not there or len(there) == len(known):
                raise
            return self._slots_by(list(known), kind, options, seconds)

    def _slots_by(
        self,
        hosts: Sequence[tuple[str, int]],
        kind: type[Any],
        options: dict[str, Any],
        seconds: float,
    ) -> _Nodes:
        """Slot → its node, as one of these says. ``seconds``: for each of them."""
        manager = NodesManager(
            [ClusterNode(host, port) for host, port in hosts],  # type: ignore[no-untyped-call]
            from_url=True,
            connection_pool_class=redis.ConnectionPool,
            connection_class=kind,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            protocol=2,
            **options,
        )
        try:
            slots = manager.slots_cache
            found: _Nodes = [None] * REDIS_CLUSTER_HASH_SLOTS
            for slot, (master, *_replicas) in slots.items():
                found[slot] = self._at(master.host, master.port)
            return found
        finally:
            manager.close()

    def _not_found(self, error: Exception) -> Exception:
        """What to raise when no node could be found. redis-py names the last node's error as the
        cause of its own."""
        last = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(last, RedisClusterException):  # it doesn't know CLUSTER SLOTS
            return BrokerUnavailable(f"Redis at {self.address} can't be used: {NO_CLUSTER}")
        return in_our_words(last, self.address)


def _asked(runs: Sequence[Run]) -> list[_Asked]:
    return [_Asked(run[1][0], evalsha(run), run) for run in runs]


def _sum(places: Sequence[tuple[int, int]]) -> int:
    return sum(number for _, number in places)


def _cause(error: BrokerUnavailable) -> Exception:
    """What it was before it was translated, as other errors that are returned as values."""
    cause = error.__cause__
    return cause if isinstance(cause, Exception) else redis.ConnectionError(str(error))
