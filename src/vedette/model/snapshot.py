"""A snapshot: the cloud at one revision, as strategies look at it. Built by engine/snapshots.py, within an audit's scope; frozen.

Memory and disk are in MiB and GiB. A host's `vcpus`, `memory` and `disk` are what there is; its capacity is (total − reserved) ×
ratio, as Placement has it. Servers name their host by `Host.hostname`, never by its UUID.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec


class Host(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A hypervisor with the nova-compute that runs it."""

    uuid: str
    hostname: str
    """The hypervisor's name: what `migrate` takes, and what servers name."""
    service_host: str = ""
    """The host of its nova-compute: what aggregates list and what a service is switched by; nearly always the same."""
    service_id: str = ""
    status: str = "enabled"
    """enabled or disabled."""
    disabled_reason: str = ""
    state: str = "up"
    """up or down."""
    zone: str = ""
    hypervisor_type: str = ""
    vcpus: int = 0
    memory: int = 0
    """MiB."""
    disk: int = 0
    """GiB."""
    vcpus_reserved: int = 0
    memory_reserved: int = 0
    disk_reserved: int = 0
    vcpus_ratio: float = 1.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0

    @property
    def vcpus_capacity(self) -> float:
        return (self.vcpus - self.vcpus_reserved) * self.vcpus_ratio

    @property
    def memory_capacity(self) -> float:
        """MiB."""
        return (self.memory - self.memory_reserved) * self.memory_ratio

    @property
    def disk_capacity(self) -> float:
        """GiB."""
        return (self.disk - self.disk_reserved) * self.disk_ratio

    @property
    def usable(self) -> bool:
        """It may be given servers."""
        return self.status == "enabled" and self.state == "up"


class Server(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An instance. `excluded` ones stay in the snapshot, since they fill their host; nobody moves them."""

    uuid: str
    name: str = ""
    host: str = ""
    """`Host.hostname`; "" while it is on none."""
    status: str = "ACTIVE"
    """What the compute API shows: ACTIVE, PAUSED, SHUTOFF, …"""
    task_state: str = ""
    """"" when Nova is doing nothing with it."""
    vcpus: int = 0
    memory: int = 0
    """MiB."""
    disk: int = 0
    """GiB."""
    project: str = ""
    zone: str = ""
    pinned_zone: str = ""
    metadata: dict[str, Any] = {}
    locked: bool = False
    created: str = ""
    """RFC 3339."""
    flavor: str = ""
    """The flavor's name."""
    extra_specs: dict[str, Any] = {}
    volumes: tuple[str, ...] = ()
    """Ids of the volumes that are attached to it."""
    excluded: bool = False
    """The audit's scope leaves it out."""

    @property
    def movable(self) -> bool:
        """Neither excluded nor locked, and Nova is doing nothing with it."""
        return not (self.excluded or self.locked or self.task_state)

    @property
    def live(self) -> bool:
        """It can be live-migrated: it runs or is paused. A stopped one is migrated cold."""
        return self.status in ("ACTIVE", "PAUSED")


class Aggregate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A host aggregate of Nova."""

    id: int
    name: str = ""
    hosts: tuple[str, ...] = ()
    """Names of service hosts (`Host.service_host`)."""
    zone: str = ""
    metadata: dict[str, Any] = {}


class Pool(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A storage pool of Cinder."""

    name: str
    """`host@backend#pool`."""
    total: float = 0.0
    """GiB."""
    free: float = 0.0
    allocated: float = 0.0
    provisioned: float = 0.0
    virtual_free: float = 0.0
    oversubscription: float = 1.0
    """`max_over_subscription_ratio`."""
    backend_name: str = ""
    """`volume_backend_name`, which a volume type's extra spec of this name asks for."""
    zone: str = ""
    status: str = "enabled"
    state: str = "up"


class Volume(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    uuid: str
    name: str = ""
    pool: str = ""
    """`Pool.name`."""
    size: int = 0
    """GiB."""
    status: str = ""
    type: str = ""
    """The volume type's name; "" for an untyped one."""
    project: str = ""
    zone: str = ""
    bootable: bool = False
    multiattach: bool = False
    metadata: dict[str, Any] = {}
    servers: tuple[str, ...] = ()
    """Ids of the servers that it is attached to."""
    boot: bool = False
    """It is the boot volume of one of them."""
    snapshots: int = 0
    """How many snapshots it has."""
    created: str = ""


class VolumeType(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    extra_specs: dict[str, Any] = {}


class Machine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node of Ironic."""

    uuid: str
    name: str = ""
    hostname: str = ""
    """The hypervisor that it is, by its name; "" unknown."""
    power_state: str = ""
    """power on, power off."""
    maintenance: bool = False
    provision_state: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything in scope, each list in the order of its names: the same log gives the same snapshot."""

    revision: int
    hosts: tuple[Host, ...] = ()
    servers: tuple[Server, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    pools: tuple[Pool, ...] = ()
    volumes: tuple[Volume, ...] = ()
    volume_types: tuple[VolumeType, ...] = ()
    machines: tuple[Machine, ...] = ()

    @cached_property
    def host(self) -> dict[str, Host]:
        """By name."""
        return {one.hostname: one for one in self.hosts}

    @cached_property
    def server(self) -> dict[str, Server]:
        """By id."""
        return {one.uuid: one for one in self.servers}

    @cached_property
    def servers_on(self) -> dict[str, Sequence[Server]]:
        """Of every host, by its name."""
        found: dict[str, list[Server]] = {one.hostname: [] for one in self.hosts}
        for server in self.servers:
            if server.host in found:
                found[server.host].append(server)
        return dict(found)

    @cached_property
    def pool(self) -> dict[str, Pool]:
        return {one.name: one for one in self.pools}

    @cached_property
    def volumes_in(self) -> dict[str, Sequence[Volume]]:
        """Of every pool, by its name."""
        found: dict[str, list[Volume]] = {one.name: [] for one in self.pools}
        for volume in self.volumes:
            if volume.pool in found:
                found[volume.pool].append(volume)
        return dict(found)
