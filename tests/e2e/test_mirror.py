"""A whole Vedette between a whole (fake) cloud and the fake Concertim front end: what one does, the other shows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from optimizing import Place, optimizing
from serving import SECONDS

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.concertim import PASSWORD, FakeConcertim

RUNNING = {"active": "ACTIVE", "stopped": "STOPPED", "suspended": "SUSPENDED", "error": "FAILED"}


class Shown:
    """A cloud, a front end, and Vedette between them."""

    def __init__(self, place: Place, cloud: FakeCloud, front: FakeConcertim) -> None:
        self.place, self.cloud, self.front = place, cloud, front

    def stack(self, servers: int = 1, **fields: Any) -> tuple[str, list[str]]:
        """In Heat's order: the stack begins, its servers come, it is complete."""
        heat = self.cloud.orchestration
        id_ = self.cloud.create("stack", {"stack_status": "CREATE_IN_PROGRESS", **fields})
        made = [self.cloud.server(name=f"node-{n}") for n in range(servers)]
        for one in made:
            heat.add_resource(id_, "OS::Nova::Server", one)
        heat.change("stack", id_, {"stack_status": "CREATE_COMPLETE"})
        return id_, made

    def differences(self) -> list[str]:
        """What the front end shows otherwise than the cloud is, worked out without the mirror."""
        found: list[str] = []
        stacks = {id_: self.cloud.orchestration.stacks[id_] for id_ in self.cloud.orchestration.stacks}
        racks = {row["metadata"].get("openstack_stack_id"): row for row in self.front.racks.values()}
        if len(racks) != len(self.front.racks):
            found.append("two racks of one stack")
        found += [f"no rack of {id_}" for id_ in stacks.keys() - racks.keys()]
        found += [f"a rack of {id_}, which is gone" for id_ in racks.keys() - stacks.keys()]
        wanted: dict[str, tuple[str, str]] = {}
        for id_, row in stacks.items():
            action, _, how = row["stack_status"].partition("_")
            status = {"COMPLETE": "STOPPED" if action == "SUSPEND" else "ACTIVE", "FAILED": "FAILED"}.get(how, "IN_PROGRESS")
            if id_ in racks and racks[id_]["status"] != status:
                found.append(f"rack of {id_}: {racks[id_]['status']}, not {status}")
            for resource in self.cloud.orchestration.resources.get(id_, ()):
                server = self.cloud.compute.servers.get(resource["physical_resource_id"])
                if server is not None:
                    wanted[server["id"]] = (id_, RUNNING[server["OS-EXT-STS:vm_state"]])
        devices: dict[str, dict[str, Any]] = {}
        for row in self.front.devices.values():
            ours = row["metadata"]["openstack_instance_id"]
            if ours in devices:
                found.append(f"two devices of {ours}")
            devices[ours] = row
        found += [f"no device of {id_}" for id_ in wanted.keys() - devices.keys()]
        found += [f"a device of {id_}, which is gone" for id_ in devices.keys() - wanted.keys()]
        for id_, (stack, status) in wanted.items():
            row = devices.get(id_, {})
            if row and (row["status"], row["rack_id"]) != (status, racks.get(stack, {}).get("id")):
                found.append(f"device of {id_}: {row['status']} in {row['rack_id']}, not {status}")
        return found

    async def equal(self, seconds: float = SECONDS) -> float:
        """Until the front end shows the cloud; how long that took."""
        began = time.monotonic()
        while found := self.differences():
            if time.monotonic() - began > seconds:
                raise AssertionError("\n".join(found[:20]))
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def objects(self, plural: str) -> list[Any]:
        url = f"{self.place.main_url}/apis/vedette.dev/v1/{plural}"
        headers = {"X-Auth-Token": self.cloud.token("admin")}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            found: list[Any] = (await answer.json())["items"]
            return found


