"""The address of Redis, ``JOBS["BROKER_URL"]``: how it is read, and shown without the password.

    redis://host:6379/0                                  one server; rediss:// with TLS
    unix:///path/of/the/socket?db=0                      one server on this machine
    redis+sentinel://host:26379,host2:26379/service/0    the master that Sentinels name
    redis+cluster://host:6379,host2:6379                 a Cluster, found by any of its nodes

The last two may begin with ``rediss`` as well. They are the forms that other libraries read.

Errors never quote a wrong address: if its password has a raw ``/`` or ``#``, that may be anywhere.
"""

from __future__ import annotations

import enum
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from jobs.conf.values import nearest

_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_PORT, _SENTINEL_PORT = 6379, 26379

_ENCODE = (
    "Special characters of a user and a password are written percent-encoded: %40 for @, "
    "%2F for /, %3A for :, %23 for #, %3F for ?, %25 for %, %26 for &, %20 for a space"
)


def _plain(text: str) -> str:
    """Decode percent-encoded text. Raises `ValueError` for bytes that aren't UTF-8: Redis would get
    another text than was meant."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"has percent-encoded bytes that are no UTF-8. {_ENCODE}") from None


_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_OPTIONS = (
    *_SENTINEL_OPTIONS,
    *("db", "username", "password", "client_name", "socket_keepalive", "ssl_ca_certs"),
    *("ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version"),
    *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
)

#: Options whose value may have a raw ``&`` in it, so that what follows is a part of it.
_SECRETS = ("password", "sentinel_password", "ssl_password")

_TIMEOUT = "set JOBS['SOCKET_TIMEOUT'] instead"
_RELIED_ON = "the job system relies on its own value: leave it out"
#: Options that name a file; the last one names a folder.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")

#: Options of redis-py that would change how we talk to Redis → what to do instead.
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), _TIMEOUT),
    **dict.fromkeys(
        (
            *("protocol", "decode_responses", "encoding", "encoding_errors", "legacy_responses"),
            *("health_check_interval", "retry_on_timeout", "retry_on_error", "retry"),
            *("single_connection_client", "max_connections", "parser_class", "socket_read_size"),
            *("socket_type", "socket_keepalive_options", "host", "port", "path", "lib_name"),
            *("lib_version", "driver_info", "credential_provider", "redis_connect_func"),
        ),
        _RELIED_ON,
    ),
}


class Kind(enum.Enum):
    """What stands at an address."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where Redis is, and the user to connect as."""

    scheme: str
    #: Host and port: of the server, of each Sentinel, or of nodes of the Cluster. Empty for
    #: ``unix``.
    hosts: tuple[tuple[str, int], ...] = ()
    #: Of the socket, for ``unix``.
    path: str = ""
    #: The name that Sentinels know the master by.
    service: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    #: The user of the Sentinels themselves, which have users of their own.
    sentinel_username: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    #: Further options of redis-py, by name.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> Kind:
        name = self.scheme.partition("+")[2]
        return Kind(name) if name else Kind.SERVER

    @property
    def tls(self) -> bool:
        return self.scheme.startswith("rediss")

    @property
    def host(self) -> str:
        """The first one."""
        return self.hosts[0][0]

    @property
    def port(self) -> int:
        """That of the first host."""
        return self.hosts[0][1]

    def __str__(self) -> str:
        """Without users and passwords."""
        secrets = self.username, self.password, self.sentinel_username, self.sentinel_password
        who = "***@" if any(secrets) else ""
        if self.scheme == "unix":
            return f"unix://{who}{self.path}" + (f"?db={self.db}" if self.db else "")
        hosts = ",".join(shown(host, port) for host, port in self.hosts)
        service = f"/{quote(self.service, safe='')}" if self.service else ""
        db = "" if self.kind is Kind.CLUSTER else f"/{self.db}"
        return f"{self.scheme}://{who}{hosts}{service}{db}"


