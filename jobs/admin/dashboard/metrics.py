"""The numbers as JSON, for whoever may look at the dashboard."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse

from jobs import conf
from jobs.admin.pages import may_look
from jobs.control import metrics
from jobs.control.metrics import Range
from jobs.exceptions import BrokerUnavailable


def metrics_json(request: HttpRequest) -> JsonResponse:
    """`?range=` hour, day, week or year; `?queue=`, once for each queue, else all of them."""
    if not may_look(request):
        raise PermissionDenied
    try:
        period = Range(request.GET.get("range", Range.HOUR))
    except ValueError:
        return _problem(f"range must be one of {', '.join(Range)}.", 400)
    queues = request.GET.getlist("queue") or list(conf.get().queues)
    if unknown := [name for name in queues if not conf.get().knows(name)]:
        return _problem(f"There is no queue {unknown[0]!r}.", 400)
    try:
        found: dict[str, Any] = {
            "range": period,
            "queues": queues,
            "series": [metrics.plain(one) for one in metrics.series(period, queues)],
            "total": metrics.plain(metrics.total(period, queues)),
            "tasks": {
                task: metrics.plain(one)
                for task, one in metrics.by_task(period, queues=queues).items()
            },
        }
    except BrokerUnavailable as error:
        return _problem(str(error), 503)
    return JsonResponse(found)


def _problem(text: str, status: int) -> JsonResponse:
    return JsonResponse({"problem": text}, status=status)
