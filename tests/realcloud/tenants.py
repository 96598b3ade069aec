"""Two projects of a test's own in the real cloud, their users, and everything that can be done with openstacksdk as one of them.

Whatever is made here, or inside one of the projects, goes away with `Tenants.clear`, also after a failure.
`python tests/realcloud/tenants.py` takes away what killed runs have left behind.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import openstack
from openstack import exceptions

AUTH_URL = "http://127.0.0.1:5000/v3"
PASSWORD = "ospw"  # of everybody; bootstrap.py
REGION = "RegionOne"
PREFIX = "vrc-"
"""Begins the name of everything that these tests make."""
PATIENCE = 180.0
"""Seconds after which a wait is a failure."""


def connect(user: str = "admin", project: str = "admin") -> openstack.connection.Connection:
    """openstacksdk as this user in this project. Reads no clouds.yaml and no OS_* variables."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own, about its options
        return openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            auth_url=AUTH_URL,
            username=user,
            password=PASSWORD,
            project_name=project,
            user_domain_name="Default",
            project_domain_name="Default",
            region_name=REGION,
            compute_default_microversion="2.90",
        )


def until(what: str, look: Callable[[], Any], seconds: float = PATIENCE, every: float = 0.4) -> Any:
    """`look()` again and again until it gives something true, which is returned."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return found


class Tenant(NamedTuple):
    """One project with one member."""

    name: str
    project: str
    user: str
    cloud: openstack.connection.Connection

    def token(self) -> str:
        """A new one, scoped to the project. (The connection keeps its own.)"""
        return str(connect(self.name, self.name).auth_token)


class Tenants:
    """`one` and `two`, and `admin`, who may do everything."""

    def __init__(self) -> None:
        self.tag = PREFIX + uuid.uuid4().hex[:6]
        self.admin = connect()
        self.one, self.two = (self._tenant(f"{self.tag}-{name}") for name in ("one", "two"))

    def named(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def _tenant(self, name: str) -> Tenant:
        identity = self.admin.identity
        project = identity.create_project(name=name, domain_id="default")
        user = identity.create_user(name=name, password=PASSWORD, domain_id="default", default_project_id=project.id)
        for role in ("member", "load-balancer_member", "heat_stack_owner"):
            identity.assign_project_role_to_user(project, user, identity.find_role(role))
        limits = {"instances": -1, "cores": -1, "ram": -1, "key_pairs": -1, "server_groups": -1}
        self.admin.compute.put(f"/os-quota-sets/{project.id}", json={"quota_set": limits}).raise_for_status()
        volumes = self.admin.block_storage.put(
            f"/os-quota-sets/{project.id}", json={"quota_set": {"volumes": -1, "snapshots": -1}}
        )
        volumes.raise_for_status()
        return Tenant(name, project.id, user.id, connect(name, name))

    def clear(self) -> list[str]:
        """Take away all of it; what would not go."""
        return clear(self.admin, self.tag)


def clear(admin: openstack.connection.Connection, prefix: str) -> list[str]:
    """Take away every project and user whose name begins with `prefix`, all that is in those projects, and what admins made
    under such a name. Gives what would not go."""
    left: list[str] = []
    projects = [one for one in admin.identity.projects() if one.name.startswith(prefix)]
    users = [one for one in admin.identity.users() if one.name.startswith(prefix)]
    for service in admin.compute.services(binary="nova-compute"):
        if (service.disabled_reason or "").startswith(prefix):
            admin.compute.put(f"/os-services/{service.id}", json={"status": "enabled"}, microversion="2.53")
    ids = {one.id for one in projects}
    _clear_projects(admin, prefix, ids, left)
    for user in users:
        for pair in admin.compute.keypairs(user_id=user.id):
            _try(
                left,
                f"keypair {pair.name}",
                lambda pair=pair, user=user: admin.compute.delete_keypair(pair.name, user_id=user.id),
            )
    for group in admin.compute.get("/os-server-groups?all_projects=True&limit=1000").json()["server_groups"]:
        if group["project_id"] in ids:
            _try(left, f"server group {group['name']}", lambda group=group: admin.compute.delete_server_group(group["id"]))
    for aggregate in admin.compute.aggregates():
        if aggregate.name.startswith(prefix):
            for host in aggregate.hosts or ():
                admin.compute.remove_host_from_aggregate(aggregate, host)
            _try(left, f"aggregate {aggregate.name}", lambda aggregate=aggregate: admin.compute.delete_aggregate(aggregate))
    for flavor in admin.compute.flavors(is_public=None):
        if flavor.name.startswith(prefix):
            _try(left, f"flavor {flavor.name}", lambda flavor=flavor: admin.compute.delete_flavor(flavor))
    for user in users:
        _try(left, f"user {user.name}", lambda user=user: admin.identity.delete_user(user))
    for project in projects:
        _try(left, f"project {project.name}", lambda project=project: admin.identity.delete_project(project))
    return left


def _clear_projects(admin: openstack.connection.Connection, prefix: str, projects: set[str], left: list[str]) -> None:
    def mine(items: Iterable[Any]) -> list[Any]:
        return [one for one in items if one.project_id in projects]

    balancers = mine(admin.load_balancer.load_balancers())
    for one in balancers:
        _try(left, f"load balancer {one.name}", lambda one=one: _settled_balancer(admin, one.id))
        _try(left, f"load balancer {one.name}", lambda one=one: admin.load_balancer.delete_load_balancer(one.id, cascade=True))
    for one in _stacks(admin, prefix):
        _try(left, f"stack {one['stack_name']}", lambda one=one: admin.session.delete(one["links"][0]["href"]))
    _gone(left, "load balancers", lambda: mine(admin.load_balancer.load_balancers()))
    _gone(left, "stacks", lambda: _stacks(admin, prefix))
    servers = mine(admin.compute.servers(all_projects=True))
    for one in servers:
        _try(left, f"server {one.name}", lambda one=one: admin.compute.delete_server(one.id))
    _gone(left, "servers", lambda: mine(admin.compute.servers(all_projects=True)))
    for one in admin.compute.services(binary="nova-compute"):
        if one.is_forced_down and not os.environ.get("RC_SHARED"):
            up = {"json": {"forced_down": False}, "microversion": "2.53"}
            _try(left, f"{one.host} up", lambda one=one, up=up: _well(admin.compute.put(f"/os-services/{one.id}", **up)))
    volumes = admin.block_storage
    for one in mine(volumes.snapshots(all_projects=True)):
        _try(left, f"snapshot {one.name}", lambda one=one: volumes.delete_snapshot(one.id))
    _gone(left, "snapshots", lambda: mine(volumes.snapshots(all_projects=True)))
    for one in mine(volumes.volumes(all_projects=True)):
        if one.status not in ("available", "error"):
            body = {"os-reset_status": {"status": "available", "attach_status": "detached"}}
            volumes.post(f"/volumes/{one.id}/action", json=body)
        _try(left, f"volume {one.name}", lambda one=one: volumes.delete_volume(one.id))
    for image in (*admin.image.images(visibility="all"), *admin.image.images(visibility="all", is_hidden=True)):
        if image.name and image.name.startswith(prefix):
            _clear_image(admin, image, left)
    network = admin.network
    for one in mine(network.ips()):
        _try(left, f"floating IP {one.id}", lambda one=one: network.delete_ip(one.id))
    for one in mine(network.trunks()):
        _try(left, f"trunk {one.id}", lambda one=one: network.delete_trunk(one.id))
    for one in mine(network.routers()):
        network.put(f"/routers/{one.id}", json={"router": {"routes": []}})
        for port in network.ports(device_id=one.id, device_owner="network:router_interface"):
            gone = {"port_id": port.id}
            _try(
                left, f"interface of {one.name}", lambda one=one, gone=gone: network.remove_interface_from_router(one.id, **gone)
            )
        _try(left, f"router {one.name}", lambda one=one: network.delete_router(one.id))
    for one in mine(network.ports()):
        _try(left, f"port {one.id}", lambda one=one: network.delete_port(one.id))
    for policy in mine(network.rbac_policies()):
        _try(left, f"RBAC policy {policy.id}", lambda policy=policy: network.delete_rbac_policy(policy.id))
    networks = [one for one in network.networks() if one.project_id in projects or one.name.startswith(prefix)]
    for one in networks:
        for port in network.ports(network_id=one.id):
            _try(left, f"port {port.id}", lambda port=port: network.delete_port(port.id))
        _try(left, f"network {one.name}", lambda one=one: network.delete_network(one.id))
    for one in mine(network.security_groups()):
        _try(left, f"security group {one.name}", lambda one=one: network.delete_security_group(one.id))
    for one in network.qos_policies():
        if one.name.startswith(prefix):
            _try(left, f"QoS policy {one.name}", lambda one=one: network.delete_qos_policy(one.id))
    _gone(left, "volumes", lambda: mine(volumes.volumes(all_projects=True)))


def _stacks(admin: openstack.connection.Connection, prefix: str) -> list[dict[str, Any]]:
    """Heat shows admins every project's."""
    return [one for one in admin.orchestration.get("/stacks").json()["stacks"] if one["stack_name"].startswith(prefix)]


