"""What the dashboard shows, as values for its templates."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import conf
from jobs.admin import words
from jobs.admin.verbs import TROUBLE
from jobs.control import attention, metrics, snapshot
from jobs.control.attention import Kind, Matter
from jobs.control.metrics import Histogram, Numbers, Range
from jobs.control.throughput import Rate
from jobs.models import LABEL
from jobs.timing import clock

#: The ranges that can be chosen, with their labels.
RANGES = {
    Range.HOUR: gettext_lazy("Last hour"),
    Range.DAY: gettext_lazy("Last day"),
    Range.WEEK: gettext_lazy("Last week"),
    Range.YEAR: gettext_lazy("Last year"),
}

#: The percentiles that are shown.
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

#: Most queues in the table.
MOST_QUEUES = 50

#: Kind of matter → the page where one acts: its model and the end of its name. A name with an
#: argument is about the matter's queue or task.
_PAGES: dict[Kind, tuple[str, str]] = {
    Kind.MEMORY: ("queues", "changelist"),
    Kind.DESERTED: ("workers", "changelist"),
    Kind.BEAT: ("schedule", "changelist"),
    Kind.LATE: ("schedule", "changelist"),
    Kind.BACKLOG: ("taskresult", "changelist"),
    Kind.FAILING: ("taskresult", "changelist"),
    Kind.DEAD: ("deadletters", "changelist"),
    Kind.PAUSED_QUEUE: ("queues", "resume"),
    Kind.PAUSED_TASK: ("queues", "resume_task"),
    Kind.VERSIONS: ("workers", "changelist"),
}


class Chosen(NamedTuple):
    range: Range
    #: Empty: all queues.
    queue: str

    @property
    def asked(self) -> dict[str, str]:
        """The parameters that choose the same again."""
        return {"range": self.range.value, **({"queue": self.queue} if self.queue else {})}

    @property
    def by_day(self) -> bool:
        """Whether rates are those of a day, and not of a minute."""
        return self.range is Range.YEAR


class Row(NamedTuple):
    """A queue in the table."""

    queue: snapshot.Queue
    #: How long the oldest message has been waiting; empty: nothing waits, or it doesn't say.
    age: str
    #: How long the workers need for what waits.
    drain: str
    #: The pages of its lists; empty: they can't be seen.
    page: str
    dead: str


def chosen(request: HttpRequest) -> Chosen:
    """What the address asks for; anything that there isn't is the default."""
    asked, queue = request.GET.get("range", ""), request.GET.get("queue", "")
    known = {period.value: period for period in RANGES}
    return Chosen(known.get(asked, Range.HOUR), queue if conf.get().knows(queue) else "")


def choices(now: Chosen) -> dict[str, Any]:
    """The links to other ranges and queues."""
    names = [queue.name for queue in snapshot.latest().queues]
    ranges = [
        {
            "label": label,
            "url": "?" + urlencode(now._replace(range=period).asked),
            "current": period is now.range,
        }
        for period, label in RANGES.items()
    ]
    return {"ranges": ranges, "names": names, "chosen": now}


def live(
    site: AdminSite, request: HttpRequest, chosen: Chosen, *, now: bool = False
) -> dict[str, Any]:
    """What needs a person, and the queues. ``now``: as of this moment."""
    taken = snapshot.latest(now=now)
    around = attention.surroundings()
    asked = [q for q in taken.queues if not chosen.queue or q.name == chosen.queue]
    rows = [
        Row(
            queue,
            _age(queue.oldest, taken.at),
            drain(queue.stats.waiting, around.rates.get(queue.name)),
            _url(site, request, "queues", "queue", queue.name),
            with_query(_url(site, request, "deadletters", "changelist"), queue=queue.name),
        )
        for queue in busiest(asked)
    ]
    found = [] if taken.problem else attention.matters(taken, around)
    return {
        "problem": taken.problem,
        "rows": rows,
        "left_out": len(asked) - len(rows),
        "queues_page": _url(site, request, "queues", "changelist"),
        "matters": [(matter, _page_of(site, request, matter)) for matter in found],
        "at": words.moment(taken.at),
    }


def busiest(queues: Sequence[snapshot.Queue]) -> list[snapshot.Queue]:
    """The queues to show, in their own order: when there are too many, those with trouble, and then
    those with the most messages."""
    if len(queues) <= MOST_QUEUES:
        return list(queues)
    least_first = sorted(
        queues,
        key=lambda q: (bool(q.problem or q.pause or q.stats.dead or q.deserted), sum(q.stats[:3])),
    )
    kept = {queue.name for queue in least_first[-MOST_QUEUES:]}
    return [queue for queue in queues if queue.name in kept]


