"""TLS in front of a server that speaks none: the Valkey of the tests is built without it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading


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
        assert ready.wait(60), "the TLS server did not start"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the TLS server did not end"

    def _run(self, ready: threading.Event) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0, ssl=self._certificate)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._closing.wait()
        # Nothing more is accepted. What was accepted just now has to begin its handshake, which
        # takes two turns of the loop, or neither closing nor cancelling would close its socket.
        for one in server.sockets:
            self._loop.remove_reader(one)
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        await asyncio.sleep(0)  # transports close at the next turn

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(_pump(reader, there[1]))
                    directions.create_task(_pump(there[0], writer))
            finally:
                there[1].transport.abort()
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its sender is done; then nothing goes the other way either."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
