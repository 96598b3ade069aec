"""A rich life of every kind in the real cloud: objects are made, changed, moved, broken and deleted, and left alive in as many
states as there are.

`Lifecycle.run` does it, as two tenants and an admin; what each step is and how long it took is kept in `steps`. Blocking: for a
thread. Cleaning up is `Tenants.clear`.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from openstack import exceptions
from tenants import PASSWORD, Tenants, until

HANDS = 3
"""Stories that are told at one time."""


class Step(NamedTuple):
    """One action, and its end."""

    what: str
    seconds: float


class Lifecycle:
    """See the module. `steps` grows from several threads."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self.steps: list[Step] = []
        self._adm, self._one, self._two = tenants.admin, tenants.one.cloud, tenants.two.cloud
        self._named = tenants.named
        self._lock = threading.Lock()
        self._public = self._adm.network.find_network("public").id
        self._image = self._adm.image.find_image("cirros").id
        self._flavors = {name: self._adm.compute.find_flavor(f"m1.{name}").id for name in ("tiny", "small", "medium")}
        self.net = self.subnet = self.four = self.group = ""

    def run(self) -> None:
        """All of it. Raises what the first story that failed raised, when all are told."""
        self.identity()
        self.network()
        self.flavors()
        stories: list[Callable[[], None]] = [
            self.balancers,
            self.servers,
            self.volumes,
            self.moves,
            self.images,
            self.stacks,
            self.ports,
            self.errors,
            self.groups,
        ]
        with ThreadPoolExecutor(HANDS) as pool:
            told = [pool.submit(story) for story in stories]
        for one in told:
            one.result()
        self.hosts()

    def do(self, what: str, act: Callable[[], Any]) -> Any:
        """One action."""
        began = time.monotonic()
        try:
            found = act()
        except Exception as why:
            why.add_note(f"in the step {what!r}")
            raise
        if hasattr(found, "raise_for_status"):
            assert found.status_code < 400, f"{what}: {found.status_code} {found.text[:300]}"
        with self._lock:
            self.steps.append(Step(what, time.monotonic() - began))
        return found

    def refused(self, what: str, act: Callable[[], Any]) -> None:
        """An action that the cloud must refuse: it announces the beginning of some of them, and no end."""
        began = time.monotonic()
        try:
            found = act()
        except exceptions.SDKException:
            pass
        else:
            assert getattr(found, "status_code", 0) >= 400, f"{what} was not refused"
        with self._lock:
            self.steps.append(Step(f"{what} (refused)", time.monotonic() - began))

    # --- Keystone ---

    def identity(self) -> None:
        keystone = self._adm.identity
        member = keystone.find_role("member")
        project = self.do("project create", lambda: keystone.create_project(name=self._named("off"), domain_id="default"))
        self.do("project update", lambda: keystone.update_project(project, description="switched off soon"))
        self.do("project tags", lambda: keystone.put(f"/projects/{project.id}/tags", json={"tags": ["a", "b"]}))
        self.do("project disable", lambda: keystone.update_project(project, is_enabled=False))
        gone = self.do("project create", lambda: keystone.create_project(name=self._named("gone"), domain_id="default"))
        user = self.do("user create", lambda: self._user("off"))
        self.do("role assign", lambda: keystone.assign_project_role_to_user(gone, user, member))
        self.do("user update", lambda: keystone.update_user(user, email="off@example.org"))
        self.do("user disable", lambda: keystone.update_user(user, is_enabled=False))
        again = self.do("user create", lambda: self._user("again"))
        self.do("user disable", lambda: keystone.update_user(again, is_enabled=False))
        self.do("user enable", lambda: keystone.update_user(again, is_enabled=True))
        self.do("role unassign", lambda: keystone.unassign_project_role_from_user(gone, user, member))
        left = self.do("user create", lambda: self._user("gone"))
        self.do("user delete", lambda: keystone.delete_user(left))
        self.do("project delete", lambda: keystone.delete_project(gone))

    def _user(self, name: str) -> Any:
        return self._adm.identity.create_user(name=self._named(name), password=PASSWORD, domain_id="default")

    # --- Glance ---

    def images(self) -> None:
        glance = self._one.image

        def image(name: str, data: bytes = b"x" * 4096, **more: Any) -> Any:
            kind = {"disk_format": "raw", "container_format": "bare"}
            return self.do(
                f"image create {name}",
                lambda: glance.create_image(name=self._named(name), data=data, wait=True, **kind, **more),
            )

        image("img-plain", min_ram=64, tags=["blue", "green"], os_distro="alpine")
        self.do("image create queued", lambda: glance.post("/images", json={"name": self._named("img-queued")}))
        off = image("img-off")
        self.do("image deactivate", lambda: self._adm.image.deactivate_image(off))
        back = image("img-back")
        self.do("image deactivate", lambda: self._adm.image.deactivate_image(back))
        self.do("image reactivate", lambda: self._adm.image.reactivate_image(back))
        self.do("image protect", lambda: glance.update_image(back, is_protected=True, min_disk=1))
        everyones = image("img-community")
        self.do("image community", lambda: glance.update_image(everyones, visibility="community"))
        shared = image("img-shared")
        self.do("image shared", lambda: glance.update_image(shared, visibility="shared"))
        self.do("image member", lambda: glance.add_member(shared, member_id=self.tenants.two.project))
        public = image("img-public")
        self.do("image public", lambda: self._adm.image.update_image(public, visibility="public"))
        hidden = image("img-hidden")
        self.do("image hide", lambda: glance.update_image(hidden, is_hidden=True))
        changed = image("img-changed")
        self.do("image update", lambda: glance.update_image(changed, name=self._named("img-changed2"), os_version="9"))
        self.do("image tag", lambda: glance.add_tag(changed, "late"))
        gone = image("img-gone")
        self.do("image delete", lambda: glance.delete_image(gone))

    # --- Neutron ---

    def network(self) -> None:
        """What the other stories stand on, and the life of networks, subnets, routers and security groups."""
        n = self._one.network
        net = self.do("network create", lambda: n.create_network(name=self._named("net")))
        sub = self.do("subnet create", lambda: self._subnet(net, "sub", "10.77.0.0/24"))
        self.net, self.subnet = net.id, sub.id
        self.do("network update", lambda: n.update_network(net, description="hello", mtu=1400))
        self.do("subnet update", lambda: n.update_subnet(sub, dns_nameservers=["192.0.2.53"]))
        six = {"ip_version": 6, "cidr": "fd00:77::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
        self.do("subnet create v6", lambda: n.create_subnet(name=self._named("sub6"), network_id=net.id, **six))
        self.do("network tags", lambda: n.set_tags(net, ["prod", "web"]))
        self.do("subnet tags", lambda: n.set_tags(sub, ["only"]))

        other = self.do("network create", lambda: n.create_network(name=self._named("net-down")))
        self.do("network admin down", lambda: n.update_network(other, is_admin_state_up=False))
        bare = {"gateway_ip": None, "enable_dhcp": False}
        bare_sub = self.do("subnet create bare", lambda: self._subnet(other, "sub-bare", "10.78.0.0/24", **bare))
        routes = [{"destination": "10.99.0.0/24", "nexthop": "10.78.0.9"}]
        self.do("subnet host routes", lambda: n.update_subnet(bare_sub, host_routes=routes))
        gone = self.do("subnet create", lambda: self._subnet(other, "sub-gone", "10.79.0.0/24"))
        self.do("subnet delete", lambda: n.delete_subnet(gone))
        many = {"networks": [{"name": self._named("bulk1")}, {"name": self._named("bulk2")}]}
        bulk = self.do("network create (two in one)", lambda: n.post("/networks", json=many)).json()["networks"]
        self.do("network delete", lambda: n.delete_network(bulk[1]["id"]))
        shared = self.do("network create", lambda: n.create_network(name=self._named("net-shared")))
        self.do("subnet create", lambda: self._subnet(shared, "sub-shared", "10.80.0.0/24"))
        self.four = shared.id
        policy = {"object_type": "network", "action": "access_as_shared"}
        rbac = self._adm.network
        self.do("rbac for all", lambda: rbac.create_rbac_policy(object_id=shared.id, target_tenant="*", **policy))
        lent = self.do("network create", lambda: n.create_network(name=self._named("net-lent")))
        to = self.tenants.two.project
        self.do("rbac for one", lambda: n.create_rbac_policy(object_id=lent.id, target_tenant=to, **policy))
        unshared = self.do("network create", lambda: n.create_network(name=self._named("net-unshared")))
        on = self.do("rbac for all", lambda: rbac.create_rbac_policy(object_id=unshared.id, target_tenant="*", **policy))
        self.do("rbac delete", lambda: rbac.delete_rbac_policy(on))
        theirs = {"project_id": self.tenants.two.project, "provider_network_type": "vxlan"}
        self.do("network create by admin", lambda: rbac.create_network(name=self._named("net-vx"), **theirs))

        group = self.do("security group create", lambda: n.create_security_group(name=self._named("group")))
        self.group = group.id
        rule = {"security_group_id": group.id, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
        for port in (22, 80):
            ports = {"port_range_min": port, "port_range_max": port}
            made = self.do("security group rule create", lambda ports=ports: n.create_security_group_rule(**rule, **ports))
        self.do("security group rule delete", lambda: n.delete_security_group_rule(made))
        self.do("security group update", lambda: n.update_security_group(group, description="changed"))
        self.do("security group tags", lambda: n.set_tags(group, ["web"]))
        extra = self.do("security group create", lambda: n.create_security_group(name=self._named("group-gone")))
        self.do("security group delete", lambda: n.delete_security_group(extra))
        stateless = {"name": self._named("group-stateless"), "stateful": False}
        self.do("security group create stateless", lambda: n.create_security_group(**stateless))

        router = self.do("router create", lambda: n.create_router(name=self._named("router")))
        gateway = {"network_id": self._public}
        self.do("router gateway", lambda: n.update_router(router, external_gateway_info=gateway))
        self.do("router interface", lambda: n.add_interface_to_router(router, subnet_id=sub.id))
        hop = [{"destination": "10.98.0.0/24", "nexthop": "10.77.0.7"}]
        self.do("router routes", lambda: n.put(f"/routers/{router.id}", json={"router": {"routes": hop}}))
        self.do("router tags", lambda: n.set_tags(router, ["edge"]))
        down = self.do("router create", lambda: n.create_router(name=self._named("router-down")))
        self.do("router interface", lambda: n.add_interface_to_router(down, port_id=self._leg(other)))
        self.do("router admin down", lambda: n.update_router(down, is_admin_state_up=False))
        was = self.do("router create", lambda: n.create_router(name=self._named("router-was")))
        self.do("router gateway", lambda: n.update_router(was, external_gateway_info=gateway))
        lan = self.do("subnet create", lambda: self._subnet(lent, "sub-lent", "10.81.0.0/24"))
        self.do("router interface", lambda: n.add_interface_to_router(was, subnet_id=lan.id))
        self.do("router interface remove", lambda: n.remove_interface_from_router(was, subnet_id=lan.id))
        self.do("router no gateway", lambda: n.update_router(was, external_gateway_info={}))
        gone_router = self.do("router create", lambda: n.create_router(name=self._named("router-gone")))
        self.do("router delete", lambda: n.delete_router(gone_router))

    def _subnet(self, net: Any, name: str, cidr: str, **more: Any) -> Any:
        return self._one.network.create_subnet(name=self._named(name), network_id=net.id, ip_version=4, cidr=cidr, **more)

    def _leg(self, net: Any) -> str:
        """A subnet without a gateway gives a router no address by itself: a port."""
        address = [{"ip_address": "10.78.0.1"}]
        return str(self._one.network.create_port(network_id=net.id, fixed_ips=address, name=self._named("leg")).id)

    def ports(self) -> None:
        n, adm = self._one.network, self._adm.network

        def port(name: str, **more: Any) -> Any:
            return self.do(f"port create {name}", lambda: n.create_port(network_id=self.net, name=self._named(name), **more))

        changed = port("port-changed")
        groups = {"security_groups": [self.group], "description": "changed"}
        self.do("port update", lambda: n.update_port(changed, **groups))
        self.do("port tags", lambda: n.set_tags(changed, ["a", "b"]))
        self.do("port tag remove", lambda: n.delete(f"/ports/{changed.id}/tags/a"))
        off = port("port-off")
        self.do("port admin down", lambda: n.update_port(off, is_admin_state_up=False))
        flip = port("port-flip")
        self.do("port admin down", lambda: n.update_port(flip, is_admin_state_up=False))
        self.do("port admin up", lambda: n.update_port(flip, is_admin_state_up=True))
        free = {"security_groups": [], "port_security_enabled": False}
        port("port-free", **free)
        pairs = [{"ip_address": "10.77.0.200"}]
        port("port-pairs", allowed_address_pairs=pairs, extra_dhcp_opts=[{"opt_name": "mtu", "opt_value": "1400"}])
        moved = port("port-moved")
        # Any address may be another port's: Neutron gives them out as it likes.
        taken = {ip["ip_address"] for one in n.ports(network_id=self.net) for ip in one.fixed_ips}
        address = next(one for one in (f"10.77.0.{last}" for last in range(99, 199)) if one not in taken)
        fixed = [{"subnet_id": self.subnet, "ip_address": address}]
        self.do("port address", lambda: n.update_port(moved, fixed_ips=fixed))
        # Not where a subnet is SLAAC: this Neutron answers 500 then.
        bulk = {"ports": [{"network_id": self.four, "name": self._named(f"port-bulk{at}")} for at in range(3)]}
        made = self.do("port create (three in one)", lambda: n.post("/ports", json=bulk)).json()["ports"]
        self.do("port delete", lambda: n.delete_port(made[2]["id"]))
        parent, child = port("port-parent"), port("port-child")
        trunk = self.do("trunk create", lambda: n.create_trunk(name=self._named("trunk"), port_id=parent.id))
        sub = [{"port_id": child.id, "segmentation_type": "vlan", "segmentation_id": 7}]
        self.do("trunk subport", lambda: n.add_trunk_subports(trunk, sub))
        # As a compute service does it: bound on a host, and wired by the agent, silently.
        use = {"device_id": self._named("device"), "device_owner": "compute:nova"}
        bind = {"binding_host_id": "fake-1", **use}
        bound = self.do("port create bound", lambda: self._bound("port-bound", bind))
        self._active(bound)
        rebound = self.do("port create bound", lambda: self._bound("port-rebound", bind))
        self._active(rebound)
        self.do("port rebind", lambda: adm.update_port(rebound, binding_host_id="fake-2"))
        self._active(rebound)
        lost = self.do("port create bound", lambda: self._bound("port-lost", bind))
        self._active(lost)
        self.do("port bind to nowhere", lambda: adm.update_port(lost, binding_host_id="nowhere"))
        policy = self.do("QoS policy create", lambda: adm.create_qos_policy(name=self._named("qos"), shared=True))
        limited = port("port-limited")
        self.do("port QoS", lambda: adm.update_port(limited, qos_policy_id=policy.id))
        self.refused("network delete in use", lambda: n.delete_network(self.net, ignore_missing=False))
        self.refused("port create, address outside", lambda: port("port-no", fixed_ips=[{"ip_address": "192.0.2.1"}]))

        self.do("floating IP create", lambda: n.create_ip(floating_network_id=self._public, description="free"))
        used = self.do("floating IP create", lambda: n.create_ip(floating_network_id=self._public))
        self.do("floating IP associate", lambda: n.update_ip(used, port_id=bound.id))
        until("a floating IP to be ACTIVE", lambda: n.get_ip(used.id).status == "ACTIVE")
        back = self.do("floating IP create", lambda: n.create_ip(floating_network_id=self._public, port_id=changed.id))
        until("a floating IP to be ACTIVE", lambda: n.get_ip(back.id).status == "ACTIVE")
        self.do("floating IP disassociate", lambda: n.update_ip(back, port_id=None))
        self.do("floating IP tags", lambda: n.set_tags(back, ["spare"]))
        gone = self.do("floating IP create", lambda: n.create_ip(floating_network_id=self._public, port_id=moved.id))
        self.do("floating IP delete", lambda: n.delete_ip(gone))

    def _bound(self, name: str, bind: dict[str, Any]) -> Any:
        owner = {"project_id": self.tenants.one.project}
        return self._adm.network.create_port(network_id=self.net, name=self._named(name), **owner, **bind)

    def _active(self, port: Any) -> None:
        until("a port to be ACTIVE", lambda: self._adm.network.get_port(port.id).status == "ACTIVE")

    # --- Nova ---

    def flavors(self) -> None:
        nova = self._adm.compute
        size = {"ram": 256, "vcpus": 1, "disk": 1}
        flavor = self.do("flavor create", lambda: nova.create_flavor(name=self._named("fl"), **size))
        self.do("flavor extra specs", lambda: nova.create_flavor_extra_specs(flavor, {"hw:cpu_policy": "shared", "x": "1"}))
        self.do("flavor extra spec delete", lambda: nova.delete_flavor_extra_specs_property(flavor, "x"))
        text = {"flavor": {"description": "changed"}}
        self.do("flavor update", lambda: nova.put(f"/flavors/{flavor.id}", json=text, microversion="2.55"))
        own = self.do("flavor create", lambda: nova.create_flavor(name=self._named("fl-own"), is_public=False, swap=64, **size))
        for tenant in (self.tenants.one, self.tenants.two):
            self.do("flavor access", lambda tenant=tenant: nova.flavor_add_tenant_access(own, tenant.project))
        self.do("flavor access remove", lambda: nova.flavor_remove_tenant_access(own, self.tenants.two.project))
        gone = self.do("flavor create", lambda: nova.create_flavor(name=self._named("fl-gone"), **size))
        self.do("flavor delete", lambda: nova.delete_flavor(gone))
        mine = self._one.compute
        self.do("keypair create", lambda: mine.create_keypair(name=self._named("key")))
        public = "ssh-rsa " + base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\3\1\0\1\0\0\1\1" + b"\0" + b"\xab" * 256).decode() + " x"
        self.do("keypair import", lambda: mine.create_keypair(name=self._named("key-in"), public_key=public))
        left = self.do("keypair create", lambda: mine.create_keypair(name=self._named("key-gone")))
        self.do("keypair delete", lambda: mine.delete_keypair(left))

    def server(self, name: str, *, flavor: str = "tiny", networks: Any = None, wait: str = "ACTIVE", **more: Any) -> Any:
        c = self._one.compute
        what: dict[str, Any] = {"name": self._named(name), "image_id": self._image, "flavor_id": self._flavors[flavor], **more}
        what["networks"] = [{"uuid": self.net}] if networks is None else networks
        if what["image_id"] is None:
            del what["image_id"]
        server = self.do(f"server create {name}", lambda: c.create_server(**what))
        self.settled(server, wait)
        return server

    def settled(self, server: Any, status: str, *, task: bool = False) -> Any:
        """Wait until it has this status, and Nova does nothing with it any more."""

        def look() -> Any:
            found = self._adm.compute.get_server(server.id)
            assert found.status != "ERROR" or status == "ERROR", f"{found.name} is in ERROR: {found.fault}"
            return found if found.status == status and (task or found.task_state is None) else None

        return until(f"server {server.name} to be {status}", look)

    def become(self, server: Any, what: str, status: str, act: Callable[[], Any]) -> None:
        self.do(f"server {what}", act)
        time.sleep(0.3)  # some actions are taken a moment after they are answered
        self.settled(server, status)

    def servers(self) -> None:
        c = self._one.compute
        web = self.server(
            "web", key_name=self._named("key"), metadata={"team": "blue", "env": "test"}, user_data="I2Nsb3VkLWNvbmZpZwo="
        )
        self.do("server metadata", lambda: c.set_server_metadata(web, team="red"))
        self.do("server metadata delete", lambda: c.delete(f"/servers/{web.id}/metadata/env"))
        self.do("server rename", lambda: c.update_server(web, name=self._named("web2"), description="renamed"))
        self.do("server tags", lambda: c.put(f"/servers/{web.id}/tags", json={"tags": ["x", "y"]}, microversion="2.26"))
        port = next(iter(self._one.network.ports(device_id=web.id)))
        address = self.do("floating IP create", lambda: self._one.network.create_ip(floating_network_id=self._public))
        self.do("floating IP associate", lambda: self._one.network.update_ip(address, port_id=port.id))
        extra = self.do("port create", lambda: self._one.network.create_port(network_id=self.net, name=self._named("extra")))
        self.do("interface attach", lambda: c.create_server_interface(web, port_id=extra.id))
        second = self.do("port create", lambda: self._one.network.create_port(network_id=self.net, name=self._named("loose")))
        self.do("interface attach", lambda: c.create_server_interface(web, port_id=second.id))
        until("an interface", lambda: self._one.network.get_port(second.id).status == "ACTIVE")
        self.do("interface detach", lambda: c.delete_server_interface(second.id, server=web))
        until("an interface to go", lambda: not self._one.network.get_port(second.id).device_id)
        self.do("security group add", lambda: c.add_security_group_to_server(web, {"name": self.group}))
        self.become(web, "reboot soft", "ACTIVE", lambda: c.reboot_server(web, "SOFT"))
        self.become(web, "reboot hard", "ACTIVE", lambda: c.reboot_server(web, "HARD"))

        off = self.server("off")
        self.become(off, "stop", "SHUTOFF", lambda: c.stop_server(off))
        self.become(off, "start", "ACTIVE", lambda: c.start_server(off))
        self.become(off, "stop", "SHUTOFF", lambda: c.stop_server(off))
        asleep = self.server("asleep")
        self.become(asleep, "suspend", "SUSPENDED", lambda: c.suspend_server(asleep))
        self.become(asleep, "resume", "ACTIVE", lambda: c.resume_server(asleep))
        self.become(asleep, "suspend", "SUSPENDED", lambda: c.suspend_server(asleep))
        paused = self.server("paused")
        self.become(paused, "pause", "PAUSED", lambda: c.pause_server(paused))
        self.become(paused, "unpause", "ACTIVE", lambda: c.unpause_server(paused))
        self.become(paused, "pause", "PAUSED", lambda: c.pause_server(paused))
        rescued = self.server("rescued")
        self.become(rescued, "rescue", "RESCUE", lambda: c.rescue_server(rescued))
        self.become(rescued, "unrescue", "ACTIVE", lambda: c.unrescue_server(rescued))
        self.become(rescued, "rescue", "RESCUE", lambda: c.rescue_server(rescued))
        locked = self.server("locked")
        self.do("server lock", lambda: c.lock_server(locked, locked_reason="do not touch"))
        unlocked = self.server("unlocked")
        self.do("server lock", lambda: c.lock_server(unlocked))
        self.do("server unlock", lambda: c.unlock_server(unlocked))
        rebuilt = self.server("rebuilt")
        self.become(
            rebuilt, "rebuild", "ACTIVE",
            lambda: c.rebuild_server(rebuilt, image=self._image, name=self._named("rebuilt2"), admin_password=PASSWORD),
        )  # fmt: skip
        self.do("server image", lambda: c.create_server_image(rebuilt, self._named("img-snap")))
        time.sleep(1)
        self.settled(rebuilt, "ACTIVE")  # (the fake driver uploads nothing: the image stays queued)
        shelved = self.server("shelved")
        self.become(shelved, "shelve", "SHELVED_OFFLOADED", lambda: c.shelve_server(shelved))
        back = self.server("back")
        self.become(back, "shelve", "SHELVED_OFFLOADED", lambda: c.shelve_server(back))
        unshelve = {"unshelve": None}
        self.become(back, "unshelve", "ACTIVE", lambda: c.post(f"/servers/{back.id}/action", json=unshelve, microversion="2.1"))
        burst = {"min_count": 3, "max_count": 3}
        self.do("server create (three in one)", lambda: self._burst(burst))
        until("three servers", lambda: self._all_active("burst"))
        gone = next(iter(c.servers(name=self._named("burst"))))
        self.do("server delete", lambda: c.delete_server(gone))
        self._deleted(gone)

    def _burst(self, burst: dict[str, int]) -> Any:
        what = {"name": self._named("burst"), "image_id": self._image, "flavor_id": self._flavors["tiny"], **burst}
        return self._one.compute.create_server(networks=[{"uuid": self.net}], **what)

    def _all_active(self, name: str) -> bool:
        found = list(self._one.compute.servers(name=self._named(name)))
        return len(found) == 3 and all(one.status == "ACTIVE" for one in found)

    def _deleted(self, server: Any) -> None:
        def look() -> bool:
            try:
                self._adm.compute.get_server(server.id)
            except exceptions.NotFoundException:
                return True
            return False

        until(f"server {server.name} to go", look)

    def moves(self) -> None:
        """Servers that change their size or their host."""
        c, adm = self._one.compute, self._adm.compute
        unsure = self.server("unsure")
        resize = self._flavors["small"]
        self.become(unsure, "resize", "VERIFY_RESIZE", lambda: c.resize_server(unsure, resize))
        larger = self.server("larger")
        self.become(larger, "resize", "VERIFY_RESIZE", lambda: c.resize_server(larger, resize))
        self.become(larger, "confirm", "ACTIVE", lambda: c.confirm_server_resize(larger))
        same = self.server("same")
        self.become(same, "resize", "VERIFY_RESIZE", lambda: c.resize_server(same, self._flavors["medium"]))
        self.become(same, "revert", "ACTIVE", lambda: c.revert_server_resize(same))
        live = self.server("live")
        self.become(live, "live migrate", "ACTIVE", lambda: adm.live_migrate_server(live, host=None, block_migration="auto"))
        cold = self.server("cold")
        self.become(cold, "migrate", "VERIFY_RESIZE", lambda: adm.migrate_server(cold))
        self.become(cold, "confirm", "ACTIVE", lambda: c.confirm_server_resize(cold))
        refuse = {"host": "nowhere", "block_migration": "auto"}
        self.refused("server live migrate to nowhere", lambda: adm.live_migrate_server(live, **refuse))

    def errors(self) -> None:
        """Servers that go wrong, and deletions of what is in use."""
        c, adm = self._one.compute, self._adm.compute
        huge = {"name": self._named("fl-huge"), "ram": 10**7, "vcpus": 1, "disk": 1}
        self._flavors["huge"] = self.do("flavor create", lambda: adm.create_flavor(**huge)).id
        self.server("nowhere", flavor="huge", wait="ERROR")
        gone = self.server("nowhere-gone", flavor="huge", wait="ERROR")
        self.do("server delete in ERROR", lambda: c.delete_server(gone))
        self._deleted(gone)
        broken = self.server("broken", networks="none")
        self.do("server reset to error", lambda: adm.reset_server_state(broken, "error"))
        mended = self.server("mended", networks="none")
        self.do("server reset to error", lambda: adm.reset_server_state(mended, "error"))
        self.do("server reset to active", lambda: adm.reset_server_state(mended, "active"))
        bare = self.server("bare")
        port = next(iter(self._one.network.ports(device_id=bare.id)))
        self.do("port delete under its server", lambda: self._one.network.delete_port(port.id))
        time.sleep(1)
        own = self.do("port create", lambda: self._one.network.create_port(network_id=self.net, name=self._named("own")))
        kept = self.server("kept-port", networks=[{"port": own.id}])
        self.do("server delete, its port stays", lambda: c.delete_server(kept))
        self._deleted(kept)

    def groups(self) -> None:
        c = self._one.compute
        apart = self.do("server group create", lambda: c.create_server_group(name=self._named("apart"), policy="anti-affinity"))
        self.server("apart", networks="none", scheduler_hints={"group": apart.id})
        left = self.server("apart-gone", networks="none", scheduler_hints={"group": apart.id})
        self.do("server delete", lambda: c.delete_server(left))
        self._deleted(left)
        self.do("server group create", lambda: c.create_server_group(name=self._named("near"), policy="soft-affinity"))
        gone = self.do("server group create", lambda: c.create_server_group(name=self._named("gone"), policy="affinity"))
        self.do("server group delete", lambda: c.delete_server_group(gone))

    def hosts(self) -> None:
        """Last: one of the hosts is closed to new servers while it is looked at."""
        adm = self._adm.compute
        hosts = sorted(one.host for one in adm.services(binary="nova-compute"))
        group = self.do("aggregate create", lambda: adm.create_aggregate(name=self._named("agg")))
        self.do("aggregate add host", lambda: adm.add_host_to_aggregate(group, hosts[0]))
        self.do("aggregate add host", lambda: adm.add_host_to_aggregate(group, hosts[1]))
        self.do("aggregate remove host", lambda: adm.remove_host_from_aggregate(group, hosts[1]))
        self.do("aggregate metadata", lambda: adm.set_aggregate_metadata(group, {"ssd": "true", "old": "1"}))
        self.do("aggregate metadata", lambda: adm.set_aggregate_metadata(group, {"old": None}))
        zone = self.do(
            "aggregate create", lambda: adm.create_aggregate(name=self._named("agg-zone"), availability_zone=self._named("az"))
        )
        self.do("aggregate rename", lambda: adm.update_aggregate(zone, name=self._named("agg-zone2")))
        gone = self.do("aggregate create", lambda: adm.create_aggregate(name=self._named("agg-gone")))
        self.do("aggregate delete", lambda: adm.delete_aggregate(gone))
        service = next(one for one in adm.services(binary="nova-compute") if one.host == hosts[-1])

        def switch(**body: Any) -> Any:
            return adm.put(f"/os-services/{service.id}", json=body, microversion="2.53")

        self.do("compute service disable", lambda: switch(status="disabled", disabled_reason=self._named("look")))
        self.do("compute service enable", lambda: switch(status="enabled"))
        self.do("compute service disable", lambda: switch(status="disabled", disabled_reason=self._named("again")))
        if not os.environ.get("RC_SHARED"):
            self.evacuation()

    def evacuation(self) -> None:
        """A host is declared dead, and its server is built anew on another. (Nova refuses to take that back until the server is
        gone: `Tenants.clear`.)"""
        adm = self._adm.compute
        server = self.server("saved")
        host = adm.get_server(server.id).compute_host
        service = next(one for one in adm.services(binary="nova-compute") if one.host == host)
        dead = {"forced_down": True}
        self.do("compute service down", lambda: adm.put(f"/os-services/{service.id}", json=dead, microversion="2.53"))
        away = {"evacuate": {}}
        self.do("server evacuate", lambda: adm.post(f"/servers/{server.id}/action", json=away, microversion="2.14"))
        until("a server to be elsewhere", lambda: adm.get_server(server.id).compute_host != host)
        self.settled(server, "ACTIVE")

    # --- Cinder ---

    def volumes(self) -> None:
        v, c = self._one.block_storage, self._one.compute

        def volume(name: str, **more: Any) -> Any:
            made = self.do(f"volume create {name}", lambda: v.create_volume(name=self._named(name), size=1, **more))
            until(f"volume {name}", lambda: v.get_volume(made.id).status == "available")
            return made

        plain = volume("vol", description="first")
        change = {"volume": {"name": self._named("vol2"), "description": "changed"}}
        self.do("volume update", lambda: v.put(f"/volumes/{plain.id}", json=change))
        meta = {"metadata": {"team": "blue", "gone": "1"}}
        self.do("volume metadata", lambda: v.post(f"/volumes/{plain.id}/metadata", json=meta))
        self.do("volume metadata delete", lambda: v.delete(f"/volumes/{plain.id}/metadata/gone"))
        snap = self.do("snapshot create", lambda: v.create_snapshot(volume_id=plain.id, name=self._named("snap")))
        until("a snapshot", lambda: v.get_snapshot(snap.id).status == "available")
        rename = {"snapshot": {"name": self._named("snap2")}}
        self.do("snapshot update", lambda: v.put(f"/snapshots/{snap.id}", json=rename))
        gone = self.do("snapshot create", lambda: v.create_snapshot(volume_id=plain.id, name=self._named("snap-gone")))
        until("a snapshot", lambda: v.get_snapshot(gone.id).status == "available")
        self.do("snapshot delete", lambda: v.delete_snapshot(gone))
        volume("vol-of-snap", snapshot_id=snap.id)
        used = volume("vol-used")
        holder = self.server("holder", networks="none")

        def attach(volume: Any) -> Any:
            body = {"volumeAttachment": {"volumeId": volume.id}}
            return c.post(f"/servers/{holder.id}/os-volume_attachments", json=body, microversion="2.1")

        self.do("volume attach", lambda: attach(used))
        until("a volume to be in use", lambda: v.get_volume(used.id).status == "in-use")
        back = volume("vol-back")
        self.do("volume attach", lambda: attach(back))
        until("a volume to be in use", lambda: v.get_volume(back.id).status == "in-use")
        self.do("volume detach", lambda: c.delete(f"/servers/{holder.id}/os-volume_attachments/{back.id}"))
        until("a volume to be free", lambda: v.get_volume(back.id).status == "available")
        stuck = volume("vol-stuck")
        # The fake driver can't: error_extending.
        self.do("volume extend", lambda: v.extend_volume(stuck, 2))
        until("a volume to fail", lambda: v.get_volume(stuck.id).status == "error_extending")
        boot = {"bootable": True}
        given = volume("vol-given")
        self.do("volume bootable", lambda: v.post(f"/volumes/{given.id}/action", json={"os-set_bootable": boot}))
        transfer = {"transfer": {"volume_id": given.id, "name": self._named("transfer")}}
        ticket = self.do("volume transfer", lambda: v.post("/os-volume-transfer", json=transfer)).json()["transfer"]
        accept = {"accept": {"auth_key": ticket["auth_key"]}}
        two = self._two.block_storage
        self.do("volume accept", lambda: two.post(f"/os-volume-transfer/{ticket['id']}/accept", json=accept))
        left = volume("vol-gone")
        self.do("volume delete", lambda: v.delete_volume(left))

    # --- Octavia ---

    def balancer(self, name: str, **more: Any) -> Any:
        lbs = self._one.load_balancer
        made = self.do(
            f"load balancer create {name}",
            lambda: lbs.create_load_balancer(name=self._named(name), vip_subnet_id=self.subnet, **more),
        )
        self.balanced(made.id)
        return made

    def balanced(self, id_: str) -> None:
        def look() -> bool:
            status = self._one.load_balancer.get_load_balancer(id_).provisioning_status
            assert status != "ERROR", "a load balancer is in ERROR"
            return status == "ACTIVE"

        until("a load balancer to be ACTIVE", look)

    def balancers(self) -> None:
        lbs = self._one.load_balancer
        lb = self.balancer("lb")
        other = self.do(
            "load balancer create lb-off",
            lambda: lbs.create_load_balancer(name=self._named("lb-off"), vip_subnet_id=self.subnet, is_admin_state_up=False),
        )

        def change(what: str, act: Callable[[], Any]) -> Any:
            found = self.do(what, act)
            self.balanced(lb.id)
            return found

        listener = change("listener create", lambda: lbs.create_listener(
            name=self._named("ls"), protocol="HTTP", protocol_port=80, load_balancer_id=lb.id))  # fmt: skip
        pool = change("pool create", lambda: lbs.create_pool(
            name=self._named("pool"), protocol="HTTP", lb_algorithm="ROUND_ROBIN", listener_id=listener.id))  # fmt: skip
        members = [change("member create", lambda at=at: lbs.create_member(
            pool, name=self._named(f"mb{at}"), address=f"10.77.0.5{at}", protocol_port=8080, subnet_id=self.subnet,
        )) for at in range(3)]  # fmt: skip
        change("health monitor create", lambda: lbs.create_health_monitor(
            name=self._named("hm"), type="HTTP", delay=5, timeout=3, max_retries=3, pool_id=pool.id))  # fmt: skip
        change("l7 policy create", lambda: lbs.create_l7_policy(
            name=self._named("l7"), action="REJECT", listener_id=listener.id))  # fmt: skip
        change("load balancer update", lambda: lbs.update_load_balancer(lb, description="changed", name=self._named("lb2")))
        change("listener update", lambda: lbs.update_listener(listener, connection_limit=100))
        change("member update", lambda: lbs.update_member(members[0], pool, weight=5))
        change("member disable", lambda: lbs.update_member(members[1], pool, is_admin_state_up=False))
        change("pool update", lambda: lbs.update_pool(pool, lb_algorithm="LEAST_CONNECTIONS"))
        change("member delete", lambda: lbs.delete_member(members[2], pool))
        tcp = change("listener create", lambda: lbs.create_listener(
            name=self._named("ls-gone"), protocol="TCP", protocol_port=81, load_balancer_id=lb.id))  # fmt: skip
        change("listener delete", lambda: lbs.delete_listener(tcp))
        spare = change("pool create", lambda: lbs.create_pool(
            name=self._named("pool-gone"), protocol="TCP", lb_algorithm="SOURCE_IP", loadbalancer_id=lb.id))  # fmt: skip
        change("pool delete", lambda: lbs.delete_pool(spare))
        self.balanced(other.id)
        gone = self.balancer("lb-gone")
        self.do("load balancer delete", lambda: lbs.delete_load_balancer(gone, cascade=True))

    # --- Heat ---

    def stacks(self) -> None:
        heat = self._one.orchestration

        def template(length: int, **more: Any) -> dict[str, Any]:
            random = {"type": "OS::Heat::RandomString", "properties": {"length": length}}
            net = {"type": "OS::Neutron::Net", "properties": {"name": self._named("heat-net")}}
            return {"heat_template_version": "2018-08-31", "description": "A test", "resources": {"r": random, "n": net, **more}}

        def stack(name: str, text: dict[str, Any], status: str) -> str:
            body = {"stack_name": self._named(name), "template": text, "timeout_mins": 5, "tags": "a,b", "disable_rollback": True}
            made = self.do(f"stack create {name}", lambda: heat.post("/stacks", json=body)).json()["stack"]["id"]
            settle(name, made, status)
            return str(made)

        def settle(name: str, id_: str, status: str) -> None:
            path = f"/stacks/{self._named(name)}/{id_}"
            until(f"stack {name} to be {status}", lambda: heat.get(path).json()["stack"]["stack_status"] == status)

        def act(name: str, id_: str, action: str) -> None:
            path = f"/stacks/{self._named(name)}/{id_}/actions"
            self.do(f"stack {action}", lambda: heat.post(path, json={action: None}))

        stack("stack", template(8), "CREATE_COMPLETE")
        updated = stack("stack-up", template(8), "CREATE_COMPLETE")
        path = f"/stacks/{self._named('stack-up')}/{updated}"
        self.do("stack update", lambda: heat.put(path, json={"template": template(9)}))
        settle("stack-up", updated, "UPDATE_COMPLETE")
        wrong = {
            "w": {"type": "OS::Neutron::Port", "properties": {"network": self.net, "fixed_ips": [{"ip_address": "192.0.2.1"}]}}
        }
        stack("stack-bad", template(8, **wrong), "CREATE_FAILED")
        still = stack("stack-still", template(8), "CREATE_COMPLETE")
        act("stack-still", still, "suspend")
        settle("stack-still", still, "SUSPEND_COMPLETE")
        left = stack("stack-gone", template(8), "CREATE_COMPLETE")
        self.do("stack delete", lambda: heat.delete(f"/stacks/{self._named('stack-gone')}/{left}"))
        until("a stack to go", lambda: self._stack_gone(left))

    def _stack_gone(self, id_: str) -> bool:
        found = self._one.orchestration.get("/stacks").json()["stacks"]
        return all(one["id"] != id_ for one in found)