@asynccontextmanager
async def shown(
    folder: Path,
    *,
    cloud: FakeCloud | None = None,
    front: FakeConcertim | None = None,
    sections: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Shown]:
    if cloud is None:
        async with (
            FakeCloud(SystemClock()) as fresh,
            shown(folder, cloud=fresh, front=front, sections=sections, **options) as here,
        ):
            yield here
        return
    if front is None:
        async with FakeConcertim() as fake, shown(folder, cloud=cloud, front=fake, sections=sections, **options) as here:
            yield here
        return
    project = cloud.project_id("demo")
    if project not in {team["project_id"] for team in front.teams.values()}:
        front.add_team("demo", project)
    mirror = {
        "name": "racks", "type": "concertim", "url": front.url, "password": PASSWORD, "retry": {"first": "100ms", "most": "1s"},
        **options,
    }  # fmt: skip
    async with optimizing(folder, cloud=cloud, mirrors=[mirror], **(sections or {})) as place:

        async def compared() -> Any:
            return place.service.mirrors["racks"].last

        await place.until(compared)
        yield Shown(place, cloud, front)


async def test_what_the_cloud_does_is_shown(tmp_path: Path) -> None:
    async with shown(tmp_path) as here:
        stack, servers = here.stack(3)
        await here.equal()
        heat, nova = here.cloud.orchestration, here.cloud.compute
        steps: list[Callable[[], Any]] = [
            lambda: nova.change("server", servers[0], {"OS-EXT-STS:vm_state": "stopped", "status": "SHUTOFF"}),
            lambda: nova.change("server", servers[1], {"OS-EXT-STS:vm_state": "error", "status": "ERROR"}),
            lambda: heat.change("stack", stack, {"stack_status": "SUSPEND_COMPLETE"}),
            lambda: here.cloud.delete("server", servers[2]),
            lambda: here.cloud.delete("stack", stack),
        ]
        for step in steps:
            here.front.writes.clear()
            step()
            took = await here.equal()
            print(f"shown after {took * 1000:.0f} ms, {len(here.front.writes)} writes")
            assert len(here.front.writes) <= 2

        async def told() -> bool:
            return {item["status"]["type"] for item in await here.objects("mirroredobjects")} == {"template"}

        await here.place.until(told)


async def test_mirrored_objects_can_be_watched(tmp_path: Path) -> None:
    async with shown(tmp_path) as here:
        stack, servers = here.stack(2)
        await here.equal()
        wanted = {("rack", "Stack", stack), *(("device", "Server", one) for one in servers)}
        items: list[Any] = []

        async def told() -> bool:
            items[:] = [item["status"] for item in await here.objects("mirroredobjects")]
            return wanted <= {(item["type"], item["kind"], item["object_id"]) for item in items}

        await here.place.until(told)
        (rack,) = here.front.by("rack", stack)
        (item,) = [item for item in items if item["type"] == "rack"]
        assert (item["mirror"], item["target_id"], item["name"], item["state"]) == ("racks", rack["id"], rack["name"], "ACTIVE")


async def test_what_is_refused_is_a_dead_letter_that_names_the_field(tmp_path: Path) -> None:
    async with shown(tmp_path) as here:
        await here.equal()
        here.front.dialect = "v1"  # it takes no racks of teams any more: an upgrade that went wrong
        here.stack(0)

        async def dead() -> Any:
            return await here.objects("deadletters")

        letters = await here.place.until(dead)
        assert "user must exist" in letters[0]["status"]["error"], letters[0]["status"]
        assert letters[0]["status"]["handler"] == "racks"


async def test_a_front_end_that_was_away_catches_up(tmp_path: Path) -> None:
    async with shown(tmp_path) as here:
        _, servers = here.stack(2)
        await here.equal()
        await here.front.stop()
        here.cloud.compute.change("server", servers[0], {"OS-EXT-STS:vm_state": "stopped", "status": "SHUTOFF"})
        here.cloud.delete("server", servers[1])
        here.stack(1)
        await asyncio.sleep(0.5)
        assert here.differences()
        await here.front.start()
        await here.equal()
        assert await here.objects("deadletters") == []


