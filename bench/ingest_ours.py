"""One consumer for bench/ingest.py: the whole path, source to fsync, until `count` messages are acknowledged. Prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from vedette import plugins
from vedette.engine.ingest import Ingest
from vedette.engine.watch import Hub, Limits
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import GAP, Notice
from vedette.sources.openstack import Options, QueueOptions, build
from vedette.store.sqlite import SqliteStore


async def main(url: str, count: int, kind: str, folder: Path) -> None:
    clock, telemetry = SystemClock(), Telemetry()
    store = await SqliteStore.open(folder, clock)
    ingest = Ingest(store, plugins.kinds(), telemetry)
    hub = Hub(store, Limits(), telemetry)
    broadcasting = asyncio.create_task(hub.run())
    source = build(
        Options(name="bench", amqp=(url,), exchanges=("nova",), topics=("notifications",), queue=QueueOptions(type=kind)),
        clock=clock, telemetry=telemetry,
    )  # fmt: skip
    seen = size = offers = 0
    begun: list[float] = []
    done = asyncio.Event()

    async def offer(notices: list[Notice]) -> None:
        nonlocal seen, size, offers
        if not begun:
            begun.extend((time.perf_counter(), time.process_time()))
        await ingest.offer(notices)
        offers += 1
        seen += sum(1 for notice in notices if notice.event_type != GAP)
        size += sum(len(notice.payload) for notice in notices)
        if seen >= count:
            done.set()

    running = asyncio.create_task(source.run(offer))
    await asyncio.wait_for(done.wait(), 280)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    stats = await store.stats()
    assert stats.entries >= count, f"{stats.entries} of {count} in the log"
    print(
        json.dumps(
            {
                "rate": count / wall,
                "cpu": cpu / count * 1e6,
                "bytes": size / count,
                "entries": stats.entries,
                "batch": count / offers,
            }
        )
    )
    broadcasting.cancel()
    await store.close()


if __name__ == "__main__":
    look_for_cycles_seldom()
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
