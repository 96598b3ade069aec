"""A fake OpenStack on 127.0.0.1: Keystone, Neutron, Octavia, Nova, Placement, Glance, Cinder, Heat and more, a port each.

    async with FakeCloud(clock) as cloud:
        port = cloud.port()                                  # announced, as Neutron does
        cloud.port_active(port)                              # and this Neutron tells nobody
        cloud.network.fail(503, "/ports", times=2, retry_after=1)
        settings = cloud.credentials("admin")                # what clients/keystone.credentials() and openstacksdk take
        assert cloud.count("network", "/ports") == 1         # calls so far

It answers what openstacksdk's discovery asks and the paths that Vedette reads, as real ones were seen to: policy (admins and
tenants see other rows and other fields), microversions, paging with the services' own links, their filters, their errors. What
it holds is in plain attributes (`cloud.network.ports`, `cloud.load_balancer.members`, `cloud.compute.servers` …: mappings from
id to row, to look at); rows change through the methods here. Each change is announced as the real service would
(`cloud.announced`, `cloud.listeners`), or silently with `announce=False`; what a real service never announces never is.

Faults are methods of a service (`cloud.network.fail`, `.garble`, `.cut`, `.slow`, `.hold`, `.heal`, `.stop()`, `.start()`,
`.in_catalog = False`) and of Keystone (`cloud.keystone`); see `Door` in `testing/cloud_service.py`. Time is the clock's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from vedette.kit.clock import Clock
from vedette.testing.cloud_aodh import Aodh
from vedette.testing.cloud_gnocchi import Gnocchi
from vedette.testing.cloud_heat import Heat
from vedette.testing.cloud_ironic import Ironic
from vedette.testing.cloud_neutron import Neutron
from vedette.testing.cloud_nova import POWER_STATE, TASK_STATE, VM_STATE, Nova, Placement
from vedette.testing.cloud_octavia import Octavia
from vedette.testing.cloud_service import Announcement as Announcement
from vedette.testing.cloud_service import Call as Call
from vedette.testing.cloud_service import Door, House, Rows, Service
from vedette.testing.cloud_service import Fault as Fault
from vedette.testing.cloud_storage import Cinder, Glance
from vedette.testing.keystone import Listed

HOSTS = ("fake-1", "fake-2", "fake-3")
_STACKED = {"suspend": ("active", "suspended"), "resume": ("suspended", "active")}
"""What Heat asks of a server: the vm_state it wants, and the one after."""


class FakeCloud(House):
    """See the module. It begins with the projects `admin` and `demo`, the users `admin` and `demo` (with a tenant's roles), an
    external network `public`, a network `private` of demo's, two flavors, an image and three hosts; `furnished=False`: with
    nothing but the users."""

    def __init__(self, clock: Clock, *, seed: int = 0, furnished: bool = True) -> None:
        super().__init__(clock, seed=seed)
        self.keystone = Door(self, "identity")
        """Faults of Keystone, by path (`/users`, `/auth/tokens`); `cloud.identity` itself is a FakeKeystone."""
        self.network = Neutron(self)
        self.load_balancer = Octavia(self, self.network)
        self.compute = Nova(self, self.network)
        self.placement = Placement(self, self.compute)
        self.image = Glance(self)
        self.block_storage = Cinder(self)
        self.orchestration = Heat(self)
        self.baremetal = Ironic(self)
        self.metric = Gnocchi(self)
        self.alarming = Aodh(self)
        self.compute.detached = self.block_storage.detach
        self.compute.attachments = self.block_storage.attachments
        self.orchestration.on_servers = self._in_a_stack
        self.services: tuple[Service, ...] = (
            self.network,
            self.load_balancer,
            self.compute,
            self.placement,
            self.image,
            self.block_storage,
            self.orchestration,
            self.baremetal,
            self.metric,
            self.alarming,
        )
        self.identity.catalog = self._catalog
        self.identity.around = self._keystone_answers
        self.public = ""
        """The external network."""
        self.private = ""
        """The network that ports are made on when none is named."""
        self.project("admin")
        self.project("demo")
        self.user("admin", project="admin", roles=("admin", "member", "reader"))
        self.user("demo", project="demo")
        if furnished:
            self._furnish()

    def _in_a_stack(self, action: str, server: str) -> str:
        """What Heat does to a server of a stack that is suspended, resumed or deleted; why it can't, "": it did."""
        if server not in self.compute.servers:
            return ""
        if action == "delete":
            self.compute.delete("server", server)
            return ""
        was, wanted, after = self.compute.servers[server][VM_STATE], *_STACKED[action]
        if was == after:
            return ""
        if was != wanted:
            return f"Cannot '{action}' instance {server} while it is in vm_state {was}"
        power: dict[str, Any] = {POWER_STATE: 4 if action == "suspend" else 1}
        self.compute.state(server, after, **power)
        return ""

    def _furnish(self) -> None:
        admin, demo = self.project_id("admin"), self.project_id("demo")
        external = {"name": "public", "router:external": True, "provider:network_type": "flat"}
        self.public = self.network.create("network", external, project=admin, announce=False)
        subnet = {"name": "public-v4", "network_id": self.public, "cidr": "203.0.113.0/24", "enable_dhcp": False}
        self.network.create("subnet", subnet, project=admin, announce=False)
        self.private = self.network.create("network", {"name": "private"}, project=demo, announce=False)
        subnet = {"name": "private-v4", "network_id": self.private, "cidr": "10.0.0.0/16"}
        self.network.create("subnet", subnet, project=demo, announce=False)
        for name, ram in (("m1.tiny", 512), ("m1.small", 2048)):
            self.compute.create("flavor", {"name": name, "ram": ram}, project=admin, announce=False)
        for host in HOSTS:
            self.compute.create("service", {"host": host}, project=admin, announce=False)
            self.compute.create("hypervisor", {"hypervisor_hostname": host}, project=admin, announce=False)
            self.network.create("agent", {"host": host}, project=admin, announce=False)
        image = {"name": "cirros", "visibility": "public"}
        self.compute.default_image = self.image.create("image", image, project=admin, announce=False)

    # --- running

    async def __aenter__(self) -> FakeCloud:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Everything listens; at the same ports as before, if there were any."""
        await self.identity.start()
        for service in self.services:
            await service.start()

    async def stop(self) -> None:
        """Everything is down; what is held is let go."""
        for door in (self.keystone, *(service.door for service in self.services)):
            door.heal()
        await self.compute.moves.stop()
        for service in self.services:
            await service.stop()
        await self.identity.stop()

    def _catalog(self, project: str) -> list[Listed]:
        return [Listed(one.catalog_type, one.name, one.endpoint(project)) for one in self.services if one.in_catalog]

    async def _keystone_answers(self, request: web.Request, answer: Any) -> web.StreamResponse:
        path = request.path.removeprefix("/v3")
        if path in ("", "/"):
            return answer()  # type: ignore[no-any-return]
        who = self.who(request.headers.get("X-Auth-Token", ""))
        return await self.keystone.through(request, path, who.user if who else "", answer)

    # --- anything

    def _service(self, kind: str) -> Any:
        """The service that has this kind: `port`, `loadbalancer`, `server` …"""
        return next(service for service in self.services if kind in getattr(service, "rows", {}))

    def rows(self, kind: str) -> Rows:
        """Every object of a kind. Raises StopIteration for a kind that no service has."""
        rows: Rows = self._service(kind).rows[kind]
        return rows

    def create(self, kind: str, fields: Mapping[str, Any] = {}, *, project: str = "demo", announce: bool = True) -> str:
        """Any object (`port`, `network`, `subnet`, `router`, `floatingip`, `security_group`, `agent`; `loadbalancer`, `listener`,
        `pool`, `member`, `healthmonitor`, `amphora`; `server`, `flavor`, `aggregate`, `service`, `hypervisor`, `server_group`,
        `keypair`; `image`, `volume`, `snapshot`, `stack`, `node`); its id. What isn't given has a sensible value. `project`: name
        or id."""
        made = self._service(kind).create(kind, fields, project=self.project_id(project), announce=announce)
        return str(made)

    def change(self, kind: str, id_: str, *, announce: bool = True, **fields: Any) -> None:
        """Some fields of an object. Raises KeyError."""
        self._service(kind).change(kind, id_, fields, announce=announce)

    def delete(self, kind: str, id_: str, *, announce: bool = True) -> None:
        """Raises KeyError."""
        self._service(kind).delete(kind, id_, announce=announce)

    # --- what tests do most

    def port(self, *, project: str = "demo", network: str = "", announce: bool = True, admin: bool = False, **fields: Any) -> str:
        """A port, DOWN. `admin`: made by an admin, so that what is announced has the host."""
        said = {"network_id": network or self.private} | fields
        return self.network.create("port", said, project=self.project_id(project), admin=admin, announce=announce)

    def ports(self, number: int, *, project: str = "demo", **fields: Any) -> list[str]:
        """Many ports at once, silently."""
        return self.network.many_ports(number, network=self.private, project=self.project_id(project), **fields)

    def port_active(self, id_: str, *, host: str = "fake-1") -> None:
        """Wired by an agent: ACTIVE, and nobody is told."""
        fields = {"status": "ACTIVE", "binding:host_id": host, "binding:vif_type": "ovs"}
        self.network.change("port", id_, fields, announce=False)

    def loadbalancer(self, *, project: str = "demo", announce: bool = True, **fields: Any) -> str:
        """A load balancer, ACTIVE unless `provisioning_status` says otherwise (PENDING_CREATE: `lb_settled` finishes it)."""
        subnets = self.network.networks[self.private]["subnets"] if self.private else []
        said = {"vip_subnet_id": subnets[0]} if subnets else {}
        return self.load_balancer.create("loadbalancer", said | fields, project=self.project_id(project), announce=announce)

    def listener(self, loadbalancer: str, **fields: Any) -> str:
        return self.load_balancer.create("listener", {"loadbalancer_id": loadbalancer} | fields, project="")

    def pool(self, *, listener: str = "", loadbalancer: str = "", **fields: Any) -> str:
        """Of a listener, or shared by those of a load balancer."""
        said = {"listener_id": listener} if listener else {"loadbalancer_id": loadbalancer}
        return self.load_balancer.create("pool", said | fields, project="")

    def member(self, pool: str, **fields: Any) -> str:
        return self.load_balancer.create("member", {"pool_id": pool} | fields, project="")

    def healthmonitor(self, pool: str, **fields: Any) -> str:
        return self.load_balancer.create("healthmonitor", {"pool_id": pool} | fields, project="")

    def lb_status(self, id_: str, *, provisioning: str = "", operating: str = "") -> None:
        """A status of a load balancer, or of anything under one, moves, and nobody is told; nothing above it moves either."""
        kind = next(kind for kind, rows in self.load_balancer.rows.items() if id_ in rows)
        self.load_balancer.status(kind, id_, provisioning=provisioning, operating=operating)

    def lb_settled(self, id_: str) -> None:
        """What is PENDING in a load balancer is done, and announced as far as Octavia announces it."""
        self.load_balancer.settle(id_)

    def server(self, *, project: str = "demo", announce: bool = True, building: bool = False, **fields: Any) -> str:
        """A server, ACTIVE or building. `ports`: ids of ports that it has."""
        state = {VM_STATE: "building", TASK_STATE: "spawning"} if building else {}
        return self.compute.create("server", state | fields, project=self.project_id(project), announce=announce)

    def server_built(self, id_: str, *, host: str = "fake-1", announce: bool = True) -> None:
        self.compute.built(id_, host, announce=announce)

    def compute_down(self, host: str) -> None:
        """nova-compute dies: it is `down` from now on, and nobody is told."""
        self._compute(host, "down")

    def compute_up(self, host: str) -> None:
        """It is back, and nobody is told."""
        self._compute(host, "up")

    def _compute(self, host: str, state: str) -> None:
        for rows, name in ((self.compute.services, "host"), (self.compute.hypervisors, "hypervisor_hostname")):
            for id_ in [id_ for id_ in rows if rows[id_][name] == host]:
                rows.put(rows.copy(id_) | {"state": state})
