"""The demonstration's tasks."""

from __future__ import annotations

import datetime as dt
import uuid
from itertools import islice
from typing import Any

from django.core.mail import send_mail
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import timezone, translation
from django.utils.translation import gettext

from jobs import chord, task
from jobsite.demo.csvfile import CsvFile, FileProblem, Problem
from jobsite.demo.models import Row, SentMail, Subscriber, Upload
from jobsite.demo.summary import RowCheck, Summary

#: Rows that one member of the chord stores.
CHUNK = 1000


# Atomic, all three: what a task does, and what it sends, is committed with the record of its end.
# However often a worker is killed, there is one chord, each row is stored once, and a run that
# failed has left nothing behind.


@task(atomic=True)
def summarise(upload_id: uuid.UUID) -> int:
    """Check an upload, and send the chord that reads it; its number of rows.

    A file that can't be used is an outcome as well.
    """
    upload = Upload.objects.get(pk=upload_id)
    try:
        file = CsvFile(bytes(upload.content))
        rows = sum(1 for _row in file)
        if not rows:
            raise FileProblem(Problem.NO_ROWS)
    except FileProblem as error:
        upload.refuse(error)
        return 0
    members = [store_chunk.s(upload_id, start) for start in range(0, rows, CHUNK)]
    body = chord(members, finish.s(upload_id)).delay()
    upload.begin(file.lines, group_id=body.parent.id, body_id=body.id)
    return rows


@task(atomic=True)
def store_chunk(upload_id: uuid.UUID, start: int) -> dict[str, Any]:
    """Store the rows of an upload from this one on, counted from 0; what is wrong with the others.

    A member gets keys, not data: messages stay small, and the database has the file.
    """
    upload = Upload.objects.get(pk=upload_id)
    file = CsvFile(bytes(upload.content))
    check = RowCheck(len(file.header))
    Row.objects.bulk_create(
        Row(upload=upload, line=line, values=values)
        for line, values in islice(file, start, start + CHUNK)
        if check.fits(line, values)
    )
    return check.as_dict()


@task(atomic=True)
def finish(checks: list[dict[str, Any]], upload_id: uuid.UUID) -> dict[str, Any]:
    """Work out the summary, once all rows are stored; ``checks``: what the members returned."""
    upload = Upload.objects.get(pk=upload_id)
    summary = Summary(CsvFile(bytes(upload.content)).header, checks)
    for values in upload.rows.values_list("values", flat=True).iterator():
        summary.add(values)
    if summary.rows:
        upload.finish(summary.as_dict())
    else:
        upload.refuse(FileProblem(Problem.NO_ROW_FITS))
    return {"stage": upload.stage, "rows": summary.rows}


@task(queue="high")
def send_welcome(subscriber_id: uuid.UUID) -> str:
    """Write to a new subscriber once, in their language; the subject of the mail."""
    subscriber = Subscriber.objects.get(pk=subscriber_id)
    try:
        with translation.override(subscriber.language):
            return _write_to(subscriber).subject
    except Exception:
        # For the page, which waits; what went wrong is in the task's result.
        Subscriber.objects.filter(pk=subscriber_id).update(mail_failed=True)
        raise


def _write_to(subscriber: Subscriber) -> SentMail:
    # The row comes first, in the transaction that sending can still roll back: of two runs at the
    # same moment, the second waits here, and finds the mail sent.
    with transaction.atomic():
        sent, created = SentMail.objects.get_or_create(
            subscriber=subscriber,
            defaults={
                "subject": gettext("Welcome!"),
                "body": gettext("Hello %(name)s,\n\nthank you for signing up.\n")
                % {"name": subscriber.name},
            },
        )
        if created:
            send_mail(sent.subject, sent.body, None, [subscriber.email])
    return sent


# Whoever creates a subscriber (the page, the admin, a shell) sends the task, at the commit.
send_welcome.on(
    post_save,
    sender=Subscriber,
    when=lambda created, **_: created,
    args=lambda instance, **_: (instance.pk,),
)


@task(queue="low")
def nightly_summary() -> dict[str, int]:
    """What the last 24 hours brought; a schedule sends it every night."""
    since = timezone.now() - dt.timedelta(days=1)
    done = Upload.objects.filter(stage=Upload.Stage.DONE, finished_at__gte=since)
    return {
        "uploads": done.count(),
        "rows": Row.objects.filter(upload__in=done).count(),
        "subscribers": Subscriber.objects.filter(created_at__gte=since).count(),
    }