def shown(host: str, port: int) -> str:
    """Host and port in one, as an address has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read(value: Any) -> str:
    """The setting, once it is checked; raises as `parse`, and `TypeError`."""
    if not isinstance(value, str):
        harmless = value is None or isinstance(value, int | float)
        raise TypeError(f"must be text, not {value if harmless else type(value).__name__}")
    if value not in ("", "memory://"):
        parse(value)
    return value


def read_server(value: Any) -> str:
    """An address of Redis, perhaps found by Sentinels, but no Cluster; likewise."""
    if read(value) == "memory://" or value.partition("://")[0].endswith("+cluster"):
        raise ValueError("must be the address of one Redis server, or of its Sentinels")
    return str(value)


def parse(url: str) -> Address:
    """Raises `ValueError` with what is wrong, to be put after the name of the setting."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        # The nearest scheme is named only for a short word: anything else may hold the password.
        short = scheme.replace("+", "").isalpha() and len(scheme) < 18
        meant = nearest(scheme, _SCHEMES) if short else ""
        raise ValueError(
            "must begin with redis://, rediss:// or unix://, with redis+sentinel:// or with "
            f"redis+cluster://.{meant}"
        )
    if any(char.isspace() or not char.isprintable() for char in rest):
        raise ValueError(f"has a space, a line break or the like in it. {_ENCODE}")
    if "#" in rest:
        raise ValueError(f"has a # in it. {_ENCODE}")
    where, _, query = rest.partition("?")
    options = _options(scheme, query)
    slash = where.find("/")
    who, _, hosts = (where if slash < 0 else where[:slash]).rpartition("@")
    path = "" if slash < 0 else where[slash:]
    if "@" in path or (scheme == "unix" and hosts):
        problem = f"can't be read. {_ENCODE}"
        if scheme == "unix" and "@" not in path:
            problem = "names no socket: it is unix:// and a path that begins with /"
        raise ValueError(problem)
    username, _, password = (_plain(part) for part in who.partition(":"))
    for name, value in (("username", username), ("password", password)):
        if value and name in options:
            raise ValueError(f"has a {name} before the @ and another one after the ?: give one")
    secret = {
        "username": options.pop("username", username),
        "password": options.pop("password", password),
        **{name: options.pop(name, "") for name in _SENTINEL_OPTIONS},
    }
    if scheme == "unix":
        if len(path) < 2:
            raise ValueError("names no socket: it is unix:// and a path that begins with /")
        db = options.pop("db", 0)
        return Address(scheme=scheme, path=_plain(path), db=db, **secret, options=options)
    found_at = _hosts(scheme, hosts)
    service = ""
    if scheme.endswith("+sentinel"):
        service, path = _service(path)
    db = _db(scheme, path.removeprefix("/").removesuffix("/"), options)
    return Address(scheme=scheme, hosts=found_at, service=service, db=db, **secret, options=options)


def _db(scheme: str, number: str, options: dict[str, Any]) -> int:
    """``number``: what the path says. Takes ``db`` out of the options."""
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError("has a database that is no number, as the 0 in redis://localhost:6379/0")
    db: int = options.pop("db", int(number or 0))
    if number and int(number) != db:
        raise ValueError("names one database in its path and another one by ?db=")
    if db and scheme.endswith("+cluster"):
        raise ValueError("names a database, but a Cluster has only the database 0: leave it out")
    return db


def _service(path: str) -> tuple[str, str]:
    """The service that a path begins with, and what follows it."""
    name, slash, rest = path.removeprefix("/").partition("/")
    service = _plain(name)
    if not service:
        raise ValueError(
            "names no service, which is the name that the Sentinels know the master by: "
            "redis+sentinel://host:26379/service/0"
        )
    if any(char.isspace() or not char.isprintable() for char in service):
        raise ValueError("has a space, a line break or the like in the name of its service")
    return service, slash + rest


