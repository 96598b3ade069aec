"""From `basic_publish` to the byte at an HTTP watcher: 300 events a second, 100 watchers, RabbitMQ and a durable store between.

The service is `vedette serve` in a process of its own; publisher and watchers are two more. Each event carries the time at which
it was published; each watcher subtracts it when the line arrives. `python bench/latency.py [seconds]`
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import msgspec

from peers import BUILD, free_port
from vedette.testing.rabbit import Rabbit

RATE = 300
WATCHERS = 100
_SENT = re.compile(rb'"name":"sent-(\d+)"')


def publish(url: str, seconds: float) -> None:
    from vedette.testing.rabbit import Publisher

    publisher = Publisher(url)
    start = time.monotonic()
    for number in range(int(RATE * seconds)):
        pause = start + number / RATE - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        fields = {
            "id": str(uuid.UUID(int=number % 1000)), "name": f"sent-{time.time_ns()}", "status": "DOWN", "project_id": "p1",
            "network_id": str(uuid.uuid4()), "mac_address": "fa:16:3e:d8:7a:bf", "description": "x" * 700,
            "revision_number": number,
        }  # fmt: skip
        said = {
            "message_id": str(uuid.uuid4()), "publisher_id": "network.ctl", "event_type": "port.update.end", "priority": "INFO",
            "timestamp": "2026-11-20 15:18:30.420516", "payload": {"port": fields},
        }  # fmt: skip
        body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(said)}).encode()
        publisher._channel.basic_publish("neutron", "notifications.info", body)
        if number % 50 == 0:
            publisher._connection.process_data_events(0)
    publisher.close()


class Reader(asyncio.Protocol):
    def __init__(self, request: bytes, waits: list[int]) -> None:
        self._request, self._waits = request, waits
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.time_ns()
        data = self._rest + data
        at = 0
        for found in _SENT.finditer(data):
            self._waits.append(now - int(found[1]))
            at = found.end()
        self._rest = data[max(at, len(data) - 60) :]


def watch(port: int, seconds: float, result: multiprocessing.Queue[bytes], ready: object) -> None:
    async def main() -> None:
        waits: list[int] = []
        path = "/apis/openstack.vedette.dev/v1/ports?watch=1&allowWatchBookmarks=1"
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        for _ in range(WATCHERS):
            await loop.create_connection(lambda: Reader(request, waits), "127.0.0.1", port)
        await asyncio.sleep(1)
        ready.set()  # type: ignore[attr-defined]
        await asyncio.sleep(seconds + 3)
        result.put(msgspec.json.encode(waits))

    asyncio.run(main())


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        folder = Path(name).absolute()
        rabbit = Rabbit(folder / "rabbit")
        rabbit.start()
        port = free_port()
        try:
            publisher = rabbit.publisher()
            publisher.exchange("neutron")
            publisher.close()
            (folder / "vedette.yaml").write_text(
                f"listen: 127.0.0.1:{port}\ndata_dir: {folder / 'data'}\n"
                f"sources: [{{name: one, type: openstack, amqp: '{rabbit.url}', exchanges: [neutron]}}]\n"
            )
            with subprocess.Popen(
                [sys.executable, "-m", "vedette.cli", "serve", "--config", str(folder / "vedette.yaml")]
            ) as process:
                try:
                    _until_ready(port)
                    measure(port, rabbit.url, seconds)
                finally:
                    process.terminate()
        finally:
            rabbit.close()


def measure(port: int, url: str, seconds: float) -> None:
    result: multiprocessing.Queue[bytes] = multiprocessing.Queue()
    ready = multiprocessing.Event()
    watching = multiprocessing.Process(target=watch, args=(port, seconds, result, ready))
    watching.start()
    if not ready.wait(30):
        raise TimeoutError("the watchers don't get in")
    publishing = multiprocessing.Process(target=publish, args=(url, seconds))
    publishing.start()
    waits = sorted(msgspec.json.decode(result.get(timeout=seconds + 60)))
    publishing.join()
    watching.join()
    wanted = int(RATE * seconds) * WATCHERS
    print(
        f"publish to watcher, {RATE} events/s, {WATCHERS} watchers: {len(waits):,} of {wanted:,} arrived, "
        f"p50 {waits[len(waits) // 2] / 1e6:.1f} ms (wanted ≤ 5), "
        f"p99 {waits[len(waits) * 99 // 100] / 1e6:.1f} ms (wanted ≤ 25), "
        f"max {waits[-1] / 1e6:.0f} ms"
    )


def _until_ready(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("it does not start")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
