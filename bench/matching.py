"""Matching one event against 10,000 watchers: 500 projects, 20 distinct selectors, one in ten sees all projects.

Prints µs per event: finding the groups and encoding their lines (what the broadcaster does before it writes), and how many
watchers matched. No peer: the goal is absolute (≤ 50 µs). `python bench/matching.py [watchers]`
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time

import msgspec

from vedette.engine.watch import ChangeFeed, Form, Hub, Limits, Watcher
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Reading
from vedette.model.selector import parse
from vedette.ports import EVERYTHING, Appended, Scope, Selection
from vedette.store.memory import MemoryStore

PROJECTS = 500
SELECTORS = ["", *[f"status.network_id=net-{n}" for n in range(19)]]


class Nowhere:
    """A transport that takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...


async def drained() -> None: ...


def form() -> Form:
    return Form(
        "json",
        lambda verb, key, body: b'{"type":"%b","object":%b}\n' % (verb.encode(), body),
        lambda revision, end: b'{"type":"BOOKMARK","rv":"%d"}\n' % revision,
    )


def port(number: int, project: str, network: int) -> NewEntry:
    fields = {
        "name": f"port-{number}",
        "network_id": f"net-{network}",
        "status": "ACTIVE",
        "mac_address": "fa:16:3e:d8:7a:bf",
        "fixed_ips": [{"subnet_id": "0418608b-f144-4239-916b-9a9312909c06", "ip_address": "10.77.0.18"}],
        "description": "x" * 800,
    }
    notice = Notice(id=str(number), source="s", event_type="port.update.end", sent_at=10**15 + number, payload=msgspec.Raw(b"{}"))
    said = Reading(
        kind="Port", id=f"port-{number}", verb="update", as_of=10**15 + number, project=project, fields=fields,
        admin={"binding:host_id": "host-1", "binding:profile": {}},
    )  # fmt: skip
    return NewEntry(notice, (said,))


async def main(watchers: int) -> None:
    rng = random.Random(1)
    store = MemoryStore(SystemClock())
    hub = Hub(store, Limits(max_watchers=watchers), Telemetry())
    one_form = form()
    for number in range(watchers):
        scope = EVERYTHING if number % 10 == 0 else Scope(projects=frozenset({f"project-{number % PROJECTS}"}))
        selector = parse("", SELECTORS[rng.randrange(len(SELECTORS))] if number % 3 else "")
        feed = ChangeFeed(Selection(scope, OPENSTACK, "Port"), selector, one_form)
        hub._join(Watcher(feed, Nowhere(), drained, chunked=True, bookmarks=True, owner=str(number)))
    seen: list[Appended] = []
    store.follow(seen.extend)
    for number in range(500):
        await store.append([port(number, f"project-{rng.randrange(PROJECTS)}", rng.randrange(19))])
    rounds = []
    matched = 0
    for _ in range(5):
        matched = 0
        start = time.perf_counter()
        for appended in seen:
            pending: dict = {}  # type: ignore[type-arg]
            hub.match(appended, pending)
            matched += sum(len(group.live) for group in pending)
        rounds.append((time.perf_counter() - start) / len(seen) * 1e6)
    print(
        f"matching: {statistics.median(rounds):.1f} µs an event (min {min(rounds):.1f}, max {max(rounds):.1f}) against "
        f"{watchers} watchers in {len(hub._groups)} groups; {matched / len(seen):.0f} match; goal ≤ 50"
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
