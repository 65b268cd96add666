"""Metrics for Prometheus: needs ``pip install prometheus-client``, or the extra ``[prometheus]``.

The numbers are on the broker, not in a process: any web process can answer, and all answer alike.
Put the view into your ``urls.py``::

    path("metrics", jobs.contrib.prometheus.metrics)

or register a `Collector` with a registry that you publish yourself.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from jobs import conf
from jobs.control import inspecting
from jobs.control import metrics as numbers
from jobs.control.metrics import Histogram
from jobs.exceptions import BrokerUnavailable, ConfigurationError, QueueRefused
from jobs.models import LABEL, Queues

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector as BaseCollector
except ModuleNotFoundError as error:
    raise ConfigurationError(
        f"{__name__} needs a package that is not installed: pip install prometheus-client."
    ) from error

#: Every how manyth bucket of ours is a bucket here: each is twice as wide as the one before.
_EVERY = 4


class Collector(BaseCollector):
    """Reads the broker at each scrape. Raises `BrokerUnavailable` while the broker is away."""

    def describe(self) -> list[Metric]:
        return []  # or a registry would ask the broker only to learn the names

    def collect(self) -> Iterator[Metric]:
        queues = list(conf.get().queues)
        yield from _states(queues)
        if conf.get().metrics:
            yield from _totals(queues)


def _states(queues: list[str]) -> Iterator[Metric]:
    gauges = {
        "waiting": GaugeMetricFamily("jobs_waiting", "Messages that wait", labels=["queue"]),
        "in_flight": GaugeMetricFamily(
            "jobs_in_flight", "Messages that workers hold", labels=["queue"]
        ),
        "due": GaugeMetricFamily("jobs_due", "Messages that are due later", labels=["queue"]),
        "dead": GaugeMetricFamily("jobs_dead_letters", "Dead letters", labels=["queue"]),
        "consumers": GaugeMetricFamily(
            "jobs_consumers", "Worker processes that claim from the queue", labels=["queue"]
        ),
    }
    claimers = inspecting.claimers()
    for queue in queues:
        try:
            stats = inspecting.stats(queue, claimers)
        except QueueRefused:
            continue  # the others are not to be missed with it
        for field, gauge in gauges.items():
            gauge.add_metric([queue], getattr(stats, field))
    yield from gauges.values()


def _totals(queues: list[str]) -> Iterator[Metric]:
    sent = CounterMetricFamily("jobs_sent", "Messages put on the queue", labels=["queue"])
    wait = HistogramMetricFamily(
        "jobs_wait_seconds", "From being due, or sent, to the start of an attempt", labels=["queue"]
    )
    for queue, all_ in numbers.ever(queues).items():
        sent.add_metric([queue], all_.sent)
        wait.add_metric([queue], _buckets(all_.wait), all_.wait.seconds)
    ended = CounterMetricFamily(
        "jobs_outcomes",
        "Attempts by what became of them: succeeded, failed, retried, revoked",
        labels=["queue", "task", "outcome"],
    )
    run = HistogramMetricFamily(
        "jobs_run_seconds",
        "From the start of an attempt to its end",
        labels=["queue", "task"],
    )
    for queue, tasks in numbers.ever_by_task(queues).items():
        for task, one in tasks.items():
            for outcome in ("succeeded", "failed", "retried", "revoked"):
                ended.add_metric([queue, task, outcome], getattr(one, outcome))
            run.add_metric([queue, task], _buckets(one.run), one.run.seconds)
    yield from (sent, wait, ended, run)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Upper bounds and how many durations don't exceed them."""
    bounds = range(0, numbers.LAST, _EVERY)
    found: list[tuple[str, float]] = []
    for bound in bounds:
        below = sum(n for bucket, n in histogram.buckets.items() if bucket <= bound)
        found.append((str(numbers.upper_bound(bound)), below))
    return [*found, ("+Inf", histogram.total)]


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """The page that Prometheus scrapes. For requests with ``JOBS["METRICS_TOKEN"]`` as their bearer
    token, for users who may look at the queues and, with ``JOBS["METRICS_PUBLIC"]``, for all."""
    if not _may_read(request):
        refused = HttpResponse("The token is missing or wrong.\n", "text/plain", status=401)
        refused["WWW-Authenticate"] = "Bearer"
        return refused
    registry = CollectorRegistry()
    registry.register(Collector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(registry), content_type=content_type)
    except BrokerUnavailable as error:
        return HttpResponse(f"{error}\n", "text/plain", status=503)


def _may_read(request: HttpRequest) -> bool:
    if conf.get().metrics_public:
        return True
    token = conf.get().metrics_token
    given = request.headers.get("Authorization", "")
    if token and hmac.compare_digest(given.encode(errors="replace"), f"Bearer {token}".encode()):
        return True
    user = getattr(request, "user", None)  # there is none without AuthenticationMiddleware
    # As in the admin: whoever has one of these permissions may look at the queues.
    acts = [code for code, _name in Queues._meta.permissions]
    return user is not None and any(user.has_perm(f"{LABEL}.{code}") for code in acts)
