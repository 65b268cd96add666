"""From a task's name and options to queues: `get()` gives the settings' router.

`topics.py` has the patterns of topic exchanges, `exchanges.py` the bindings, `routes.py` what
``JOBS["TASK_ROUTES"]`` says. Whoever sends asks here, and nowhere else.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from django.core.signals import setting_changed

from jobs import conf, registry
from jobs.conf import Conf
from jobs.exceptions import NoRoute, UnknownQueue
from jobs.message import Message
from jobs.routing.exchanges import Address, Exchanges
from jobs.routing.routes import Route, Routes, route_of

__all__ = ["Address", "Plan", "Routable", "Route", "Router", "foreign_queue_of", "get"]


class Routable(Protocol):
    """What routing needs of a `jobs.Task`."""

    @property
    def name(self) -> str: ...

    @property
    def route(self) -> Route:
        """What its decorator says."""
        ...


class Plan(NamedTuple):
    """Where the calls of a task go, as far as that is known before there is one."""

    #: The one that made it: it counts as long as the settings do.
    router: Router
    #: Whether functions have to be asked at each call.
    asks: bool
    #: What the settings and the decorator say.
    route: Route
    #: Where that leads; None: it takes a call to tell.
    address: Address | None
    priority: int


class Router:
    """The exchanges and routes of some settings."""

    def __init__(self, settings: Conf) -> None:
        """Raises `ConfigurationError` for bindings and routes that can't be."""
        self._default = settings.default_queue
        self._exchanges = Exchanges(settings)
        self._routes = Routes(settings.task_routes)

    def plan(self, task: Routable) -> Plan:
        functions, said = self._routes.of(task.name)
        route = task.route.over(said)
        try:
            address = None if functions else self.lead(task.name, route)
        except (UnknownQueue, NoRoute):
            address = None  # unless a call says more
        return Plan(self, bool(functions), route, address, route.priority or 0)

    def leads(self, name: str) -> bool:
        """Whether the settings say by this name where its calls go."""
        said = self._routes.of(name).route
        return bool(said.queue or said.exchange or said.routing_key)

    def lead(self, name: str, route: Route) -> Address:
        """Where a route leads a task of this name. Raises `UnknownQueue` or `NoRoute`."""
        try:
            if route.queue:
                return self._exchanges.queue(route.queue, route.exchange, route.routing_key)
            if route.exchange or route.routing_key:
                return self._exchanges.find(route.exchange, route.routing_key)
            return self._exchanges.queue(self._default)
        except (UnknownQueue, NoRoute) as error:
            raise type(error)(f"Task {name!r} can't be sent to {error}") from None

    def find(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Routable | None,
    ) -> tuple[Address, int]:
        """Where one call goes, and its priority. ``options``: those of the call; the ones that
        `Route` has count. Raises as `lead` does, also for a routing function that fails."""
        decorated = task.route if task is not None else Route()
        functions, said = self._routes.of(name)
        for function in functions:
            try:
                answer = function(name, args, kwargs, options, task=task)
                if answer is not None:
                    said = route_of(answer, "what it answered")
                    break
            except Exception as error:  # anybody's function
                shown = getattr(function, "__qualname__", repr(function))
                raise NoRoute(
                    f"Task {name!r} can't be sent: {shown} of JOBS['TASK_ROUTES']: {error!r}"
                ) from error
        named = {key: options[key] for key in Route._fields if options.get(key) is not None}
        route = Route(**named).over(decorated.over(said))
        return self.lead(name, route), route.priority or 0

    def place(
        self, sent: Message, options: Mapping[str, Any], task: Routable | None = None
    ) -> None:
        """Write into a message where it goes, and its priority. ``options``: those of the call.
        ``task``: its own, by default the one that is known here. Raises as `find` does."""
        name, decides = registry.routed_as(sent.task, sent.kwargs, task)
        address, priority = self.find(name, sent.args, sent.kwargs, options, decides)
        sent.priority = min(max(int(priority), 0), 9)  # a foreign call's is anything
        address.write(sent)

    def problems(self, tasks: Iterable[Routable]) -> Iterator[tuple[str, str]]:
        """What can't be sent, whatever a call says: a task's name, or "" for a route of the
        settings, and a sentence."""
        for task in tasks:
            route = task.route.over(self._routes.of(task.name).route)
            if problem := self._problem(f"Task {task.name!r}", route):
                yield task.name, problem
        for pattern, route in self._routes:
            if route.routing_key and not route.exchange:
                continue  # tasks may name the exchange
            if problem := self._problem(f"JOBS['TASK_ROUTES']: {pattern}", route):
                yield "", problem

    def doubts(self, tasks: Iterable[Routable]) -> Iterator[str]:
        """A sentence for each task and route that names a queue, and an exchange or a routing key
        which would lead somewhere else."""
        said = [(f"Task {task.name!r}", task.route) for task in tasks]
        said += [(f"JOBS['TASK_ROUTES']: {pattern}", route) for pattern, route in self._routes]
        for what, route in said:
            if not route.queue or self._problem(what, route):
                continue
            why = self._exchanges.contradiction(route.queue, route.exchange, route.routing_key)
            if why:
                yield f"{what} is for the queue {route.queue!r}, and names {why}."

    def misspelt(self, tasks: Collection[str]) -> Iterator[tuple[str, str]]:
        """Each name in ``JOBS["TASK_ROUTES"]`` that no task has, but nearly, and the task's. A task
        that has a route of its own isn't meant."""
        names = set(self._routes.names())
        for name in sorted(names.difference(tasks)):
            for task in tasks:
                if task not in names and _is_nearly(name, task):
                    yield name, task
                    break

    def _problem(self, what: str, route: Route) -> str:
        try:
            self.lead("", route)
        except (UnknownQueue, NoRoute) as error:
            if not route.routing_key and self._exchanges.needs_key(route.exchange):
                return ""  # a call may name the key
            return str(error).replace("Task ''", what, 1)
        return ""


def foreign_queue_of(name: str) -> str:
    """The queue of Celery's workers to which calls of the task of this name go that name no other
    place; "" if this program's workers take them. Raises `UnknownTask`."""
    registry.find(name)
    address = get().plan(registry.tasks[name]).address
    queues = address.queues if address else ()
    return queues[0] if queues and conf.foreign_queues().issuperset(queues) else ""


def _is_nearly(name: str, task: str) -> bool:
    """Whether they are the same but for a letter or two in a part: what two tasks of a module have
    in common says nothing."""
    parts, others = name.split("."), task.split(".")
    return len(parts) == len(others) and all(
        part == other or difflib.SequenceMatcher(None, part, other).ratio() >= 0.85
        for part, other in zip(parts, others, strict=True)
    )


@functools.cache
def get() -> Router:
    """Raises `ConfigurationError`."""
    return Router(conf.get())


def _forget(*, setting: str, **_: object) -> None:
    if setting == "JOBS":
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="jobs.routing")
