"""Traces for OpenTelemetry: a span where a call is sent, and one for each attempt to run it.

Call `instrument` once in every process, such as in ``AppConfig.ready``. The span of the sending
goes along in the call's headers (``traceparent``), so that attempts, and the calls that follow in a
chain or a chord, belong to the trace of the request that has sent the first.

Needs ``pip install opentelemetry-api``, or the extra ``[opentelemetry]``.
"""

from __future__ import annotations

from typing import Any

from jobs import signals
from jobs.api.task import Task
from jobs.exceptions import ConfigurationError
from jobs.message import Message
from jobs.running.request import current
from jobs.states import State

try:
    from opentelemetry import context, propagate, trace
except ImportError as error:
    raise ConfigurationError(
        f"{__name__} needs a package that is not installed: pip install opentelemetry-api."
    ) from error

#: The spans of the attempts that run in this process, by their messages' places in memory: two
#: deliveries of one call may run at once.
_running: dict[int, trace.Span] = {}
#: Set by `instrument`.
_tracer: trace.Tracer


def instrument(tracer_provider: trace.TracerProvider | None = None) -> None:
    """Make spans from now on. A second call only changes the provider.

    ``tracer_provider``: default: the global one, also if that is set later.
    """
    global _tracer
    _tracer = trace.get_tracer("jobs", tracer_provider=tracer_provider)
    for signal, receive in _RECEIVERS:
        signal.connect(receive, dispatch_uid=__name__)


def uninstrument() -> None:
    """Make no more spans."""
    for signal, _ in _RECEIVERS:
        signal.disconnect(dispatch_uid=__name__)


def _sending(message: Message, **_: Any) -> None:
    parent = context.get_current()
    running = current.get()
    if running and not trace.get_current_span().get_span_context().is_valid:
        # What follows a call of a batch, whose span is never the current one.
        parent = propagate.extract(running[0].headers)
    span = _tracer.start_span(
        f"send {message.task}",
        context=parent,
        kind=trace.SpanKind.PRODUCER,
        attributes=_about(message) | {"messaging.operation.type": "send"},
    )
    propagate.inject(message.headers, context=trace.set_span_in_context(span, parent))
    span.end()


def _started(sender: Task[..., Any], message: Message, worker: str, **_: Any) -> None:
    parent = propagate.extract(message.headers)
    span = _tracer.start_span(
        f"run {message.task}",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=_about(message)
        | {
            "messaging.operation.type": "process",
            "jobs.attempt": message.attempt,
            "jobs.worker": worker,
        },
    )
    _running[id(message)] = span
    if not sender.batch:
        # Never detached: each call has a context of its own, which ends with it.
        context.attach(trace.set_span_in_context(span, parent))


def _failed(message: Message, exception: BaseException, **_: Any) -> None:
    if span := _running.get(id(message)):
        span.record_exception(exception)


def _finished(message: Message, state: str, **_: Any) -> None:
    if span := _running.pop(id(message), None):
        span.set_attribute("jobs.state", str(state))
        if state == State.FAILURE:
            span.set_status(trace.StatusCode.ERROR)
        span.end()


def _about(message: Message) -> dict[str, Any]:
    return {
        "messaging.system": "jobs",
        "messaging.destination.name": message.queue,
        "messaging.message.id": message.id,
        "jobs.task": message.task,
    }


_RECEIVERS = (
    (signals.task_sending, _sending),
    (signals.task_started, _started),
    (signals.task_failed, _failed),
    (signals.task_retried, _failed),
    (signals.task_finished, _finished),
)
