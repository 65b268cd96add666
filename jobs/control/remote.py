"""Commands that Celery's clients may give to workers: the registry, with the decorators for own
ones. Those that every worker has are in `jobs.worker.celery.panel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

from jobs.exceptions import ConfigurationError

_F = TypeVar("_F", bound=Callable[..., Any])


class RemoteCommand(NamedTuple):
    function: Callable[..., Any]
    #: Whether it is refused where clients may only look.
    changes: bool


#: Name → what a worker does when a client sends it.
commands: dict[str, RemoteCommand] = {}


@overload
def inspect_command(function: _F, /) -> _F: ...


@overload
def inspect_command(*, name: str = "", alias: str = "", **described: Any) -> Callable[[_F], _F]: ...


def inspect_command(
    function: Any = None, /, *, name: str = "", alias: str = "", **described: Any
) -> Any:
    """Have workers answer a further command of ``celery inspect``, which changes nothing::

        @inspect_command
        def free_space(state):
            return {"ok": shutil.disk_usage("/").free}

    The function runs in the supervisor of each worker that is asked. It gets the `WorkerState` of
    that and the command's arguments, by name, and returns what JSON can hold: by custom a dict with
    "ok", or with "error". An exception is answered as an error. While it runs the worker answers no
    other command, so it should be quick.

    ``name``: of the command, instead of the function's. ``alias``: a second name. ``described``:
    ``args``, ``signature``, ``help`` and so on, which Celery's command line reads in the client.
    """
    return _registered(function, name, alias, changes=False)


@overload
def control_command(function: _F, /) -> _F: ...


@overload
def control_command(*, name: str = "", alias: str = "", **described: Any) -> Callable[[_F], _F]: ...


def control_command(
    function: Any = None, /, *, name: str = "", alias: str = "", **described: Any
) -> Any:
    """Have workers obey a further command of ``celery control``: as `inspect_command`, but refused
    unless ``JOBS["CELERY_CONTROL"]`` is "all"."""
    return _registered(function, name, alias, changes=True)


def _registered(function: Any, name: str, alias: str, *, changes: bool) -> Any:
    def register(found: _F) -> _F:
        for one in filter(None, (name or found.__name__, alias)):
            known = commands.get(one)
            if known and _place(known.function) != _place(found):
                raise ConfigurationError(
                    f"Two commands of Celery's clients are called {one!r}: "
                    f"{_place(known.function)} and {_place(found)}. Give one another name=."
                )
            commands[one] = RemoteCommand(found, changes)
        return found

    return register if function is None else register(function)


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
