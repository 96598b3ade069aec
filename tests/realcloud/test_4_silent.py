"""Part 4: what the cloud never announces reaches the watcher all the same. A tenant watches while ports, floating IPs, load
balancers, listeners, pools, members, health monitors, servers and a hypervisor change; beside it somebody polls the API, tightly,
for the moment at which it first shows the change. Nothing is asserted of the times; they are printed.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from figures import Figures, spread
from openstack import exceptions
from tenants import Tenants, until
from vedette_process import Event, Follower, VedetteProcess, serving

PART = "4. What is never announced"
PORTS = 5
TIGHT = 0.05
"""Seconds between two looks of the poller."""
WATCHED = ("Port", "FloatingIP", "Server", "LoadBalancer", "Listener", "Pool", "Member", "HealthMonitor")


class Poller:
    """Asks for one object, again and again, until it looks as it should: what a client without Vedette does."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._stop = threading.Event()
        self.asked = 0
        self.seen = 0.0
        """time.monotonic() at which the answer was there that showed it; 0: not yet."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(TIGHT):
            self.asked += 1
            if self._look():
                self.seen = time.monotonic()
                return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextmanager
def polling(look: Callable[[], bool]) -> Iterator[Poller]:
    poller = Poller(look)
    try:
        yield poller
    finally:
        poller.stop()


@pytest.fixture
async def vedette(tenants: Tenants, tmp_path: Path) -> AsyncIterator[VedetteProcess]:
    async with serving(tmp_path, tenants.tag, api={"resync": "0"}) as found:
        yield found


class Race:
    """What is done is seen by both; by how much the watcher is later than the API is kept."""

    def __init__(self, follower: Follower) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}
        """What → (from the action to the API's showing it, from there to the watcher's being told) of each."""
        self.asked = 0
        self._follower = follower

    async def run(
        self, what: str, began: float, kind: str, id_: str, look: Callable[[], bool], wanted: Callable[[Event], bool]
    ) -> float:
        """Wait until both have seen it; when the API showed it. `wanted`: of an event of that object."""

        def told() -> Event | None:
            return next((one for one in self._follower.of(id_) if one.kind == kind and one.at > began and wanted(one)), None)

        with polling(look) as poller:
            event: Event = await self._follower.until(f"{what}, at the watcher", told)
            await self._follower.until(f"{what}, at the poller", lambda: poller.seen)
        self.asked += poller.asked
        self.times.setdefault(what, []).append((poller.seen - began, event.at - poller.seen))
        return poller.seen

    def print(self, figures: Figures) -> None:
        for what, times in self.times.items():
            shown, later = zip(*times, strict=True)
            figures.add(PART, what, f"in the API after {spread(shown)}; at the watcher {spread(later)} later")


def _is(**values: Any) -> Callable[[Event], bool]:
    """An event of an object that has these values."""
    return lambda event: all(event.status.get(name) == value for name, value in values.items())


async def test_what_is_never_announced_reaches_the_watcher(tenants: Tenants, vedette: VedetteProcess, figures: Figures) -> None:
    await vedette.resynced(0)
    token = await asyncio.to_thread(tenants.one.token)
    asked = await _asked(vedette)
    async with vedette.follow(WATCHED, token) as follower:
        race = Race(follower)
        net, subnet = await asyncio.to_thread(_network, tenants)
        await _ports(tenants, race, net)
        await _floating_ip(tenants, race, net, subnet)
        await _server(tenants, race, net)
        await _balancer(tenants, race, follower, subnet)
        assert follower.cuts == 0
    race.print(figures)
    figures.add(PART, "requests of the pollers, and of Vedette", f"{race.asked}, {await _asked(vedette) - asked:.0f}")
    figures.add(PART, "Vedette", f"{vedette.memory()} MiB at the most, {vedette.cpu():.1f} s of processor time")


async def _asked(vedette: VedetteProcess) -> float:
    """Requests to the cloud's API that verify has made."""
    return sum((await vedette.metrics("verify_requests_total")).values())


