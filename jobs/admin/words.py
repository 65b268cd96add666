"""Texts and HTML that the pages share."""

from __future__ import annotations

import datetime as dt
import pprint
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs import conf, serialization
from jobs.control import acts
from jobs.exceptions import Reject, TimeLimitExceeded, WorkerLost
from jobs.models import TaskResult
from jobs.states import State

#: Most characters of a stored value on a page: to lay out a megabyte would take seconds.
SHOWN = 20_000


def _name(kind: type[Exception]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


#: Names of the errors whose messages become dead letters.
DEAD = acts.DEAD

#: Characters of a call in a list.
_SHORT = 60


def duration(span: dt.timedelta) -> str:
    """A length of time in its two largest units; below a minute as seconds or milliseconds."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 0.9995:
        return _("%(n)d ms") % {"n": round(seconds * 1000)}
    if seconds < 59.95:
        return _("%(n)s s") % {"n": f"{seconds:.3g}"}
    whole = round(seconds)
    if whole < 3600:
        return _("%(m)d min %(s)d s") % {"m": whole // 60, "s": whole % 60}
    if whole < 86400:
        return _("%(h)d h %(m)d min") % {"h": whole // 3600, "m": whole % 3600 // 60}
    return _("%(d)d d %(h)d h") % {"d": whole // 86400, "h": whole % 86400 // 3600}


def moment(at: dt.datetime, *, millis: bool = False, zone: bool = False) -> str:
    """A moment in the current time zone, in the form that logs have; with the name of that zone if
    asked for."""
    local = timezone.localtime(at)
    text = date_format(local, "Y-m-d H:i:s")
    if millis:
        text = f"{text}.{local.microsecond // 1000:03d}"
    return f"{text} {date_format(local, 'T')}" if zone else text


def away(at: dt.datetime, now: dt.datetime) -> str:
    """How far a moment is from now: ``in 20 s`` or ``20 s ago``."""
    if at > now:
        return _("in %(span)s") % {"span": duration(at - now)}
    return _("%(span)s ago") % {"span": duration(now - at)}


# ------------------------------------------------------------------------------ values


def pretty(text: str) -> str:
    """A stored value laid out as Python. Unreadable values are shown as stored, long ones cut."""
    if len(text) > SHOWN:
        rest = len(text) - SHOWN
        more = ngettext("%(n)s more character", "%(n)s more characters", rest)
        return f"{text[:SHOWN]}\n… {more % {'n': f'{rest:,}'}}"
    try:
        return pprint.pformat(serialization.loads(text), width=88, sort_dicts=False)
    except (ValueError, RecursionError):
        return text


def writable(text: str) -> str:
    """The text with its lone surrogates escaped: JSON can hold them, a page can't."""
    return text.encode("utf-8", "backslashreplace").decode()


def call(args: str, kwargs: str, *, whole: int) -> str:
    """Arguments in one short line, as they were written in the call.

    A text of ``whole`` characters or more may be cut off; it is shown as stored.
    """
    parts = [*_parts(args, whole), *_parts(kwargs, whole)]
    line = writable(", ".join(parts).replace("\n", " "))
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}…"


def _parts(text: str, whole: int) -> list[str]:
    value: Any = None
    if len(text) < whole:
        try:
            value = serialization.loads(text)
        except (ValueError, RecursionError):
            return [text]
    if isinstance(value, list):
        return [repr(item) for item in value]
    if isinstance(value, dict):
        return [f"{name}={item!r}" for name, item in value.items()]
    return [text[1:]]


# ------------------------------------------------------------------------------ states


def sentence(row: TaskResult, now: dt.datetime) -> str:
    """What an operator asks first: why did it fail, is it running, when is it tried again?"""
    if row.state == State.PENDING:
        return _pending(row, now)
    if row.state == State.STARTED:
        if row.started_at is None:
            return _("Runs on %(worker)s.") % {"worker": row.worker}
        when = _when(row.started_at, now)
        return _("Runs on %(worker)s since %(at)s (%(away)s).") % {"worker": row.worker, **when}
    if row.state == State.RETRY:
        why = _("Attempt %(n)d failed with %(error)s.") % {"n": row.attempts, "error": _error(row)}
        if row.eta is None:
            return why + " " + _("It will be tried again.")
        if row.eta <= now:
            return why + " " + _("It was due again at %(at)s (%(away)s).") % _when(row.eta, now)
        return why + " " + _("It will be tried again at %(at)s (%(away)s).") % _when(row.eta, now)
    if row.state == State.SUCCESS:
        ran = run_time(row)
        if ran is None:
            return _("Succeeded.")
        return ngettext(
            "Succeeded in %(ran)s, at the first attempt.",
            "Succeeded in %(ran)s, at attempt %(n)d.",
            max(row.attempts, 1),
        ) % {"ran": duration(ran), "n": row.attempts}
    if row.state == State.FAILURE:
        return _failure(row)
    return _revoked(row) if row.state == State.REVOKED else ""


