"""What a task's function takes."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs import conf, serialization
from jobs.conf.values import sentence, tenant
from jobs.exceptions import ConfigurationError


def signature_of(run: Callable[..., Any], *, bind: bool) -> tuple[inspect.Signature, range | None]:
    """The signature that callers see, and how many positional arguments fit it by themselves; None:
    only binding can tell."""
    try:
        signature = inspect.signature(run)
    except (TypeError, ValueError) as error:  # some of what is written in C
        raise ConfigurationError(
            f"@task of {run!r}: it doesn't say what arguments it takes. Write a function "
            "that calls it."
        ) from error
    parameters = list(signature.parameters.values())[1 if bind else 0 :]
    signature = signature.replace(parameters=parameters)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(parameters):
        return signature, None
    required = sum(p.default is p.empty for p in positional)
    return signature, range(required, len(positional) + 1)


def _anything(*args: Any, **kwargs: Any) -> None: ...


#: What `signature_of` returns for a function that takes any arguments.
ANY: tuple[inspect.Signature, range | None] = (inspect.signature(_anything), None)

_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def shown(signature: inspect.Signature) -> str:
    """A signature for an error message: without annotations, which may be very long."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def places_of(signature: inspect.Signature, sensitive: Sequence[str], name: str) -> frozenset[str]:
    """The sensitive parameters by name and, where they can be positional, by place ("0")."""
    order = list(signature.parameters)
    for parameter in sensitive:
        _check_named(signature, parameter, "sensitive", name)
    return frozenset(sensitive) | {str(order.index(parameter)) for parameter in sensitive}


def _check_named(signature: inspect.Signature, parameter: str, option: str, task: str) -> None:
    """Raise `ConfigurationError` unless the task has this parameter, for one value."""
    known = signature.parameters
    if parameter not in known:
        raise ConfigurationError(
            f"Task {task!r} has no parameter {parameter!r}, which {option}= names."
            f"{conf.nearest(parameter, known)}"
        )
    if known[parameter].kind in _ANY_NUMBER:
        raise ConfigurationError(
            f"Task {task!r} has {parameter!r} for any number of values; what {option}= names must "
            "be a parameter by itself."
        )


def _taken_by(
    function: Callable[..., object], signature: inspect.Signature, option: str, task: str
) -> list[str]:
    """The parameters of the task that a function takes by name. Raises `ConfigurationError` when it
    has a parameter that the task doesn't have."""
    known = signature.parameters
    wanted = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in wanted):
        return list(known)
    for p in wanted:
        by_name = p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        # What has a default is its own affair.
        if not by_name or (p.name not in known and p.default is p.empty):
            raise ConfigurationError(
                f"Task {task!r} has no parameter {p.name!r}, which the function of "
                f"{option}= takes; it gets the task's arguments by name."
                f"{conf.nearest(p.name, known)}"
            )
    return [p.name for p in wanted if p.name in known]


def _given(
    signature: inspect.Signature,
    names: Sequence[str],
    args: Sequence[object],
    kwargs: Mapping[str, object],
) -> dict[str, object]:
    """The arguments of these names. Raises `TypeError` for arguments that the task doesn't take."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return {name: bound.arguments[name] for name in names}


def given_anew(
    signature: inspect.Signature,
    before: tuple[Sequence[Any], Mapping[str, Any]],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments of a call's next attempt, for which ``args``, ``kwargs`` or both are given. The
    other parameters keep their values from ``before``, even if they are passed by name now and were
    passed by place, or the other way round. Both given: just these."""
    old_args, old_kwargs = before
    if args is not None:
        if kwargs is None:
            replaced = {p.name for p in _by_place(signature)[: len(args)] if p.kind is _BY_BOTH}
            kwargs = {name: old for name, old in old_kwargs.items() if name not in replaced}
        return args, kwargs
    kept, left = list(old_args), dict(kwargs or {})
    for place, p in enumerate(_by_place(signature)[: len(kept)]):
        if p.kind is _BY_BOTH and p.name in left:
            kept[place] = left.pop(p.name)
    return kept, left


_BY_BOTH = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _by_place(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, _BY_BOTH)
    return [p for p in signature.parameters.values() if p.kind in kinds]


#: Longer keys are replaced by a digest.
_KEY_MAX = 200


class Key:
    """The key of a call, as text, from its arguments."""

    def __init__(
        self,
        signature: inspect.Signature,
        function: Callable[..., object] | None,
        option: str,
        task: str,
    ) -> None:
        """``function``: takes those of the task's arguments that it names; None: the key is made
        of all arguments. ``option``: the option that gave it, for error messages.

        Raises `ConfigurationError` when it has a parameter that the task doesn't have.
        """
        self._signature = signature
        self._function = function
        self._names = list(signature.parameters)
        if function is None:
            return
        if not callable(function):
            raise ConfigurationError(
                f"Task {task!r}: {option} must be a function of the task's arguments, "
                f"not {function!r}."
            )
        self._names = _taken_by(function, signature, option, task)

    def __call__(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """Raises `TypeError` for arguments that the task doesn't take, and what the function
        raises."""
        given = _given(self._signature, self._names, args, kwargs)
        if self._function is None:
            # Keyword arguments in whatever order are the same.
            values = [
                sorted(value.items(), key=str) if isinstance(value, dict) else value
                for value in given.values()
            ]
            return _digest(serialization.dumps(values))
        # Lone surrogates have no form in UTF-8, which Redis needs.
        text = str(self._function(**given)).encode("utf-8", "backslashreplace").decode()
        return text if len(text) <= _KEY_MAX else _digest(text)


class Tenant:
    """The tenant of a call, as text, from its arguments."""

    def __init__(
        self,
        signature: inspect.Signature,
        fair_by: Callable[..., object] | str,
        sensitive: frozenset[str],
        task: str,
    ) -> None:
        """``fair_by``: the name of a parameter, or a function that takes those of the task's
        arguments that it names.

        Raises `ConfigurationError` for a parameter that the task doesn't have.
        """
        self._signature = signature
        self._task = task
        if isinstance(fair_by, str):
            _check_named(signature, fair_by, "fair_by", task)
            if fair_by in sensitive:
                raise ConfigurationError(
                    f"Task {task!r}: fair_by= names {fair_by!r}, which is sensitive, and a tenant "
                    "is shown. Give it a function that makes something else of the value."
                )
            self._names = [fair_by]
            self._function: Callable[..., object] = lambda **given: given[fair_by]
        elif callable(fair_by):
            self._names = _taken_by(fair_by, signature, "fair_by", task)
            self._function = fair_by
        else:
            raise ConfigurationError(
                f"Task {task!r}: fair_by must be the name of a parameter, or a function of the "
                f"task's arguments, not {fair_by!r}."
            )

    def __call__(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """Empty: nobody's. Raises `TypeError` or `ValueError` for arguments that the task doesn't
        take, or for which there is no tenant."""
        given = _given(self._signature, self._names, args, kwargs)
        try:
            value = self._function(**given)
        except Exception as error:  # the task's own function
            raise ValueError(
                f"Task {self._task!r} can't be sent: its fair_by fails for these arguments: "
                f"{error!r}"
            ) from error
        try:
            return tenant("what its fair_by returns", value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"Task {self._task!r} can't be sent: {sentence(error)}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
