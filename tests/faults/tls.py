"""TLS in front of a server that speaks none: the Valkey of the tests is built without it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import Any


class TlsFront:
    """Accepts TLS connections, with this certificate, for a port of this machine."""

    def __init__(self, target: int, certificate: ssl.SSLContext) -> None:
        self.port = 0
        self._target = target
        self._certificate = certificate
        self._loop = asyncio.new_event_loop()
        # A client that refuses the certificate is what some tests want, and no news.
        self._loop.set_exception_handler(lambda loop, context: None)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(20), "the TLS server did not start"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the TLS server did not end"

    def _run(self, ready: threading.Event) -> None:
        with contextlib.closing(self._loop), contextlib.suppress(asyncio.CancelledError):
            self._main = self._loop.create_task(self._serve(ready))
            self._loop.run_until_complete(self._main)

    async def _serve(self, ready: threading.Event) -> None:
        async with asyncio.TaskGroup() as connections:

            def accepted(*ends: Any) -> None:
                connections.create_task(self._forward(*ends))

            server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=self._certificate)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            try:
                await asyncio.Future()  # until `close`
            finally:
                # Not waited for: its connections, which it would wait for, end with the group.
                server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_pump(reader, there[1]))
                directions.create_task(_pump(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its sender is done; then nothing goes the other way either."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
