"""The error tree.

::

    JobsError
    ├── ConfigurationError          a setting or an option is wrong
    ├── SendError                   raised at the call; nothing was sent
    │   ├── NotSerializable         (also TypeError) an argument has no form in JSON
    │   ├── MessageTooLarge         (also ValueError)
    │   ├── UnknownQueue            (also ValueError) a queue nobody declared
    │   ├── NoRoute                 (also ValueError) a routing key no queue is bound to
    │   ├── AlreadyQueued           a call with the same unique key is there already
    │   ├── WorkflowError           (also ValueError) calls that can't be composed like that
    │   └── BrokerUnavailable       (also ConnectionError) Redis away after the retry policy
    │       ├── QueueRefused        Redis is there, and refuses what is asked about a queue
    │       └── NotReplicated       the calls are sent, but too few replicas have them
    ├── LimitReached                (also TimeoutError) no permit or slot within the timeout
    ├── UnknownWorker               no worker of this name reports
    ├── TooManyCalls                tests ran so many calls, and more of them keep coming
    ├── MessageError                a message that can't be run: it becomes a dead letter
    │   ├── MalformedMessage
    │   ├── BadSignature
    │   ├── UnknownTask
    │   └── WrongArguments          (also TypeError)
    ├── ControlFlow                 raised inside a task, to decide its outcome
    │   ├── Retry                   run it again later
    │   ├── Interrupted             its worker stops: it goes on elsewhere (raised by ``iterate``)
    │   ├── Reject                  put it among the dead letters, or back on the queue
    │   ├── Replaced                another call ends under its id
    │   └── Ignore                  acknowledge it; it ends as REVOKED
    ├── TaskEnded                   the task was ended from outside
    │   ├── SoftTimeLimitExceeded   raised inside the task
    │   ├── TimeLimitExceeded       its process was killed
    │   ├── WorkerLost              its process died, as often as JOBS["MAX_CRASHES"] allows
    │   ├── MaxRetriesExceeded      there is no other attempt left
    │   ├── TransactionLeftOpen     it returned in a transaction, which is rolled back
    │   └── ChordError              the body of a chord whose members have not all succeeded
    └── ResultError                 raised by ``AsyncResult.get()``
        ├── WaitInTask              (also RuntimeError) ``get`` was called within a task
        ├── ResultTimeout           (also TimeoutError) no end within the timeout
        ├── ResultNotSerializable   (also TypeError) what the task returned has no form in JSON
        ├── WrongResults            (also ValueError) a batch task did not return one for each call
        ├── TaskFailed              the task's own exception can't be rebuilt here
        └── TaskRevoked             expired or revoked: it will not run

The docstring of a class is its message when it is raised without one. At the end, the same classes
under Celery's names.
"""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any


