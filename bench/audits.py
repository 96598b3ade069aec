"""What audits cost: from an alarm to its plan over HTTP, and the snapshot of a large cloud while ingest goes on.

An alarm: `vedette serve` with SQLite and a (fake) Keystone that says whose token it is; each alarm is a POST on the webhook's
port, and watches of audits and plans tell when the run began and when its plan was there. A snapshot: 1,000 hosts and 100,000
servers in SQLite, built in the process that strategies run in; beside it the same ingest with and without snapshots being built
all the time.
`python bench/audits.py [alarms] [servers]`
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop
import yaml

from messages import bodies
from peers import BUILD, free_port
from vedette import plugins
from vedette.engine.advising import Advising
from vedette.engine.ingest import Ingest
from vedette.engine.worker import WorkerProcess
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import WorkerCode
from vedette.sources.openstack import decode
from vedette.store.sqlite import SqliteStore
from vedette.testing.cloud import FakeCloud

ROUNDS, NOTICES, BATCH = 3, 20_000, 250
GOALS = {"answered": 20, "run begun": 50, "plan there": 250}
"""Milliseconds, of 99 in 100."""


# --- alarms ----------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def service(folder: Path, cloud: FakeCloud) -> AsyncIterator[tuple[str, str]]:
    """The addresses of the whole API and of Watcher's."""
    main, face = free_port(), free_port()
    (folder / "nothing.jsonl").touch()
    settings = {
        "listen": f"127.0.0.1:{main}",
        "data_dir": str(folder / "alarms"),
        "auth": {"mode": "keystone", "keystone": cloud.credentials("admin")},
        "sources": [{"name": "region-one", "type": "replay", "path": "nothing.jsonl"}],
        "audits": {},
        "faces": {"infra_optim": {"listen": f"127.0.0.1:{face}"}},
    }
    (folder / "vedette.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "serve.log").open("wb") as output:
        command = ("-m", "vedette.cli", "serve", "--config", str(folder / "vedette.yaml"))
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=output)
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{main}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                if process.returncode is not None:
                    raise RuntimeError((folder / "serve.log").read_text())
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{main}", f"http://127.0.0.1:{face}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def alarms(folder: Path, count: int) -> None:
    async with FakeCloud(SystemClock()) as cloud, service(folder, cloud) as (main, face):
        token = {"X-Auth-Token": cloud.token("admin"), "OpenStack-API-Version": "infra-optim latest"}
        took: dict[str, list[float]] = {name: [] for name in GOALS}
        async with aiohttp.ClientSession(headers=token) as session:
            audit = {"name": "alarmed", "audit_type": "EVENT", "goal": "dummy", "strategy": "dummy"}
            async with session.post(f"{face}/v1/audits", json=audit) as answer:
                assert answer.status == 201, await answer.text()
            heard: asyncio.Queue[tuple[str, dict[str, Any], float]] = asyncio.Queue()
            watches = [asyncio.create_task(watch(session, main, kind, heard)) for kind in ("audits", "actionplans")]
            try:
                await asyncio.sleep(0.5)
                for number in range(count + 5):
                    while not heard.empty():
                        heard.get_nowait()
                    one = await an_alarm(session, face, number, heard)
                    if number >= 5:  # the first ones load what the process of the strategies needs
                        for name, seconds in one.items():
                            took[name].append(seconds * 1000)
                    await asyncio.sleep(0.02)
            finally:
                for task in watches:
                    task.cancel()
                await asyncio.gather(*watches, return_exceptions=True)
        for name, wanted in GOALS.items():
            sorted_ = sorted(took[name])
            last = sorted_[math.ceil(len(sorted_) * 0.99) - 1]
            print(
                f"{len(sorted_)} alarms → {name}: median {statistics.median(sorted_):.1f} ms, 99 in 100 within {last:.1f} ms "
                f"(wanted ≤ {wanted})"
            )