def numbers(chosen: Chosen) -> dict[str, Any]:
    """The charts' data, and the same in words and sums."""
    queues = [chosen.queue] if chosen.queue else None
    try:
        if queues is None:
            queues = snapshot.known_queues()
        found = metrics.series(chosen.range, queues)
        whole = metrics.total(chosen.range, queues)
    except TROUBLE as error:
        return {"numbers_problem": str(error)}
    unit = 86_400 if chosen.by_day else 60
    return {
        "series": json.dumps(series(found, unit), separators=(",", ":")),
        "counts": counts(whole, unit),
        "by_day": chosen.by_day,
        "times": [(_("Wait"), *_times(whole.wait)), (_("Run"), *_times(whole.run))],
        "time_zone": timezone.get_current_timezone_name(),
    }


def series(found: Sequence[Numbers], unit: int = 60) -> dict[str, list[Any]]:
    """Name of a line → its values; of counts, per ``unit`` (seconds). The last span is not over
    yet, so its rates are those of the part that has passed, unless that is too short to tell."""
    now = clock.now()
    passed = [min(n.seconds, (now - n.start).total_seconds()) for n in found]
    units = [max(s, n.seconds / 4) / unit for s, n in zip(passed, found, strict=True)]

    def rates(values: Sequence[int]) -> list[float]:
        return [round(value / span, 3) for value, span in zip(values, units, strict=True)]

    lines: dict[str, list[Any]] = {
        "at": [int(n.start.timestamp()) for n in found],
        "in": rates([n.sent for n in found]),
        "out": rates([ended(n) for n in found]),
        "failed": rates([n.failed for n in found]),
        "retried": rates([n.retried for n in found]),
    }
    for name, share in SHARES.items():
        lines[f"wait_{name}"] = [_short(n.wait.percentile(share)) for n in found]
        lines[f"run_{name}"] = [_short(n.run.percentile(share)) for n in found]
    return lines


def ended(numbers: Numbers) -> int:
    """How many calls ended, in whatever state."""
    return numbers.succeeded + numbers.failed + numbers.revoked


def counts(whole: Numbers, unit: int = 60) -> list[tuple[str, str, str]]:
    """Label, count, and count per ``unit`` (seconds)."""
    return [
        (label, f"{count:,}", _rate(count * unit / whole.seconds))
        for label, count in (
            (_("In"), whole.sent),
            (_("Out"), ended(whole)),
            (_("Failed"), whole.failed),
            (_("Retried"), whole.retried),
        )
    ]


def _rate(value: float) -> str:
    """Three digits, none of them as a power of ten."""
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(histogram: Histogram) -> list[str]:
    found = [histogram.percentile(share) for share in SHARES.values()]
    return ["–" if s is None else words.duration(dt.timedelta(seconds=s)) for s in found]


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")


def drain(waiting: int, rate: Rate | None) -> str:
    """How long the workers need for what waits, if all goes on as in the last minutes."""
    if not waiting or rate is None or not rate.left:
        return ""  # nothing has ended lately: there is nothing to go by
    if rate.left <= rate.came:
        return _("grows")
    return words.duration(dt.timedelta(seconds=waiting / (rate.left - rate.came)))


def _age(since: dt.datetime | None, now: dt.datetime) -> str:
    return "" if since is None else words.duration(now - since)


def _page_of(site: AdminSite, request: HttpRequest, matter: Matter) -> str:
    """Where one acts on it; empty: nowhere here, or this person may not."""
    if matter.kind not in _PAGES:
        return ""
    model, page = _PAGES[matter.kind]
    about = matter.about
    if matter.kind in (Kind.PAUSED_QUEUE, Kind.PAUSED_TASK):
        return _url(site, request, model, page, about)
    url = _url(site, request, model, page)
    if matter.kind is Kind.DEAD:
        return with_query(url, queue=about)
    if matter.kind is Kind.FAILING:
        return with_query(url, state__exact="FAILURE", **({"task": about} if about else {}))
    return with_query(url, state__exact="PENDING") if matter.kind is Kind.BACKLOG else url


def _url(site: AdminSite, request: HttpRequest, model: str, page: str, *args: str) -> str:
    """The address of a page; empty when this person may not see it, or the site hasn't got it."""
    for known, owner in site._registry.items():
        if known._meta.label_lower == f"{LABEL}.{model}" and owner.has_view_permission(request):
            try:
                return reverse(f"admin:jobs_{model}_{page}", args=args, current_app=site.name)
            except NoReverseMatch:
                return ""
    return ""


def with_query(url: str, **values: str) -> str:
    return f"{url}?{urlencode(values)}" if url else ""
