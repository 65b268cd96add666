"""The demonstration's tasks."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.core.mail import send_mail
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import timezone, translation
from django.utils.translation import gettext

from jobs import task
from jobsite.demo.csvfile import CsvFile, FileProblem, Problem
from jobsite.demo.models import Row, SentMail, Subscriber, Upload
from jobsite.demo.summary import Summary

#: Rows of one INSERT.
BATCH = 500


@task
def summarise(upload_id: uuid.UUID) -> dict[str, Any]:
    """Store an upload's rows and its summary; a file that can't be used is an outcome as well.

    A run that was killed half-way is simply run again: it starts by removing what it had stored.
    """
    upload = Upload.objects.get(pk=upload_id)
    if not upload.finished:
        try:
            upload.finish(_read(upload))
        except FileProblem as error:
            upload.refuse(error)
    rows = upload.summary["rows"] if upload.summary else 0
    return {"stage": upload.stage, "rows": rows, "problem": upload.problem}


def _read(upload: Upload) -> dict[str, Any]:
    file = CsvFile(bytes(upload.content))
    upload.begin(file.lines)
    summary = Summary(file.header)
    rows = _fitting(file, summary, upload)
    while batch := list(islice(rows, BATCH)):
        with transaction.atomic():
            Row.objects.bulk_create(batch)
        # For the page, which shows a bar: neither the database nor this loop is slowed by it.
        summarise.progress(batch[-1].line, file.lines)
    if not summary.rows:
        raise FileProblem(Problem.NO_ROW_FITS if summary.errors else Problem.NO_ROWS)
    return summary.as_dict()


def _fitting(file: CsvFile, summary: Summary, upload: Upload) -> Iterator[Row]:
    for line, values in file:
        if summary.add(line, values):
            yield Row(upload=upload, line=line, values=values)


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