def _network(tenants: Tenants) -> tuple[str, str]:
    n = tenants.one.cloud.network
    net = n.create_network(name=tenants.named("net"))
    subnet = n.create_subnet(name=tenants.named("sub"), network_id=net.id, ip_version=4, cidr="10.60.0.0/24")
    return net.id, subnet.id


async def _ports(tenants: Tenants, race: Race, net: str) -> None:
    """Bound as Nova does it; the agent wires each, and Neutron says nothing of it."""
    n, admin = tenants.one.cloud.network, tenants.admin.network
    bind = {"device_id": "silent", "device_owner": "compute:nova", "binding_host_id": "fake-1"}
    owner = {"network_id": net, "project_id": tenants.one.project}
    for number in range(PORTS):
        name = tenants.named(f"port{number}")
        began = time.monotonic()
        port = await asyncio.to_thread(lambda name=name: admin.create_port(name=name, **owner, **bind))
        await race.run(
            "port ACTIVE", began, "Port", port.id,
            lambda port=port: n.get_port(port.id).status == "ACTIVE", _is(status="ACTIVE"),
        )  # fmt: skip


async def _floating_ip(tenants: Tenants, race: Race, net: str, subnet: str) -> None:
    n, admin = tenants.one.cloud.network, tenants.admin.network

    def routed() -> tuple[str, str]:
        public = admin.find_network("public").id
        router = n.create_router(name=tenants.named("router"), external_gateway_info={"network_id": public})
        n.add_interface_to_router(router, subnet_id=subnet)
        return n.create_port(network_id=net, name=tenants.named("fip")).id, public

    port, public = await asyncio.to_thread(routed)
    began = time.monotonic()
    address = await asyncio.to_thread(lambda: n.create_ip(floating_network_id=public, port_id=port))
    await race.run(
        "floating IP ACTIVE", began, "FloatingIP", address.id,
        lambda: n.get_ip(address.id).status == "ACTIVE", _is(status="ACTIVE"),
    )  # fmt: skip


async def _server(tenants: Tenants, race: Race, net: str) -> None:
    """This one is announced: to compare."""
    c = tenants.one.cloud.compute
    image = tenants.admin.image.find_image("cirros").id
    flavor = tenants.admin.compute.find_flavor("m1.tiny").id
    what = {"image_id": image, "flavor_id": flavor, "networks": [{"uuid": net}]}
    began = time.monotonic()
    server = await asyncio.to_thread(lambda: c.create_server(name=tenants.named("server"), **what))
    await race.run(
        "server ACTIVE (announced)", began, "Server", server.id,
        lambda: c.get_server(server.id).status == "ACTIVE", _is(status="ACTIVE"),
    )  # fmt: skip


def _gone(event: Event) -> bool:
    return event.verb == "DELETED"


