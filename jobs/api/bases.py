"""What a subclass of `Task` says of its tasks: options, hooks, and the method ``run``.

The functions take the class `Task` as ``root``, which they can't import.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from jobs.api.options import KNOWN
from jobs.exceptions import ConfigurationError, shown

_ABOUT = ("task_id", "args", "kwargs")

#: The hooks, and what each is called with.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "before_start": _ABOUT,
    "on_success": ("retval", *_ABOUT),
    "on_retry": ("exc", *_ABOUT, "einfo"),
    "on_failure": ("exc", *_ABOUT, "einfo"),
    "after_return": ("status", "retval", *_ABOUT, "einfo"),
    "on_replace": ("sig",),
}

#: Options that are attributes of a task under the same name, besides those with a meaning of their
#: own in `Task`.
SHOWN = (
    *("exchange", "routing_key", "rate_limit", "throws", "typing", "store_errors_even_if_ignored"),
    *("autoretry_for", "dont_autoretry_for", "retry_backoff", "retry_backoff_max", "retry_jitter"),
)

#: Options that a class can't say for all its tasks. As attributes they are its own affair.
_NOT_OF_CLASSES = frozenset(
    {"name", "bind", "base", "shared", "lazy", "countdown", "eta", "retry_policy", *HOOKS}
)


def split(task: Any, root: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what the decorator was given. Returns the options, with those of the task's class, and
    the attributes: hooks, and values for other attributes of the class.

    Raises `TypeError` for a hook that is no function.
    """
    kind = type(task)
    options: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        if one not in root.__mro__:
            names = [name for name in vars(one) if name in KNOWN and name not in _NOT_OF_CLASSES]
            options |= {name: getattr(task, name) for name in names}
    attributes: dict[str, Any] = {}
    for name, value in given.items():
        if name in HOOKS:
            if value is None:
                continue
            if not callable(value):
                raise TypeError(f"{name} must be a function, not {shown(value)}")
            attributes[name] = types.MethodType(value, task)
        elif name not in KNOWN and hasattr(kind, name) and not hasattr(root, name):
            attributes[name] = value
        else:
            options[name] = value
    if "acks_late" in given or "acks" in given:  # the decorator's word is the last
        for name in {"acks_late", "acks"} - given.keys():
            options.pop(name, None)
    return options, attributes


def hooks_of(task: Any, root: type) -> frozenset[str]:
    """The hooks that a task has. Raises `ConfigurationError` for one that can't be called with what
    it gets."""
    kind = type(task)
    found = [
        name
        for name in HOOKS
        if name in vars(task) or inspect.getattr_static(kind, name) is not vars(root)[name]
    ]
    for name in found:
        try:
            inspect.signature(getattr(task, name)).bind(*HOOKS[name])
        except TypeError as error:
            raise ConfigurationError(
                f"Task {task.name!r}: its {name} is called with ({', '.join(HOOKS[name])}), after "
                f"self: {error}."
            ) from None
        except ValueError:  # some of what is written in C doesn't say
            pass
    return frozenset(found)


def run_of(kind: type, root: type) -> tuple[Callable[..., Any], bool]:
    """The function of a class's ``run``, and whether it takes ``self``."""
    run = inspect.getattr_static(kind, "run")
    if isinstance(run, staticmethod):
        return run.__func__, False
    if run is vars(root)["run"] or not inspect.isfunction(run):
        raise ConfigurationError(
            f"class {kind.__qualname__}: a task that is written as a class has a method "
            "run(self, …). To give hooks or options to functions, write @task(base="
            f"{kind.__qualname__})."
        )
    return run, True


def named(kind: type) -> dict[str, Any]:
    """The option ``name`` of a class, if it has any."""
    name = getattr(kind, "name", None)
    return {} if name is None else {"name": name}
