"""What an operator does to many results at once: each act is one of `ACTS`.

The admin and `jobs.tasks.act_on_results` go through the rows with it, `manage.py jobs_retry` as
well.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from jobs import control, ledger
from jobs.exceptions import MessageError, Reject, SendError, WorkerLost
from jobs.models import LABEL, TaskAttempt, TaskResult
from jobs.states import TERMINAL, State
from jobs.timing import clock

#: Names of the errors whose messages become dead letters.
DEAD = {
    f"{kind.__module__}.{kind.__qualname__}"
    for kind in (*MessageError.__subclasses__(), Reject, WorkerLost)
}

#: For how long a revocation is remembered after the call is due.
_REMEMBER = dt.timedelta(days=1)


def retry(rows: Iterable[TaskResult], options: Mapping[str, Any]) -> int:
    """Run failed and revoked calls again, and the next attempt of others now."""
    done = 0
    for row in rows:
        run = control.retry_now if row.state == State.RETRY else control.retry
        try:
            done += run(row.pk)
        except (MessageError, SendError):
            continue  # this message can't be read here; the others may be
    return done


def revoke(rows: Iterable[TaskResult], options: Mapping[str, Any]) -> int:
    """End calls before they run; with the option ``terminate`` also those that run."""
    done = 0
    for row in rows:
        now = clock.now()
        remember = _REMEMBER + max((row.eta or now) - now, dt.timedelta(0))
        terminate = bool(options.get("terminate"))
        control.revoke(row.pk, terminate=terminate, remember=remember.total_seconds())
        done += 1
    return done


def forget(rows: Iterable[TaskResult], options: Mapping[str, Any]) -> int:
    """Delete results that have ended, with their attempts."""
    keys = [row.pk for row in rows]
    with transaction.atomic(using=ledger.alias()):
        # What was run again meanwhile has no end any more.
        ended = ledger.lock_rows(ledger.results().filter(pk__in=keys, state__in=TERMINAL))
        keys = list(ended.values_list("pk", flat=True))
        TaskAttempt.objects.using(ledger.alias()).filter(result_id__in=keys).delete()
        ledger.results().filter(pk__in=keys).delete()
    return len(keys)


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done to results."""

    #: What a person needs for it.
    permission: str
    #: The rows that it can be done to.
    fits: Q
    #: Does it to rows, and returns to how many it was done.
    run: Callable[[Iterable[TaskResult], Mapping[str, Any]], int]

    def among(self, rows: QuerySet[TaskResult]) -> QuerySet[TaskResult]:
        """The rows that it can be done to, without the columns that nothing here reads."""
        return rows.filter(self.fits).only("pk", "state", "eta")


ACTS = {
    "retry": Act(
        f"{LABEL}.retry_taskresult",
        # A dead letter is put back from its own page.
        Q(state__in=(State.FAILURE, State.REVOKED, State.RETRY)) & ~Q(error_type__in=sorted(DEAD)),
        retry,
    ),
    "revoke": Act(
        f"{LABEL}.revoke_taskresult",
        Q(state__in=(State.PENDING, State.STARTED, State.RETRY)),
        revoke,
    ),
    "forget": Act(f"{LABEL}.delete_taskresult", Q(state__in=sorted(TERMINAL)), forget),
}
