"""What a worker that has ended leaves behind on Redis, and what it says of Redis itself."""

from __future__ import annotations

import signal

import pytest
import redis

from jobs import broker, control
from jobs.worker.supervisor.upkeep import Relay
from tests.project import Project
from tests.services import Valkey
from tests.tasks import add, fail, once
from tests.workers import ready_worker, settled

#: Ends of the names of keys that hold work, and have no time to live.
WORK = (":due", ":dead", ":paused", ":consumers", "}:rates")


@pytest.mark.parametrize("killed", [False, True])
def test_only_work_stays_for_ever(project: Project, killed: bool) -> None:
    worker = ready_worker(project, "--processes", "1")
    results = [add.delay(1, 2), fail.delay("x"), once.delay("a")]
    for result in results:
        result.get(timeout=20, propagate=False)
    control.revoke(add.apply_async((1, 1), countdown=500).id)
    settled()
    project.wait_for(control.inspect.workers, what="its report, which a kill leaves behind")
    worker.kill_group() if killed else worker.stop(signal.SIGTERM)
    with project.valkey.client() as client:
        # A child outlives a killed supervisor by a moment, in which it may hear the bell.
        project.wait_for(lambda: add.delay(1, 2) and client.exists("{default}:bell"))
        lasting = {key.decode() for key in client.scan_iter() if client.ttl(key) == -1}
        assert client.exists("{default}:revoked")
        assert bool(client.exists("{high}:workers", "{default}:workers")) == killed
    assert not {k for k in lasting if not k.endswith(WORK) and ":inflight:" not in k} - {"default"}


def test_a_revocation_is_kept_for_as_long_as_the_longest(own_valkey: Valkey) -> None:
    broker.get().revoke("default", "a", 5000, terminate=False)
    broker.get().revoke("default", "b", 50, terminate=False)
    with own_valkey.client() as client:
        assert 4990 < client.ttl("{default}:revoked") <= 5001


@pytest.mark.parametrize("forbidden", [False, True])
def test_eviction_is_told(
    project: Project, caplog: pytest.LogCaptureFixture, forbidden: bool
) -> None:
    relay = Relay()
    with project.valkey.client() as client:
        if forbidden:
            client.execute_command("ACL", "SETUSER", "default", "-config")
        else:
            relay.look()
            assert caplog.text == ""
        with redis.Redis(port=project.valkey.port) as admin:
            if forbidden:
                client.execute_command("ACL", "SETUSER", "default", "+config")
            admin.config_set("maxmemory-policy", "allkeys-lru")
            if forbidden:
                client.execute_command("ACL", "SETUSER", "default", "-config")
        relay.look()
        relay.look()
        assert caplog.text.count("maxmemory-policy allkeys-lru: messages are lost") == 1
        assert "allkeys-lru" in project.run("jobs_status", status=1)
        client.execute_command("ACL", "SETUSER", "default", "+config")
        client.config_set("maxmemory-policy", "volatile-lru")
        assert "unique locks, limits" in project.run("jobs_status")
        client.config_set("maxmemory-policy", "noeviction")
        relay.look()
        assert "noeviction now" in caplog.text
        assert "maxmemory" not in project.run("jobs_status")


def test_a_worker_tells_it_when_it_starts(project: Project) -> None:
    with project.valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lfu")
    worker = ready_worker(project, "--processes", "1")
    worker.wait_for_output("maxmemory-policy allkeys-lfu")
    assert worker.stop() == 0
