"""Open streams are looked at again: once a minute, and no later than their token ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vedette.api.rights import Rights
from vedette.engine.watch import Ended, Watcher
from vedette.errors import Unauthenticated
from vedette.kit.clock import SystemClock
from vedette.ports import EVERYTHING, Identity


class Keystone:
    """Knows one token, until `over`."""

    def __init__(self) -> None:
        self.on_forget: list[Callable[[], None]] = []
        self.over = False
        self.asked = asyncio.Event()

    async def identify(self, token: str) -> Identity:
        return await self.recheck(token)

    async def recheck(self, token: str) -> Identity:
        self.asked.set()
        if self.over:
            raise Unauthenticated("over")
        return Identity(name="x", scope=EVERYTHING, key="k")

    def forget(self, *, user: str = "", project: str = "") -> None: ...


class Stream:
    """What `hold` needs of a watcher."""

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self.gone = asyncio.Event()

    def end(self, why: Ended) -> None:
        self.ended = why
        self.gone.set()


async def hold(rights: Rights, identity: Identity, stream: Stream) -> None:
    watcher: Watcher = stream  # type: ignore[assignment]
    async with rights.hold(identity, "token", watcher):
        await stream.gone.wait()


async def test_a_stream_does_not_outlive_its_token_by_a_minute() -> None:
    keystone, stream, clock = Keystone(), Stream(), SystemClock()
    keystone.over = True
    identity = Identity(name="x", scope=EVERYTHING, key="k", expires_at=clock.now_us() + 50_000)
    async with asyncio.timeout(10):  # a minute would be too long
        await hold(Rights(keystone, clock), identity, stream)
    assert stream.ended is Ended.REVOKED


async def test_forgotten_verdicts_are_asked_for_at_once() -> None:
    keystone, stream = Keystone(), Stream()
    rights = Rights(keystone, SystemClock())
    holding = asyncio.create_task(hold(rights, Identity(name="x", scope=EVERYTHING, key="k"), stream))
    await asyncio.sleep(0)
    keystone.over = True
    rights.look_now()
    async with asyncio.timeout(10):
        await holding
    assert keystone.asked.is_set()
    assert stream.ended is Ended.REVOKED


async def test_rights_that_stay_keep_the_stream() -> None:
    keystone, stream = Keystone(), Stream()
    rights = Rights(keystone, SystemClock())
    holding = asyncio.create_task(hold(rights, Identity(name="x", scope=EVERYTHING, key="k"), stream))
    await asyncio.sleep(0)
    rights.look_now()
    async with asyncio.timeout(10):
        await keystone.asked.wait()
    await asyncio.sleep(0)
    assert stream.ended is None
    stream.gone.set()
    await holding
