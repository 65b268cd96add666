"""``python -m tests.storm.sender <log> <how many> <per second> <seed>``: one sender of a storm,
of so many tasks that are promised to run.

It goes on, beyond that number, until `over` exists beside its log: recoveries are seen by the work
that is done after them.

A line of the log says what became of a step: ``committed``, ``rolled-back``, ``outside``, or
``uncertain`` (the commit raised), then ``<kind>:<id>`` of each task. It is written after the step;
what a sender committed that was killed before is in the table `Sent`. A send outside a transaction
has a line ``trying`` before it, since there is no such table for it.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import django
from django.db import Error as DatabaseError
from django.db import connection, transaction

#: What is written of a step whose tasks will run.
PROMISED = ("committed", "outside")
#: Name of the file by which a storm tells its senders that all kills are over.
OVER = "over"


class _Abort(Exception):
    pass


class Sender:
    def __init__(self, log: TextIO, rng: random.Random) -> None:
        self._log = log
        self._rng = rng
        #: How many were promised to run.
        self.promised = 0

    def step(self) -> None:
        steps: list[Callable[[], None]] = [self._commit, self._roll_back, self._savepoint]
        (chosen,) = self._rng.choices([*steps, self._outside], [50, 15, 20, 15])
        try:
            chosen()
        except DatabaseError:
            connection.close()
            time.sleep(0.2)

    def _commit(self) -> None:
        self._in_transaction(self._send_some)

    def _roll_back(self) -> None:
        sent: list[str] = []
        try:
            with transaction.atomic():
                sent += self._send_some()
                raise _Abort
        except _Abort:
            pass
        finally:
            self._note("rolled-back", sent)

    def _savepoint(self) -> None:
        """Sends before, in and after a savepoint that is rolled back."""
        undone: list[str] = []

        def steps() -> list[str]:
            before = self._send_some()
            try:
                with transaction.atomic():
                    undone.extend(self._send_some())
                    raise _Abort
            except _Abort:
                pass
            return before + self._send_some()

        try:
            self._in_transaction(steps)
        finally:
            self._note("rolled-back", undone)

    def _outside(self) -> None:
        from jobs.exceptions import BrokerUnavailable
        from jobs.message import new_id

        kind, id_ = self._kind(), new_id()
        self._note("trying", [f"{kind}:{id_}"])
        try:
            sent = self._send(kind, id_)
        except BrokerUnavailable:
            return
        self._note("outside", [sent])

    def _in_transaction(self, send: Callable[[], list[str]]) -> None:
        sent: list[str] = []
        became = "uncertain"
        try:
            with transaction.atomic():
                sent = send()
            became = "committed"
        finally:
            self._note(became, sent)

    def _send_some(self) -> list[str]:
        from tests.storm.models import Sent

        sent = [self._send(self._kind()) for _ in range(self._rng.randint(1, 4))]
        Sent.objects.bulk_create(
            Sent(id=id_, kind=kind) for kind, _, id_ in (s.partition(":") for s in sent)
        )
        return sent

    def _kind(self) -> str:
        from tests.storm.tasks import KINDS

        return self._rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]

    def _send(self, kind: str, id_: str | None = None) -> str:
        from tests.storm.settings import SPREAD
        from tests.storm.tasks import KINDS

        later = self._rng.uniform(0.1, 3) if self._rng.random() < 0.1 else None
        queue = self._rng.choice(SPREAD) if SPREAD else None
        sent = KINDS[kind][0].apply_async(countdown=later, task_id=id_, queue=queue)
        return f"{kind}:{sent.id}"

    def _note(self, became: str, sent: list[str]) -> None:
        self.promised += len(sent) if became in PROMISED else 0
        self._log.write(" ".join([became, *sent]) + "\n")
        self._log.flush()


def main() -> None:
    path, count, rate, seed = sys.argv[1:]
    django.setup()
    with Path(path).open("a") as log:
        sender = Sender(log, random.Random(seed))
        began = time.monotonic()
        over = Path(path).with_name(OVER)
        while sender.promised < int(count) or not over.exists():
            sender.step()
            time.sleep(max(0.0, began + sender.promised / float(rate) - time.monotonic()))


if __name__ == "__main__":
    main()
