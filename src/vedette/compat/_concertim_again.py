"""The same request once more: it joins the one that is under way, and gets the answer that nobody was there to take.

For compat/concertim_api.py, whose caller gives up after a minute and asks again. What can't be done twice to the same effect (a
key that Nova makes, whose private half is told once) is done once. Requests are the same when method, path and body are, so also
the credentials in it; what is kept is in memory, for some minutes, and gone when it was taken.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from vedette.errors import TooBusy
from vedette.kit.clock import Clock
from vedette.kit.tasks import cancel, spawn

KEPT_SECONDS = 900.0
"""Ten tries of a minute, and what is between them."""
MOST_KEPT = 1_000
MOST_WORKING = 64
"""Requests at a time."""


class Answered(msgspec.Struct, frozen=True):
    """An answer that can be given more than once."""

    status: int
    headers: dict[str, str]
    body: bytes

    def response(self) -> web.Response:
        return web.Response(status=self.status, headers=self.headers, body=self.body)


class _Asked:
    """One request, and who waits for it."""

    def __init__(self, task: asyncio.Task[Answered], since: float, keep: bool) -> None:
        self.task = task
        self.keep = keep
        self.since = since
        self.waiting = 0


class Again:
    """`answer` for each request; `close` when no more come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[bytes, _Asked] = {}
        """In the order in which they came."""
        self._working: set[asyncio.Task[Any]] = set()

    async def answer(
        self, request: web.Request, raw: bytes, work: Callable[[], Awaitable[Answered]], *, keep: bool
    ) -> web.Response:
        """What `work` answers, whoever has it done. `keep`: where nobody took it, it is kept for who asks the same again; not for
        what somebody may want once more in between. Who hangs up stops nothing: half of it would be done, and nobody would know
        which half. Raises TooBusy."""
        self._forget_old()
        key = _key(request, raw)
        asked = self._asked.get(key)
        if asked is None:
            if len(self._working) >= MOST_WORKING:
                raise TooBusy(f"{MOST_WORKING} requests are under way: ask again later", delay=5)
            task = spawn(self._working, _run(work), f"{request.method} {request.path}")
            asked = self._asked[key] = _Asked(task, self._clock.monotonic(), keep)
        asked.waiting += 1
        taken = False
        try:
            found = await asyncio.shield(asked.task)
            # (Who is gone by now has not noticed yet.)
            taken = request.transport is not None and not request.transport.is_closing()
        finally:
            asked.waiting -= 1
            over = asked.task.done() and (taken or not keep or not _good(asked.task))
            if over and not asked.waiting and self._asked.get(key) is asked:
                del self._asked[key]
        return found.response()

    async def close(self, seconds: float) -> None:
        """What is under way gets so long to end."""
        if self._working:
            await asyncio.wait(self._working, timeout=seconds)
        await cancel(*self._working)

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        for key, asked in list(self._asked.items()):
            late = now - asked.since > KEPT_SECONDS or len(self._asked) > MOST_KEPT
            # What failed is not worth keeping: who asks again has it tried again.
            if asked.task.done() and not asked.waiting and (late or not asked.keep or not _good(asked.task)):
                del self._asked[key]


async def _run(work: Callable[[], Awaitable[Answered]]) -> Answered:
    return await work()


def _good(task: asyncio.Task[Answered]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result().status < 400


def _key(request: web.Request, raw: bytes) -> bytes:
    whole = hashlib.sha256()
    for part in (request.method.encode(), request.raw_path.encode(), raw):
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.digest()
