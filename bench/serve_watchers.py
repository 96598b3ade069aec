"""A server whose news is made on command: the process that bench/fanout.py measures.

The store is in memory (fan-out is what is measured, not the disk), everything else is the real thing: tokens, project scope,
the hub, aiohttp. On stdin: `go N` appends N changes of one port, each when the one before was written to every watcher, and
prints how long that took. On stdout first: the port.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
import uvloop

from vedette import plugins
from vedette.api.auth import StaticToken, TokensAuthenticator
from vedette.api.rights import Rights
from vedette.api.server import Needs, Server, build
from vedette.api.tickets import Tickets
from vedette.engine.dispatch import Dispatch
from vedette.engine.ingest import Ingest
from vedette.engine.resync import Resync
from vedette.engine.verify import Verify
from vedette.engine.watch import Hub, Limits
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.store.memory import MemoryStore

TOKEN = "bench-token-of-one-project"
PROJECT = "e1f65416a4774cd380649215b9f46e17"


def change(number: int, size: int) -> NewEntry:
    """A port whose event line is about `size` bytes and holds exactly one `^`."""
    fields = {"name": f"port-{number}", "status": "ACTIVE", "description": "^" + "x" * max(0, size - 560)}
    notice = Notice(id=str(number), source="s", event_type="port.update.end", sent_at=10**15 + number, payload=msgspec.Raw(b"{}"))
    said = Reading(
        kind="Port", id="fe19ac40-9443-4431-9d4c-08460ed0b3d6", verb="update", as_of=10**15 + number, project=PROJECT,
        fields=fields,
        admin={"binding:host_id": "host-1"},
    )  # fmt: skip
    return NewEntry(notice, (said,))


async def main(size: int) -> None:
    clock, telemetry = SystemClock(), Telemetry()
    store = MemoryStore(clock)
    hub = Hub(store, Limits(max_watchers=50_000, bookmark_seconds=15.0), telemetry)
    token = StaticToken(token=Secret(TOKEN), name="bench", projects=(PROJECT,), roles=("member",))
    authenticator = TokensAuthenticator((token,), admin_roles=("admin",))
    kinds = plugins.kinds()
    ingest = Ingest(store, kinds, telemetry)
    needs = Needs(
        store=store, hub=hub, kinds=kinds, clock=clock, telemetry=telemetry, rights=Rights(authenticator, clock),
        resync=Resync(store, ingest.record, kinds, {}, clock, telemetry, connected=lambda _name: True),
        verify=Verify(store, ingest.record, kinds, {}, hub.followed, clock, telemetry),
        dispatch=Dispatch(store, [], kinds, clock, telemetry),
        tickets=Tickets(clock), sources=lambda: [], source_names=("s",), default_source="s", max_streams=50_000,
    )  # fmt: skip
    server = Server(build(needs, authenticator), listen=[("127.0.0.1", 0)], tls=None)
    broadcasting = asyncio.create_task(hub.run())
    await asyncio.sleep(0)
    await server.start()
    await store.append([change(0, size)])
    print(server.addresses[0][1], flush=True)
    number = 0
    while (line := await asyncio.to_thread(sys.stdin.readline)).startswith("go"):
        start = time.perf_counter()
        for _ in range(int(line.split()[1])):
            number += 1
            await store.append([change(number, size)])
            while hub.served < store.head:
                await asyncio.sleep(0)
        print(f"{time.perf_counter() - start:.6f}", flush=True)
    await server.stop()
    broadcasting.cancel()


if __name__ == "__main__":
    look_for_cycles_seldom()
    uvloop.run(main(int(sys.argv[1])))  # as `vedette serve` does
