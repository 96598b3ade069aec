"""Keeps looking whether the callers of open streams still may: one look per token a minute, however many streams it has.

A verdict that changed, or a token that ended, ends the streams; the client comes back with a new one and is judged anew. An
`identity.*` notice makes the look happen at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from vedette.engine.watch import Ended, Watcher
from vedette.errors import IdentityUnavailable, Unauthenticated
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.ports import Authenticator, Identity

log = logging.getLogger("vedette.api.rights")

EVERY_SECONDS = 60.0


class Rights:
    """See the module. `hold` is entered by every stream."""

    def __init__(self, authenticator: Authenticator, clock: Clock, every: float = EVERY_SECONDS) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._every = every
        self._held: dict[str, _Held] = {}

    @asynccontextmanager
    async def hold(self, identity: Identity, token: str, watcher: Watcher) -> AsyncIterator[None]:
        held = self._held.get(identity.key)
        if held is None:
            held = self._held[identity.key] = _Held(identity, token)
            held.now.set()  # rights may have changed since the gate asked, when nobody was here to be told
            held.task = asyncio.create_task(self._look(held), name=f"rights of {identity.name}")
        held.watchers.add(watcher)
        if identity.scope != held.identity.scope:
            # One of the two verdicts is old. This stream comes back and is judged anew; whether the others may stay is asked.
            watcher.end(Ended.REVOKED)
            held.now.set()
        try:
            yield
        finally:
            held.watchers.discard(watcher)
            if not held.watchers and self._held.get(identity.key) is held:
                del self._held[identity.key]
                if held.task is not None:
                    held.task.cancel()

    def look_now(self) -> None:
        """Verdicts were dropped: don't wait for the minute to pass."""
        for held in self._held.values():
            held.now.set()

    async def _look(self, held: _Held) -> None:
        while True:
            # (Not asyncio.wait_for: up to Python 3.11 it swallows a cancellation that comes as the waiting ends.)
            with suppress(TimeoutError):  # a minute has passed
                async with asyncio.timeout(self._until(held.identity)):
                    await held.now.wait()
            held.now.clear()
            try:
                identity = await self._authenticator.recheck(held.token)
            except (Unauthenticated, IdentityUnavailable):
                # Keystone down: the authenticator itself lets known tokens live on for a while; past that, deny.
                self._end(held)
                return
            except Exception:
                log.exception("the rights of open streams can't be looked at: they end")
                self._end(held)
                return
            if identity.scope != held.identity.scope:
                self._end(held)
                return
            held.identity = identity

    def _until(self, identity: Identity) -> float:
        """Seconds until the next look: a minute, or a moment after the token has ended, if that is sooner."""
        if not identity.expires_at:
            return self._every
        left = (identity.expires_at - self._clock.now_us()) / 1_000_000
        return min(self._every, max(left, 0.0) + 0.1)

    def _end(self, held: _Held) -> None:
        log.info("ended streams whose rights are over", extra=kv(caller=held.identity.name, streams=len(held.watchers)))
        self._held.pop(held.identity.key, None)
        for watcher in tuple(held.watchers):
            watcher.end(Ended.REVOKED)


class _Held:
    __slots__ = ("identity", "now", "task", "token", "watchers")

    def __init__(self, identity: Identity, token: str) -> None:
        self.identity = identity
        self.token = token
        self.watchers: set[Watcher] = set()
        self.now = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
