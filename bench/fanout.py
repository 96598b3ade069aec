"""Fan-out: one event a write to 100, 1,000 and 10,000 watchers, beside nginx + nchan and etcd's gateway, interleaved.

Every watcher gets every event (the drain counts them), with a token and a project scope on our side. Prints medians and the
ratios of each round; CPU is the serving process's. `python bench/fanout.py [rounds]`
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import (
    Drain,
    cpu_seconds,
    etcd,
    nchan,
    publish_etcd,
    publish_nchan,
    resident_bytes,
    watch_etcd_body,
)
from serve_watchers import TOKEN

SIZE = 1_000
EVENTS = {100: 1_500, 1_000: 200, 10_000: 20}
ETCD_EVENTS = 20
LINE = b'{"type":"MODIFIED","object":{"metadata":{}},"padding":"^' + b"x" * (SIZE - 59) + b'"}\n'
PATH = "/apis/openstack.vedette.dev/v1/ports?watch=true&allowWatchBookmarks=true&resourceVersion={}"


class Ours:
    def __init__(self) -> None:
        here = Path(__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, str(here / "serve_watchers.py"), str(SIZE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go(self, events: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"go {events}\n")
        self.process.stdin.flush()
        return float(self._line())

    def head(self) -> str:
        import json
        import urllib.request

        address = f"http://127.0.0.1:{self.port}/apis/openstack.vedette.dev/v1/ports?limit=1"
        with urllib.request.urlopen(urllib.request.Request(address, headers={"X-Auth-Token": TOKEN})) as answer:
            return str(json.load(answer)["metadata"]["resourceVersion"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


def measure_ours(drain: Drain, watchers: int) -> tuple[float, float, float]:
    """(deliveries a second, µs of CPU a delivery, KB of memory a watcher)"""
    ours = Ours()
    try:
        before = resident_bytes(ours.process.pid)
        reader = drain.start(ours.port, watchers, EVENTS[watchers], "^", PATH.format(ours.head()), f"X-Auth-Token: {TOKEN}")
        held = (resident_bytes(ours.process.pid) - before) / watchers / 1024
        cpu = cpu_seconds(ours.process.pid)
        ours.go(EVENTS[watchers])
        seconds, events, _ = Drain.finish(reader)
        return events / seconds, (cpu_seconds(ours.process.pid) - cpu) / events * 1e6, held
    finally:
        ours.close()


def measure_nchan(drain: Drain, watchers: int, folder: Path) -> tuple[float, float, float]:
    with nchan(folder) as (port, pid):
        before = resident_bytes(pid)
        reader = drain.start(port, watchers, EVENTS[watchers], "^", "/sub")
        held = (resident_bytes(pid) - before) / watchers / 1024
        cpu = cpu_seconds(pid)
        publish_nchan(port, LINE, EVENTS[watchers])
        seconds, events, _ = Drain.finish(reader)
        return events / seconds, (cpu_seconds(pid) - cpu) / events * 1e6, held


def measure_etcd(drain: Drain, watchers: int, folder: Path) -> tuple[float, float, float]:
    with etcd(folder) as (port, pid):
        before = resident_bytes(pid)
        reader = drain.start(port, watchers, ETCD_EVENTS, "=", "/v3/watch", body=watch_etcd_body())
        held = (resident_bytes(pid) - before) / watchers / 1024
        cpu = cpu_seconds(pid)
        publish_etcd(port, LINE, ETCD_EVENTS)
        seconds, events, _ = Drain.finish(reader)
        return events / seconds, (cpu_seconds(pid) - cpu) / events * 1e6, held


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        folder = Path(name)
        drain = Drain(folder)
        for watchers, goal in ((100, 0.65), (1_000, 0.85), (10_000, 0.85)):
            ours, theirs, cloud = [], [], []
            for _ in range(rounds):
                ours.append(measure_ours(drain, watchers))
                theirs.append(measure_nchan(drain, watchers, folder / "nchan"))
                if watchers == 1_000:
                    cloud.append(measure_etcd(drain, watchers, folder / "etcd"))
            show(f"fan-out, {watchers} watchers", ours, theirs, "nchan", goal)
            if cloud:
                show(f"fan-out, {watchers} watchers", ours, cloud, "etcd gateway", 5)


def show(
    what: str, ours: list[tuple[float, float, float]], theirs: list[tuple[float, float, float]], peer: str, goal: float
) -> None:
    ratios = [mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True)]
    cpu = [mine[1] / other[1] for mine, other in zip(ours, theirs, strict=True)]
    middle = [[statistics.median(one[i] for one in some) for i in range(3)] for some in (ours, theirs)]
    print(
        f"{what}: {middle[0][0]:,.0f} deliveries/s, {middle[0][1]:.1f} µs CPU, {middle[0][2]:.1f} KB a watcher | "
        f"{peer}: {middle[1][0]:,.0f}/s, {middle[1][1]:.1f} µs, {middle[1][2]:.1f} KB | "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}; wanted ≥ {goal}), "
        f"CPU ratio {statistics.median(cpu):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
