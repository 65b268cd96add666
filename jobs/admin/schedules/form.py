"""The form of a schedule: tasks to choose from, one kind of rule, errors beside their fields."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import (
    conf,
    registry,
    timing,
)
from jobs.admin.schedules.fields import CrontabInput, LocalTimeField, SearchSelect, SpanField
from jobs.admin.schedules.moments import zone_of
from jobs.models import Schedule
from jobs.timing import clock

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Schedule]
else:
    _ModelForm = forms.ModelForm

#: The kinds of rule, each named by the field that holds it.
KINDS = {
    "crontab": gettext_lazy("At times of the day, on days of the week or the month"),
    "interval": gettext_lazy("Again and again, in equal steps"),
    "at": gettext_lazy("Once"),
}
#: What decides when it runs.
WHEN = ("crontab", "interval", "at", "timezone", "start_at", "end_at", "paused_until")

#: Code of errors for what is not written yet.
MISSING = "missing"

#: What the field says if nobody says anything.
_WINDOW = dt.timedelta(days=1)

_JSON = {"rows": 2, "cols": 60, "spellcheck": "false", "class": "vLargeTextField jobs-json"}


class ScheduleForm(_ModelForm):
    task = forms.ChoiceField(label=gettext_lazy("Task"), widget=SearchSelect)
    args = forms.JSONField(
        label=gettext_lazy("Arguments"),
        required=False,
        initial=list,
        help_text=gettext_lazy('A JSON list, such as [17, "text"]. Empty: none.'),
        widget=forms.Textarea(attrs=_JSON),
    )
    kwargs = forms.JSONField(
        label=gettext_lazy("Keyword arguments"),
        required=False,
        initial=dict,
        help_text=gettext_lazy('A JSON object, such as {"copy": true}. Empty: none.'),
        widget=forms.Textarea(attrs=_JSON),
    )
    headers = forms.JSONField(
        label=gettext_lazy("Headers"),
        required=False,
        initial=dict,
        help_text=gettext_lazy("A JSON object that the task finds in its request. Empty: none."),
        widget=forms.Textarea(attrs=_JSON),
    )
    queue = forms.ChoiceField(
        label=gettext_lazy("Queue"),
        required=False,
        help_text=gettext_lazy("Only if it is another one than the task’s own."),
    )
    expires = SpanField(
        label=gettext_lazy("Expires after"),
        help_text=gettext_lazy("A run that no worker has begun by then is revoked."),
    )
    kind = forms.ChoiceField(
        label=gettext_lazy("Runs"), choices=list(KINDS.items()), widget=forms.RadioSelect
    )
    crontab = forms.CharField(
        label=gettext_lazy("Crontab"),
        required=False,
        max_length=200,
        widget=CrontabInput(
            attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}
        ),
        help_text=gettext_lazy(
            "Minute, hour, day of month, month, day of week; a sixth field in front is the "
            "second. For example “30 6 * * mon-fri”."
        ),
    )
    interval = SpanField(
        label=gettext_lazy("Every"), help_text=gettext_lazy("Counted from due time to due time.")
    )
    at = LocalTimeField(label=gettext_lazy("At"), help_text=gettext_lazy("In its time zone."))
    timezone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        widget=SearchSelect,
        initial=timing.default_zone,
        help_text=gettext_lazy("Whose clocks count for all times of this page."),
    )
    start_at = LocalTimeField(
        label=gettext_lazy("Start"),
        help_text=gettext_lazy("It doesn’t run before; an interval counts from here."),
    )
    end_at = LocalTimeField(
        label=gettext_lazy("End"), help_text=gettext_lazy("It doesn’t run after.")
    )
    paused_until = LocalTimeField(
        label=gettext_lazy("Paused until"),
        help_text=gettext_lazy("Runs before this are left out, and not made up for."),
    )
    misfire_window = SpanField(
        label=gettext_lazy("How far back"),
        initial=_WINDOW,
        help_text=gettext_lazy("If each missed run is made up for: not those older than this."),
    )
    jitter = SpanField(
        label=gettext_lazy("Spread over"),
        help_text=gettext_lazy("Each run starts by chance up to this much later."),
    )

    class Meta:
        model = Schedule
        fields = (
            *("name", "task", "args", "kwargs"),
            *("crontab", "interval", "at", "timezone", "start_at", "end_at", "paused_until"),
            *("enabled", "misfire", "misfire_window", "overlap", "jitter"),
            *("description", "labels", "queue", "exchange", "routing_key"),
            *("priority", "expires", "expires_from", "headers"),
        )
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        }
        help_texts = {
            "enabled": gettext_lazy("Off: it keeps its rule and is not run."),
            "misfire": gettext_lazy("What becomes of times at which no beat was running."),
            "overlap": gettext_lazy("What becomes of a time at which its last run has not ended."),
            "exchange": gettext_lazy(
                "With a routing key, in place of a queue; the task’s own if empty."
            ),
            "routing_key": gettext_lazy("With a queue, it decides nothing and goes along."),
            "priority": gettext_lazy("0 (first) to 9. Empty: the task’s own."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        self._offer("task", [("", "---------"), *_tasks()], stored.task)
        queues = [("", _("the task’s own")), *((n, n) for n in sorted(conf.get().queues))]
        self._offer("queue", queues, stored.queue)
        if "expires_from" in self.fields:  # not for who may only look
            self.fields["expires_from"].required = False  # left out, it stays as it is
        self._offer("timezone", [(n, n) for n in _zones()], stored.timezone)
        self.initial.setdefault("kind", _kind_of(self.initial))
        zone = self.data.get(self.add_prefix("timezone")) if self.is_bound else None
        for field in self.fields.values():
            if isinstance(field, LocalTimeField):
                field.zone = zone_of(zone or self.initial.get("timezone") or stored.timezone)

    def _offer(self, name: str, choices: list[Any], stored: str) -> None:
        """These choices; what is stored stays one, so that saving doesn't change it unseen."""
        field = self.fields.get(name)
        if not isinstance(field, forms.ChoiceField):
            return  # somebody who may only look has no fields
        field.choices = choices
        if stored and not field.valid_value(stored):
            unknown = (stored, _("%(name)s (unknown)") % {"name": stored})
            field.choices = [*choices, unknown]

    # ------------------------------------------------------------------ each field

    def clean_args(self) -> list[Any]:
        args = self.cleaned_data["args"]
        if args is None:
            return []
        if not isinstance(args, list):
            raise ValidationError(_('Write a JSON list, such as [17, "text"].'), code="type")
        return args

    def clean_kwargs(self) -> dict[str, Any]:
        return self._object("kwargs", _('Write a JSON object, such as {"copy": true}.'))

    def clean_headers(self) -> dict[str, Any]:
        return self._object("headers", _('Write a JSON object, such as {"tenant": "a"}.'))

    def _object(self, name: str, problem: str) -> dict[str, Any]:
        value = self.cleaned_data[name]
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValidationError(problem, code="type")
        return value

    def clean_labels(self) -> str:
        words = [" ".join(word.split()) for word in self.cleaned_data["labels"].split(",")]
        return ", ".join(dict.fromkeys(word for word in words if word))

    def clean_misfire_window(self) -> dt.timedelta:
        window: dt.timedelta | None = self.cleaned_data["misfire_window"]
        return _WINDOW if window is None else window

    # ------------------------------------------------------------------ together

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        self._keep_fractions(data)
        if "kind" in data:
            self._keep_one_rule(data["kind"], data)
        self._check_arguments(data)
        return data

    def _keep_fractions(self, data: dict[str, Any]) -> None:
        """The page shows whole seconds: what nobody edited stays as it is stored."""
        for name, field in self.fields.items():
            shown = isinstance(field, LocalTimeField) and name in data
            if shown and name not in self.changed_data:
                data[name] = self.initial.get(name)

    def _keep_one_rule(self, kind: str, data: dict[str, Any]) -> None:
        for other in KINDS.keys() - {kind}:
            self.errors.pop(other, None)
            data[other] = "" if other == "crontab" else None
        if kind in data and not data[kind]:
            self.add_error(kind, ValidationError(_("Say when it runs."), code=MISSING))

    def _check_arguments(self, data: dict[str, Any]) -> None:
        task = registry.tasks.get(data.get("task", ""))
        if task is not None and "args" in data and "kwargs" in data:
            try:
                task.check_arguments(data["args"], data["kwargs"])
            except TypeError as error:
                self.add_error("args", str(error))

    def add_error(self, field: str | None, error: Any) -> None:
        """Without what the model says of kinds of rule that aren't chosen, or says once more."""
        if isinstance(error, ValidationError) and hasattr(error, "error_dict"):
            kind = self.cleaned_data.get("kind")
            told = {
                name: problems
                for name, problems in error.error_dict.items()
                if name not in self.errors and (name == kind or name not in KINDS)
            }
            error = ValidationError(told)
            if not told:
                return
        super().add_error(field, error)

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        others = KINDS.keys() - {self.cleaned_data.get("kind")}
        new = {"kind", *WHEN} & set(self.changed_data) - others
        if new and not self.errors and not self.instance.next_runs(clock.now(), 1):
            # Its rule is right, and yet nothing is left between its start and its end.
            field = "end_at" if self.instance.end_at else self.cleaned_data["kind"]
            self.add_error(field, _("It would never run: no due time is left."))


def _kind_of(values: Mapping[str, Any]) -> str:
    return next((kind for kind in KINDS if values.get(kind)), "crontab")


def _tasks() -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """By the module in which their functions are."""
    found = sorted((task.run.__module__, name) for name, task in registry.tasks.items())
    for module, names in groupby(found, key=lambda pair: pair[0]):
        yield module, [(name, name) for _module, name in names]


@functools.cache
def _zones() -> list[str]:
    return sorted(zoneinfo.available_timezones())
