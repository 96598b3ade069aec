"""Clients of the watch API on bare sockets: what really arrives, byte for byte, also when the connection dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any

SECONDS = 60.0
"""Until a wait counts as broken; nothing here takes that long."""


class Gone(Exception):
    """The connection ended before the answer did."""


class Answer:
    """One request on a connection of its own; its body as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str) -> None:
        self.reader = reader
        self.writer = writer
        self.version = version
        self.code = 0
        self.headers: dict[str, str] = {}
        self.clean = False
        """It came to its end: the last chunk, all bytes of its Content-Length, or (HTTP/1.0) the end of the connection."""
        self._body = b""
        self._chunk = 0
        """Bytes of the present chunk that are still to come, its line end included."""

    @classmethod
    async def of(
        cls, port: int, path: str, *, token: str = "", version: str = "1.1", receive_buffer: int = 0, headers: str = ""
    ) -> Answer:
        """Raises OSError (nobody listens), Gone."""
        sock = socket.socket()
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 2**16)
        except BaseException:
            sock.close()
            raise
        answer = cls(reader, writer, version)
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        try:
            writer.write(f"GET {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{bearer}{headers}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
        except BaseException as why:
            await answer.close()
            if isinstance(why, OSError | asyncio.IncompleteReadError):
                raise Gone from None
            raise
        status, *lines = head.decode().split("\r\n")[:-2]
        answer.code = int(status.split()[1])
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return answer

    async def more(self) -> bytes:
        """Some more of the body; b"" at the clean end. Raises Gone."""
        try:
            if self.headers.get("transfer-encoding") != "chunked":
                length = self.headers.get("content-length")
                if length is not None:
                    self.clean = True
                    return await self.reader.readexactly(int(length)) if int(length) else b""
                found = await self.reader.read(65_536)
                self.clean = not found
                return found
            if self._chunk == 0:
                self._chunk = int(await self.reader.readuntil(b"\r\n"), 16) + 2
                if self._chunk == 2:
                    assert await self.reader.readexactly(2) == b"\r\n"
                    self.clean = True
                    return b""
            found = await self.reader.read(self._chunk)
            if not found:
                raise Gone
            self._chunk -= len(found)
            if self._chunk >= 2:
                return found
            # The chunk's line end is, in part or whole, at the end of this.
            found += await self.reader.readexactly(self._chunk)
            self._chunk = 0
            assert found.endswith(b"\r\n")
            return found[:-2] or await self.more()
        except (OSError, asyncio.IncompleteReadError):
            raise Gone from None

    async def line(self) -> bytes:
        """The next line of a stream; b"" at the clean end. Raises Gone: half a line is dropped, as every client does."""
        while b"\n" not in self._body:
            found = await self.more()
            if not found:
                assert not self._body, "half a line at a clean end"
                return b""
            self._body += found
        line, _, self._body = self._body.partition(b"\n")
        return line

    async def event(self) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            found: dict[str, Any] = json.loads(await self.line())
        return found

    async def rest(self) -> bytes:
        """All that is still to come."""
        found = self._body
        async with asyncio.timeout(SECONDS):
            while (part := await self.more()) or not self.clean:
                found += part
                if self.clean and "content-length" in self.headers:
                    break
        return found

    async def reset(self) -> None:
        """Vanish with a RST: nothing more is read, nothing is said."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def get(port: int, path: str, *, token: str = "") -> Any:
    """The JSON of a 200."""
    answer = await Answer.of(port, path, token=token, headers="Connection: close\r\n")
    try:
        body = await answer.rest()
    finally:
        await answer.close()
    assert answer.code == 200, (answer.code, body)
    return json.loads(body)
