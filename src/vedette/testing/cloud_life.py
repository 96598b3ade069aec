"""A life for the fake cloud: tenants that come and go, as `vedette demo --cloud fake` shows it.

Ports are made DOWN and go ACTIVE a little later without a word, servers build, load balancers are PENDING until they aren't,
members fail, a nova-compute dies; and now and then something happens that is not announced at all. Nothing grows for ever. One
task does it all, on the cloud's clock; the same seed gives the same life.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from vedette.testing.broker import FakeBroker
from vedette.testing.cloud import FakeCloud

TENANTS = ("blue", "green")
EXCHANGES = ("nova", "neutron", "octavia", "heat", "openstack", "glance", "keystone")
MOST = {"port": 24, "server": 10, "loadbalancer": 3, "floatingip": 6, "volume": 12}
"""Of each kind; when there are as many, nothing of it is made for a while."""


class Life:
    """`await Life(cloud).run()`, until it is cancelled."""

    def __init__(self, cloud: FakeCloud, *, seed: int = 1) -> None:
        self._cloud = cloud
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._networks: dict[str, str] = {}
        self._begin()

    async def run(self) -> None:
        clock = self._cloud.clock
        began = clock.monotonic()
        for wait, act in (
            (1.0, self._port),
            (2.0, self._server),
            (3.0, self._balancer),
            (8.0, self._floating),
            (10.0, self._missed),
            (25.0, self._host),
        ):
            self._in(began + wait, act)
        while True:
            due, _, act = heapq.heappop(self._due)
            await clock.sleep(max(0.0, due - clock.monotonic()))
            act()

    def _in(self, due: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, act))

    def _later(self, shortest: float, longest: float, act: Callable[[], None]) -> None:
        self._in(self._cloud.clock.monotonic() + self._random.uniform(shortest, longest), act)

    def _name(self, word: str) -> str:
        return f"{word}-{self._count}"

    def _full(self, kind: str) -> bool:
        return len(self._cloud.rows(kind)) >= MOST[kind]

    def _begin(self) -> None:
        """What was there before anybody listened: nothing of it is announced."""
        cloud = self._cloud
        for tenant in TENANTS:
            cloud.user(f"{tenant}-user", project=tenant)
            network = cloud.create("network", {"name": f"{tenant}-net"}, project=tenant, announce=False)
            cidr = f"10.{len(self._networks) + 20}.0.0/16"
            cloud.create("subnet", {"name": f"{tenant}-v4", "network_id": network, "cidr": cidr}, project=tenant, announce=False)
            cloud.create("router", {"name": f"{tenant}-router"}, project=tenant, announce=False)
            cloud.create("security_group", {"name": "default"}, project=tenant, announce=False)
            self._networks[tenant] = network
            for number in range(3):
                port = cloud.port(project=tenant, network=network, name=f"{tenant}-old-{number}", announce=False)
                cloud.port_active(port)

    # --- what happens

    def _port(self) -> None:
        """A tenant makes one; an agent wires it, and nobody is told."""
        cloud = self._cloud
        if not self._full("port"):
            tenant = self._random.choice(TENANTS)
            port = cloud.port(project=tenant, network=self._networks[tenant], name=self._name("web"), device_id=cloud.id())
            self._later(2, 4, lambda: self._wired(port))
            self._later(30, 90, lambda: self._deleted("port", port))
        self._later(3, 6, self._port)

    def _wired(self, port: str) -> None:
        if port in self._cloud.network.ports:
            self._cloud.port_active(port, host=f"fake-{self._random.randint(1, 3)}")

    def _deleted(self, kind: str, id_: str, *, announce: bool = True) -> None:
        if id_ in self._cloud.rows(kind):
            self._cloud.delete(kind, id_, announce=announce)

    def _server(self) -> None:
        cloud = self._cloud
        if not self._full("server"):
            tenant = self._random.choice(TENANTS)
            port = cloud.port(project=tenant, network=self._networks[tenant])
            server = cloud.server(project=tenant, name=self._name("vm"), building=True, ports=[port])
            host = f"fake-{self._random.randint(1, 3)}"
            bound = {"device_id": server, "device_owner": "compute:nova", "binding:host_id": host}
            cloud.network.change("port", port, bound, admin=True)
            self._later(2, 3, lambda: self._wired(port))
            self._later(3, 5, lambda: self._built(server, host))
            self._later(15, 25, lambda: self._reboot(server))
            self._later(50, 100, lambda: self._deleted("server", server))
            self._later(100, 101, lambda: self._deleted("port", port))
        self._later(8, 14, self._server)

    def _built(self, server: str, host: str) -> None:
        if server in self._cloud.compute.servers:
            self._cloud.server_built(server, host=host)

    def _reboot(self, server: str) -> None:
        """Announced when it begins; that it is over is lost on the way."""
        if server in self._cloud.compute.servers:
            self._cloud.compute.state(server, task_state="rebooting")
            self._later(2, 4, lambda: self._rebooted(server))

    def _rebooted(self, server: str) -> None:
        if server in self._cloud.compute.servers:
            self._cloud.compute.state(server, announce=False)

    def _balancer(self) -> None:
        """Load balancer, listener, pool, members: each waits for the one before to be done."""
        cloud = self._cloud
        if not self._full("loadbalancer"):
            tenant = self._random.choice(TENANTS)
            subnet = cloud.network.networks[self._networks[tenant]]["subnets"][0]
            pending: dict[str, Any] = {"provisioning_status": "PENDING_CREATE", "operating_status": "OFFLINE"}
            balancer = cloud.loadbalancer(project=tenant, name=self._name("lb"), vip_subnet_id=subnet, **pending)

            def listener() -> None:
                cloud.lb_settled(balancer)
                made = cloud.listener(balancer, name="http", **pending)
                self._busy(balancer)
                self._later(2, 3, lambda: pool(made))

            def pool(listener: str) -> None:
                cloud.lb_settled(balancer)
                made = cloud.pool(listener=listener, name="web", **pending)
                cloud.healthmonitor(made, **pending)
                for number in range(2):
                    cloud.member(made, name=f"web-{number}", **pending)
                self._busy(balancer)
                self._later(2, 3, lambda: serving(made))

            def serving(pool: str) -> None:
                cloud.lb_settled(balancer)
                member = cloud.load_balancer.pools[pool]["members"][0]["id"]
                self._later(6, 10, lambda: cloud.lb_status(member, operating="ERROR"))
                self._later(14, 20, lambda: cloud.lb_status(member, operating="ONLINE"))
                self._later(60, 90, going)

            def going() -> None:
                cloud.lb_status(balancer, provisioning="PENDING_DELETE")
                self._later(2, 3, lambda: cloud.lb_settled(balancer))

            self._later(4, 6, listener)
        self._later(15, 25, self._balancer)

    def _busy(self, balancer: str) -> None:
        self._cloud.lb_status(balancer, provisioning="PENDING_UPDATE")

    def _floating(self) -> None:
        cloud = self._cloud
        ports = [id_ for id_ in cloud.network.ports if cloud.network.ports[id_]["device_owner"] == "compute:nova"]
        if ports and not self._full("floatingip"):
            port = self._random.choice(ports)
            project = str(cloud.network.ports[port]["project_id"])
            floating = cloud.create("floatingip", {"floating_network_id": cloud.public, "port_id": port}, project=project)
            self._later(2, 4, lambda: self._up(floating))
            self._later(30, 60, lambda: self._deleted("floatingip", floating))
        self._later(12, 20, self._floating)

    def _up(self, floating: str) -> None:
        if floating in self._cloud.network.floatingips:
            self._cloud.change("floatingip", floating, announce=False, status="ACTIVE")

    def _missed(self) -> None:
        """The bus loses something: a volume that came, or one that went."""
        cloud = self._cloud
        volumes = list(cloud.block_storage.volumes)
        if volumes and self._random.random() < 0.4:
            self._deleted("volume", self._random.choice(volumes), announce=False)
        elif not self._full("volume"):
            cloud.create("volume", {"name": self._name("data")}, project=self._random.choice(TENANTS), announce=False)
        self._later(10, 18, self._missed)

    def _host(self) -> None:
        """A nova-compute dies, and comes back; neither is announced."""
        self._cloud.compute_down("fake-3")
        self._later(15, 25, lambda: self._cloud.compute_up("fake-3"))
        self._later(60, 90, self._host)


def on_a_broker(cloud: FakeCloud) -> FakeBroker:
    """A broker in memory that carries what this cloud announces."""
    broker = FakeBroker()
    for name in EXCHANGES:
        broker.declare_exchange(name)
    cloud.listeners.append(lambda sent: broker.publish(sent.exchange, sent.body, routing_key=sent.routing_key))
    return broker
