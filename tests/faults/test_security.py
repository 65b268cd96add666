"""The way to the broker: TLS with the right and the wrong authority, and a user with few rights."""

from __future__ import annotations

import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from pytest_django import Settings

from jobs import broker
from jobs.broker.base import Outgoing
from jobs.broker.redis import RedisBroker
from jobs.exceptions import BrokerUnavailable, QueueRefused
from jobs.models import TaskResult
from jobs.states import State
from tests.faults.tls import TlsFront
from tests.integration.broker.test_outages import VERBS
from tests.project import ROOT, Project
from tests.services import Valkey
from tests.tasks import add, fail
from tests.workers import ready_worker, settled


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The file of the authority that signed the server's certificate."""
    return tmp_path / "authority.pem"


@pytest.fixture
def front(own_valkey: Valkey, authority: Path) -> Iterator[TlsFront]:
    made = trustme.CA()
    made.cert_pem.write_to_path(authority)
    certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("localhost").configure_cert(certificate)
    running = TlsFront(own_valkey.port, certificate)
    yield running
    running.close()


def documented_user(valkey: Valkey, queue: str = "default") -> str:
    """Make the user of the documentation, for this queue; its name and password as in an URL."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    (line,) = [line for line in text.splitlines() if line.strip().startswith("ACL SETUSER")]
    with valkey.client() as client:
        client.execute_command(*shlex.split(line.replace("default", queue)))
    return "shop:password"


def test_a_worker_by_tls_with_the_documented_rights(
    project: Project, front: TlsFront, authority: Path, settings: Settings
) -> None:
    user = documented_user(project.valkey)
    url = f"rediss://{user}@localhost:{front.port}/0?ssl_ca_certs={quote(str(authority))}"
    settings.JOBS = {**settings.JOBS, "BROKER_URL": url}
    worker = ready_worker(
        project, "--processes", "1", "--queues", "high,default", jobs={"BROKER_URL": url}
    )
    assert add.delay(1, 2).get(timeout=60) == 3
    assert isinstance(fail.delay("no").get(timeout=20, propagate=False), ValueError)
    results = add.enqueue_many([(n, n) for n in range(100)])
    assert results[-1].get(timeout=60) == 198
    settled()
    assert TaskResult.objects.filter(state=State.SUCCESS).count() == 101
    assert worker.stop() == 0
    assert "WARNING" not in worker.output()


def test_the_documented_rights_are_enough_for_every_verb(own_valkey: Valkey) -> None:
    user = documented_user(own_valkey, "mail")
    limited = RedisBroker(own_valkey.url.replace("//", f"//{user}@"))
    for_celery = [verb for name, verb in VERBS.items() if "celery" in name]
    for verb in VERBS.values():
        if verb not in for_celery:
            verb(limited)
    for verb in for_celery:
        with pytest.raises(QueueRefused):
            verb(limited)
    rights = ("~celery-task*", "&celery-task-meta-*")
    text = (ROOT / "docs" / "deployment.md").read_text()
    assert all(f"`{right}`" in text for right in rights)
    with own_valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", *rights)
    for verb in for_celery:
        verb(limited)
    with pytest.raises(BrokerUnavailable, match=r"(?i)no permissions.*\. Give.*ACL SETUSER"):
        limited.push([Outgoing("private", b"a")])
    limited.close()


def refused(url: str) -> str:
    """What the error says."""
    refusing = RedisBroker(url, timeout=2)
    with pytest.raises(BrokerUnavailable) as caught:
        refusing.ping()
    refusing.close()
    return str(caught.value)


def test_an_authority_that_is_not_trusted(front: TlsFront, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    for query in ("", f"?ssl_ca_certs={other}"):
        said = refused(f"rediss://localhost:{front.port}/0{query}")
        assert "certificate is not trusted" in said
        assert "?ssl_ca_certs=" in said


def test_a_certificate_for_another_name(front: TlsFront, authority: Path) -> None:
    said = refused(f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority}")
    assert "the server by the name it was made for" in said


def test_a_wrong_password_is_not_told(own_valkey: Valkey) -> None:
    documented_user(own_valkey)
    said = refused(own_valkey.url.replace("//", "//shop:guessed@"))
    assert "Check user and password in JOBS['BROKER_URL']" in said
    assert "guessed" not in said
    broker.get().ping()
