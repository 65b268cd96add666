"""The form of a schedule: tasks to choose from, one kind of rule, errors beside their fields."""

from __future__ import annotations

import datetime as dt
import functools
import math
import zoneinfo
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import get_select2_language
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext as django_gettext
from django.utils.translation import gettext_lazy, pgettext_lazy

from jobs import conf, registry, timing
from jobs.admin.schedules import rules
from jobs.api.sending import python_options
from jobs.exceptions import SendError
from jobs.message.call import OPTIONS, SCHEDULED
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
#: The fields that decide when it runs.
WHEN = ("crontab", "interval", "at", "timezone", "start_at", "end_at", "paused_until")

#: Code of the errors about fields that are still empty.
MISSING = "missing"

#: How far back missed runs are made up for, by default.
_WINDOW = dt.timedelta(days=1)

#: Levels of lists and objects in a JSON value. Code that goes through them calls itself at each.
_DEEPEST = 100

#: Years of moments: those before and after can't be told in every time zone.
_YEARS = (1900, 9000)

#: The largest number of a length of time.
_LARGEST = 10**15

_JSON = {"rows": 2, "cols": 60, "spellcheck": "false", "class": "vLargeTextField jobs-json"}


# ------------------------------------------------------------------------------ fields and widgets


class _NumberAndUnit(forms.MultiWidget):
    template_name = "admin/jobs/schedule/span.html"
    #: Its label is that of the number; the unit has one of its own.
    use_fieldset = False

    def __init__(self) -> None:
        number = forms.NumberInput(attrs={"step": "any", "min": "0", "class": "vIntegerField"})
        units = forms.Select(
            choices=list(rules.UNITS.items()), attrs={"aria-label": gettext_lazy("unit")}
        )
        super().__init__([number, units])

    def id_for_label(self, id_: str | None) -> str:
        return f"{id_}_0" if id_ else ""

    def decompress(self, value: dt.timedelta | None) -> list[Any]:
        return [None, 60] if value is None else list(rules.split(value))


class SpanField(forms.MultiValueField):
    """A `timedelta` as a number and a unit; None without a number."""

    def __init__(self, **options: Any) -> None:
        fields = (
            forms.DecimalField(required=False),
            forms.TypedChoiceField(choices=list(rules.UNITS.items()), coerce=int, required=False),
        )
        super().__init__(
            fields=fields,
            widget=_NumberAndUnit(),
            required=False,
            require_all_fields=False,
            **options,
        )

    def compress(self, data: list[Any]) -> dt.timedelta | None:
        number, unit = data or (None, None)
        if number is None:
            return None
        if number <= 0:
            raise ValidationError(_("Write a number above zero."), code="interval")
        if number > _LARGEST:
            # Not multiplied first: it may have a million digits.
            raise ValidationError(_("This is too long."), code="interval")
        try:
            return dt.timedelta(microseconds=int(number * int(unit or 1) * 1_000_000))
        except (OverflowError, ValueError) as error:
            raise ValidationError(_("This is too long."), code="interval") from error


