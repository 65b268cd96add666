from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, load_command_class
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from jobs import conf
from jobs.broker.connection import Connections
from jobs.conf import address
from jobs.conf.address import Address, Kind
from jobs.exceptions import BrokerUnavailable, ConfigurationError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Address(scheme="redis", hosts=(("localhost", 6379),))),
        ("redis://a.b-c_d:7000/3", Address(scheme="redis", hosts=(("a.b-c_d", 7000),), db=3)),
        ("redis://[::1]:7000/", Address(scheme="redis", hosts=(("::1", 7000),))),
        ("redis://[::1]", Address(scheme="redis", hosts=(("::1", 6379),))),
        ("redis://h?db=2", Address(scheme="redis", hosts=(("h", 6379),), db=2)),
        (
            "redis://u:p@h/1",
            Address(scheme="redis", hosts=(("h", 6379),), db=1, username="u", password="p"),
        ),
        ("redis://:p%40%2F%25@h", Address(scheme="redis", hosts=(("h", 6379),), password="p@/%")),
        ("redis://:p@q:r@h", Address(scheme="redis", hosts=(("h", 6379),), password="p@q:r")),
        (
            "redis://h?password=a@b%26c",
            Address(scheme="redis", hosts=(("h", 6379),), password="a@b&c"),
        ),
        (
            "rediss://h?ssl_ca_certs=/a/b.pem&ssl_check_hostname=no&ssl_cert_reqs=none",
            Address(
                scheme="rediss",
                hosts=(("h", 6379),),
                options={
                    "ssl_ca_certs": "/a/b.pem",
                    "ssl_check_hostname": False,
                    "ssl_cert_reqs": "none",
                },
            ),
        ),
        ("unix:///run/a%20b.sock?db=1", Address(scheme="unix", path="/run/a b.sock", db=1)),
        ("unix://:p@/run/x.sock", Address(scheme="unix", path="/run/x.sock", password="p")),
        (
            "redis+sentinel://a,b:7000,[::1]:7001/main/3",
            Address(
                scheme="redis+sentinel",
                hosts=(("a", 26379), ("b", 7000), ("::1", 7001)),
                service="main",
                db=3,
            ),
        ),
        (
            "rediss+sentinel://u:p%2C@h/a%2Fb?sentinel_username=s&sentinel_password=t%26&db=1"
            "&ssl_cert_reqs=none",
            Address(
                scheme="rediss+sentinel",
                hosts=(("h", 26379),),
                service="a/b",
                db=1,
                username="u",
                password="p,",
                sentinel_username="s",
                sentinel_password="t&",
                options={"ssl_cert_reqs": "none"},
            ),
        ),
        ("redis+cluster://h", Address(scheme="redis+cluster", hosts=(("h", 6379),))),
        ("redis+cluster://h/0?db=0", Address(scheme="redis+cluster", hosts=(("h", 6379),))),
        (
            "rediss+cluster://:p,q@[::1],[::2]:7000/?ssl_ca_certs=/a.pem",
            Address(
                scheme="rediss+cluster",
                hosts=(("::1", 6379), ("::2", 7000)),
                password="p,q",
                options={"ssl_ca_certs": "/a.pem"},
            ),
        ),
    ],
)
def test_read(url: str, expected: Address) -> None:
    assert address.parse(url) == expected
    if expected.kind is Kind.SERVER:
        Connections(url, 1.0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@[::1]", "redis://***@[::1]:6379/0"),
        ("unix:///run/x.sock?db=1", "unix:///run/x.sock?db=1"),
        ("redis+sentinel://a,b/m%2Fn/2", "redis+sentinel://a:26379,b:26379/m%2Fn/2"),
        ("redis+sentinel://a/m?sentinel_password=p", "redis+sentinel://***@a:26379/m/0"),
        ("rediss+cluster://u@a,[::1]:7", "rediss+cluster://***@a:6379,[::1]:7"),
    ],
)
def test_shown(url: str, shown: str) -> None:
    assert str(address.parse(url)) == shown


#: A password of any characters, made so that no other text contains it.
secrets = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), max_size=12).map(
    lambda text: f"GEHEIM{text}"
)


@pytest.mark.parametrize(
    "form",
    [
        *("redis://:{}@h", "redis://{}:x@h:1/2", "redis://h?password={}&db=1"),
        *("unix://:{}@/run/x.sock", "redis+cluster://u:{}@h,[::1]:7000", "rediss+cluster://{}@h,g"),
        *("redis+sentinel://u:{}@h,g/main/0", "redis+sentinel://h/main?sentinel_password={}"),
        *("redis+sentinel://h/main?sentinel_username={}&password={}", "rediss://h?ssl_password={}"),
        # Places where it must not be.
        *("redis+cluster://h,[{}]", "redis+cluster://u:{},h:1", "redis+sentinel://h:{}/main"),
        *("redis+cluster://h/{}", "redis+sentinel://h/main/{}"),
        *("redis+sentinel://:x@{}@h/main", "redis+{}://h", "redis+sentinel://u:{}/main"),
    ],
)
@given(secret=secrets, raw=st.booleans())
def test_a_password_of_any_characters(form: str, secret: str, raw: bool) -> None:
    given = secret if raw else quote(secret, safe="")
    url = form.replace("{}", given)
    try:
        asked = address.parse(url)
        said = f"{asked} {asked!r}"
    except ValueError as error:
        asked = None
        said = f"{error!r} {error}"
    assert "GEHEIM" not in said
    if asked and not raw:
        texts = asked.username, asked.password, asked.sentinel_username, asked.sentinel_password
        assert secret in "".join((*texts, asked.options.get("ssl_password", "")))


WRONG = [
    ("", "must begin with redis://"),
    ("localhost:6379", "must begin with redis://"),
    ("http://h", "must begin with redis://"),
    ("reddis://h", "Did you mean 'redis'"),
    ("redis+sentinal://h", "Did you mean 'redis+sentinel'"),
    ("redis+sentinel://h", "names no service"),
    ("redis+sentinel://h/", "names no service"),
    ("redis+sentinel://h//0", "names no service"),
    ("redis+sentinel://h/a%20b", "in the name of its service"),
    ("redis+sentinel://h/main/x", "has a database that is no number"),
    ("redis+sentinel://h,/main", "names no host"),
    ("redis+sentinel://h;g/main", "has a host with characters"),
    ("redis+cluster://", "names no host"),
    ("redis+cluster://h,,g", "names no host"),
    ("redis+cluster://h,g:x", "has a port"),
    ("redis+cluster://h/1", "a Cluster has only the database 0"),
    ("redis+cluster://h?db=2", "a Cluster has only the database 0"),
    ("redis+cluster://h/main", "has a database that is no number"),
    ("redis+cluster://h?sentinel_password=x", "which is for redis+sentinel://"),
    ("redis+cluster://h?ssl_ca_certs=/x", "'ssl_ca_certs', which is for rediss://"),
    ("redis+cluster://h?read_from_replicas=true", "unknown option 'read_from_replicas'"),
    ("redis://h,g", "are for redis+sentinel:// and redis+cluster://"),
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
        "rediss://{}/0?ssl_password=a&SECRET=b",
        "redis+sentinel://{}/main?sentinel_password=a&SECRET=b",
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
