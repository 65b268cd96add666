"""How many forms of the five guides run as they are written there."""

from __future__ import annotations

from tests.integration.celery_guides import (
    test_calling,
    test_canvas,
    test_periodic,
    test_routing,
    test_tasks,
)


def test_nearly_all_forms_run() -> None:
    working = [
        *(test_calling.WORKS, test_canvas.WORKS, test_tasks.WORKS),
        *(test_periodic.CRONTABS, test_periodic.ENTRIES),
        *(test_routing.ROUTES, test_routing.TASK_QUEUES),
    ]
    works = sum(map(len, working))
    refused = [
        block.code
        for module in (test_calling, test_canvas, test_tasks, test_periodic, test_routing)
        for block in module.REFUSED.values()
        if block.guide
    ]
    assert works / (works + len(refused)) >= 0.95, refused
