"""Fields of the form: spans of time, moments in the schedule's zone, the crontab with its help."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import get_select2_language
from django.core.exceptions import ValidationError
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext as django_gettext
from django.utils.translation import gettext_lazy

from jobs.admin.schedules import rules


class _NumberAndUnit(forms.MultiWidget):
    template_name = "admin/jobs/schedule/span.html"

    def __init__(self) -> None:
        number = forms.NumberInput(attrs={"step": "any", "min": "0", "class": "vIntegerField"})
        units = forms.Select(
            choices=list(rules.UNITS.items()), attrs={"aria-label": gettext_lazy("unit")}
        )
        super().__init__([number, units])

    def decompress(self, value: dt.timedelta | None) -> list[Any]:
        return [None, 60] if value is None else list(rules.split(value))


class SpanField(forms.MultiValueField):
    """A number and a unit, for a `timedelta`; no number is None."""

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
        try:
            return dt.timedelta(microseconds=int(number * int(unit or 1) * 1_000_000))
        except (OverflowError, ValueError) as error:
            raise ValidationError(_("This is too long."), code="interval") from error


class LocalTimeField(forms.DateTimeField):
    """A moment by the clocks of a zone, `zone`, to the second."""

    zone: dt.tzinfo | None = None

    def __init__(self, **options: Any) -> None:
        widget = forms.DateTimeInput(
            attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
        )
        super().__init__(widget=widget, required=False, **options)

    def to_python(self, value: Any) -> dt.datetime | None:
        with timezone.override(self.zone):
            moment = super().to_python(value)
        if moment is None or timezone.is_aware(moment):
            return moment
        # With USE_TZ off, Django leaves to us what it does otherwise.
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
        # What is stored may have fractions of a second, which the page doesn't show.
        if isinstance(initial, dt.datetime):
            initial = initial.replace(microsecond=0)
        return super().has_changed(initial, data)


class CrontabInput(forms.TextInput):
    """A text, with usual ones to choose from and a place for each field (both with scripts)."""

    template_name = "admin/jobs/schedule/crontab.html"

    #: Texts that are good to begin with.
    presets = (
        ("* * * * *", gettext_lazy("every minute")),
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
    """A list that can be searched by typing, with what Django's admin has for that."""

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
        """Without a template for each of the hundreds of options: they would take most of the
        page's time."""
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
