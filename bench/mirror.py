"""What a mirror costs: a full comparison of a large cloud with a front end that equals it, changes as they come, measurements.

The inventory is in SQLite, the (fake) front end is a process of its own on 127.0.0.1. The floor of a comparison is reading the
front end's lists, decoded and thrown away. Then a round of measurements of 1,000 servers: read, and put.
`python bench/mirror.py [stacks] [servers]`
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from vedette.clients.concertim import Concertim
from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.engine.inventory import StoredObjects
from vedette.engine.mirroring import Keeper
from vedette.errors import NotFound
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.meters import gnocchi
from vedette.mirrors.concertim import Options, build
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.model.sample import UNITS, Sample
from vedette.ports import Answer, Event, MeterNeeds, MirrorNeeds
from vedette.store.sqlite import SqliteStore
from vedette.testing.cloud import FakeCloud
from vedette.testing.concertim import PASSWORD, FakeConcertim
from vedette.testing.handling import FakeContext

CLOUD, PROJECT = "region-one", "1" * 32
ROUNDS, EVENTS, MEASURED, AT_A_TIME = 3, 2_000, 1_000, 10
ASKED = ("/aggregates", *(f"/search/resource/{one}" for one in ("instance", "instance_network_interface", "instance_disk")))


async def front_end() -> None:
    """The front end's process: says where it is, and is there until its stdin ends."""
    async with FakeConcertim() as front:
        front.add_team("a", PROJECT)
        print(front.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class Heat:
    """Of a `Cloud`, what the mirror asks."""

    def __init__(self, stacks: dict[str, list[str]]) -> None:
        self._stacks = stacks

    async def get(self, service: str, path: str, params: Sequence[tuple[str, str]] = (), microversion: str = "") -> Answer:
        _, _, _, id_, *more = path.split("/")
        if id_ not in self._stacks:
            raise NotFound(id_)
        rows = [
            {"resource_type": "OS::Nova::Server", "physical_resource_id": one, "creation_time": ""} for one in self._stacks[id_]
        ]
        return Answer(body={"resources": rows} if more else {"stack": {"parent": None, "outputs": []}}, as_of=0)


def entry(number: int, kind: str, fields: dict[str, Any], as_of: int) -> NewEntry:
    id_ = fields.pop("id")
    reading = Reading(kind=kind, id=id_, verb="create", as_of=as_of, project=PROJECT, fields=fields)
    notice = Notice(
        id=f"{kind}-{number:x}-{as_of:x}",
        source=CLOUD,
        event_type=f"{kind.lower()}.update",
        sent_at=as_of,
        payload=msgspec.Raw(b"{}"),
    )
    return NewEntry(notice, (reading,))


def ident(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def server(number: int, state: str = "active") -> dict[str, Any]:
    return {
        "id": ident(number),
        "name": f"node-{number}",
        "tenant_id": PROJECT,
        "OS-EXT-STS:vm_state": state,
        "OS-EXT-STS:task_state": None,
        "key_name": "key",
        "flavor": {"id": "f", "original_name": "m1", "vcpus": 1, "ram": 512, "disk": 1},
        "addresses": {"lan": [{"addr": "10.0.0.5", "version": 4}]},
    }


async def cloud(store: SqliteStore, stacks: int, servers: int) -> dict[str, list[str]]:
    """Fills the inventory; stack → its servers."""
    now = time.time_ns() // 1000
    found: dict[str, list[str]] = {ident(servers + number): [] for number in range(stacks)}
    entries = [entry(0, "Flavor", {"id": "f", "name": "m1", "vcpus": 1, "ram": 512, "disk": 1}, now)]
    names = list(found)
    for number in range(servers):
        entries.append(entry(number, "Server", server(number), now))
        found[names[number % stacks]].append(ident(number))
        port = {"id": ident(servers * 2 + number), "device_id": ident(number), "network_id": "n", "mac_address": "fa:16:3e:0:0:1"}
        entries.append(entry(number, "Port", port, now))
    for number, id_ in enumerate(names):
        fields = {"id": id_, "stack_name": f"stack_{number}", "stack_status": "CREATE_COMPLETE", "project": PROJECT}
        entries.append(entry(number, "Stack", fields, now))
    for start in range(0, len(entries), 500):
        await store.append(entries[start : start + 500])
    return found


async def main(stacks: int, servers: int) -> None:
    look_for_cycles_seldom()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "front-end", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    url = (await process.stdout.readline()).decode().strip()
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
        store = await SqliteStore.open(Path(folder), SystemClock())
        members = await cloud(store, stacks, servers)
        keeper = Keeper("racks", store, SystemClock())
        await keeper.load()
        clock, heat, telemetry = SystemClock(), Heat(members), Telemetry()

        async def never(key: Key) -> bool:
            return False

        needs = MirrorNeeds(
            name="racks",
            clock=clock,
            telemetry=telemetry,
            inventory=StoredObjects(store),
            source=lambda name: CLOUD,
            cloud=lambda name: heat,  # type: ignore[arg-type,return-value]
            absent=never,
            keep=keeper.keep,
            keep_only=keeper.keep_only,
            recall=keeper.recall,
            remember=keeper.remember,
        )
        mirror = build(Options(url=url, password=Secret(PASSWORD), timeout=60.0), needs)
        began = time.perf_counter()
        done = await mirror.compare()
        took = time.perf_counter() - began
        print(f"{stacks} stacks, {servers} servers, an empty front end: {done.created} made in {took:.1f} s", flush=True)
        times, writes = [], 0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            done = await mirror.compare()
            times.append(time.perf_counter() - began)
            writes += done.created + done.changed + done.removed
        compared = statistics.median(times)
        floors = []
        plain = Concertim(url, "admin", Secret(PASSWORD), clock, timeout=60.0)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for path in ("teams", "templates", "racks", "devices"):
                await plain.rows(f"/api/v1/{path}")
            floors.append(time.perf_counter() - began)
        await plain.close()
        floor = statistics.median(floors)
        print(
            f"a comparison with nothing to change: {compared:.2f} s, {writes} writes; its lists alone {floor:.2f} s "
            f"({compared / floor:.1f} times that)"
        )
        now = time.time_ns() // 1000 + 1
        events = min(EVENTS, servers)
        for start in range(0, events, 500):
            some = range(start, min(start + 500, events))
            await store.append([entry(number, "Server", server(number, "stopped"), now) for number in some])
        turn = asyncio.Semaphore(AT_A_TIME)
        said: list[str | None] = []

        notice = Notice(id="x", source=CLOUD, event_type="x", sent_at=now, payload=msgspec.Raw(b"{}"))
        plain_event = Event(
            handler="racks", idempotency_key="x", revision=1, attempt=1, verb="MODIFIED", key=None, notice=notice, appended_at=now
        )

        async def one(number: int) -> None:
            async with turn:
                event = msgspec.structs.replace(plain_event, key=Key(CLOUD, OPENSTACK, "Server", ident(number)))
                said.append(await mirror.handle(event, FakeContext()))

        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(events)))
        took = time.perf_counter() - began
        changed = sum(words is not None and words.startswith("changed device") for words in said)
        print(f"{events} changes of servers: {events / took:.0f}/s, {changed} PATCHes, each told to the log")
        measured = min(MEASURED, servers)
        samples = [Sample(ident(number), PROJECT, name, 12.5) for number in range(measured) for name in UNITS]
        began = time.perf_counter()
        pushed = await mirror.push(samples)
        took = time.perf_counter() - began
        print(f"measurements of {measured} servers: {pushed.sent} PUTs in {took:.2f} s ({pushed.sent / took:.0f}/s)")
        await mirror.close()
        await store.close()
    process.stdin.close()
    await process.wait()
    await gnocchi_round(MEASURED)


