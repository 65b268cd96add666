"""What ``JOBS["TASK_ROUTES"]`` says about a task, in each of Celery's forms. Pure."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.utils.module_loading import import_string

from jobs.conf import EXCHANGE_KINDS
from jobs.conf.values import check_place, nearest, place_name
from jobs.exceptions import ConfigurationError
from jobs.message import celery_names

#: Called with name, args, kwargs and options of a call, and ``task``; None, or where it goes.
RouterFunction = Callable[..., Any]


class Route(NamedTuple):
    """Where a call goes, as far as one source says so; empty or None for what it leaves open.

    With a queue, exchange and routing key decide nothing: they go along in ``delivery_info``.
    """

    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    priority: int | None = None

    def over(self, other: Route) -> Route:
        """This route, with what it leaves open taken from the other one.

        A queue is a whole address: a route with one takes no exchange or routing key from the
        other, and one with an exchange or routing key takes no queue.
        """
        priority = other.priority if self.priority is None else self.priority
        if self.queue or not (self.exchange or self.routing_key):
            return (self if self.queue else other)._replace(priority=priority)
        return Route(
            exchange=self.exchange or other.exchange,
            routing_key=self.routing_key or other.routing_key,
            priority=priority,
        )


class Said(NamedTuple):
    """What the settings say about one task."""

    #: Asked at each call, in order; the first that answers decides.
    functions: tuple[RouterFunction, ...]
    #: What counts if none of them answers.
    route: Route


class Routes:
    def __init__(self, raw: object) -> None:
        """Raises `ConfigurationError` for what can't be a route."""
        several = raw if isinstance(raw, list | tuple) else [raw] if raw else []
        self._routers = [_router(one) for one in several]

    def of(self, name: str) -> Said:
        """What the settings say about the task of this name."""
        functions: list[RouterFunction] = []
        for router in self._routers:
            if not isinstance(router, _Map):
                functions.append(router)
            elif (found := router.find(name)) is not None:
                return Said(tuple(functions), found)
        return Said(tuple(functions), Route())

    def names(self) -> Iterator[str]:
        """Every name of a single task that has a route."""
        for router in self._routers:
            if isinstance(router, _Map):
                yield from router.names

    def __iter__(self) -> Iterator[tuple[str, Route]]:
        """Every pattern with its route, for checks."""
        for router in self._routers:
            if isinstance(router, _Map):
                yield from router.said


def route_of(value: Any, whose: str) -> Route:
    """Read a route as it is written: a queue's name, or a dict. ``whose``: for the text of the
    `ConfigurationError`."""
    if isinstance(value, str) and value:
        return Route(queue=value)
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{whose}: a route is a queue's name or a dict, not {value!r}.")
    try:
        value = celery_names.left_of(value, celery_names.CALL, ("exchange_type",))
    except TypeError as error:
        raise ConfigurationError(f"{whose}: {error}.") from None
    value = {key: place_name(option) for key, option in value.items()}
    for key, option in value.items():
        if key not in Route._fields and key != "exchange_type":
            raise ConfigurationError(
                f"{whose}: a route has no option {key!r}.{nearest(str(key), Route._fields)}"
            )
        if key == "exchange_type":
            # JOBS["EXCHANGES"] says of what kind an exchange is.
            if option not in EXCHANGE_KINDS:
                kinds = ", ".join(EXCHANGE_KINDS)
                raise ConfigurationError(
                    f"{whose}: exchange_type must be one of {kinds}, not {option!r}."
                )
        elif key == "priority":
            if option is not None and (isinstance(option, bool) or option not in range(10)):
                raise ConfigurationError(f"{whose}: priority must be 0 to 9, not {option!r}.")
        elif option is not None:
            try:
                check_place(key, option)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"{whose}: {error}.") from None
    said = {key: value[key] for key in Route._fields if value.get(key) is not None}
    return Route(**said)


class _Map:
    """Names and patterns with their routes: names first, then patterns in their order."""

    def __init__(self, entries: Sequence[Any]) -> None:
        self.names: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        #: The patterns as they were written, for checks.
        self.said: list[tuple[str, Route]] = []
        for entry in entries:
            if not _is_pair(entry):
                raise ConfigurationError(
                    f"JOBS['TASK_ROUTES'] has {entry!r}, which must be a pair of a task's name, "
                    "glob or compiled regular expression, and its route."
                )
            pattern, route = entry
            shown = repr(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
            found = route_of(route, f"JOBS['TASK_ROUTES'] for {shown}")
            self.said.append((shown, found))
            if isinstance(pattern, re.Pattern):
                self._patterns.append((pattern, found))
            elif set(pattern) & set("*?["):
                self._patterns.append((re.compile(fnmatch.translate(pattern)), found))
            else:
                self.names.setdefault(pattern, found)

    def find(self, name: str) -> Route | None:
        if name in self.names:
            return self.names[name]
        return next((route for pattern, route in self._patterns if pattern.match(name)), None)


def _is_pair(entry: Any) -> bool:
    return (
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str | re.Pattern)
        and bool(entry[0])
    )


def _router(one: Any) -> _Map | RouterFunction:
    if isinstance(one, Mapping):
        return _Map(list(one.items()))
    if isinstance(one, str):
        try:
            found = import_string(one)
        except ImportError as error:
            raise ConfigurationError(f"JOBS['TASK_ROUTES'] has {one!r}: {error}.") from error
        if isinstance(found, type):
            found = found()  # as Celery does
        if not (hasattr(found, "route_for_task") or callable(found)):
            raise ConfigurationError(f"JOBS['TASK_ROUTES'] has {one!r}, which is no function.")
        return _function_of(found)
    if hasattr(one, "route_for_task") or callable(one):
        return _function_of(one)
    if isinstance(one, list | tuple):
        return _Map([one] if _is_pair(one) else one)
    raise ConfigurationError(
        f"JOBS['TASK_ROUTES'] has {one!r}, which must be a dict, a list of pairs, a function, or "
        "the dotted path of one."
    )


def _function_of(router: Any) -> RouterFunction:
    """The router itself, or a function for an object of the older form, ``route_for_task``."""
    if not hasattr(router, "route_for_task"):
        return router  # type: ignore[no-any-return]

    @functools.wraps(router.route_for_task)
    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return router.route_for_task(name, args, kwargs)

    return route
