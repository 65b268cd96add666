"""Reading an upload without a worker."""

from __future__ import annotations

import uuid
from typing import Any

from jobsite.demo.models import Upload
from jobsite.demo.tasks import CHUNK, finish, store_chunk, summarise


def read(pk: uuid.UUID) -> Any:
    """Call its tasks here, one after the other; what the last returned."""
    rows = summarise(pk)
    if Upload.objects.get(pk=pk).finished:
        return rows
    return finish([store_chunk(pk, start) for start in range(0, rows, CHUNK)], pk)
