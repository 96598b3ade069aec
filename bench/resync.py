"""What a resync of a large cloud costs: 100,000 ports over HTTP into SQLite, then the same again when nothing has changed.

The cloud (testing/cloud.py) runs in a process of its own; ours lists with the real client, folds, compares. Printed: seconds, CPU
of our process, entries, memory; and beside it the floor: the same pages fetched and decoded by openstacksdk's own connection, and
nothing else. `python bench/resync.py [ports]`
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peers import resident_bytes
from vedette import plugins
from vedette.config import load_text
from vedette.engine.ingest import Ingest
from vedette.engine.resync import Resync
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.sources.openstack import cloud_use
from vedette.store.sqlite import SqliteStore
from vedette.testing.cloud import FakeCloud


def serve(ports: int, pipe: Connection) -> None:
    """The cloud's process."""

    async def run() -> None:
        async with FakeCloud(SystemClock()) as cloud:
            cloud.ports(ports, device_id="vm", device_owner="compute:nova")
            pipe.send(cloud.credentials())
            while not pipe.poll():
                await asyncio.sleep(0.1)

    asyncio.run(run())


async def measure(credentials: dict[str, Any], ports: int, folder: Path) -> None:
    clock, telemetry = SystemClock(), Telemetry()
    api = {**credentials, "resync": "0s"}
    source = {"name": "big", "type": "openstack", "amqp": "amqp://localhost", "api": api}
    settings = load_text(json.dumps({"sources": [source]}), {})
    use = cloud_use(settings.sources[0].options, clock=clock, telemetry=telemetry)
    assert use is not None
    floor = await fetched(use.cloud, ports, os.getpid())
    store = await SqliteStore.open(folder, clock)
    port = next(kind for kind in plugins.kinds() if kind.singular == "port")
    ingest = Ingest(store, [port], telemetry)
    resync = Resync(store, ingest.record, [port], {"big": use}, clock, telemetry)
    before = resident_bytes(os.getpid())
    task = asyncio.create_task(resync.run("big"))
    for what in ("all of them new", "nothing has changed"):
        began, cpu, head = time.perf_counter(), time.process_time(), store.head
        lag = asyncio.create_task(longest_pause())
        (report,) = await resync.ask("big")
        lag.cancel()
        took, used = time.perf_counter() - began, time.process_time() - cpu
        assert report.state == "done", report
        assert report.listed >= ports, report
        print(
            f"{what}: {report.listed:,} listed in {took:.1f} s, {used:.1f} s of CPU ({used / ports * 1e6:.0f} µs an object, "
            f"{used / floor:.1f} × fetching alone), {store.head - head:,} entries, "
            f"{(resident_bytes(os.getpid()) - before) / 1e6:.0f} MB more, the loop waited {pauses[0] * 1000:.0f} ms at the most"
        )
    await cancel(task)
    resync.close()
    await store.close()
    await use.cloud.close()


pauses = [0.0]


async def longest_pause() -> None:
    """How long the event loop kept others waiting, at the most."""
    pauses[0] = 0.0
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        pauses[0] = max(pauses[0], time.perf_counter() - began - 0.001)


async def fetched(cloud: Any, ports: int, pid: int) -> float:
    """CPU seconds for the pages alone."""
    await cloud.account()
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    async for page in cloud.pages("network", "/ports", "ports", [("sort_key", "id"), ("sort_dir", "asc")]):
        count += len(page.items)
    assert count >= ports
    used = time.process_time() - cpu
    print(f"fetching alone: {count:,} in {time.perf_counter() - began:.1f} s, {used:.1f} s of CPU")
    return used


def main(ports: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    cloud = multiprocessing.get_context("spawn").Process(target=serve, args=(ports, theirs))
    cloud.start()
    try:
        credentials = ours.recv()
        look_for_cycles_seldom()  # as the service does
        with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
            asyncio.run(measure(credentials, ports, Path(folder)))
    finally:
        ours.send("stop")
        cloud.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
