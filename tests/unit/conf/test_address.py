from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, load_command_class
from pytest_django import Settings

from jobs import conf
from jobs.broker.connection import Connections
from jobs.conf import address
from jobs.conf.address import Address
from jobs.exceptions import BrokerUnavailable, ConfigurationError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Address(scheme="redis", host="localhost")),
        ("redis://a.b-c_d:7000/3", Address(scheme="redis", host="a.b-c_d", port=7000, db=3)),
        ("redis://[::1]:7000/", Address(scheme="redis", host="::1", port=7000)),
        ("redis://[::1]", Address(scheme="redis", host="::1")),
        ("redis://h?db=2", Address(scheme="redis", host="h", db=2)),
        ("redis://u:p@h/1", Address(scheme="redis", host="h", db=1, username="u", password="p")),
        ("redis://:p%40%2F%25@h", Address(scheme="redis", host="h", password="p@/%")),
        ("redis://:p@q:r@h", Address(scheme="redis", host="h", password="p@q:r")),
        ("redis://h?password=a@b%26c", Address(scheme="redis", host="h", password="a@b&c")),
        (
            "rediss://h?ssl_ca_certs=/a/b.pem&ssl_check_hostname=no&ssl_cert_reqs=none",
            Address(
                scheme="rediss",
                host="h",
                options={
                    "ssl_ca_certs": "/a/b.pem",
                    "ssl_check_hostname": False,
                    "ssl_cert_reqs": "none",
                },
            ),
        ),
        ("unix:///run/a%20b.sock?db=1", Address(scheme="unix", path="/run/a b.sock", db=1)),
        ("unix://:p@/run/x.sock", Address(scheme="unix", path="/run/x.sock", password="p")),
    ],
)
def test_read(url: str, expected: Address) -> None:
    assert address.parse(url) == expected
    Connections(url, 1.0)


WRONG = [
    ("", "must begin with redis://"),
    ("localhost:6379", "must begin with redis://"),
    ("http://h", "must begin with redis://"),
    ("reddis://h", "Did you mean 'redis'"),
    ("redis+sentinel://h", "must begin with redis://"),
    ("memory://x", "must begin with redis://"),
    ("redis://", "names no host"),
    ("redis:///0", "names no host"),
    ("redis://:6379/0", "names no host"),
    ("redis://h:0", "has a port"),
    ("redis://h:65536", "has a port"),
    ("redis://h:x", "has a port"),
    ("redis://h:", "has a port"),
    ("redis://h1,h2:6379", "has a host with characters"),
    ("redis://[::1", "bracket"),
    ("redis://[nothing]/0", "has no IPv6 address"),
    ("redis://[::1]x/0", "bracket"),
    ("redis://h/x", "has a database that is no number"),
    ("redis://h/-1", "has a database that is no number"),
    ("redis://h/0/1", "has a database that is no number"),
    ("redis://h/0?db=1", "one database in its path and another"),
    ("redis://h?db=x", "option 'db', which must be a whole number"),
    ("redis://h?db=1&db=2", "option 'db' twice"),
    ("redis://h?passwort=x", "unknown option 'passwort'. Did you mean 'password'?"),
    ("redis://h?PASSWORD=x", "unknown option 'PASSWORD'. Did you mean 'password'?"),
    ("redis://h?db", "unknown option 'db'"),
    ("redis://h?client_name=a%20b", "'client_name', which must be of ASCII characters"),
    ("redis://h?client_name=a%0Ab", "'client_name', which must be of ASCII characters"),
    ("redis://h?username=%ff", "'username', whose value is no UTF-8"),
    ("redis://:%ff@h", "percent-encoded bytes that are no UTF-8"),
    ("unix:///a%ff", "percent-encoded bytes that are no UTF-8"),
    ("redis://a..b", "a host with a part that is empty"),
    (f"redis://{'a' * 64}.b", "longer than 63 characters"),
    ("redis://h?ssl_ca_certs=/x", "'ssl_ca_certs', which is for rediss://"),
    ("rediss://h?ssl_cert_reqs=maybe", "must be none, optional or required"),
    ("rediss://h?ssl_min_version=3", "must be 771"),
    ("rediss://h?ssl_ciphers=x", "'ssl_ciphers', which names no cipher"),
    ("rediss://h?ssl_check_hostname=x", "must be true or false"),
    ("redis://h\n", "a line break"),
    (" redis://h", "must begin with redis://"),
    ("unix://run/x.sock", "names no socket"),
    ("unix://", "names no socket"),
    ("unix:///", "names no socket"),
    *[
        (f"redis://h?{option}=1", f"has the option '{option}'")
        for option in (
            *("decode_responses", "protocol", "encoding", "health_check_interval", "retry"),
            *("single_connection_client", "retry_on_timeout", "max_connections", "path", "host"),
        )
    ],
    ("redis://h?socket_timeout=1", "JOBS['SOCKET_TIMEOUT'] instead"),
]


