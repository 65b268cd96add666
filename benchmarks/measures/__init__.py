"""What can be measured, by name. Each measure runs one system once and returns its figures."""

from . import (
    beat,
    chord,
    database,
    enqueue,
    failover,
    fair,
    growth,
    idle,
    latency,
    memory,
    mixed,
    rate,
    replicas,
    scale,
    start,
    throughput,
)
from .base import Measure

ALL: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        throughput.MEASURE,
        latency.MEASURE,
        enqueue.MEASURE,
        idle.MEASURE,
        memory.MEASURE,
        beat.MEASURE,
        rate.MEASURE,
        fair.MEASURE,
        scale.MEASURE,
        replicas.MEASURE,
        failover.MEASURE,
        database.MEASURE,
        chord.MEASURE,
        start.MEASURE,
        growth.MEASURE,
        mixed.MEASURE,
    )
}

__all__ = ["ALL", "Measure"]
