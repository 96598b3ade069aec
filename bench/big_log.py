"""A big log: start with 1,000,000 entries and 100,000 objects of 2.5 KB, then list all of them.

Builds the store once (minutes), starts `vedette serve` on it and waits for /readyz, looks at its memory, then streams the list.
`python bench/big_log.py [entries] [objects]`
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import msgspec

from peers import BUILD, free_port, resident_bytes
from vedette.kit.clock import SystemClock
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.store.sqlite import SqliteStore

BODY = "x" * 1_900


async def build(folder: Path, entries: int, objects: int) -> None:
    store = await SqliteStore.open(folder, SystemClock())
    start = time.perf_counter()
    for at in range(0, entries, 1_000):
        await store.append([_port(number, objects) for number in range(at, min(at + 1_000, entries))])
        if at % 100_000 == 0:
            print(f"  {at:,} of {entries:,} entries", file=sys.stderr, flush=True)
    print(f"built in {time.perf_counter() - start:.0f} s, {store.size() / 1e9:.1f} GB", file=sys.stderr)
    await store.close()


def _port(number: int, objects: int) -> NewEntry:
    fields = {
        "name": f"port-{number}",
        "status": "ACTIVE",
        "network_id": "82aab99f-4962-46ed-8803-3b17329662fc",
        "fixed_ips": [{"subnet_id": "0418608b-f144-4239-916b-9a9312909c06", "ip_address": "10.77.0.18"}],
        "description": BODY,
    }
    when = 1_763_000_000_000_000 + number
    notice = Notice(
        id=f"n-{number}", source="big", event_type="port.update.end", sent_at=when, payload=msgspec.Raw(b'{"port":{}}')
    )
    said = Reading(
        kind="Port", id=f"fe19ac40-9443-4431-9d4c-{number % objects:012x}", verb="update", as_of=when, project=f"p{number % 50}",
        fields=fields, admin={"binding:host_id": "host-1"},
    )  # fmt: skip
    return NewEntry(notice, (said,))


def main(entries: int, objects: int) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        folder = Path(name)
        asyncio.run(build(folder / "data", entries, objects))
        starts, memory, rates, grown = [], [], [], []
        for _ in range(3):
            port = free_port()
            (folder / "nothing.jsonl").touch()
            (folder / "vedette.yaml").write_text(
                f"listen: 127.0.0.1:{port}\ndata_dir: {folder.absolute() / 'data'}\nretention: {{max_age: 3650d, max_bytes: 0}}\n"
                "sources: [{name: big, type: replay, path: nothing.jsonl}]\n"
            )
            begun = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, "-m", "vedette.cli", "serve", "--config", str(folder / "vedette.yaml")]
            ) as process:
                try:
                    while not _ready(port):
                        time.sleep(0.02)
                        if process.poll() is not None or time.perf_counter() - begun > 60:
                            raise RuntimeError("it does not start")
                    starts.append(time.perf_counter() - begun)
                    memory.append(resident_bytes(process.pid) / 1e6)
                    size, seconds = _list(port)
                    rates.append(size / seconds / 1e6)
                    grown.append(resident_bytes(process.pid) / 1e6 - memory[-1])
                finally:
                    process.terminate()
        print(
            f"start with {entries:,} entries, {objects:,} objects: ready after {statistics.median(starts):.2f} s (wanted ≤ 5), "
            f"{statistics.median(memory):.0f} MB (wanted ≤ 400)"
        )
        print(
            f"list {objects:,} objects, {size / 1e6:.0f} MB: {statistics.median(rates):.0f} MB/s (wanted ≥ 50), "
            f"memory grew by {statistics.median(grown):.0f} MB"
        )


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _list(port: int) -> tuple[int, float]:
    start = time.perf_counter()
    size = 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/apis/openstack.vedette.dev/v1/ports", timeout=120) as answer:
        while part := answer.read(1 << 20):
            size += len(part)
    return size, time.perf_counter() - start


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(numbers[0] if numbers else 1_000_000, numbers[1] if len(numbers) > 1 else 100_000)
