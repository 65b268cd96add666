"""No job system: the least that a reliable loop has to do, as the limit of the machine.

Messages have Celery's whole envelope and an HMAC of it. A worker claims 250 of them with one
script (one RPOP, one HSET of what is in flight), verifies and decodes each, calls its task, writes
the outcomes into a table in one transaction (where results are kept), and acknowledges the batch
with one HDEL. There are no retries, limits, signals, leases or threads, and nobody takes over what
a dead worker held.

``python -m benchmarks.apps.loop`` is one worker.
"""

import base64
import datetime as dt
import hashlib
import hmac
import os
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import redis

from benchmarks import work

BATCH = 250
QUEUE, FLIGHT = "bench", "{bench}:inflight:"
SECRET = b"only for measuring"
RESULTS, DATABASE = os.environ["BENCH_RESULTS"], os.environ["BENCH_DATABASE_URL"]
CLAIM = """
local found = redis.call('RPOP', KEYS[1], ARGV[1])
if not found then return {} end
local flight = {}
for number, message in ipairs(found) do
  flight[2 * number - 1] = number
  flight[2 * number] = message
end
redis.call('HSET', KEYS[2], unpack(flight))
return found
"""
TABLE = """
CREATE TABLE outcome (
  id varchar(255) PRIMARY KEY, task varchar(255) NOT NULL, state varchar(16) NOT NULL,
  args text NOT NULL, result text, finished_at timestamp with time zone NOT NULL
);
CREATE INDEX outcome_finished ON outcome (finished_at);
CREATE INDEX outcome_task ON outcome (task, finished_at);
"""
UPSERT_SQLITE = """
INSERT INTO outcome (id, task, state, args, result, finished_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, result = excluded.result,
  finished_at = excluded.finished_at
"""
UPSERT_POSTGRES = """
INSERT INTO outcome (id, task, state, args, result, finished_at)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
  %s::timestamptz[])
ON CONFLICT (id) DO UPDATE SET state = excluded.state, result = excluded.result,
  finished_at = excluded.finished_at
"""
Outcome = tuple[str, str, str, str, str, str]


class Envelope(msgspec.Struct):
    """A message as Celery puts it on Redis; the headers stay as they were signed."""

    body: str
    headers: msgspec.Raw
    properties: dict[str, Any]


class Headers(msgspec.Struct):
    """What the loop needs to know of a call."""

    task: str
    id: str


client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
encode = msgspec.json.encode
envelope_of = msgspec.json.Decoder(Envelope).decode
headers_of = msgspec.json.Decoder(Headers).decode
body_of = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any]]).decode
TASKS: dict[str, Callable[..., Any]] = {"noop": work.noop}


def sign(headers: bytes, body: str) -> str:
    return hmac.digest(SECRET, headers + body.encode(), hashlib.sha256).hex()


def message(number: int) -> bytes:
    """Return one call of ``noop``, signed."""
    call_id = str(uuid.uuid4())
    headers = encode(
        {
            "lang": "py",
            "task": "noop",
            "id": call_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": call_id,
            "parent_id": None,
            "argsrepr": f"({number},)",
            "kwargsrepr": "{}",
            "origin": "loop",
            "ignore_result": not RESULTS,
        }
    )
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = base64.b64encode(encode(([number], {}, embed))).decode()
    properties = {
        "correlation_id": call_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": call_id,
        "signature": sign(headers, body),
    }
    whole = {"body": body, "content-encoding": "utf-8", "content-type": "application/json"}
    return encode({**whole, "headers": msgspec.Raw(headers), "properties": properties})


def prepare() -> None:
    """Make the table."""
    if RESULTS == "sqlite":
        database = sqlite3.connect(DATABASE.removeprefix("sqlite:///"))
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(TABLE)
        database.close()
    elif RESULTS == "postgres":
        import psycopg

        with psycopg.connect(DATABASE) as connection:
            connection.execute(TABLE)


def send_bulk(numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), 100):
        pipeline = client.pipeline(transaction=False)
        for number in numbers[start : start + 100]:
            pipeline.lpush(QUEUE, message(number))
        pipeline.execute()


def send_singly(numbers: Iterable[int]) -> None:
    for number in numbers:
        client.lpush(QUEUE, message(number))


def run(raw: bytes) -> Outcome:
    """Verify, decode and call; return the row of its outcome."""
    envelope = envelope_of(raw)
    headers = bytes(envelope.headers)
    if not hmac.compare_digest(sign(headers, envelope.body), envelope.properties["signature"]):
        raise ValueError("The signature is wrong.")
    call = headers_of(headers)
    args, kwargs, _ = body_of(base64.b64decode(envelope.body))
    result = TASKS[call.task](*args, **kwargs)
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC).isoformat()
    return call.id, call.task, "SUCCESS", encode(args).decode(), encode(result).decode(), now


def recorder() -> Callable[[list[Outcome]], object]:
    """Return what writes the outcomes of a batch in one transaction."""
    if RESULTS == "sqlite":
        return _sqlite_recorder()
    if RESULTS == "postgres":
        return _postgres_recorder()
    return lambda outcomes: None


def _sqlite_recorder() -> Callable[[list[Outcome]], object]:
    path = DATABASE.removeprefix("sqlite:///")
    database = sqlite3.connect(path, timeout=20, isolation_level=None)
    database.execute("PRAGMA synchronous=NORMAL")

    def record(outcomes: list[Outcome]) -> None:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(UPSERT_SQLITE, outcomes)
        database.execute("COMMIT")

    return record


def _postgres_recorder() -> Callable[[list[Outcome]], object]:
    import psycopg

    connection = psycopg.connect(DATABASE, autocommit=True)

    def record(outcomes: list[Outcome]) -> None:
        columns = [list(column) for column in zip(*outcomes, strict=True)]
        connection.execute(UPSERT_POSTGRES, columns)

    return record


def main() -> None:
    """Work until SIGTERM."""
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    claim, record = client.register_script(CLAIM), recorder()
    flight = f"{FLIGHT}{os.getpid()}"
    while not over:
        found = claim(keys=[QUEUE, flight], args=[BATCH])
        if not found:
            time.sleep(0.002)
            continue
        record([run(raw) for raw in found])
        client.hdel(flight, *range(1, len(found) + 1))


if __name__ == "__main__":
    main()