def _hosts(scheme: str, text: str) -> tuple[tuple[str, int], ...]:
    several = scheme.endswith(("+sentinel", "+cluster"))
    if not several and "," in text:
        raise ValueError(
            "has a host with characters that no host has. Several hosts with commas between them "
            f"are for redis+sentinel:// and redis+cluster://. {_ENCODE}"
        )
    port = _SENTINEL_PORT if scheme.endswith("+sentinel") else _PORT
    return tuple(_host_and_port(one, port) for one in text.split(","))


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("has no IPv6 address between its brackets") from None
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("can't be read after the bracket of its host")
        port = after[1:] if after else str(default)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(default)
    if not host:
        raise ValueError("names no host, as in redis://localhost:6379/0")
    if ":" not in host and not all(char.isalnum() or char in "-._" for char in host):
        raise ValueError(f"has a host with characters that no host has. {_ENCODE}")
    if ":" not in host and not all(0 < len(one) < 64 for one in host.removesuffix(".").split(".")):
        raise ValueError("has a host with a part that is empty or longer than 63 characters")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"has a port that is no number from 1 to 65535. {_ENCODE}")
    return host, int(port)


def _options(scheme: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if name in _REFUSED:
            raise ValueError(f"has the option {name!r}; {_REFUSED[name]}")
        if name not in _OPTIONS or not equals:
            # This may be part of a password that has a raw character in it.
            secret = not found.keys().isdisjoint(_SECRETS)
            word = name if secret else name.lower()
            meant = nearest(word, _OPTIONS) if len(name) > 1 else ""
            is_name = name.isidentifier() and (equals or name in _OPTIONS)
            if "@" in query or not is_name or (secret and not meant):
                raise ValueError(f"has something after its ? that is no option. {_ENCODE}")
            raise ValueError(f"has the unknown option {name!r}.{meant}")
        if name in found:
            raise ValueError(f"has the option {name!r} twice")
        if name.startswith("ssl_") and not scheme.startswith("rediss"):
            raise ValueError(f"has the option {name!r}, which is for rediss://")
        if name in _SENTINEL_OPTIONS and not scheme.endswith("+sentinel"):
            raise ValueError(f"has the option {name!r}, which is for redis+sentinel://")
        if name == "socket_keepalive" and scheme == "unix":
            raise ValueError(f"has the option {name!r}, which is not for unix://")
        try:
            found[name] = _option(name, unquote(value.replace("+", " "), errors="strict"))
        except UnicodeDecodeError:
            raise ValueError(f"has the option {name!r}, whose value is no UTF-8") from None
        except ValueError as error:
            raise ValueError(f"has the option {name!r}, which {error}") from None
    return found


def _option(name: str, text: str) -> Any:
    """An option's value, as redis-py takes it. Raises `ValueError`, to be put after its name."""
    match name:
        case "db" if not (text.isascii() and text.isdigit()):
            raise ValueError("must be a whole number")
        case "db":
            return int(text)
        case "socket_keepalive" | "ssl_check_hostname":
            if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
                raise ValueError("must be true or false")
            return text.lower() in ("true", "yes", "1")
        case "client_name" if not all("!" <= char <= "~" for char in text):
            raise ValueError("must be of ASCII characters, without spaces")  # for CLIENT SETNAME
        case "ssl_cert_reqs" if text not in ("none", "optional", "required"):
            raise ValueError("must be none, optional or required")
        case "ssl_ciphers":
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(text)
            except ssl.SSLError:
                raise ValueError("names no cipher that this Python's OpenSSL has") from None
        case "ssl_min_version":
            try:
                return ssl.TLSVersion(int(text) if text.isascii() and text.isdigit() else 0)
            except ValueError:
                raise ValueError("must be 771 (TLS 1.2) or 772 (TLS 1.3)") from None
        case "ssl_include_verify_flags" | "ssl_exclude_verify_flags":
            try:
                return [ssl.VerifyFlags[flag.strip()] for flag in text.strip("[]").split(",")]
            except KeyError:
                raise ValueError("must be names of ssl.VerifyFlags") from None
    return text