async def an_alarm(
    session: aiohttp.ClientSession, face: str, number: int, heard: asyncio.Queue[tuple[str, dict[str, Any], float]]
) -> dict[str, float]:
    """Seconds until each of `GOALS`. It ends when the audit does."""
    found: dict[str, float] = {}
    alarm = {"alarm_id": f"a-{number}", "current": "alarm"}
    begun = time.perf_counter()
    async with session.post(f"{face}/v1/webhooks/alarmed", json=alarm) as answer:
        assert answer.status == 202, await answer.text()
    found["answered"] = time.perf_counter() - begun
    over = False
    async with asyncio.timeout(20):
        while not over or "plan there" not in found:
            kind, status, at = await heard.get()
            if kind == "actionplans" and status["trigger"][0]["alarm"] == alarm:
                found.setdefault("plan there", at - begun)
            if kind == "audits" and status["state"] == "ONGOING":
                found.setdefault("run begun", at - begun)
            over |= kind == "audits" and status["state"] == "SUCCEEDED" and "run begun" in found
    return found


async def watch(
    session: aiohttp.ClientSession, main: str, kind: str, heard: asyncio.Queue[tuple[str, dict[str, Any], float]]
) -> None:
    url = f"{main}/apis/vedette.dev/v1/{kind}?watch=1"
    async with session.get(url, timeout=aiohttp.ClientTimeout(None)) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            at = time.perf_counter()
            event = msgspec.json.decode(line)
            if event["type"] in {"ADDED", "MODIFIED"}:
                heard.put_nowait((kind, event["object"]["status"], at))


# --- a snapshot ------------------------------------------------------------------------------------------------------------


