"""Which server is the master now: asked of Sentinels before each new connection.

After a failover the old master is gone, or answers nothing, or that it is read-only. Each of these
drops the connection, and the next one leads to the new master. So an answer of a Sentinel is used
once. Sentinels hear of a new master one after the other: where one still names the server that has
just failed, the others are asked as well.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from jobs.conf import address
from jobs.exceptions import BrokerUnavailable

#: Longest wait, in seconds, for one Sentinel: the next one may answer at once.
_PATIENCE = 1.0


class Sentinels:
    """The Sentinels of one address."""

    def __init__(self, where: address.Address) -> None:
        self._address = str(where)
        self._service = where.service
        #: The one to be asked first comes first.
        self._hosts = deque(where.hosts)
        #: The server that has failed last; named by all Sentinels, it counts as the master again.
        self._doubted: dict[str, Any] | None = None
        self._kind = redis.SSLConnection if where.tls else redis.Connection
        self._kwargs: dict[str, Any] = {
            **where.options,
            "username": where.sentinel_username or None,
            "password": where.sentinel_password or None,
        }

    def doubt(self, host: str, port: int) -> None:
        """Note that this server may be the master no more."""
        self._doubted = {"host": host, "port": port}

    def master(self, timeout: float) -> dict[str, Any]:
        """``host`` and ``port`` of the master. ``timeout``: seconds for each Sentinel.

        Raises `BrokerUnavailable` when none knows it.
        """
        problems, still = [], None
        for host, port in tuple(self._hosts):
            at = address.shown(host, port)
            try:
                found = self._ask(host, port, min(timeout, _PATIENCE))
            except AuthenticationError as error:
                wanted = "sentinel_username and sentinel_password in JOBS['BROKER_URL']"
                problems.append(f"{at}: {error} (its user and password are {wanted})")
            except ResponseError as error:
                unknown = "unknown command" in str(error).lower()
                problems.append(f"{at} is no Sentinel" if unknown else f"{at}: {error}")
            except (RedisError, OSError) as error:
                problems.append(f"{at}: {error}")
                if self._hosts[0] == (host, port):
                    self._hosts.rotate(-1)
            else:
                if not found:
                    problems.append(f"{at} doesn't know the service {self._service!r}")
                    continue
                named = {"host": found[0].decode(), "port": int(found[1])}
                if named != self._doubted:
                    return named
                still = named
        if still is not None:
            self._doubted = None
            return still
        raise BrokerUnavailable(
            f"Redis at {self._address} can't be used: no Sentinel names the master: "
            f"{'; '.join(problems)}"
        )

    def _ask(self, host: str, port: int, timeout: float) -> list[bytes] | None:
        timeouts: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        connection: Any = self._kind(host=host, port=port, **self._kwargs, **timeouts, protocol=2)
        try:
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            found: list[bytes] | None = connection.read_response()
        finally:
            connection.disconnect()
        return found
