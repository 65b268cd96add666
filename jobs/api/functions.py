"""Which functions can be tasks, their default names, and whether two with one name are the same.

A worker finds a task by importing its module. So the name must lead there, and to one function.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from jobs.exceptions import ConfigurationError

#: Modules that nobody can import by this name: the script that was started, and what
#: `multiprocessing` makes of it in a child.
_SCRIPTS = ("__main__", "__mp_main__")
#: What ``manage.py shell -c`` runs stands in the module of that command.
_SHELL = "django.core.management.commands.shell"


class Origin(NamedTuple):
    """Where a decorator was applied."""

    #: The module whose code was being run from its top: by an import, or as a script.
    module: str
    #: That code. A module that is loaded again has new code; a console compiles each line.
    code: CodeType | None
    #: Whether that happened during an import or Django's start, and not in a function that was
    #: called later, as by a test.
    starting: bool
    #: File and line.
    line: str


def place_of(run: Callable[..., Any]) -> str:
    """``module.function``, as far as the function knows them. For a script, the module is the name
    by which it can be imported, if there is one."""
    module, name = getattr(run, "__module__", None), getattr(run, "__qualname__", None)
    if name is None or module is None:
        return name or repr(run)
    return f"{_importable(module, _names(run)) or module}.{name}"


def is_async(run: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine, as far as that can be told."""
    # For a callable object, its method says so.
    return iscoroutinefunction(run) or (
        not inspect.isroutine(run) and iscoroutinefunction(getattr(run, "__call__", None))  # noqa: B004
    )


def check(run: Any, *, named: bool, bind: bool) -> None:
    """Raise `ConfigurationError` if this can't be a task. ``named``: the decorator names it."""
    problem = _problem(run, named=named, bind=bind)
    if problem:
        raise ConfigurationError(f"@task of {place_of(run)}, {origin().line}: {problem}")


def _problem(run: Any, *, named: bool, bind: bool) -> str:
    if inspect.isclass(run):
        return "a class is no task. Write a function that makes an instance and uses it."
    if isinstance(run, property | classmethod) or not callable(run):
        return (
            "only a function can be a task. Put @task on a function of the module, above its "
            "other decorators."
        )
    if not named and (
        inspect.ismethod(run) or not isinstance(getattr(run, "__qualname__", None), str)
    ):
        return (
            "a method of an object, a partial or a callable object has no name of its own by "
            "which a worker could find it. Write a function that calls it, or give a name: "
            "task(name=…)(…)."
        )
    module = getattr(run, "__module__", None)
    if not named and (not isinstance(module, str) or module == _SHELL):
        return f"it was typed into a shell, from which no worker can import it. {_MOVE}"
    if not named and _importable(str(module), _names(run)) is None:
        return f"it stands in the script that was started, which no worker can import. {_MOVE}"
    if _is_method(run) and not bind:
        return (
            "it stands in a class and takes an object as its first argument, which no call has. "
            "Move it out of the class, or take the argument away."
        )
    return ""


_MOVE = "Move it to a module, such as tasks.py of an app, or give the name it has there: name=…"


def _names(run: Any) -> Mapping[str, Any]:
    return getattr(run, "__globals__", None) or vars(sys.modules["__main__"])


def _is_method(run: Any) -> bool:
    """Whether it is defined in a class and expects an object: its first argument is called ``self``
    or ``cls``."""
    if not inspect.isfunction(run):
        return False
    class_or_function = run.__qualname__.rpartition(".")[0]
    if not class_or_function or class_or_function.endswith("<locals>"):
        return False
    arguments = run.__code__.co_varnames[: run.__code__.co_argcount]
    return arguments[:1] in (("self",), ("cls",))


def _importable(module: str, names: Mapping[str, Any]) -> str | None:
    """The name by which a module can be imported; None for a script or a console. ``names``: the
    module's globals."""
    if module not in _SCRIPTS:
        return module
    spec = names.get("__spec__")
    return spec.name if spec is not None else None  # python -m shop.tasks


# ------------------------------------------------------------------------ two of one name


def origin() -> Origin:
    """Where the decorator that this thread is applying stands."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("jobs.api."):
        frame = frame.f_back
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
    starting = not apps.ready_event.is_set()
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            # What the module has run by `exec` is part of it.
            while (above := frame.f_back) and above.f_globals is frame.f_globals:
                frame = above
            module = str(frame.f_globals.get("__name__", ""))
            if getattr(frame.f_globals.get("__spec__"), "_initializing", False):
                starting = True
                # A factory makes all its functions at one line of its own: the line that calls the
                # factory tells them apart.
                line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            return Origin(
                _importable(module, frame.f_globals) or module, frame.f_code, starting, line
            )
        frame = frame.f_back
    return Origin("", None, starting, line)


def check_same(
    name: str,
    one: tuple[Callable[..., Any], Origin],
    two: tuple[Callable[..., Any], Origin],
) -> None:
    """Raise `ConfigurationError` unless the second function is the first one, or a new version of
    it: its module was loaded again, or the function that defines it was called again."""
    (first, there), (second, here) = one, two
    if first is second:
        return
    places = place_of(first), place_of(second)
    again = there.code is not here.code or not here.starting
    if places[0] == places[1] and there.module == here.module and again:
        return
    raise ConfigurationError(
        f"Two functions are called {name!r}: {places[0]} and {places[1]} ({there.line} and "
        f"{here.line}). Give one of them another name: @task(name=…). If a decorator made them, "
        "put @functools.wraps(function) on what it returns."
    )


def attributes(run: Any, task: type) -> dict[str, Any]:
    """The function's own attributes, without those that would hide one of its task."""
    own = getattr(run, "__dict__", {})
    return {name: value for name, value in own.items() if not hasattr(task, name)}
