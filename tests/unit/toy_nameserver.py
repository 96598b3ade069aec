"""DNS servers for tests: one in memory in the place of clients/dns.Nameserver, and one that answers what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence

import dns.message

from vedette.clients.dns import RRset, Write, within
from vedette.errors import Conflict, GiveUp, TargetUnavailable


class ToyNameserver:
    """Zones and records in a dict; `between` is called before each write."""

    def __init__(self, *zones: str) -> None:
        self.zones = zones or ("cloud.example.org", "2.0.192.in-addr.arpa")
        self.records: dict[tuple[str, str], tuple[tuple[str, ...], int]] = {}
        self.messages: list[list[Write]] = []
        self.between: Callable[[], Awaitable[None]] | None = None
        self.cut = ""
        """The next write fails, `before` or `after` it is done."""

    async def zone(self, name: str) -> str:
        for zone in self.zones:
            if within(name, zone):
                return zone
        raise GiveUp(f"no zone for {name}")

    async def lookup(self, name: str, type_: str) -> RRset:
        await asyncio.sleep(0)
        values, ttl = self.records.get((name, type_), ((), 0))
        return RRset(name, type_, values, ttl)

    async def write(self, zone: str, writes: Sequence[Write]) -> None:
        await asyncio.sleep(0)
        if self.between is not None:
            await self.between()
        cut, self.cut = self.cut, ""
        if cut == "before":
            raise TargetUnavailable("cut")
        for one in writes:
            assert within(one.name, zone)
            if one.expect is not None and self.values(one.name, one.type) != one.expect:
                raise Conflict(one.name)
        for one in writes:
            self.records.pop((one.name, one.type), None)
            if one.values:
                self.records[one.name, one.type] = (tuple(sorted(one.values)), one.ttl)
        self.messages.append(list(writes))
        if cut == "after":
            raise TargetUnavailable("cut")

    def values(self, name: str, type_: str = "A") -> tuple[str, ...]:
        return self.records.get((name, type_), ((), 0))[0]


class ToyWire:
    """`async with ToyWire(answer) as wire`: a TCP server; `answer(question)` gives a message, bytes, or None for silence."""

    def __init__(self, answer: Callable[[bytes], dns.message.Message | bytes | None]) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ToyWire:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *why: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            said = self._answer(await reader.readexactly(length))
            if said is not None:
                wire = said if isinstance(said, bytes) else said.to_wire()
                writer.write(struct.pack("!H", len(wire)) + wire)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._tasks.discard(task)