def shown(value: object, most: int = 100) -> str:
    """`repr` for messages, cut to so many characters; it never fails."""
    try:
        text = repr(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001  any class may have got its __repr__ wrong
        return f"<{type(value).__name__} whose __repr__ raises {type(error).__name__}>"
    return text if len(text) <= most else f"{text[:most]}…"


class JobsError(Exception):
    """Something went wrong in the job system."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or ((self.__doc__ or "").strip(),)))


class ConfigurationError(JobsError):
    """The settings in JOBS are wrong; run `manage.py check`."""


class SendError(JobsError):
    """The task could not be sent."""


class NotSerializable(SendError, TypeError):
    """An argument can't be put into a message."""


class MessageTooLarge(SendError, ValueError):
    """The message is above JOBS["MESSAGE_MAX_BYTES"]."""


class UnknownWorker(JobsError):
    """No worker of this name reports."""


class TooManyCalls(JobsError):
    """Calls were run, and more of them keep coming."""


class UnknownQueue(SendError, ValueError):
    """The queue is not declared in JOBS["QUEUES"]."""


class NoRoute(SendError, ValueError):
    """No queue is bound to the routing key."""


class WorkflowError(SendError, ValueError):
    """The calls can't be composed like that."""


class BrokerUnavailable(SendError, ConnectionError):
    """Redis could not be reached."""

    #: Of messages sent together, the positions of those that are not on their queues; the others
    #: are. None: unknown, any may be there.
    unsent: frozenset[int] | None = None
    #: Whether the connection broke or could not be made, other than by a time-out.
    cut = False
    #: Whether only a part of a Cluster is away, so that other queues may well be served.
    partly = False


class QueueRefused(BrokerUnavailable):
    """Redis refuses what is asked about a queue, for want of a right or since a key has another
    type, until somebody changes it there. Other queues may well be served."""

    def __init__(self, text: str = "", *, queues: Sequence[str] = ()) -> None:
        """``queues``: the refused ones of a send."""
        super().__init__(*([text] if text else []))
        self.queues = tuple(queues)


class NotReplicated(BrokerUnavailable):
    """The calls are on their queues, but fewer replicas have them than BROKER_WAIT_REPLICAS asks
    for: a failover now could lose them. They will run; to send them again would run them twice."""

    def __init__(self, text: str = "", *, ids: Sequence[str] = ()) -> None:
        """``ids``: those of the calls."""
        super().__init__(*([text] if text else []))
        self.ids = tuple(ids)
        self.unsent = frozenset()


class AlreadyQueued(SendError):
    """Another call of the same unique key is there already."""

    def __init__(self, text: str = "", *, task_id: str = "") -> None:
        """``task_id``: the other call's."""
        super().__init__(*([text] if text else []))
        self.task_id = task_id


class LimitReached(JobsError, builtins.TimeoutError):
    """The limit allows no more within the timeout."""


class MessageError(JobsError):
    """The message can't be run."""


class MalformedMessage(MessageError):
    """The message is not in Celery's message format."""

    #: What can be read of its call (a `jobs.message.Message`), if the message is signed or its
    #: queue is open.
    call: Any = None


class BadSignature(MessageError):
    """The message was not signed by this project."""


class UnknownTask(MessageError):
    """No task of this name is known to this version of the code."""


class WrongArguments(MessageError, TypeError):
    """The task does not take the message's arguments."""


class ControlFlow(JobsError):
    """Raised inside a task to say what becomes of it."""


class Retry(ControlFlow):
    """The task will be tried again."""

    def __init__(
        self,
        text: str = "",
        *,
        exc: BaseException | None = None,
        countdown: float | dt.timedelta | None = None,
        eta: dt.datetime | None = None,
        max_retries: int | None = None,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        expires: float | dt.timedelta | dt.datetime | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """``countdown``: seconds or a timedelta; with neither it nor ``eta``, the task's own delay.
        ``args``, ``kwargs``, ``expires``, ``options``: for the next attempt, if they differ from
        this one's; `jobs.api.options.AGAIN` has the options."""
        text = text or ("" if exc is None else shown(exc, 1000))
        super().__init__(*([text] if text else []))
        self.exc = exc
        self.countdown = countdown
        self.eta = eta
        self.max_retries = max_retries
        self.next_args = args
        self.next_kwargs = kwargs
        self.next_options = dict(options or {})
        if expires is not None:
            self.next_options["expires"] = expires

    @property
    def when(self) -> dt.datetime | float | dt.timedelta | None:
        """Celery's name for ``eta`` or ``countdown``."""
        return self.countdown if self.eta is None else self.eta


class Interrupted(ControlFlow):
    """The worker stops; the call goes on in another one."""


class Reject(ControlFlow):
    """The task rejected the message."""

    def __init__(self, reason: str | BaseException = "", requeue: bool = False) -> None:
        """``reason``: text, or an exception for its text. ``requeue``: back to its queue instead of
        the dead letters."""
        super().__init__(*([reason] if reason else []))
        self.reason = reason
        self.requeue = requeue


class Replaced(ControlFlow):
    """Another call takes the place of this one."""

    def __init__(self, text: str = "", *, call: Mapping[str, Any] | None = None) -> None:
        """``call``: in its JSON form (see `jobs.workflow`)."""
        super().__init__(*([text] if text else []))
        self.call = call or {}


class Ignore(ControlFlow):
    """The call ends as REVOKED, and nothing else is recorded of it."""


class TaskEnded(JobsError):
    """The task was ended from outside."""


class SoftTimeLimitExceeded(TaskEnded):
    """The task ran longer than its soft time limit."""


class TimeLimitExceeded(TaskEnded):
    """The task ran longer than its time limit; its process was killed."""


class WorkerLost(TaskEnded):
    """The processes that ran the task died each time."""


class MaxRetriesExceeded(TaskEnded):
    """The task has no attempt left."""


class TransactionLeftOpen(TaskEnded):
    """The task returned in a transaction, which is rolled back."""


class ChordError(TaskEnded):
    """A member of the chord did not succeed."""


class ResultError(JobsError):
    """The task has no result to give."""


class WaitInTask(ResultError, RuntimeError):
    """A task is not to wait for the result of another one."""


class ResultTimeout(ResultError, builtins.TimeoutError):
    """The task did not end within the timeout."""


class ResultNotSerializable(ResultError, TypeError):
    """What the task returned can't be stored as JSON."""


class WrongResults(ResultError, ValueError):
    """A batch task returned something other than a result for each of its calls."""


class TaskFailed(ResultError):
    """The task failed."""


class TaskRevoked(ResultError):
    """The task was revoked or expired before it could run."""


# Celery's names, for code that was written for it.

CeleryError = JobsError
ImproperlyConfigured = ConfigurationError
InvalidTaskError = MalformedMessage
MaxRetriesExceededError = MaxRetriesExceeded
NotRegistered = UnknownTask
OperationalError = BrokerUnavailable
QueueNotFound = UnknownQueue
TaskPredicate = ControlFlow
TaskRevokedError = TaskRevoked
TimeoutError = ResultTimeout  # noqa: A001
WorkerLostError = WorkerLost
