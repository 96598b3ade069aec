"""An API with hooks, over real HTTP, for tests: its store and what takes the news can be unwell, slow, or die.

Run as a program (`python hooking.py FOLDER`) it is a process of its own on a store on disk, with one hook for Aodh; where FOLDER
has a file `die`, it kills itself between the append and the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from vedette import plugins
from vedette.api.auth import NoneAuthenticator
from vedette.api.hooks import Hook
from vedette.api.rights import Rights
from vedette.api.server import Needs, Server, build
from vedette.api.tickets import Tickets
from vedette.engine.dispatch import Dispatch
from vedette.engine.ingest import Ingest
from vedette.engine.resync import Resync
from vedette.engine.verify import Verify
from vedette.engine.watch import Hub, Limits
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.secret import Secret
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.ports import Appended, Authenticator, Offer, Store
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore
from vedette.testing.clock import FakeClock

SECONDS = 30.0
"""Until a wait counts as broken."""
TOKEN = "a-token-of-its-own"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def hook(format: str, name: str = "one", *, options: Any = None, **auth: Any) -> Hook:
    """A hook with the token above, if nothing else is said."""
    module = plugins.load("webhooks", format)
    return Hook(name=name, format=format, webhook=module.build(options or module.Options()), **(auth or {"token": Secret(TOKEN)}))


class Place:
    """A started API, and its client."""

    def __init__(self, url: str, store: Store, telemetry: Telemetry, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.store = store
        self.telemetry = telemetry
        self.session = session

    async def send(
        self, path: str, body: bytes | str | AsyncIterator[bytes] = b"", *, method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body). Header names with `_` for `-`; without any, the hook's token."""
        named = {name.replace("_", "-"): value for name, value in headers.items()} or BEARER
        data = body.encode() if isinstance(body, str) else body
        async with asyncio.timeout(SECONDS), self.session.request(method, self.url + path, data=data, headers=named) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def log(self) -> list[Appended]:
        """Every entry there is."""
        found, _ = await self.store.entries(self.store.oldest)
        return list(found)

    def count(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"vedette_{name}", labels) or 0.0


@asynccontextmanager
async def hooked(
    *hooks: Hook,
    store: Store | None = None,
    authenticator: Authenticator | None = None,
    offer: Callable[[Offer], Offer] = lambda offer: offer,
    clock: Clock | None = None,
    port: int = 0,
) -> AsyncIterator[Place]:
    """`offer`: what stands before the engine's own."""
    clock = clock or FakeClock()
    telemetry, kinds = Telemetry(), plugins.kinds()
    store = store or MemoryStore(clock)
    authenticator = authenticator or NoneAuthenticator()
    ingest = Ingest(store, kinds, telemetry)
    hub = Hub(store, Limits(), telemetry)
    needs = Needs(
        store=store,
        hub=hub,
        resync=Resync(store, ingest.record, kinds, {}, clock, telemetry, connected=lambda _name: True),
        verify=Verify(store, ingest.record, kinds, {}, hub.followed, clock, telemetry),
        dispatch=Dispatch(store, [], kinds, clock, telemetry),
        kinds=kinds,
        clock=clock,
        telemetry=telemetry,
        rights=Rights(authenticator, clock, 60.0),
        tickets=Tickets(clock),
        sources=lambda: [],
        source_names=tuple(one.name for one in hooks),
        default_source="",
        hooks={one.name: one for one in hooks},
        offer=offer(ingest.offer),
    )
    server = Server(build(needs, authenticator), listen=[("127.0.0.1", port)], tls=None)
    running = asyncio.create_task(hub.run())
    await server.start()
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            yield Place(f"http://127.0.0.1:{server.addresses[0][1]}", store, telemetry, session)
    finally:
        hub.close()
        await server.stop()
        await cancel(running)
        await store.close()


async def serve(folder: Path) -> None:
    """Until it is killed. Says its port on standard output."""
    clock = SystemClock()

    def dying(offer: Offer) -> Offer:
        async def offered(notices: Any) -> None:
            await offer(notices)
            if (folder / "die").exists():
                os.kill(os.getpid(), signal.SIGKILL)

        return offered

    store = await SqliteStore.open(folder / "store", clock)
    async with hooked(hook("aodh"), store=store, clock=clock, offer=dying) as place:
        print(place.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