class ValueField(forms.JSONField):
    """A value that the database can store and a message can carry."""

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
            whole = _is_storable(found)
        except RecursionError:
            whole = False
        except ValidationError:
            raise
        except ValueError as error:  # a number of thousands of digits
            text = _("A number in it has too many digits.")
            raise ValidationError(text, code="digits") from error
        if not whole:
            text = _("It is nested more than %(n)d levels deep.")
            raise ValidationError(text, code="depth", params={"n": _DEEPEST})
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was written, as it was written, if it is shown again with an error."""
        try:
            self.to_python(data)
        except ValidationError:
            return InvalidJSONInput(data)
        return super().bound_data(data, initial)


def _is_storable(value: Any) -> bool:
    """Whether it isn't nested too deeply. Raises `ValidationError` for what no database stores."""
    found, depth = [value], 0
    while found and depth <= _DEEPEST:
        inside: list[Any] = []
        for one in found:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValidationError(_("JSON has no number NaN or Infinity."), code="number")
            if isinstance(one, str) and ("\0" in one or not _is_unicode(one)):
                text = _("A text in it has a NUL, or half of a surrogate pair.")
                raise ValidationError(text, code="text")
            if isinstance(one, dict):
                inside += [*one, *one.values()]
            elif isinstance(one, list):
                inside += one
        found, depth = inside, depth + 1
    return not found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class LocalTimeField(forms.DateTimeField):
    """A moment by the clocks of `zone`, to the second."""

    zone: dt.tzinfo | None = None

    def __init__(self, **options: Any) -> None:
        widget = forms.DateTimeInput(
            attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
        )
        super().__init__(widget=widget, required=False, **options)

    def to_python(self, value: Any) -> dt.datetime | None:
        with timezone.override(self.zone):
            moment = super().to_python(value)
        if moment is None:
            return None
        if not _YEARS[0] <= moment.year <= _YEARS[1]:
            text = _("Write a year from %(first)d to %(last)d.")
            text %= {"first": _YEARS[0], "last": _YEARS[1]}
            raise ValidationError(text, code="year")
        if timezone.is_aware(moment):
            return moment
        # With USE_TZ off, Django doesn't make it aware, nor check that it exists exactly once.
        zone = self.zone or timezone.get_current_timezone()
        first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset():
            text = django_gettext(
                "%(datetime)s couldn’t be interpreted in time zone %(current_timezone)s; it may be "
                "ambiguous or it may not exist."
            )
            params = {"datetime": moment, "current_timezone": zone}
            raise ValidationError(text, code="ambiguous_timezone", params=params)
        return first

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dt.datetime) and timezone.is_aware(value):
            return timezone.make_naive(value, self.zone)
        return super().prepare_value(value)

    def has_changed(self, initial: Any, data: Any) -> bool:
        # The stored moment may have fractions of a second, which the page doesn't show.
        if isinstance(initial, dt.datetime):
            initial = initial.replace(microsecond=0)
        return super().has_changed(initial, data)


class CrontabInput(forms.TextInput):
    """A text field. With scripts, it also offers common crontabs and a box for each part."""

    template_name = "admin/jobs/schedule/crontab.html"

    #: Common crontabs to begin with.
    presets = (
        ("* * * * *", pgettext_lazy("crontab", "every minute")),
        ("*/15 * * * *", gettext_lazy("every 15 minutes")),
        ("0 * * * *", gettext_lazy("every hour, on the hour")),
        ("0 6 * * *", gettext_lazy("every day at 06:00")),
        ("0 6 * * mon-fri", gettext_lazy("Monday to Friday at 06:00")),
        ("0 6 * * mon", gettext_lazy("every Monday at 06:00")),
        ("0 6 1 * *", gettext_lazy("on the first of the month at 06:00")),
        ("0 6 L * *", gettext_lazy("on the last day of the month at 06:00")),
    )
    #: In the order of the text; the first may be left out.
    parts = (
        (gettext_lazy("second"), "0-59"),
        (gettext_lazy("minute"), "0-59"),
        (gettext_lazy("hour"), "0-23"),
        (gettext_lazy("day of month"), "1-31, L"),
        (gettext_lazy("month"), "1-12, jan-dec"),
        (gettext_lazy("day of week"), "0-7, sun-sat, fri#2, L5"),
    )

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        own = {"presets": self.presets, "parts": self.parts}
        return {**super().get_context(name, value, attrs), **own}


class SearchSelect(forms.Select):
    """A list that can be searched by typing, with the widget of Django's admin."""

    @property
    def media(self) -> forms.Media:
        extra = "" if settings.DEBUG else ".min"
        language = get_select2_language()
        return forms.Media(
            js=(
                f"admin/js/vendor/jquery/jquery{extra}.js",
                f"admin/js/vendor/select2/select2.full{extra}.js",
                *([f"admin/js/vendor/select2/i18n/{language}.js"] if language else []),
                "admin/js/jquery.init.js",
            ),
            css={
                "screen": (
                    f"admin/css/vendor/select2/select2{extra}.css",
                    "admin/css/autocomplete.css",
                )
            },
        )

    def __init__(self) -> None:
        super().__init__(attrs={"class": "jobs-search"})

    def render(
        self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None
    ) -> SafeString:
        """Without a template for each of the hundreds of options, which would take most of the time
        of the page."""
        attrs = self.build_attrs({**self.attrs, "name": name}, attrs)
        options = format_html_join(
            "", "{}", ((_option_or_group(key, text, value),) for key, text in self.choices)
        )
        return format_html("<select{}>{}</select>", flatatt(attrs), options)


