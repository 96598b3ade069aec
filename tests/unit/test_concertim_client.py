"""What the front end's metric daemon asks of its clients: it waits a tenth of a second for a request, so each is one write."""

from __future__ import annotations

import asyncio
from typing import Any

from vedette.clients.concertim import Concertim
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret

ANSWER = (
    b"HTTP/1.1 200 OK\r\nAuthorization: Bearer a.b.c\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    b'{"status":200}'
)


class Daemon(asyncio.Protocol):
    """Answers each piece that comes as if it were a request, and keeps it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._transport.write(ANSWER)


async def test_a_request_is_one_write() -> None:
    pieces: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Daemon(pieces), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Concertim(f"http://127.0.0.1:{port}", "admin", Secret("its password"), SystemClock())
    try:
        for value in range(20):
            body = {"type": "double", "name": "cpu_load", "value": float(value), "units": "%", "slope": "both", "ttl": 3600}
            await client.ask("PUT", "/mrd/device/metrics", body)
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
    puts = [one for one in pieces if one.startswith(b"PUT /mrd/device/metrics HTTP/1.1")]
    assert len(puts) == 20
    assert all(one.endswith(b"}") for one in puts), "headers and body in one piece"
    assert len(pieces) == 21, "and the login"