async def large_cloud(store: SqliteStore, hosts: int, servers: int) -> None:
    """Its inventory, as a resync leaves it."""
    readings: list[Reading] = []
    for number in range(hosts):
        name = f"host-{number:04}"
        hypervisor = {
            "hypervisor_hostname": name, "hypervisor_type": "QEMU", "state": "up", "status": "enabled", "vcpus": 96,
            "memory_mb": 786_432, "local_gb": 4_000, "service": {"id": f"s-{number}", "host": name, "disabled_reason": None},
        }  # fmt: skip
        inventories = {
            "VCPU": {"total": 96, "reserved": 0, "allocation_ratio": 4.0, "max_unit": 96},
            "MEMORY_MB": {"total": 786_432, "reserved": 4_096, "allocation_ratio": 1.0, "max_unit": 786_432},
            "DISK_GB": {"total": 4_000, "reserved": 0, "allocation_ratio": 1.0, "max_unit": 4_000},
        }
        service = {"binary": "nova-compute", "host": name, "zone": "nova", "status": "enabled", "state": "up"}
        readings += [
            _reading("Hypervisor", f"h-{number}", hypervisor),
            _reading("ResourceProvider", f"h-{number}", {"name": name, "inventories": inventories}),
            _reading("ComputeService", f"s-{number}", service),
        ]
    for number in range(servers):
        name = f"host-{number % hosts:04}"
        fields = {
            "name": f"server-{number}", "status": "ACTIVE", "created": "2026-11-20T10:00:00Z", "updated": "2026-11-20T10:00:00Z",
            "tenant_id": f"p-{number % 200}", "user_id": "u", "metadata": {"role": "worker"}, "locked": False,
            "flavor": {
                "original_name": "m1.small", "vcpus": 2, "ram": 4_096, "disk": 20, "ephemeral": 0, "swap": 0,
                "extra_specs": {"hw:numa_nodes": "1"},
            },
            "addresses": {"net": [{"version": 4, "addr": "10.1.2.3", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:aa:bb:cc"}]},
            "security_groups": [{"name": "default"}], "OS-EXT-STS:task_state": None, "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:power_state": 1, "OS-EXT-AZ:availability_zone": "nova", "key_name": "key", "image": {"id": "an-image"},
            "config_drive": "", "description": "a server of a large cloud", "os-extended-volumes:volumes_attached": [],
        }  # fmt: skip
        admin = {"OS-EXT-SRV-ATTR:host": name, "OS-EXT-SRV-ATTR:hypervisor_hostname": name}
        readings.append(_reading("Server", f"{number:08x}-0000-4000-8000-000000000000", fields, admin, f"p-{number % 200}"))
    for at in range(0, len(readings), 1_000):
        await store.append(
            [
                NewEntry(
                    Notice(id=f"r-{at + n}", source="big", event_type="resync", sent_at=one.as_of, payload=msgspec.Raw(b"{}")),
                    (one,),
                )
                for n, one in enumerate(readings[at : at + 1_000])
            ]
        )


def _entry(reading: Reading, number: int) -> NewEntry:
    notice = Notice(id=f"r-{number}", source="big", event_type="resync", sent_at=reading.as_of, payload=msgspec.Raw(b"{}"))
    return NewEntry(notice, (reading,))


def _reading(kind: str, id_: str, fields: dict[str, Any], admin: dict[str, Any] | None = None, project: str = "") -> Reading:
    at = 1_763_000_000_000_000
    return Reading(kind=kind, id=id_, verb="create", as_of=at, project=project, fields=fields, admin=admin or {})


async def snapshots(folder: Path, hosts: int, servers: int) -> None:
    clock, telemetry = SystemClock(), Telemetry()
    store = await SqliteStore.open(folder / "snapshots", clock)
    worker = WorkerProcess(
        WorkerCode(name="strategies-1", module="vedette.advice", options={"max_memory": 2 << 30}),
        clock=clock, telemetry=telemetry, max_memory=2 << 30,
    )  # fmt: skip
    advising = Advising(store, worker, plugins.strategies(), clock, timeout=60)
    ingest = Ingest(store, plugins.kinds(), telemetry)
    try:
        await large_cloud(store, hosts, servers)
        seconds = [await a_snapshot(advising, hosts, servers) for _ in range(4)][1:]
        print(
            f"snapshot of {hosts:,} hosts and {servers:,} servers, in the process of the strategies: "
            f"{statistics.median(seconds):.2f} s (wanted ≤ 5)"
        )
        messages = bodies("2K", 2 * ROUNDS * NOTICES)
        await rate(ingest, [decode(body, "other") for body in itertools.islice(bodies("2K", 1_000), 1_000)])
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(await rate(ingest, [decode(body, "other") for body in itertools.islice(messages, NOTICES)]))
            notices = [decode(body, "other") for body in itertools.islice(messages, NOTICES)]
            building = asyncio.create_task(always(advising, hosts, servers))
            try:
                beside.append(await rate(ingest, notices))
                assert not building.done(), building
            finally:
                building.cancel()
                await asyncio.gather(building, return_exceptions=True)
        ratios = [with_ / without for with_, without in zip(beside, alone, strict=True)]
        print(
            f"ingest while snapshots are built all the time: {statistics.median(beside):,.0f} notices/s of "
            f"{statistics.median(alone):,.0f}, ratio {statistics.median(ratios):.2f} (wanted ≥ 0.8)"
        )
    finally:
        await advising.close()
        await store.close()


async def a_snapshot(advising: Advising, hosts: int, servers: int) -> float:
    async with advising.lend() as run:
        begun = time.perf_counter()
        _, built = await run.snapshot("now", ["compute"], [], "big")
        seconds = time.perf_counter() - begun
        assert (built.hosts, built.servers) == (hosts, servers), built
        return seconds


async def rate(ingest: Ingest, notices: list[Notice]) -> float:
    """Notices a second until all of them are on disk, in batches as a source's."""
    begun = time.perf_counter()
    for at in range(0, len(notices), BATCH):
        await ingest.offer(notices[at : at + BATCH])
    return len(notices) / (time.perf_counter() - begun)


async def always(advising: Advising, hosts: int, servers: int) -> None:
    while True:
        await a_snapshot(advising, hosts, servers)


def main(count: int, servers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=BUILD) as name:
        uvloop.run(alarms(Path(name).absolute(), count))
        uvloop.run(snapshots(Path(name), min(1_000, servers), servers))


if __name__ == "__main__":
    look_for_cycles_seldom()
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 500, given[1] if len(given) > 1 else 100_000)
