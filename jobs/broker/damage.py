"""Keys on the server that hold another type than they should.

Another program has written them, or somebody by hand. What is read for people leaves them out and
notes them here, so that one such key hides nothing else.
"""

from __future__ import annotations

import logging

log = logging.getLogger("jobs.broker")

#: Most keys that are remembered.
MOST = 100


class Damage:
    """The keys that this process has met."""

    def __init__(self) -> None:
        #: Key → the type that it should have, as the server calls it.
        self._types: dict[str, str] = {}

    def note(self, key: str, kind: str) -> None:
        """Remember a key that doesn't have this type, and log it once."""
        if key in self._types or len(self._types) >= MOST:
            return
        self._types[key] = kind
        log.error(
            "the key %r on Redis should be a %s, and is something else: what belongs there is left "
            "out. Look at it (TYPE), and rename or delete it.",
            key,
            kind,
        )

    def known(self) -> list[tuple[str, str]]:
        """Each key, with the type that it should have."""
        return list(self._types.items())

    def forget(self, key: str) -> None:
        """It is as it should be again, or gone."""
        if self._types.pop(key, None):
            log.warning("the key %r on Redis is as it should be again", key)