def _pending(row: TaskResult, now: dt.datetime) -> str:
    if row.eta and row.eta > now:
        return _("Waits for its time, %(at)s (%(away)s).") % _when(row.eta, now)
    if row.published_at is None:
        return _(
            "Committed, but not yet handed to queue “%(queue)s”. Any running worker or beat does "
            "that %(seconds)g seconds after the commit, when Redis can be reached."
        ) % {"queue": row.queue, "seconds": conf.get().relay_after_seconds}
    return _(
        "In queue “%(queue)s” since %(at)s (%(away)s), waiting for a worker or running on one now."
    ) % {"queue": row.queue, **_when(row.published_at, now)}


def _failure(row: TaskResult) -> str:
    why = {"error": _error(row), "text": _first_line(row.error), "n": row.attempts}
    if row.error_type in DEAD:
        if row.error_type == _name(WorkerLost):
            given_up = _("Given up: %(text)s.") % why
        elif row.error_type == _name(Reject):
            given_up = _("Rejected by the task itself: %(text)s.") % why
        else:
            given_up = _("Not run: %(error)s.") % why
        where = _(
            "The message went to the dead letters of queue “%(queue)s”, from where it can be put "
            "back."
        ) % {"queue": row.queue}
        return f"{given_up} {where}"
    if row.error_type == _name(TimeLimitExceeded):
        return _(
            "Ended at attempt %(n)d: it ran longer than its time limit, and its process was "
            "killed. It will not be tried again."
        ) % {"n": max(row.attempts, 1)}
    said = ngettext(
        "Failed with %(error)s. It will not be tried again.",
        "Failed at attempt %(n)d with %(error)s. It will not be tried again.",
        max(row.attempts, 1),
    )
    return said % why


def _revoked(row: TaskResult) -> str:
    said = {
        "expired": _("Expired before a worker was free. It did not run, and will not."),
        "terminated": _("Revoked while it ran: its process was killed. It will not run again."),
        "revoked": _("Revoked before it was started. It will not run."),
        "": _("Revoked. It will not run."),
    }
    if row.error in said:
        return said[row.error]
    return _("Revoked: %(why)s. It will not run.") % {"why": row.error.rstrip(".")}


def error(kind: str, text: str) -> str:
    """An exception in one line."""
    name = kind.rpartition(".")[2] or _("an error")
    first = _first_line(text)
    return f"{name}: {first}" if first else name


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300].rstrip(".")


def _error(row: TaskResult) -> str:
    return error(row.error_type, row.error)


def next_attempt(row: TaskResult, now: dt.datetime) -> str:
    """For a list: ``attempt 3 in 20 s``."""
    values = {"n": row.attempts + 1, "away": away(row.eta or now, now)}
    if row.eta and row.eta > now:
        return _("attempt %(n)d %(away)s") % values
    return _("attempt %(n)d due %(away)s") % values


def _when(at: dt.datetime, now: dt.datetime) -> dict[str, str]:
    return {"at": moment(at, zone=True), "away": away(at, now)}


# ------------------------------------------------------------------------------ times


def wait_time(row: TaskResult) -> dt.timedelta | None:
    """From the moment the last attempt could run to its start."""
    if row.started_at is None or row.state == State.REVOKED:
        return None
    ready = row.created_at
    # A later attempt waited since it was due, or since somebody ran the call again.
    again = row.published_at if row.attempts > 1 else None
    for at in (row.eta, again):
        if at and ready < at <= row.started_at:
            ready = at
    return max(row.started_at - ready, dt.timedelta(0))


def run_time(row: TaskResult) -> dt.timedelta | None:
    """How long the last attempt ran."""
    if row.started_at is None or row.finished_at is None or row.state == State.REVOKED:
        return None
    return max(row.finished_at - row.started_at, dt.timedelta(0))


def badge(row: TaskResult) -> SafeString:
    """The state in colour."""
    return format_html(
        '<span class="jobs-state jobs-state-{}">{}</span>',
        row.state.lower(),
        row.get_state_display(),
    )


def pre(text: str) -> SafeString:
    """A text with its line breaks."""
    return format_html('<pre class="jobs-value" tabindex="0">{}</pre>', text)
