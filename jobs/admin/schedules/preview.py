"""A preview of a schedule while somebody edits it: its rule in words, and its next runs."""

from __future__ import annotations

import inspect
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest, JsonResponse
from django.template.loader import render_to_string

from jobs import registry
from jobs.admin import words
from jobs.admin.schedules import rules
from jobs.admin.schedules.form import MISSING, WHEN, ScheduleForm
from jobs.models import Schedule
from jobs.timing import clock

#: How many of the next runs are shown.
_RUNS = 5


class _Plain(str):
    """An annotation as it is written, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def answer(request: HttpRequest, stored: Schedule | None) -> JsonResponse:
    """The preview of the values in the page's fields, and their errors.

    ``html`` and ``task`` are parts of the page; ``errors`` has texts by field.
    """
    form = ScheduleForm(request.GET, instance=stored or Schedule())
    found = form.errors.as_data()
    errors = {
        name: [
            text for problem in found.get(name, []) if problem.code != MISSING for text in problem
        ]
        for name in WHEN
    }
    wrong = any(name in found for name in ("kind", *WHEN))
    return JsonResponse(
        {
            "html": "" if wrong else of(form.instance),
            "task": task_help(request.GET.get("task", "")),
            "errors": {name: texts for name, texts in errors.items() if texts},
        }
    )


def of(schedule: Schedule) -> str:
    """The rule in words and a table of its next runs; empty when there is no readable rule."""
    now = clock.now()
    try:
        runs = schedule.next_runs(now, _RUNS)
    except ValidationError:
        return ""
    if not (schedule.crontab or schedule.interval or schedule.at):
        return ""
    context = {
        "words": rules.in_words(schedule),
        "zone": schedule.timezone,
        "runs": [
            (at, rules.with_weekday(at, schedule.timezone), words.away(at, now)) for at in runs
        ],
    }
    return render_to_string("admin/jobs/schedule/preview.html", context)


def task_help(name: str) -> str:
    """The signature and the docstring of the task."""
    if not name:
        return ""
    task = registry.tasks.get(name)
    context: dict[str, Any] = {"name": name}
    if task is not None:
        parameters = list(inspect.signature(task.function).parameters.values())
        shown = [
            found.replace(annotation=_Plain(found.annotation))
            if isinstance(found.annotation, str)
            else found
            for found in parameters[1 if task.bind else 0 :]
        ]
        # Not the task itself: a template calls whatever can be called.
        context |= {
            "signature": f"{getattr(task.source, '__name__', name)}{inspect.Signature(shown)}",
            "text": inspect.getdoc(task.function) or inspect.cleandoc(task.__doc__ or ""),
        }
    return render_to_string("admin/jobs/schedule/task.html", context)