async def test_a_restart_finds_what_happened_meanwhile(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as cloud, FakeConcertim() as front:
        async with shown(tmp_path, cloud=cloud, front=front) as here:
            _, servers = here.stack(2)
            await here.equal()
        cloud.delete("server", servers[0], announce=False)
        new, _ = here.stack(1)
        for row in front.devices.values():
            row["status"] = "FAILED"
        front.writes.clear()
        async with shown(tmp_path, cloud=cloud, front=front) as here:
            await here.equal()
        front.writes.clear()
        async with shown(tmp_path / "fresh", cloud=cloud, front=front) as here:
            assert here.differences() == []
            done = here.place.service.mirrors["racks"].last
            assert done is not None
            assert (done.created, done.changed, done.removed) == (0, 0, 0)
            assert not front.writes
        assert here.front.by("rack", new)


@pytest.mark.parametrize("seed", [1, 2])
async def test_chaos_ends_equal(tmp_path: Path, seed: int) -> None:
    """A front end that fails in every way, notifications that are lost, and a cloud that goes on meanwhile."""
    rng = random.Random(seed)
    async with FakeConcertim(seed=seed) as front, shown(tmp_path, front=front, compare="1s") as here:
        await here.equal()
        front.trouble.share = 0.2
        stacks: list[tuple[str, list[str]]] = []
        for step in range(2_000):
            if step >= 100 and front.trouble.had.total() >= 12:  # how many requests there are depends on what fails
                break
            await asyncio.sleep(rng.random() / 20)
            lost = rng.random() < 0.2
            servers = [one for _, some in stacks for one in some]
            match rng.choice(("stack", "stack", "stop", "start", "delete", "drop")):
                case "stack":
                    stacks.append(here.stack(rng.randrange(3)))
                case "stop" if servers:
                    state = {"OS-EXT-STS:vm_state": "stopped", "status": "SHUTOFF"}
                    here.cloud.compute.change("server", rng.choice(servers), state, announce=not lost)
                case "start" if servers:
                    state = {"OS-EXT-STS:vm_state": "active", "status": "ACTIVE"}
                    here.cloud.compute.change("server", rng.choice(servers), state, announce=not lost)
                case "delete" if servers:
                    gone = rng.choice(servers)
                    here.cloud.delete("server", gone, announce=not lost)
                    for id_, some in stacks:
                        if gone in some:
                            some.remove(gone)
                            here.cloud.orchestration.remove_resource(id_, gone)
                case "drop" if stacks:
                    id_, some = stacks.pop(rng.randrange(len(stacks)))
                    for one in some:
                        here.cloud.delete("server", one, announce=not lost)
                    here.cloud.delete("stack", id_, announce=not lost)
        front.trouble.share = 0.0
        await here.place.resynced()  # what was lost is found
        took = await here.equal()
        print(f"equal after {took:.2f} s; {dict(front.trouble.had)}; {len(front.racks)} racks, {len(front.devices)} devices")
        assert front.trouble.had.total() >= 12


async def test_what_servers_use_is_shown_there_and_to_prometheus(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as cloud:
        cloud.metric.in_catalog = True
        project = cloud.project_id("demo")
        watcher = cloud.identity.add_user("concertim")
        cloud.identity.grant(watcher, "watcher", project=project)
        polling = {"meter": "gnocchi", "interval": "1s", "push": ["racks"]}
        more = {"meters": [{"name": "gnocchi", "type": "gnocchi"}], "polling": polling}
        async with shown(tmp_path, cloud=cloud, sections=more) as here:
            _, (server,) = here.stack(1)
            await here.equal()
            cloud.metric.resource("instance", "", id_=server, project_id=project)
            now = SystemClock().now_us() // 60_000_000 * 60_000_000
            cloud.metric.measured(server, "cpu", [(now, 30e9)], policy="concertim-rate", how="rate:mean")
            (device,) = here.front.by("device", server)

            async def arrived() -> Any:
                return here.front.metrics.get(device["id"], {}).get("cpu_load")

            assert set(await here.place.until(arrived)) == {50.0}
            async with aiohttp.ClientSession() as session, session.get(f"{here.place.main_url}/metrics/cloud") as answer:
                assert f'openstack_server_cpu_load{{server="{server}",project="{project}"}} 50.0' in await answer.text()
