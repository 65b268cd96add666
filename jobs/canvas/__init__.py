"""Calls that aren't sent yet, and compositions of them: what people write, as values.

Their JSON forms are Celery's, as in the ``embed`` of a message; what becomes of those is said in
`jobs.workflow` (https://docs.celeryq.dev/en/stable/userguide/canvas.html).
"""

from jobs.canvas.base import Composable, as_dicts
from jobs.canvas.calls import Signature
from jobs.canvas.checking import check_linked
from jobs.canvas.composing import Chain, Chord, Group
from jobs.canvas.making import chain, chord, group, signature
from jobs.canvas.methods import Composing

__all__ = [
    "Chain",
    "Chord",
    "Composable",
    "Composing",
    "Group",
    "Signature",
    "as_dicts",
    "chain",
    "check_linked",
    "chord",
    "group",
    "signature",
]
