"""Part 6: a Concertim front end (the fake one, as strict as a real one) beside a real Heat, Nova, Cinder and Neutron. After each
step it shows what the cloud's API says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from figures import Figures
from tenants import Tenants, until
from vedette_process import VedetteProcess, serving

from vedette.testing.concertim import PASSWORD, FakeConcertim

PART = "6. A mirror"
PATIENCE = 180.0
INSTANCE = {"active": "ACTIVE", "stopped": "STOPPED", "suspended": "SUSPENDED", "paused": "SUSPENDED", "error": "FAILED"}
VOLUME = {"available": "AVAILABLE", "in-use": "ACTIVE", "error": "FAILED"}
TYPES = {"OS::Nova::Server": "server", "OS::Cinder::Volume": "volume", "OS::Neutron::Net": "network"}


class Shown:
    """The tenants' stacks, and what is shown of them."""

    def __init__(self, tenants: Tenants, front: FakeConcertim, vedette: VedetteProcess) -> None:
        self.tenants, self.front, self.vedette = tenants, front, vedette

    def heat(self, path: str) -> Any:
        answer = self.tenants.one.cloud.orchestration.get(path)
        answer.raise_for_status()
        return answer.json()

    def differences(self) -> list[str]:
        """Asked of the API as the tenant, without anything of Vedette's. Blocking."""
        found: list[str] = []
        racks = {row["metadata"]["openstack_stack_id"]: row for row in self.front.racks.values()}
        devices: dict[str, Any] = {row["metadata"]["openstack_instance_id"]: row for row in self.front.devices.values()}
        if len(racks) != len(self.front.racks) or len(devices) != len(self.front.devices):
            found.append("something is there twice")
        wanted: dict[str, tuple[str, str]] = {}
        stacks = self.heat("/stacks")["stacks"]
        for stack in stacks:
            action, _, how = stack["stack_status"].partition("_")
            status = {"COMPLETE": "STOPPED" if action == "SUSPEND" else "ACTIVE", "FAILED": "FAILED"}.get(how, "IN_PROGRESS")
            row = racks.get(stack["id"])
            if row is None or row["status"] != status:
                found.append(f"{stack['stack_name']} is {stack['stack_status']}, shown as {row and row['status']}")
            for one in self.heat(f"/stacks/{stack['stack_name']}/{stack['id']}/resources?nested_depth=5")["resources"]:
                if one["resource_type"] in TYPES and one["physical_resource_id"]:
                    said = self._status(one["resource_type"], one["physical_resource_id"])
                    if said:
                        wanted[one["physical_resource_id"]] = (stack["id"], said)
        found += [f"a rack of {id_}, which is gone" for id_ in racks.keys() - {one["id"] for one in stacks}]
        found += [f"a device of {id_}, which is gone" for id_ in devices.keys() - wanted.keys()]
        for id_, (of, said) in wanted.items():
            row = devices.get(id_)
            if row is None or row["status"] != said or row["rack_id"] != racks.get(of, {}).get("id"):
                found.append(f"{id_} is {said}, shown as {row and row['status']}")
        return found

    def _status(self, type_: str, id_: str) -> str:
        """ "": gone, or on its way to something."""
        cloud = self.tenants.one.cloud
        if type_ == "OS::Nova::Server":
            server = cloud.compute.find_server(id_)
            if server is None:
                return ""
            return "IN_PROGRESS" if server.task_state else INSTANCE.get(server.vm_state, "IN_PROGRESS")
        if type_ == "OS::Cinder::Volume":
            volume = cloud.block_storage.find_volume(id_)
            return "" if volume is None else VOLUME.get(volume.status, "IN_PROGRESS")
        network = cloud.network.find_network(id_)
        return "" if network is None else network.status

    async def equal(self) -> float:
        """Until it shows what the API says; how long that took."""
        began = time.monotonic()
        while found := await asyncio.to_thread(self.differences):
            assert time.monotonic() - began < PATIENCE, "\n".join(found)
            await asyncio.sleep(0.2)
        return time.monotonic() - began


@pytest.fixture
async def shown(tenants: Tenants, tmp_path: Path) -> AsyncIterator[Shown]:
    async with FakeConcertim() as front:
        front.add_team("one", tenants.one.project)
        mirror = {"name": "racks", "type": "concertim", "url": front.url, "password": PASSWORD, "compare": "10m"}
        async with serving(tmp_path, tenants.tag, api={"resync": "10m"}, more={"mirrors": [mirror]}) as vedette:
            yield Shown(tenants, front, vedette)


