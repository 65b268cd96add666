"""Errors and traces for Sentry: every final failure once, under the name of its task.

::

    sentry_sdk.init(dsn=…, integrations=[JobsIntegration()])

Each attempt runs in a scope of its own, with tags for its call, as a transaction that continues the
trace in which the call was sent. docs/sentry.md has more of it.

Needs ``pip install sentry-sdk``, or the extra ``[sentry]``. The SDK is started in settings, before
apps are loaded, so nothing that is imported here may import models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobs import signals
from jobs.exceptions import ConfigurationError

try:
    import sentry_sdk
    from sentry_sdk.consts import OP, SPANDATA, SPANSTATUS
    from sentry_sdk.integrations import Integration
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import Scope
    from sentry_sdk.tracing import BAGGAGE_HEADER_NAME, Transaction, TransactionSource
    from sentry_sdk.utils import event_from_exception
except ImportError as error:
    raise ConfigurationError(
        f"{__name__} needs a package that is not installed: pip install sentry-sdk."
    ) from error

if TYPE_CHECKING:
    from jobs.api.task import Task
    from jobs.message import Message

#: The transactions of the attempts that run in this process, by their messages' places in memory:
#: two deliveries of one call may run at once.
_running: dict[int, Transaction] = {}

_STATUS = {
    "SUCCESS": SPANSTATUS.OK,
    "FAILURE": SPANSTATUS.INTERNAL_ERROR,
    "REVOKED": SPANSTATUS.CANCELLED,
}

#: Seconds that a child waits at its end until what it has to report is sent.
_FLUSH = 2.0


class JobsIntegration(Integration):
    """Reports failures and traces of calls."""

    identifier = "jobs"
    origin = "auto.queue.jobs"

    def __init__(self, *, propagate_traces: bool = True) -> None:
        """``propagate_traces``: whether a call's trace goes on from where it was sent."""
        self.propagate_traces = propagate_traces

    @staticmethod
    def setup_once() -> None:
        # It logs each failure, which would be reported a second time.
        ignore_logger("jobs")
        for signal, receive in _RECEIVERS:
            signal.connect(receive, dispatch_uid=__name__)


def _integration() -> JobsIntegration | None:
    """This integration, if it is turned on here."""
    found: JobsIntegration | None = sentry_sdk.get_client().get_integration(JobsIntegration)
    return found


def _sending(message: Message, **_: Any) -> None:
    here = _integration()
    if here is None or not here.propagate_traces:
        return
    with sentry_sdk.start_span(
        op=OP.QUEUE_PUBLISH, name=message.task, origin=JobsIntegration.origin
    ) as span:
        span.set_data(SPANDATA.MESSAGING_MESSAGE_ID, message.id)
        span.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, message.queue)
        trace = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers(span=span))
    if others := message.headers.get(BAGGAGE_HEADER_NAME):
        trace[BAGGAGE_HEADER_NAME] = f"{others},{trace.get(BAGGAGE_HEADER_NAME, '')}".rstrip(",")
    message.headers.update(trace)


def _started(sender: Task[..., Any], message: Message, worker: str, **_: Any) -> None:
    if _integration() is None:
        return
    if not sender.batch:
        # Never put back: each call has a context of its own, which ends with it.
        scope = Scope.get_isolation_scope().fork()
        scope.clear_breadcrumbs()
        Scope.set_isolation_scope(scope)
        Scope.set_current_scope(Scope.get_current_scope().fork())
        _describe(scope, message, worker)
    transaction = sentry_sdk.continue_trace(
        dict(message.headers),
        op=OP.QUEUE_PROCESS,
        name=message.task,
        source=TransactionSource.TASK,
        origin=JobsIntegration.origin,
    )
    sentry_sdk.start_transaction(
        transaction, custom_sampling_context={"jobs": {"task": message.task, "id": message.id}}
    )
    transaction.set_data(SPANDATA.MESSAGING_MESSAGE_ID, message.id)
    transaction.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, message.queue)
    transaction.set_data(SPANDATA.MESSAGING_MESSAGE_RETRY_COUNT, message.retries)
    _running[id(message)] = transaction
    if not sender.batch:
        Scope.get_current_scope().span = transaction


def _describe(scope: Scope, message: Message, worker: str) -> None:
    scope.set_transaction_name(message.task, source=TransactionSource.TASK)
    scope.set_tags(
        {
            "task": message.task,
            "task_id": message.id,
            "queue": message.queue,
            "attempt": str(message.attempt),
            "worker": worker,
        }
    )
    about: dict[str, Any] = {"id": message.id, "root_id": message.root_id}
    if sentry_sdk.get_client().should_send_default_pii():
        about |= {"args": message.shown_args, "kwargs": message.shown_kwargs}
    scope.set_context("job", about)


def _failed(
    sender: Task[..., Any], message: Message, exception: BaseException, worker: str, **_: Any
) -> None:
    if _integration() is None or isinstance(exception, sender.throws):
        return
    client = sentry_sdk.get_client()
    event, hint = event_from_exception(
        exception,
        client_options=client.options,
        mechanism={"type": JobsIntegration.identifier, "handled": False},
    )
    with sentry_sdk.new_scope() as scope:
        _describe(scope, message, worker)  # a batch has no scope for each of its calls
        if (transaction := _running.get(id(message))) is not None:
            scope.span = transaction
        scope.capture_event(event, hint=hint)


def _finished(message: Message, state: str, **_: Any) -> None:
    if (transaction := _running.pop(id(message), None)) is not None:
        transaction.set_tag("state", str(state))
        transaction.set_status(_STATUS.get(str(state), SPANSTATUS.ABORTED))  # type: ignore[call-overload]
        transaction.finish()


def _stopping(**_: Any) -> None:
    sentry_sdk.flush(timeout=_FLUSH)


_RECEIVERS = (
    (signals.task_sending, _sending),
    (signals.task_started, _started),
    (signals.task_failed, _failed),
    (signals.task_finished, _finished),
    (signals.worker_stopping, _stopping),
)
