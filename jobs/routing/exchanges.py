"""Exchanges: from a routing key to the queues that are bound to it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jobs.conf import Conf, Queue
from jobs.conf.values import LONGEST_KEY, nearest
from jobs.exceptions import ConfigurationError, NoRoute, UnknownQueue
from jobs.message import Message
from jobs.routing.topics import Topics


class Address(NamedTuple):
    """Where a call goes: the queues, and how it was said."""

    #: In the order of the settings; one at least.
    queues: tuple[str, ...]
    #: Empty when the queue was named alone.
    exchange: str = ""
    routing_key: str = ""

    def write(self, sent: Message) -> None:
        """Into a message that is sent there."""
        sent.queue, sent.copies = self.queues[0], self.queues[1:]
        sent.exchange, sent.routing_key = self.exchange, self.routing_key


class Exchange:
    """The bindings of one exchange, made ready to be looked up in."""

    def __init__(self, name: str, kind: str, bindings: Iterable[tuple[str, str]]) -> None:
        """``bindings``: routing keys with their queues, in the order of the settings."""
        self.name = name
        self.kind = kind
        self._bindings = list(bindings)
        self._queues = tuple(dict.fromkeys(queue for _, queue in self._bindings))
        places = {queue: place for place, queue in enumerate(self._queues)}
        self._topics = Topics((key, places[queue]) for key, queue in self._bindings)
        direct = defaultdict[str, dict[str, None]](dict)
        for key, queue in self._bindings:
            direct[key][queue] = None
        self._direct = {key: tuple(queues) for key, queues in direct.items()}

    def find(self, key: str) -> tuple[str, ...]:
        """The queues that get what is sent with this key; raises `NoRoute` when there is none."""
        if self.kind == "fanout":
            found = self._queues
        elif self.kind == "topic":
            found = tuple(self._queues[place] for place in self._topics.find(key))
        else:
            found = self._direct.get(key, ())
        if found:
            return found
        named = f"the {self.kind} exchange {self.name!r}"
        if self.kind == "fanout":
            raise NoRoute(f"{named}, to which JOBS['QUEUES'] binds no queue.")
        if not key:
            raise NoRoute(f"{named} without a routing_key.")
        keys = [key for key, _ in self._bindings]
        raise NoRoute(
            f"{named} with the routing key {key!r}, which JOBS['QUEUES'] binds no queue with."
            f"{nearest(key, keys)}"
        )


class Exchanges:
    """All exchanges and queues of the settings. What its verbs raise says where a call can't be
    sent to, and wants a sentence around it."""

    def __init__(self, conf: Conf) -> None:
        """Raises `ConfigurationError` for a queue that is bound to an unknown exchange."""
        self._conf = conf
        problems = list(binding_problems(conf))
        if problems:
            raise ConfigurationError(" ".join(problems))
        bindings = defaultdict[str, list[tuple[str, str]]](list)
        for name, queue in conf.queues.items():
            exchange = _exchange_of(conf, queue)
            bindings[exchange] += [(key, name) for key in _keys_of(name, queue)]
        self._exchanges = {
            name: Exchange(name, kind, bindings[name]) for name, kind in conf.exchanges.items()
        }

    def queue(self, name: str, exchange: str = "", key: str = "") -> Address:
        """A queue by its own name; raises `UnknownQueue`. Exchange and routing key decide nothing
        beside it, as in Celery; they go along."""
        if not self._conf.knows(name):
            raise UnknownQueue(
                f"queue {name!r}, which JOBS['QUEUES'] does not declare."
                f"{nearest(name, self._conf.queues)}"
            )
        return Address((name,), exchange, key or name)

    def contradiction(self, name: str, exchange: str, key: str) -> str:
        """Why exchange and routing key, named beside a queue, would lead somewhere else; empty when
        they don't."""
        queue = self._conf.queues.get(name, Queue())
        bound = _exchange_of(self._conf, queue)
        if exchange and exchange != bound:
            told = f"is bound to {bound!r}" if bound else "is bound to no exchange"
            return f"the exchange {exchange!r}, while the queue {told}"
        if not key or (not exchange and key == name):
            return ""
        keys = ", ".join(map(repr, _keys_of(name, queue) if bound else [name]))
        try:
            if bound and name in self._exchanges[bound].find(key):
                return ""
        except NoRoute:
            pass
        return f"the routing key {key!r}, while the queue is bound with {keys}"

    def find(self, exchange: str, key: str) -> Address:
        """Raises `NoRoute`. Without an exchange that of the settings or, when they have none, a
        queue's own name is meant."""
        name = exchange or self._conf.default_exchange
        if not name:
            if self._conf.knows(key):
                return Address((key,), "", key)
            raise NoRoute(
                f"the routing key {key!r} without an exchange, which JOBS['QUEUES'] declares no "
                f"queue for.{nearest(key, self._conf.queues)}"
            )
        if name not in self._exchanges:
            raise NoRoute(
                f"the exchange {name!r}, which JOBS['EXCHANGES'] does not declare."
                f"{nearest(name, self._exchanges)}"
            )
        return Address(self._exchanges[name].find(key), name, key)

    def needs_key(self, exchange: str) -> bool:
        """Whether an exchange is there, and looks at routing keys."""
        return exchange in self._exchanges and self._exchanges[exchange].kind != "fanout"


def binding_problems(conf: Conf) -> Iterator[str]:
    """A sentence for each exchange that is named and not there, and each key that leads nowhere."""
    if conf.default_exchange and conf.default_exchange not in conf.exchanges:
        yield (
            f"JOBS['DEFAULT_EXCHANGE'] is {conf.default_exchange!r}, which JOBS['EXCHANGES'] does "
            f"not declare.{nearest(conf.default_exchange, conf.exchanges)}"
        )
    for name, queue in conf.queues.items():
        if queue.exchange and queue.exchange not in conf.exchanges:
            yield (
                f"JOBS['QUEUES'][{name!r}] is bound to the exchange {queue.exchange!r}, which "
                f"JOBS['EXCHANGES'] does not declare.{nearest(queue.exchange, conf.exchanges)}"
            )
        if queue.routing_key and not queue.exchange and not conf.default_exchange:
            yield (
                f"JOBS['QUEUES'][{name!r}] has a routing_key and no exchange. Name one, or set "
                "JOBS['DEFAULT_EXCHANGE']."
            )
        if any(len(key.encode()) > LONGEST_KEY for key in _keys_of(name, queue)):
            yield f"JOBS['QUEUES'][{name!r}] has a routing_key of more than {LONGEST_KEY} bytes."


def _exchange_of(conf: Conf, queue: Queue) -> str:
    return queue.exchange or (conf.default_exchange if queue.routing_key else "")


def _keys_of(name: str, queue: Queue) -> Sequence[str]:
    keys = queue.routing_key or name
    return (keys,) if isinstance(keys, str) else keys