@pytest.mark.parametrize(("url", "said"), WRONG)
def test_wrong(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        address.parse(url)


@pytest.mark.parametrize("url", [url for url, _ in WRONG if url])
def test_check_refuses_them(settings: Settings, url: str) -> None:
    settings.JOBS = {"BROKER_URL": url}
    settings.DEBUG = False
    [problem] = run_checks(tags=["jobs"])
    assert problem.msg.startswith("JOBS['BROKER_URL'] ")
    with pytest.raises(ConfigurationError):
        conf.get()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:SECRET@{}/0",
        "redis://SECRET@{}/0",
        "redis://user:SECRET@{}/0",
        "redis://{}/0?password=SECRET",
        "redis://{}/0?username=SECRET&password=x",
        "redis://{}/0?password=a&SECRET=b",
        "redis://{}/0?password=a&SECRET",
        "redis://{}/0?SECRET",
        "redis://{}/0?password%3DSECRET",
        "redis://{}/0?password%3DSECRET=1",
        "redis://{}/0?password=SECRET%ff",
        "redis://:SECRET%ff@{}/0",
        "redis://[SECRET]:1/0",
        "redis://{}/0?passwort=SECRET",
        "redis://{}/0?db=SECRET",
        "redis://{}/0?password=SECRET#x",
        "redis://:a@SECRET@{}/0",
        "redis://:a/SECRET@{}/0",
        "redis://:SECRET/a@{}/0",
        "redis://:a#SECRET@{}/0",
        "redis://:a?SECRET@{}/0",
        "redis://:a?SECRET=1@{}/0",
        "redis://:a%SECRET@{}/0",
        "redis://:a[SECRET]@{}/0",
        "redis://:[SECRET@{}/0",
        "redis://:\u2100SECRET@{}/0",
        "redis://:a SECRET@{}/0",
        "redis://:SECRET{}/0",
        "redis://user:SECRET",
        "redis://h:6379:SECRET",
        "redis://h/SECRET",
        "rediss://:SECRET@{}/0?ssl_password=SECRET",
        "unix:///nowhere.sock?password=SECRET",
        "unix://:SECRET@/nowhere.sock",
        "unix://:SECRET/x@/nowhere.sock",
        "unix://SECRET/nowhere.sock",
        "SECRET://h",
        "amqp://user:SECRET@h//",
        "redis+sentinel://:SECRET@h/x",
        "//:SECRET@h",
        "SECRET",
        "redis:/:SECRET@{}",
    ],
)
def test_nothing_secret_is_shown(
    url: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    url = url.format("127.0.0.1:1")
    caplog.set_level(logging.DEBUG)
    said = []
    try:
        Connections(url, 1.0).call("PING")
    except (BrokerUnavailable, ConfigurationError) as error:
        said += [str(error), "".join(traceback.format_exception(error))]
    settings.JOBS = {"BROKER_URL": url}
    said += [str(run_checks(tags=["jobs"])), repr(conf.peek()), caplog.text]
    assert said[0]
    assert not [text for text in said if "SECRET" in text]


@pytest.mark.parametrize("value", [b"redis://:SECRET@h", ["redis://:SECRET@h"], 5, None])
def test_what_is_no_text_is_not_shown_either(value: object) -> None:
    [problem] = conf.parse({"BROKER_URL": value})[1]
    assert problem.startswith("JOBS['BROKER_URL'] must be text, not ")
    assert "SECRET" not in problem


@pytest.mark.parametrize("option", address.FILES)
def test_check_misses_files(settings: Settings, option: str, tmp_path: Path) -> None:
    settings.JOBS = {**settings.JOBS, "BROKER_URL": f"rediss://h?{option}={tmp_path}"}
    assert run_checks(tags=["jobs"]) == []
    settings.JOBS = {**settings.JOBS, "BROKER_URL": f"rediss://h?{option}={tmp_path}/none.pem"}
    [problem] = run_checks(tags=["jobs"])
    assert problem.msg.startswith(f"JOBS['BROKER_URL'] has the option {option!r}, and what it")


def test_a_number_of_a_database_that_is_not_there(broker_url: str) -> None:
    url = address.parse(broker_url)
    away = Connections(f"redis://{url.host}:{url.port}/12345", 1.0)
    with pytest.raises(BrokerUnavailable, match=r"DB index is out of range. .*`databases`"):
        away.call("PING")


@pytest.mark.parametrize("command", ["jobs_status", "jobs_revoke", "runworker"])
def test_commands_say_what_is_wrong(settings: Settings, command: str) -> None:
    settings.JOBS = {"BROKER_URL": "redis://:SECRET/x@h"}
    made = load_command_class("jobs", command)
    made._called_from_command_line = True
    asked = made.create_parser("manage.py", command).parse_args(["id"] * (command == "jobs_revoke"))
    with pytest.raises(CommandError, match=r"^JOBS\['BROKER_URL'\] can't be read"):
        made.handle(**vars(asked))
