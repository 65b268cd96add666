"""The demonstration's pages.

A page that follows a task shows a `Live` state; its address with ``state/`` behind gives the same
as JSON, which static/demo/live.js asks for until the state is finished.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils.formats import number_format
from django.utils.translation import get_language, gettext, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from jobs import AsyncResult, GroupResult, State
from jobs.models import TaskResult
from jobsite.demo.csvfile import MAX_ROWS
from jobsite.demo.forms import MAX_BYTES, SubscriberForm, UploadForm
from jobsite.demo.models import Subscriber, Upload
from jobsite.demo.tasks import CHUNK, summarise

SAMPLE = Path(__file__).parent / "sample" / "airports.csv"
PREVIEW_ROWS = 5
#: Most failed parts of a file that its page names.
FAILED_CHUNKS = 10


@dataclass(frozen=True)
class Live:
    """What a page shows of a task at one moment: a line in words, and a panel of HTML."""

    line: str
    html: str
    finished: bool

    def response(self) -> JsonResponse:
        return JsonResponse({"line": self.line, "html": self.html, "finished": self.finished})


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "demo/home.html", {"debug": settings.DEBUG})


# --------------------------------------------------------------------------- uploads


def new_upload(request: HttpRequest) -> HttpResponse:
    posted = request.method == "POST"
    form = UploadForm(request.POST, request.FILES) if posted else UploadForm()
    if posted and form.is_valid():
        file = form.cleaned_data["file"]
        return redirect(store(file.name, file.read()))
    limits = {"max_bytes": MAX_BYTES, "max_rows": MAX_ROWS}
    return render(request, "demo/new_upload.html", {"form": form, **limits})


@require_POST
def use_sample(request: HttpRequest) -> HttpResponse:
    return redirect(store(SAMPLE.name, SAMPLE.read_bytes()))


def store(name: str, content: bytes) -> Upload:
    """Keep a visitor's file and have it read: both, or neither if the transaction fails."""
    with transaction.atomic():
        upload = Upload.objects.create(file_name=name, content=content)
        upload.task_id = summarise.delay(upload.pk).id
        upload.save(update_fields=["task_id"])
    return upload


@require_safe
@never_cache
def upload(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = _upload(pk)
    context = {"upload": found, "live": _upload_live(request, found)}
    return render(request, "demo/upload.html", context)


@require_safe
@never_cache
def upload_state(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    return _upload_live(request, _upload(pk)).response()


def _upload(pk: uuid.UUID) -> Upload:
    return get_object_or_404(Upload.objects.defer("content"), pk=pk)


def _upload_live(request: HttpRequest, upload: Upload) -> Live:
    last = AsyncResult[Any](upload.body_id or upload.task_id)
    failed = not upload.finished and last.ready() and not last.successful()
    context = {"upload": upload, "failed": failed, "debug": settings.DEBUG}
    if failed:
        context["failed_chunks"] = _failed_chunks(upload)
    elif upload.stage == Upload.Stage.READING:
        context |= _progress(upload)
    if upload.summary:
        context |= {
            "numbers": [c for c in upload.summary["columns"] if "mean" in c],
            "texts": [_with_bars(c) for c in upload.summary["columns"] if "common" in c],
            "rows": upload.rows.all()[:PREVIEW_ROWS],
        }
    html = render_to_string("demo/_upload_panel.html", context, request)
    return Live(_upload_line(upload, context), html, upload.finished or failed)


def _progress(upload: Upload) -> dict[str, int]:
    """How far the chord is: all of its members are in the ledger, since a task in a transaction
    has sent it."""
    header = GroupResult(upload.group_id)
    return {"done": header.completed_count(), "all": len(header), "stored": upload.rows.count()}


def _failed_chunks(upload: Upload) -> list[dict[str, Any]]:
    """The members that failed: their numbers and their first rows, both counted from 1."""
    failed = TaskResult.objects.filter(
        group_id=upload.group_id, state__in=[State.FAILURE, State.REVOKED]
    )
    places = failed.order_by("group_index").values_list("id", "group_index")[:FAILED_CHUNKS]
    return [
        {"id": task_id, "number": index + 1, "row": index * CHUNK + 1}
        for task_id, index in places
        if index is not None
    ]


def _upload_line(upload: Upload, context: dict[str, Any]) -> str:
    if context["failed"]:
        return gettext("A task that reads the file has failed.")
    if upload.stage == Upload.Stage.WAITING:
        return gettext("Waiting for a worker.")
    if upload.stage == Upload.Stage.READING:
        numbers = {name: _grouped(context[name]) for name in ("done", "all", "stored")}
        return gettext("Reading: %(done)s of %(all)s parts, %(stored)s rows.") % numbers
    if upload.stage == Upload.Stage.REFUSED:
        return gettext("The file can't be used.")
    assert upload.summary is not None
    rows = upload.summary["rows"]
    return ngettext("Done: %(n)s row.", "Done: %(n)s rows.", rows) % {"n": _grouped(rows)}


def _grouped(number: int) -> str:
    return number_format(number, force_grouping=True)


def _with_bars(column: dict[str, Any]) -> dict[str, Any]:
    """A text column, with the length of each bar in percent of the longest."""
    common = column["common"]
    bars = [
        {"value": value, "count": count, "percent": max(1, round(100 * count / common[0][1]))}
        for value, count in common
    ]
    return column | {"bars": bars, "repeats": bool(common) and common[0][1] > 1}


# --------------------------------------------------------------------------- sign-ups


def sign_up(request: HttpRequest) -> HttpResponse:
    form = SubscriberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.language = get_language() or settings.LANGUAGE_CODE
        # No task is sent here: saving a new subscriber sends it, see tasks.py.
        with transaction.atomic():
            return redirect(form.save())
    return render(request, "demo/sign_up.html", {"form": form})


@require_safe
@never_cache
def subscriber(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = _subscriber(pk)
    context = {"subscriber": found, "live": _subscriber_live(request, found)}
    return render(request, "demo/subscriber.html", context)


@require_safe
@never_cache
def subscriber_state(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    return _subscriber_live(request, _subscriber(pk)).response()


def _subscriber(pk: uuid.UUID) -> Subscriber:
    return get_object_or_404(Subscriber.objects.select_related("mail"), pk=pk)


def _subscriber_live(request: HttpRequest, subscriber: Subscriber) -> Live:
    mail = getattr(subscriber, "mail", None)
    if mail:
        line = gettext("The mail has been sent.")
    elif subscriber.mail_failed:
        line = gettext("The mail could not be sent.")
    else:
        line = gettext("The mail is on its way.")
    context = {"subscriber": subscriber, "mail": mail, "debug": settings.DEBUG}
    html = render_to_string("demo/_subscriber_panel.html", context, request)
    return Live(line, html, finished=bool(mail) or subscriber.mail_failed)
