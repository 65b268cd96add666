"""``@task(pydantic=True)``: models of pydantic as arguments and results, as in Celery.

On the wire they are JSON. The caller may pass the models themselves or dicts; the task gets models,
and what it returns is turned into JSON.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asgiref.sync import iscoroutinefunction

from jobs.api.options import Options
from jobs.exceptions import ConfigurationError


class Validation:
    """Turns the arguments of a function into the models that its annotations name, and back."""

    def __init__(self, run: Callable[..., Any], options: Options, name: str) -> None:
        """Raises `ConfigurationError` if pydantic isn't installed."""
        try:
            import pydantic
        except ImportError as error:
            raise ConfigurationError(
                f"@task of {name}: pydantic=True needs the package: pip install pydantic."
            ) from error
        self._base: type[Any] = pydantic.BaseModel
        self._run = run
        self._signature = inspect.signature(run)
        self._strict = options.pydantic_strict
        self._context = {**(options.pydantic_context or {}), "task_name": name}
        self._dump = {"mode": "json", **(options.pydantic_dump_kwargs or {})}

    @functools.cached_property
    def _models(self) -> dict[str, type[Any]]:
        """Parameter → its model. Annotations are read at the first call: they may name what the
        module defines after the task."""
        try:
            hints = typing.get_type_hints(self._run)
        except (NameError, AttributeError, TypeError):
            hints = {name: p.annotation for name, p in self._signature.parameters.items()}
        found = {name: _without_none(hint) for name, hint in hints.items() if name != "return"}
        return {
            name: hint
            for name, hint in found.items()
            if isinstance(hint, type) and issubclass(hint, self._base)
        }

    def wrapped(self) -> Callable[..., Any]:
        """The function, which gets models and whose models are turned into JSON."""
        run = self._run
        if iscoroutinefunction(run):

            @functools.wraps(run)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                bound = self._validated(args, kwargs)
                return self._plain(await run(*bound.args, **bound.kwargs))

            return awaited

        @functools.wraps(run)
        def called(*args: Any, **kwargs: Any) -> Any:
            bound = self._validated(args, kwargs)
            return self._plain(run(*bound.args, **bound.kwargs))

        return called

    def sent(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a call with JSON in place of models."""
        if not any(isinstance(one, self._base) for one in (*args, *kwargs.values())):
            return args, kwargs
        return tuple(map(self._plain, args)), {k: self._plain(v) for k, v in kwargs.items()}

    def _validated(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        bound = self._signature.bind(*args, **kwargs)
        for name, model in self._models.items():
            value = bound.arguments.get(name)
            if value is not None:
                bound.arguments[name] = model.model_validate(
                    value, strict=self._strict, context=self._context
                )
        return bound

    def _plain(self, value: Any) -> Any:
        return value.model_dump(**self._dump) if isinstance(value, self._base) else value


def _without_none(hint: Any) -> Any:
    """``Model`` of ``Model | None``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not type(None)]
        return others[0] if len(others) == 1 else hint
    return hint
