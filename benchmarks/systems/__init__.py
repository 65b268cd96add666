"""The systems that can be measured, by name; those of this program first."""

from .asynchronous import SYSTEMS as ASYNCHRONOUS
from .bare import SYSTEMS as BARE
from .base import System
from .beat import SYSTEMS as BEAT
from .celery import SYSTEMS as CELERY
from .databases import SYSTEMS as DATABASES
from .dramatiq import SYSTEMS as DRAMATIQ
from .huey import SYSTEMS as HUEY
from .jobsite import SYSTEMS as JOBSITE
from .loop import SYSTEMS as LOOP
from .rq import SYSTEMS as RQ
from .taskiq import SYSTEMS as TASKIQ

ALL: dict[str, System] = {
    system.name: system
    for system in (
        *JOBSITE,
        *BARE,
        *LOOP,
        *CELERY,
        *DRAMATIQ,
        *HUEY,
        *RQ,
        *TASKIQ,
        *ASYNCHRONOUS,
        *DATABASES,
        *BEAT,
    )
}

__all__ = ["ALL", "System"]
