"""What a task's function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jobs import conf
from jobs.exceptions import ConfigurationError


def signature_of(run: Callable[..., Any], *, bind: bool) -> tuple[inspect.Signature, range | None]:
    """The signature that callers see, and the numbers of positional arguments that fit it alone;
    None where only binding can tell."""
    signature = inspect.signature(run)
    parameters = list(signature.parameters.values())[1 if bind else 0 :]
    signature = signature.replace(parameters=parameters)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(parameters):
        return signature, None
    required = sum(p.default is p.empty for p in positional)
    return signature, range(required, len(positional) + 1)


def _anything(*args: Any, **kwargs: Any) -> None: ...


#: As `signature_of` has it: of what takes any arguments.
ANY: tuple[inspect.Signature, range | None] = (inspect.signature(_anything), None)

_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def shown(signature: inspect.Signature) -> str:
    """A signature as a message shows it: without annotations, which may be texts of any length."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def places_of(signature: inspect.Signature, sensitive: Sequence[str], name: str) -> frozenset[str]:
    """The sensitive parameters by name and, where they can be positional, by place ("0")."""
    order = list(signature.parameters)
    for parameter in sensitive:
        if parameter not in order:
            raise ConfigurationError(
                f"Task {name!r} has no parameter {parameter!r}, which sensitive= names."
                f"{conf.nearest(parameter, order)}"
            )
        if signature.parameters[parameter].kind in _ANY_NUMBER:
            raise ConfigurationError(
                f"Task {name!r} has {parameter!r} for any number of values; what is sensitive must "
                "be a parameter by itself."
            )
    return frozenset(sensitive) | {str(order.index(parameter)) for parameter in sensitive}
