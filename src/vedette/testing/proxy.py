"""A TCP proxy that fails when it is told to: cut, fall silent, refuse. For tests and `bench/` on real servers."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

from vedette.kit.tasks import cancel

_CHUNK = 64 * 1024


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes bytes to and from one server.

    async with Proxy("127.0.0.1", rabbit.port) as proxy:
        connect_to(proxy.port)
        proxy.cut()
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` clients speak TLS to the proxy, and the proxy speaks plainly to the server."""
        self._to = (host, port)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self.accepted = 0
        """Connections so far."""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self._passing.set()
        self.cut()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open(self) -> int:
        """Connections open to clients now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """End every connection at once, with a reset: what was in flight is lost. New ones are served."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """Keep every connection open and pass nothing, like a firewall that forgot them. New ones are silent too."""
        self._passing.clear()

    def resume(self) -> None:
        """Pass bytes again (those held back come first), and accept connections."""
        self._refusing = False
        self._passing.set()

    def refuse(self) -> None:
        """End new connections at once."""
        self._refusing = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        this = asyncio.current_task()
        assert this is not None
        self._serving.add(this)
        self._writers.add(writer)
        self.accepted += 1
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            pass  # The server is down: so is this connection.
        else:
            self._writers.add(far_writer)
            pumps = [asyncio.create_task(self._pump(reader, far_writer)), asyncio.create_task(self._pump(far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await cancel(*pumps)
        for one in (writer, far_writer):
            if one is not None:
                one.transport.abort()
                self._writers.discard(one)
        self._serving.discard(this)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # One side has gone; the other is ended by the caller.