async def _balancer(tenants: Tenants, race: Race, follower: Follower, subnet: str) -> None:
    lbs = tenants.one.cloud.load_balancer
    named = tenants.named
    active = _is(provisioning_status="ACTIVE")

    async def make(what: str, kind: str, create: Callable[[], Any], get: Callable[[str], Any]) -> Any:
        began = time.monotonic()
        found = await asyncio.to_thread(create)
        await race.run(f"{what} ACTIVE", began, kind, found.id, lambda: get(found.id).provisioning_status == "ACTIVE", active)
        return found

    async def change(
        what: str, kind: str, id_: str, act: Callable[[], Any], look: Callable[[], bool], wanted: Callable[[Event], bool]
    ) -> None:
        began = time.monotonic()
        await asyncio.to_thread(act)
        await race.run(what, began, kind, id_, lambda: look() and settled(), wanted)
        await asyncio.to_thread(lambda: until("a load balancer to settle", settled))

    def settled() -> bool:
        return bool(lbs.get_load_balancer(lb.id).provisioning_status == "ACTIVE")

    lb = await make(
        "load balancer", "LoadBalancer",
        lambda: lbs.create_load_balancer(name=named("lb"), vip_subnet_id=subnet), lbs.get_load_balancer,
    )  # fmt: skip
    http = {"protocol": "HTTP"}
    listener = await make(
        "listener", "Listener",
        lambda: lbs.create_listener(name=named("ls"), protocol_port=80, load_balancer_id=lb.id, **http), lbs.get_listener,
    )  # fmt: skip
    pool = await make(
        "pool", "Pool",
        lambda: lbs.create_pool(name=named("pool"), lb_algorithm="ROUND_ROBIN", listener_id=listener.id, **http), lbs.get_pool,
    )  # fmt: skip
    at = {"address": "10.60.0.50", "protocol_port": 8080, "subnet_id": subnet}
    member = await make(
        "member", "Member",
        lambda: lbs.create_member(pool, name=named("mb"), **at), lambda id_: lbs.get_member(id_, pool),
    )  # fmt: skip
    health = {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 3}
    await make(
        "health monitor", "HealthMonitor",
        lambda: lbs.create_health_monitor(name=named("hm"), pool_id=pool.id, **health), lbs.get_health_monitor,
    )  # fmt: skip
    await change(
        "member's new weight", "Member", member.id, lambda: lbs.update_member(member, pool, weight=7),
        lambda: lbs.get_member(member.id, pool).weight == 7, _is(weight=7, provisioning_status="ACTIVE"),
    )  # fmt: skip
    await change(
        "load balancer's new name", "LoadBalancer", lb.id, lambda: lbs.update_load_balancer(lb, name=named("new")),
        lambda: lbs.get_load_balancer(lb.id).name == named("new"), _is(name=named("new"), provisioning_status="ACTIVE"),
    )  # fmt: skip

    def gone() -> bool:
        try:
            return bool(lbs.get_load_balancer(lb.id).provisioning_status == "DELETED")
        except exceptions.NotFoundException:
            return True

    began = time.monotonic()
    await asyncio.to_thread(lambda: lbs.delete_load_balancer(lb.id, cascade=True))
    shown = await race.run("load balancer gone", began, "LoadBalancer", lb.id, gone, _gone)
    for kind, id_ in (("Listener", listener.id), ("Pool", pool.id), ("Member", member.id)):
        event = await follower.until(f"{kind} to go", lambda id_=id_: next(filter(_gone, follower.of(id_)), None))
        race.times.setdefault("what belonged to it gone", []).append((shown - began, event.at - shown))


async def test_a_hypervisor_that_is_down_is_told(tenants: Tenants, vedette: VedetteProcess, figures: Figures) -> None:
    """Nova announces that somebody declares its compute service down, and nothing of the hypervisor."""
    if os.environ.get("RC_SHARED"):
        pytest.skip("somebody else uses this cloud")
    nova = tenants.admin.compute
    service = max(nova.services(binary="nova-compute"), key=lambda one: one.host)
    hypervisor = next(one for one in nova.hypervisors(details=True) if one.name == service.host)

    def declare(down: bool) -> None:
        nova.put(f"/os-services/{service.id}", json={"forced_down": down}, microversion="2.53").raise_for_status()

    def state() -> str:
        found = nova.get(f"/os-hypervisors/{hypervisor.id}", microversion="2.88").json()["hypervisor"]
        return str(found["state"])

    await vedette.resynced(0)
    async with vedette.follow(("Hypervisor",)) as follower:
        race = Race(follower)
        try:
            for down, wanted in ((True, "down"), (False, "up")):
                began = time.monotonic()
                await asyncio.to_thread(declare, down)
                look = lambda wanted=wanted: state() == wanted  # noqa: E731 (of this turn)
                await race.run(f"hypervisor {wanted}", began, "Hypervisor", hypervisor.id, look, _is(state=wanted))
        finally:
            await asyncio.to_thread(declare, False)
    race.print(figures)
