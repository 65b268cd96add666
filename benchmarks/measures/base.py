"""The form of a measure and of its columns, and the statistics they share."""

from collections.abc import Callable
from dataclasses import dataclass

from ..bench import Bench
from ..systems import System

#: None where a system has no such thing (taskiq no countdown, say).
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Column:
    """One figure: its key, its heading, how many digits follow the point."""

    key: str
    title: str
    digits: int = 0


@dataclass(frozen=True)
class Measure:
    """A measure: which systems it is for, what it returns, what it is compared with.

    ``ratios`` names the columns of which "× celery" and the like are shown, and with whom: a
    system's name, ``fastest peer``, or ``celery likewise`` (Celery with the same results). Every
    ratio is this system's figure divided by theirs.
    """

    name: str
    title: str
    run: Callable[[System, Bench], Figures]
    columns: tuple[Column, ...]
    systems: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...] = ()
    needs_postgres: bool = False
    #: The columns' keys are "what/size/figure": a table for each what, with a line for each size.
    curves: bool = False


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie; they are not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