async def gnocchi_round(servers: int) -> None:
    """All that a round reads; the (fake) Gnocchi is in this process, so what it takes itself counts too."""
    async with FakeCloud(SystemClock()) as fake:
        fake.metric.in_catalog = True
        now = time.time_ns() // 1000
        point = [(now - 60_000_000, 6e9)]
        for _ in range(servers):
            id_ = fake.metric.resource("instance", "", project_id=PROJECT)
            parts = {
                fake.metric.resource("instance_network_interface", "", project_id=PROJECT, instance_id=id_): (
                    "network.incoming.bytes", "network.outgoing.bytes",
                ),
                fake.metric.resource("instance_disk", "", project_id=PROJECT, instance_id=id_): (
                    "disk.device.read.bytes", "disk.device.write.bytes", "disk.device.read.requests",
                    "disk.device.write.requests",
                ),
                id_: ("cpu",),
            }  # fmt: skip
            for resource, names in parts.items():
                for name in names:
                    fake.metric.measured(resource, name, point, policy="concertim-rate", how="rate:mean")
            for name in ("memory", "memory.usage"):
                fake.metric.measured(id_, name, point, policy="concertim-rate")
        cloud = OpenStackCloud(credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry())
        needs = MeterNeeds(name="m", clock=SystemClock(), telemetry=Telemetry(), cloud=lambda name: cloud)
        meter = gnocchi.build(gnocchi.Options(), needs)
        times = []
        for _ in range(ROUNDS):
            before = sum(fake.count("metric", path) for path in ASKED)
            began = time.perf_counter()
            found = await meter.samples((PROJECT,), now, 60, per_vcpu=False)
            times.append(time.perf_counter() - began)
            asked = sum(fake.count("metric", path) for path in ASKED) - before
        await cloud.close()
    print(
        f"Gnocchi: {len(found.samples)} values of {found.servers} servers in {statistics.median(times):.2f} s, {asked} requests"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["front-end"]:
        uvloop.run(front_end())
    else:
        uvloop.run(main(*(int(word) for word in (sys.argv[1:] + ["2000", "20000"][len(sys.argv) - 1 :]))))