def _option_or_group(key: Any, text: Any, chosen: Any) -> SafeString:
    if not isinstance(text, list | tuple):
        selected = SafeString(" selected") if key == chosen else ""
        return format_html('<option value="{}"{}>{}</option>', key, selected, text)
    options = format_html_join("", "{}", ((_option_or_group(k, t, chosen),) for k, t in text))
    return format_html('<optgroup label="{}">{}</optgroup>', key, options)


# ---------------------------------------------------------------------------------------- the form


class ScheduleForm(_ModelForm):
    task = forms.ChoiceField(label=gettext_lazy("Task"), widget=SearchSelect)
    args = ValueField(
        label=gettext_lazy("Arguments"),
        required=False,
        initial=list,
        help_text=gettext_lazy('A JSON list, such as [17, "text"]. Empty: none.'),
        widget=forms.Textarea(attrs=_JSON),
    )
    kwargs = ValueField(
        label=gettext_lazy("Keyword arguments"),
        required=False,
        initial=dict,
        help_text=gettext_lazy('A JSON object, such as {"copy": true}. Empty: none.'),
        widget=forms.Textarea(attrs=_JSON),
    )
    headers = ValueField(
        label=gettext_lazy("Headers"),
        required=False,
        initial=dict,
        help_text=gettext_lazy("A JSON object that the task finds in its request. Empty: none."),
        widget=forms.Textarea(attrs=_JSON),
    )
    options = ValueField(
        label=gettext_lazy("Options"),
        required=False,
        help_text=gettext_lazy(
            'A JSON object of further options of apply_async, such as {"time_limit": 60}. '
            "Empty: none."
        ),
        widget=forms.Textarea(attrs=_JSON),
    )
    queue = forms.ChoiceField(
        label=gettext_lazy("Queue"),
        required=False,
        help_text=gettext_lazy("Only to use another queue than the task’s own."),
    )
    expires = SpanField(
        label=gettext_lazy("Expires after"),
        help_text=gettext_lazy("A run that no worker has started by then is revoked."),
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
    at = LocalTimeField(label=gettext_lazy("At"), help_text=gettext_lazy("In the time zone below."))
    timezone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        widget=SearchSelect,
        initial=timing.default_zone,
        help_text=gettext_lazy("All times on this page are in this time zone."),
    )
    start_at = LocalTimeField(
        label=gettext_lazy("Start"),
        help_text=gettext_lazy("It doesn’t run before this. An interval counts from here."),
    )
    end_at = LocalTimeField(
        label=gettext_lazy("End"), help_text=gettext_lazy("It doesn’t run after this.")
    )
    paused_until = LocalTimeField(
        label=gettext_lazy("Paused until"),
        help_text=gettext_lazy("Runs before this are skipped, and not made up for."),
    )
    misfire_window = SpanField(
        label=gettext_lazy("How far back"),
        initial=_WINDOW,
        help_text=gettext_lazy(
            "When each missed run is made up for, those older than this are skipped."
        ),
    )
    jitter = SpanField(
        label=gettext_lazy("Spread over"),
        help_text=gettext_lazy("Each run is delayed by a random time, at most this."),
    )

    class Meta:
        model = Schedule
        fields = (
            *("name", "task", "args", "kwargs"),
            *("crontab", "interval", "at", "timezone", "start_at", "end_at", "paused_until"),
            *("enabled", "misfire", "misfire_window", "overlap", "jitter"),
            *("description", "labels", "queue", "exchange", "routing_key"),
            *("priority", "expires", "expires_from", "headers", "options"),
        )
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        }
        help_texts = {
            "enabled": gettext_lazy("Off: it keeps its rule, but does not run."),
            "misfire": gettext_lazy(
                "What to do about runs that were due while no beat was running."
            ),
            "overlap": gettext_lazy("What to do when a run is due and the last one has not ended."),
            "exchange": gettext_lazy(
                "Used with a routing key, in place of a queue. Empty: the task’s own."
            ),
            "routing_key": gettext_lazy(
                "It chooses the queues of an exchange. With a queue, it is only passed on."
            ),
            "priority": gettext_lazy("0 (first) to 9. Empty: the task’s own."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        known = sorted((task.function.__module__, name) for name, task in registry.tasks.items())
        by_module = [
            (module, [(name, name) for _module, name in names])
            for module, names in groupby(known, key=lambda pair: pair[0])
        ]
        self._offer("task", [("", "---------"), *by_module], stored.task)
        queues = [("", _("the task’s own")), *((n, n) for n in sorted(conf.get().queues))]
        self._offer("queue", queues, stored.queue)
        if "expires_from" in self.fields:  # it isn't for somebody who may only look
            self.fields["expires_from"].required = False  # a request without it leaves it as it is
        self._offer("timezone", [(n, n) for n in _zones()], stored.timezone)
        kind = next((kind for kind in KINDS if self.initial.get(kind)), "crontab")
        self.initial.setdefault("kind", kind)
        zone = self.data.get(self.add_prefix("timezone")) if self.is_bound else None
        for field in self.fields.values():
            if isinstance(field, LocalTimeField):
                field.zone = rules.zone_of(zone or self.initial.get("timezone") or stored.timezone)

    def _offer(self, name: str, choices: list[Any], stored: str) -> None:
        """Set the choices. The stored value stays one of them, so that saving doesn't change it
        unseen."""
        field = self.fields.get(name)
        if not isinstance(field, forms.ChoiceField):
            return  # the form of somebody who may only look has no fields
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

    def clean_options(self) -> dict[str, Any] | None:
        options = self._object("options", _('Write a JSON object, such as {"time_limit": 60}.'))
        task = registry.tasks.get(self.cleaned_data.get("task") or self.instance.task)
        if options and task is not None:
            try:
                given = python_options(options)
                task.check_options(given)
                if others := sorted(given.keys() & (OPTIONS - SCHEDULED)):
                    raise ValueError(
                        f"Leave out {others[0]!r}: it has a field here, or each run has another."
                    )
            except (TypeError, ValueError, SendError) as error:
                raise ValidationError(str(error), code="options") from None
        return options or None

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
        for name, field in self.fields.items():
            # The page shows whole seconds. A moment that nobody edited keeps its fractions.
            shown = isinstance(field, LocalTimeField) and name in data
            if shown and name not in self.changed_data:
                data[name] = self.initial.get(name)
        if kind := data.get("kind"):
            for other in KINDS.keys() - {kind}:
                self.errors.pop(other, None)
                data[other] = "" if other == "crontab" else None
            if kind in data and not data[kind]:
                self.add_error(kind, ValidationError(_("Say when it runs."), code=MISSING))
        task = registry.tasks.get(data.get("task", ""))
        if task is not None and "args" in data and "kwargs" in data:
            try:
                task.check_arguments(data["args"], data["kwargs"])
            except TypeError as error:
                self.add_error("args", str(error))
        return data

    def add_error(self, field: str | None, error: Any) -> None:
        """Drop the model's errors of kinds of rule that aren't chosen, and those shown already."""
        if isinstance(error, ValidationError) and hasattr(error, "error_dict"):
            kind = self.cleaned_data.get("kind")
            kept = {
                name: problems
                for name, problems in error.error_dict.items()
                if name not in self.errors and (name == kind or name not in KINDS)
            }
            error = ValidationError(kept)
            if not kept:
                return
        super().add_error(field, error)

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        others = KINDS.keys() - {self.cleaned_data.get("kind")}
        new = {"kind", *WHEN} & set(self.changed_data) - others
        if new and not self.errors and not self.instance.next_runs(clock.now(), 1):
            # The rule is right, but has no due time between start and end.
            field = "end_at" if self.instance.end_at else self.cleaned_data["kind"]
            self.add_error(field, _("It would never run: no due time is left."))


@functools.cache
def _zones() -> list[str]:
    return sorted(zoneinfo.available_timezones())