def _settled_balancer(admin: openstack.connection.Connection, id_: str) -> None:
    """One that is PENDING can't be deleted."""
    until(
        f"load balancer {id_} to settle",
        lambda: admin.load_balancer.get_load_balancer(id_).provisioning_status in ("ACTIVE", "ERROR"),
    )


def _clear_image(admin: openstack.connection.Connection, image: Any, left: list[str]) -> None:
    if image.is_protected:
        admin.image.update_image(image.id, is_protected=False)
    _try(left, f"image {image.name}", lambda: admin.image.delete_image(image.id))


def _try(left: list[str], what: str, act: Callable[[], Any]) -> None:
    for attempt in range(4):
        try:
            with contextlib.suppress(exceptions.NotFoundException):
                act()
            return
        except (exceptions.SDKException, AssertionError) as why:
            said = str(why)[:200]
            time.sleep(1.0 + attempt)  # in use by something that is going, mostly
    left.append(f"{what}: {said}")


def _well(answer: Any) -> None:
    exceptions.raise_from_response(answer)


def _gone(left: list[str], what: str, look: Callable[[], list[Any]]) -> None:
    try:
        until(f"{what} to go", lambda: not look(), every=1.0)
    except (exceptions.SDKException, AssertionError) as why:
        left.append(str(why)[:200])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    remained = clear(connect(), PREFIX)
    print("\n".join(remained) or "nothing is left")
    sys.exit(bool(remained))
