"""Running a call once more with other arguments: as a new call, since the old one's are history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django import forms
from django.db import transaction
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jobs import ledger, registry, serialization
from jobs.admin import words
from jobs.admin.results.origin import kept_message
from jobs.admin.verbs import LONGEST
from jobs.ledger import publish
from jobs.message import HIDDEN, Message
from jobs.models import TaskResult
from jobs.states import TERMINAL

#: Most characters of each field: messages are no place for data.
_MOST = 200_000


def fits(row: TaskResult) -> bool:
    """Whether it has ended, and its task is known here."""
    return row.state in TERMINAL and row.task in registry.tasks


class ArgumentsForm(forms.Form):
    """Arguments as JSON, checked against the task's signature."""

    args = forms.CharField(
        label=_("Arguments"),
        max_length=_MOST,
        strip=True,
        widget=forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField jobs-json"}),
        help_text=_('A JSON list, such as [17, "text"].'),
    )
    kwargs = forms.CharField(
        label=_("Keyword arguments"),
        max_length=_MOST,
        strip=True,
        widget=forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField jobs-json"}),
        help_text=_('A JSON object, such as {"copy": true}.'),
    )
    why = forms.CharField(
        label=_("Reason"),
        max_length=LONGEST,
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text=_("It is kept in the history, with your name and the time. It may stay empty."),
    )

    def __init__(self, row: TaskResult, data: Mapping[str, Any] | None = None) -> None:
        stored = {"args": row.args, "kwargs": row.kwargs}
        super().__init__(data, initial={k: words.writable(v) for k, v in stored.items()})
        self.row = row
        self.task = registry.tasks[row.task]

    def clean_args(self) -> list[Any]:
        found = _read(self.cleaned_data["args"])
        if not isinstance(found, list):
            raise forms.ValidationError(gettext('Write a JSON list, such as [17, "text"].'))
        return found

    def clean_kwargs(self) -> dict[str, Any]:
        found = _read(self.cleaned_data["kwargs"])
        if not isinstance(found, dict):
            raise forms.ValidationError(gettext('Write a JSON object, such as {"copy": true}.'))
        return found

    def clean(self) -> None:
        if self.errors:
            return
        args, kwargs = self.cleaned_data["args"], self.cleaned_data["kwargs"]
        old = kept_message(self.row)
        for name, value in [*enumerate(args), *kwargs.items()]:
            if value != HIDDEN or str(name) not in self.task.sensitive:
                continue
            given: Any = args if isinstance(name, int) else kwargs
            try:
                given[name] = (old.args if isinstance(name, int) else old.kwargs)[name]  # type: ignore[union-attr]
            except (AttributeError, LookupError):
                text = gettext("The value of %(name)s is hidden and not kept: write it anew.")
                raise forms.ValidationError(text % {"name": name}) from None
        try:
            self.task.check_arguments(args, kwargs)
        except TypeError as error:
            raise forms.ValidationError(words.writable(str(error))) from error


def _read(text: str) -> Any:
    try:
        return serialization.loads(text)
    except (ValueError, RecursionError, ArithmeticError, TypeError) as error:
        said = gettext("This is not JSON: %(why)s") % {"why": str(error)[:200]}
        raise forms.ValidationError(said) from error


def send(row: TaskResult, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Message:
    """Send the new call: to the old one's queue, with its priority and limits. Returns its message.

    What was to follow the old call doesn't follow this one, and it is no member of a group. Raises
    what `Task.apply_async` raises.
    """
    task, old = registry.tasks[row.task], kept_message(row)
    new: Message = task.message(args, kwargs, queue=row.queue)
    # What came of it is found by these: it belongs to the old one's workflow.
    new.parent_id, new.root_id = row.pk, row.root_id or row.pk
    new.label = row.label
    if old is not None:
        new.priority, new.timelimit = old.priority, old.timelimit
        new.ignore_result, new.own_headers = old.ignore_result, old.headers
    with transaction.atomic(using=ledger.alias()):  # so that it has a row, and a page, at once
        publish.send([new])
    return new


#: What a sending may raise because of what a person wrote.
REFUSED = (TypeError, ValueError, msgspec.MsgspecError)
