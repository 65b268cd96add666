"""The Lua scripts, read once."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    text: str
    sha: str


#: A line in place of which a script has what it shares with others.
_INCLUDE = re.compile(r"^-- include (\w+\.part)\n", re.MULTILINE)


def _load(name: str) -> Script:
    folder = resources.files("jobs.broker").joinpath("lua")
    text = folder.joinpath(f"{name}.lua").read_text("utf-8")
    text = _INCLUDE.sub(lambda found: folder.joinpath(found[1]).read_text("utf-8"), text)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


PUSH = _load("push")
PUSH_FAIR = _load("push_fair")
PUSH_ONCE = _load("push_once")
SCHEDULE = _load("schedule")
CLAIM = _load("claim")
ACK = _load("ack")
ACK_IN_CLUSTER = _load("ack_in_cluster")
RING = _load("ring")
RING_FOR_FOREIGN = _load("ring_for_foreign")
RETRY = _load("retry")
RELEASE = _load("release")
DEAD_LETTER = _load("dead_letter")
REQUEUE = _load("requeue")
RENEW = _load("renew")
RETAIN = _load("retain")
FORGET = _load("forget")
HELD = _load("held")
TAKEN = _load("taken")
HOLD_AGAIN = _load("hold_again")
DOUBTFUL = _load("doubtful")
COMPARE = _load("compare")
HASTEN = _load("hasten")
REVOKE = _load("revoke")
REVOKED = _load("revoked")
STATS = _load("stats")
LOOK = _load("look")
REMEMBER = _load("remember")
FORGET_SHARDS = _load("forget_shards")
PARK = _load("park")
RESUME = _load("resume")
TAKE = _load("take")
PICK = _load("pick")
PEEK = _load("peek")
PEEK_DUE = _load("peek_due")
PEEK_IN_FLIGHT = _load("peek_in_flight")
NOTE = _load("note")
REPLY = _load("reply")
REPORT = _load("report")
NOTE_GONE = _load("note_gone")
COMMAND = _load("command")
TAKE_COMMANDS = _load("take_commands")
PERMITS = _load("permits")
SLOTS = _load("slots")
KEEP = _load("keep")
WAIT = _load("wait")
FREE = _load("free")
WAKE = _load("wake")
LOCK = _load("lock")
UNLOCK = _load("unlock")
COUNT = _load("count")
COUNTS = _load("counts")
TASK_COUNTS = _load("task_counts")
STORE_CELERY_PARTS = _load("store_celery_parts")
STORE_CELERY_RESULT = _load("store_celery_result")
