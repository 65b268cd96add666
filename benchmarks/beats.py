"""What a beat is measured with: its schedules by name, and when the messages of each come.

The module of a system (``benchmarks.apps.beat_*``) offers

    make_schedules(count, ticking)   so many schedules that are due tomorrow, one called
                                     ``edited``, and some with an interval of a second
    edit()                           give the schedule ``edited`` an interval of a second
    calm()                           switch those with an interval of a second off
    gather(count, at)                have so many schedules be due at one Unix time

The task is ``noop``, called with the name of its schedule. No worker runs: the messages are taken
from their list on Redis as they come.
"""

import base64
import json
import threading
import time
from collections import defaultdict

import redis

QUEUE = "bench"
EDITED = "edited"


def tick_name(number: int) -> str:
    """Return the name of a schedule with an interval of a second."""
    return f"tick-{number}"


def name_of(number: int) -> str:
    """Return the name of one of the many schedules."""
    return f"schedule-{number:06}"


class Arrivals:
    """A thread that takes messages from the list as they come."""

    def __init__(self, url: str) -> None:
        #: Name of the schedule → Unix times at which its messages came.
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self._redis = redis.Redis.from_url(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def count(self, prefix: str) -> int:
        """Return how many messages have come of schedules that are called so."""
        found = [times for name, times in list(self.times.items()) if name.startswith(prefix)]
        return sum(map(len, found))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._redis.close()

    def _take(self) -> None:
        while not self._over.is_set():
            first = self._redis.blpop([QUEUE], timeout=0.2)
            if first is None:
                continue
            now = time.time()
            self._note(first[1], now)
            while more := self._redis.lpop(QUEUE, 500):
                now = time.time()
                for raw in more:
                    self._note(raw, now)

    def _note(self, raw: bytes, now: float) -> None:
        body = json.loads(base64.b64decode(json.loads(raw)["body"]))
        self.times[body[0][0]].append(now)
