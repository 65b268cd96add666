"""Tenants of a queue take turns: whose a message is, and whose comes next.

A message says it itself, in its header ``jobs_fair``, so that whatever puts it back on its queue
needs no word about it. On Redis the script `tenants.part` does what is here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

#: Stands before the tenant in a wire form that names one. Nothing else has it: within a text of
#: JSON, a quotation mark has a backslash in front. Should a caller's own header be named so, its
#: value is the tenant, which does no harm.
MARK = b'jobs_fair":"'

#: The tenant as JSON has it.
_TENANT = re.compile(rb'jobs_fair":"((?:[^"\\]|\\.)+)"', re.DOTALL)

#: Under which the messages without a tenant have their turns.
_PLAIN = b""


def tenant_of(raw: bytes) -> bytes:
    """The tenant of a message; empty when it names none."""
    at = raw.find(MARK)
    found = _TENANT.match(raw, at) if at >= 0 else None
    return found[1] if found else _PLAIN


class Waits:
    """The waiting messages of one priority step, in memory: a deque whose tenants take turns.

    Messages without a tenant have turns like those of one.
    """

    def __init__(self) -> None:
        #: Tenant → its messages, the oldest on the left. The tenants are in the order of their
        #: turns; none has no message.
        self._turns: dict[bytes, deque[bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def __iter__(self) -> Iterator[bytes]:
        """The messages in the order in which `popleft` returns them."""
        queues = list(map(list, self._turns.values()))
        for n in range(max(map(len, queues), default=0)):
            yield from (queue[n] for queue in queues if n < len(queue))

    def append(self, raw: bytes) -> None:
        self._turns.setdefault(tenant_of(raw), deque()).append(raw)

    def appendleft(self, raw: bytes) -> None:
        """Put a message in front of the others of its tenant."""
        self._turns.setdefault(tenant_of(raw), deque()).appendleft(raw)

    def popleft(self) -> bytes:
        tenant = next(iter(self._turns))
        messages = self._turns.pop(tenant)
        raw = messages.popleft()
        if messages:
            self._turns[tenant] = messages  # the last turn
        return raw

    def remove(self, raw: bytes) -> None:
        """Raises `ValueError` when it isn't there."""
        tenant = tenant_of(raw)
        messages = self._turns.get(tenant, deque())
        messages.remove(raw)
        if not messages:
            del self._turns[tenant]