def template(servers: int, network: str) -> dict[str, Any]:
    server = {
        "type": "OS::Nova::Server",
        "properties": {"image": "cirros", "flavor": "m1.tiny", "networks": [{"network": network}]},
    }
    return {
        "heat_template_version": "2018-08-31",
        "resources": {
            **{f"node{number}": server for number in range(servers)},
            "disk": {"type": "OS::Cinder::Volume", "properties": {"size": 1}},
            "lan": {"type": "OS::Neutron::Net"},
        },
        "outputs": {"size": {"value": {"get_attr": ["disk", "size"]}}},
    }


async def test_the_front_end_equals_the_cloud_after_each_step(shown: Shown, figures: Figures) -> None:
    tenants, cloud = shown.tenants, shown.tenants.one.cloud
    name = tenants.named("shown")

    def network() -> str:
        net = cloud.network.create_network(name=tenants.named("shown"))
        cloud.network.create_subnet(name=tenants.named("shown"), network_id=net.id, ip_version=4, cidr="10.76.0.0/24")
        return str(net.id)

    net = await asyncio.to_thread(network)

    def stack(method: str, path: str, body: Any = None) -> None:
        cloud.orchestration.request(path, method, json=body).raise_for_status()

    def now() -> dict[str, Any]:
        found = [one for one in shown.heat("/stacks")["stacks"] if one["stack_name"] == name]
        return found[0] if found else {}

    def made(servers: int, method: str = "POST", path: str = "/stacks") -> Any:
        before = now().get("updated_time")
        stack(method, path, {"stack_name": name, "template": template(servers, net), "timeout_mins": 5})
        if method == "POST":
            return until("the stack to be there", lambda: now() if now()["stack_status"] == "CREATE_COMPLETE" else None)
        # It is COMPLETE also in the moment before Heat begins.
        until("Heat to begin", lambda: now()["updated_time"] != before)
        return until("the update", lambda: now()["stack_status"] == "UPDATE_COMPLETE")

    def act(action: str) -> None:
        stack("POST", f"{path}/actions", {action: None})
        until(action, lambda: now()["stack_status"] == f"{action.upper()}_COMPLETE")

    async def step(what: str, work: Callable[[], Any]) -> Any:
        result = await asyncio.to_thread(work)
        took = await shown.equal()
        figures.add(PART, f"{what}: shown after", f"{took:.2f} s")
        return result

    found = await step("a stack of two servers, a volume and a network", lambda: made(2))
    path = f"/stacks/{name}/{found['id']}"
    (rack,) = shown.front.racks.values()
    assert rack["creation_output"] == "size=1"
    types = sorted(row["kind"] for row in shown.front.devices.values())
    assert types == ["Instance", "Instance", "Network", "Volume"]
    servers = [row for row in shown.front.devices.values() if row["kind"] == "Instance"]
    assert all(row["details"]["private_ips"].startswith(f"{tenants.named('shown')}:10.76.0.") for row in servers)
    first, second = (row["metadata"]["openstack_instance_id"] for row in servers)

    def state(id_: str, vm_state: str) -> Callable[[], Any]:
        return lambda: until(f"a server to be {vm_state}", lambda: _is(cloud.compute.get_server(id_), vm_state))

    def then(*work: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [one() for one in work] and None

    await step("a server stopped", then(lambda: cloud.compute.stop_server(first), state(first, "stopped")))
    await step("and started", then(lambda: cloud.compute.start_server(first), state(first, "active")))
    await step("a server broken", lambda: tenants.admin.compute.reset_server_state(second, "error"))
    await step("and mended", lambda: tenants.admin.compute.reset_server_state(second, "active"))
    await step("the stack suspended", lambda: act("suspend"))
    await step("and resumed", lambda: act("resume"))
    await step("a server more", lambda: made(3, "PUT", path))
    await step("two servers fewer", lambda: made(1, "PUT", path))
    assert sorted(row["kind"] for row in shown.front.devices.values()) == ["Instance", "Network", "Volume"]
    last = next(row for row in shown.front.devices.values() if row["kind"] == "Instance")["metadata"]["openstack_instance_id"]
    gone = then(
        lambda: cloud.compute.delete_server(last), lambda: until("it to be gone", lambda: cloud.compute.find_server(last) is None)
    )
    await step("a server deleted behind Heat's back", gone)

    def no_stack() -> None:
        stack("DELETE", path)
        until("the stack to be gone", lambda: not [one for one in shown.heat("/stacks")["stacks"] if one["stack_name"] == name])

    await step("the stack deleted", no_stack)
    assert not shown.front.racks
    assert not shown.front.devices
    wrote = sum(count for (method, _), count in shown.front.counts.items() if method != "GET")
    figures.add(PART, "writes to the front end in all", wrote)


def _is(server: Any, vm_state: str) -> bool:
    return server.vm_state == vm_state and not server.task_state
