"""A network between a client and a server that can be cut, and can go dead."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class Proxy:
    """Forwards TCP connections to a server of this machine, as long as it is let.

    `target` is its port, or the path of its socket; it may be changed for connections to come.
    """

    def __init__(self, target: int | Path) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        #: Those of the connections that were forgotten.
        self._stuck: list[threading.Event] = []
        #: So many answers of the server are thrown away, with their connection.
        self._to_lose = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> int:
        """Break every connection. How many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(pair)
        return len(pairs)

    @contextlib.contextmanager
    def dead(self) -> Iterator[None]:
        """Connections stay, and nothing comes through."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def forget(self) -> None:
        """Nothing ever comes through the connections of now, which stay open; new ones work."""
        self._stuck.append(self._flowing)
        self._flowing = threading.Event()
        self._flowing.set()
        self._stuck[-1].clear()

    def lose_answers(self, count: int) -> None:
        """The server gets the next requests, and their answers never arrive."""
        self._to_lose = count

    def close(self) -> None:
        for flowing in (self._flowing, *self._stuck):
            flowing.set()
        # Wakes the thread that accepts, which closing alone doesn't.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()  # it may have accepted one that is not among the pairs yet
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                pair = (client, self._connect())
            except OSError:
                client.close()  # nobody listens there now
                continue
            with self._lock:
                self._pairs.append(pair)
            args = (*pair, self._flowing)
            threading.Thread(target=self._forward, args=args, daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self.target))
        except OSError:
            server.close()
            raise
        return server

    def _forward(
        self, client: socket.socket, server: socket.socket, flowing: threading.Event
    ) -> None:
        """Both directions of one connection, until either side ends it."""
        with contextlib.suppress(OSError, ValueError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(65536)
                    flowing.wait()
                    if not data or (source is server and self._loses()):
                        _close((client, server))
                        return
                    (server if source is client else client).sendall(data)
        _close((client, server))

    def _loses(self) -> bool:
        with self._lock:
            self._to_lose -= 1
            return self._to_lose >= 0


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
