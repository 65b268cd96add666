"""The systems that can be measured, by name; those of this program first."""

from .bare import SYSTEMS as BARE
from .base import System
from .beat import SYSTEMS as BEAT
from .celery import SYSTEMS as CELERY
from .dramatiq import SYSTEMS as DRAMATIQ
from .huey import SYSTEMS as HUEY
from .jobsite import SYSTEMS as JOBSITE
from .rq import SYSTEMS as RQ
from .taskiq import SYSTEMS as TASKIQ

ALL: dict[str, System] = {
    system.name: system
    for system in (*JOBSITE, *BARE, *CELERY, *DRAMATIQ, *HUEY, *RQ, *TASKIQ, *BEAT)
}

__all__ = ["ALL", "System"]
