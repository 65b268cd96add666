"""Spans where calls are sent and where they run, in one trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from jobs import Request, Task, chain, chord, task
from tests.tasks import add, async_add, echo, fail
from tests.workers import work

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jobs.contrib import opentelemetry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


@task
def sends() -> None:
    add.delay(1, 2)


@task
async def async_sends() -> None:
    await add.adelay(1, 2)


@task(bind=True)
def tried_again(self: Task[..., Any]) -> int:
    if not self.request.retries:
        self.retry(exc=ValueError("once"), countdown=0)
    return 3


@task(batch=5)
def taken_together(requests: list[Request]) -> list[int]:
    return [1 for _ in requests]


class Traced:
    """The spans that were made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> set[tuple[str, str]]:
        """Each span with its parent, by names without the modules."""
        names = {span.context.span_id: span.name.replace("tests.tasks.", "") for span in self.spans}
        here = f"{__name__}."
        return {
            (
                names[span.parent.span_id].replace(here, "") if span.parent else "",
                names[span.context.span_id].replace(here, ""),
            )
            for span in self.spans
        }


@pytest.fixture
def traced() -> Iterator[Traced]:
    found = Traced()
    opentelemetry.instrument(found.provider)
    yield found
    opentelemetry.uninstrument()
    assert not opentelemetry._running


def in_a_request(traced: Traced, call: Any, **options: Any) -> set[tuple[str, str]]:
    """Send a call in a span, as of a request, and run it. The tree; there is one trace."""
    with traced.provider.get_tracer("web").start_as_current_span("GET /"), transaction.atomic():
        call.delay()
    work(**options)
    assert len({span.context.trace_id for span in traced.spans}) == 1
    return traced.tree()


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
@pytest.mark.parametrize(("call", "name"), [(add, "add"), (async_add, "async_add")])
def test_from_the_request_through_the_sending_to_the_run(
    traced: Traced, call: Any, name: str, options: dict[str, Any]
) -> None:
    assert in_a_request(traced, call.s(1, 2), **options) == {
        ("", "GET /"),
        ("GET /", f"send {name}"),
        (f"send {name}", f"run {name}"),
    }
    _, sent, ran = traced.spans
    assert (sent.kind, ran.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert sent.attributes is not None
    assert ran.attributes is not None
    assert sent.attributes["messaging.message.id"] == ran.attributes["messaging.message.id"]
    assert ran.attributes["jobs.state"] == "SUCCESS"
    assert ran.attributes["jobs.attempt"] == 1


@pytest.mark.parametrize(("call", "name"), [(sends, "sends"), (async_sends, "async_sends")])
def test_a_call_that_a_task_sends(traced: Traced, call: Any, name: str) -> None:
    tree = in_a_request(traced, call.s())
    assert {(f"run {name}", "send add"), ("send add", "run add")} <= tree


def test_each_attempt_is_a_span_of_the_same_trace(traced: Traced) -> None:
    assert ("send tried_again", "run tried_again") in in_a_request(traced, tried_again.s())
    first, second = [span for span in traced.spans if span.name.startswith("run")]
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["jobs.state"], second.attributes["jobs.state"]) == ("RETRY", "SUCCESS")
    assert [event.name for event in first.events] == ["exception"]
    assert first.status.is_unset


def test_a_failure(traced: Traced) -> None:
    in_a_request(traced, fail.s("boom"))
    ran = traced.spans[-1]
    assert ran.status.status_code == trace.StatusCode.ERROR
    assert ran.events[0].attributes is not None
    assert ran.events[0].attributes["exception.message"] == "boom"


def test_a_chain_and_a_chord(traced: Traced) -> None:
    tree = in_a_request(
        traced, chain(add.s(1, 2), async_add.s(3), chord([echo.si(1), echo.si(2)], echo.s()))
    )
    assert {
        ("GET /", "send add"),
        ("run add", "send async_add"),
        ("run async_add", "send echo"),
        ("run echo", "send echo"),
        ("send echo", "run echo"),
    } <= tree


def test_what_follows_a_call_of_a_batch_is_in_its_trace(traced: Traced) -> None:
    tree = in_a_request(traced, taken_together.s() | echo.s())
    assert ("send taken_together", "send echo") in tree
