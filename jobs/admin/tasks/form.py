"""A form for one call of a task, made from its signature."""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import conf, serialization
from jobs.admin.schedules.form import ValueField

if TYPE_CHECKING:
    from jobs.api.task import Task

#: Put in front of the names of parameters, which may be anything.
_PREFIX = "arg-"

#: Names of the fields that are no parameter's.
_QUEUE, _COUNTDOWN = "queue", "countdown"

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MANY = inspect.Parameter.VAR_POSITIONAL
_MORE = inspect.Parameter.VAR_KEYWORD

_EMPTY = inspect.Parameter.empty


class Asked(NamedTuple):
    """A call as the form gives it."""

    args: list[Any]
    kwargs: dict[str, Any]
    #: Of `Task.apply_async`.
    options: dict[str, Any]


class JsonField(ValueField):
    """Any value with a form in JSON, also those that `jobs.serialization` marks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(encoder=serialization.Encoder, **options)

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        try:
            return serialization.revived(found)
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from error


class RunForm(forms.Form):
    """The fields of the task's parameters, then those of the sending."""

    required_css_class = "required"

    def __init__(self, task: Task[..., Any], data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        self.task = task
        self._hints = _hints(task)
        for parameter in parameters_of(task):
            self.fields[_PREFIX + parameter.name] = self._field(parameter)
        queues = [(name, name) for name in conf.get().queues]
        self.fields[_QUEUE] = forms.ChoiceField(
            label=gettext_lazy("Queue:"),
            required=False,
            choices=[("", gettext_lazy("as usual")), *queues],
        )
        self.fields[_COUNTDOWN] = forms.FloatField(
            label=gettext_lazy("Start in:"),
            required=False,
            min_value=0,
            max_value=31_536_000,
            help_text=gettext_lazy("Seconds from now; empty: at once."),
            widget=forms.NumberInput(attrs={"step": "any"}),
        )

    # ------------------------------------------------------------------ parts

    def _field(self, parameter: inspect.Parameter) -> forms.Field:
        name, default = parameter.name, parameter.default
        sensitive = name in self.task.sensitive
        kind, optional = _kind(self._hints.get(name, Any))
        if parameter.kind in (_MANY, _MORE):
            kind = list if parameter.kind is _MANY else dict
            default = [] if parameter.kind is _MANY else {}
        given = default is not _EMPTY
        options: dict[str, Any] = {
            "label": f"{'*' * ((parameter.kind is _MANY) + 2 * (parameter.kind is _MORE))}{name}:",
            "required": not given and not optional and kind is not str,
            "help_text": _help(kind, default, sensitive=sensitive),
        }
        if given and not sensitive and default is not None:
            options["initial"] = default
        if sensitive:
            widget: forms.Widget = forms.PasswordInput(attrs={"autocomplete": "off"})
            options["widget"] = widget
            options.pop("initial", None)
        make = _FIELDS.get(kind)
        if make is None or (default is not None and given and not isinstance(default, kind)):
            if "initial" in options and not _is_json(options["initial"]):
                del options["initial"]
            if not sensitive:
                options["widget"] = forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"})
            return JsonField(**options)
        return make(**options)

    def sections(self) -> list[list[forms.BoundField]]:
        """The fields of the arguments, and those of the sending."""
        own = [self[name] for name in self.fields if name.startswith(_PREFIX)]
        return [own, [self[_QUEUE], self[_COUNTDOWN]]]

    # ------------------------------------------------------------------ the call

    def asked(self) -> Asked:
        """The call; the form must be valid."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        many = self.cleaned_data.get(self._name_of(_MANY)) or []
        for parameter in parameters_of(self.task):
            given, value = self._given(parameter)
            if parameter.kind is _MANY:
                args += many
            elif parameter.kind is _MORE:
                kwargs.update(value or {})
            elif parameter.kind is _POSITIONAL_ONLY or (
                many and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            ):
                # What stands behind it needs it in its place.
                args.append(value if given else parameter.default)
            elif given:
                kwargs[parameter.name] = value
        options: dict[str, Any] = {}
        if queue := self.cleaned_data[_QUEUE]:
            options["queue"] = queue
        if (countdown := self.cleaned_data[_COUNTDOWN]) is not None:
            options["countdown"] = countdown
        return Asked(args, kwargs, options)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for kind, form, text in (
            (_MANY, list, _('Write a JSON list, such as [17, "text"].')),
            (_MORE, dict, _('Write a JSON object, such as {"copy": true}.')),
        ):
            name = self._name_of(kind)
            value = cleaned.get(name)
            if value is not None and not isinstance(value, form):
                self.add_error(name, text)
        if not self.errors:
            try:
                asked = self.asked()
                self.task.check_arguments(asked.args, asked.kwargs)
            except TypeError as error:
                self.add_error(None, str(error))
        return cleaned

    def _name_of(self, kind: Any) -> str:
        """The name of the field of the parameter of this kind."""
        found = (p.name for p in parameters_of(self.task) if p.kind is kind)
        return _PREFIX + next(found, "")

    def _given(self, parameter: inspect.Parameter) -> tuple[bool, Any]:
        """Whether a value was written, and which one; a parameter left empty has its default."""
        name = _PREFIX + parameter.name
        value = self.cleaned_data.get(name)
        written = str(self.data.get(name, "")) != ""
        default = parameter.default
        text = isinstance(self.fields[name], forms.CharField) and (
            isinstance(default, str) or default is _EMPTY
        )
        if written or (text and parameter.name not in self.task.sensitive):
            return True, value
        return default is _EMPTY and parameter.kind in (*_NAMED, _POSITIONAL_ONLY), value


def parameters_of(task: Task[..., Any]) -> list[inspect.Parameter]:
    """What callers give; of a task for batches, anything."""
    return list(task._signature.parameters.values())


def _hints(task: Task[..., Any]) -> Mapping[str, Any]:
    """The annotations of the task's function, as far as they can be read."""
    try:
        return typing.get_type_hints(inspect.unwrap(task.function))
    except Exception:  # noqa: BLE001  they are the project's expressions: anything may be raised
        return {}


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type without ``| None``, and whether it had that."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inside = [one for one in typing.get_args(hint) if one is not type(None)]
        optional = len(inside) < len(typing.get_args(hint))
        return (inside[0] if len(inside) == 1 else Any), optional
    return hint, False


def _help(kind: Any, default: Any, *, sensitive: bool) -> str:
    said = [] if kind in _FIELDS else [_("JSON.")]
    if default is not _EMPTY:
        if sensitive:
            said.append(_("Empty: its default."))
        elif default not in ([], {}):
            said.append(_("Default: %(value)s") % {"value": f"{default!r:.100}"})
    if sensitive:
        said.append(_("It is sensitive, and shown nowhere."))
    return " ".join(said)


def _is_json(value: Any) -> bool:
    try:
        serialization.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _boolean(**options: Any) -> forms.Field:
    """A choice: a checkbox can't be left empty."""
    choices = [("True", _("yes")), ("False", _("no"))]
    if not options["required"]:
        choices = [("", "---------"), *choices]
    return forms.TypedChoiceField(
        **{**options, "initial": str(options.get("initial", ""))},
        choices=choices,
        coerce=lambda text: text == "True",
        empty_value=None,
    )


def _text(**options: Any) -> forms.Field:
    options.setdefault("widget", AdminTextInputWidget())
    return forms.CharField(**options, strip=False)


_FIELDS: Mapping[Any, Callable[..., forms.Field]] = {
    bool: _boolean,
    int: forms.IntegerField,
    float: forms.FloatField,
    str: _text,
    decimal.Decimal: forms.DecimalField,
    dt.date: forms.DateField,
    dt.datetime: forms.DateTimeField,
}
