"""An HTTP server that keeps what it was sent and answers as it is told to: the target of whoever calls somebody's REST API."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping

import msgspec
from aiohttp import web


class Sent(msgspec.Struct, frozen=True):
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class FakeRest:
    """`answers` are statuses, each for one request, with headers where one has some; after them it is 200. While
    `answering` is cleared, every answer is held back."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.sent: list[Sent] = []
        self.answers: deque[int | tuple[int, Mapping[str, str]]] = deque()
        self.answering = asyncio.Event()
        self.answering.set()
        self.port = port
        self._tls = tls
        self._more = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeRest:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def until(self, count: int, seconds: float = 60.0) -> list[Sent]:
        """What came, once that many have."""
        async with asyncio.timeout(seconds), self._more:
            await self._more.wait_for(lambda: len(self.sent) >= count)
        return self.sent

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._more:
            self.sent.append(Sent(request.method, request.path, dict(request.headers), body))
            self._more.notify_all()
        await self.answering.wait()
        told = self.answers.popleft() if self.answers else 200
        status, headers = told if isinstance(told, tuple) else (told, {})
        return web.Response(status=status, headers=headers, text=f"{status} it is")
