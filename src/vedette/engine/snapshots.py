"""A `Snapshot` of the objects that the store served: bodies go in, a page at a time; frozen hosts, servers and volumes come out.

Runs in the process of advice.py, never in the service's own loop: engine/advising.py sends the pages as the store gives them,
undecoded. Only what is declared here is decoded (5 µs a server; whole ones would take ten times that).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from vedette.model.reading import OPENSTACK
from vedette.model.snapshot import Aggregate, Host, Machine, Pool, Server, Snapshot, Volume, VolumeType

KINDS: Mapping[str, tuple[str, ...]] = {
    "compute": ("Hypervisor", "ComputeService", "Aggregate", "ResourceProvider", "Server"),
    "storage": ("StoragePool", "VolumeType", "Snapshot", "Volume"),
    "baremetal": ("BareMetalNode",),
}
"""Model → the kinds that it is made of."""
GROUP = OPENSTACK

_GONE = frozenset({"DELETED", "SOFT_DELETED"})


class _Meta(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""
    creationTimestamp: str = ""


class _Flavor(msgspec.Struct, gc=False):
    original_name: str | None = None
    vcpus: int | None = None
    ram: int | None = None
    disk: int | None = None
    ephemeral: int | None = None
    extra_specs: dict[str, Any] | None = None


class _Server(msgspec.Struct, gc=False):
    name: str | None = None
    status: str | None = None
    created: str | None = None
    flavor: _Flavor | None = None
    metadata: dict[str, Any] | None = None
    locked: bool | None = None
    zone: str | None = msgspec.field(default=None, name="OS-EXT-AZ:availability_zone")
    pinned_availability_zone: str | None = None
    task_state: str | None = msgspec.field(default=None, name="OS-EXT-STS:task_state")
    service_host: str | None = msgspec.field(default=None, name="OS-EXT-SRV-ATTR:host")
    host: str | None = msgspec.field(default=None, name="OS-EXT-SRV-ATTR:hypervisor_hostname")
    attached: list[Any] | None = msgspec.field(default=None, name="os-extended-volumes:volumes_attached")


class _ServiceOf(msgspec.Struct, gc=False):
    id: str | int | None = None
    host: str | None = None
    disabled_reason: str | None = None


class _Hypervisor(msgspec.Struct, gc=False):
    hypervisor_hostname: str = ""
    hypervisor_type: str | None = None
    state: str | None = None
    status: str | None = None
    service: _ServiceOf | None = None
    vcpus: int | None = None
    memory_mb: int | None = None
    local_gb: int | None = None


class _ComputeService(msgspec.Struct, gc=False):
    binary: str | None = None
    host: str | None = None
    zone: str | None = None
    status: str | None = None
    disabled_reason: str | None = None
    state: str | None = None


class _Aggregate(msgspec.Struct, gc=False):
    name: str | None = None
    hosts: list[str] | None = None
    availability_zone: str | None = None
    metadata: dict[str, Any] | None = None


class _Inventory(msgspec.Struct, gc=False):
    total: float = 0
    reserved: float = 0
    allocation_ratio: float = 1.0


class _Provider(msgspec.Struct, gc=False):
    name: str | None = None
    inventories: dict[str, _Inventory] | None = None


class _Pool(msgspec.Struct, gc=False):
    name: str | None = None
    total_capacity_gb: Any = None
    free_capacity_gb: Any = None
    allocated_capacity_gb: Any = None
    provisioned_capacity_gb: Any = None
    virtual_free: Any = None
    max_over_subscription_ratio: Any = None
    reserved_percentage: Any = None
    volume_backend_name: str | None = None
    availability_zone: str | None = None
    service_status: str | None = None
    service_state: str | None = None


class _Volume(msgspec.Struct, gc=False):
    name: str | None = None
    size: int | None = None
    status: str | None = None
    volume_type_id: str | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    bootable: str | bool | None = None
    multiattach: bool | None = None
    metadata: dict[str, Any] | None = None
    attachments: list[Any] | None = None
    pool: str | None = msgspec.field(default=None, name="os-vol-host-attr:host")
    created_at: str | None = None


class _VolumeType(msgspec.Struct, gc=False):
    name: str | None = None
    extra_specs: dict[str, Any] | None = None


class _VolumeSnapshot(msgspec.Struct, gc=False):
    volume_id: str | None = None


class _Machine(msgspec.Struct, gc=False):
    name: str | None = None
    power_state: str | None = None
    provision_state: str | None = None
    maintenance: bool | None = None


_SHAPES: Mapping[str, type[msgspec.Struct]] = {
    "Hypervisor": _Hypervisor,
    "ComputeService": _ComputeService,
    "Aggregate": _Aggregate,
    "ResourceProvider": _Provider,
    "Server": _Server,
    "StoragePool": _Pool,
    "VolumeType": _VolumeType,
    "Snapshot": _VolumeSnapshot,
    "Volume": _Volume,
    "BareMetalNode": _Machine,
}


def _decoder(kind: str, shape: Any) -> msgspec.json.Decoder[Any]:
    fields = [("metadata", _Meta), ("status", shape)]
    return msgspec.json.Decoder(msgspec.defstruct(f"_{kind}Body", fields, gc=False))


_DECODE = {kind: _decoder(kind, shape).decode for kind, shape in _SHAPES.items()}


class Builder:
    """Takes bodies in any order and makes the snapshot of them."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[_Meta, Any]]] = {kind: [] for kind in _SHAPES}
        self.odd = 0
        """Bodies that are not as their kind should be: left out."""

    def add(self, kind: str, bodies: Iterable[bytes | msgspec.Raw]) -> None:
        """Some objects of a kind, as admins are served them."""
        rows, decode = self._rows[kind], _DECODE[kind]
        for body in bodies:
            try:
                found = decode(body)
            except msgspec.MsgspecError:
                self.odd += 1
                continue
            rows.append((found.metadata, found.status))

    def snapshot(self, revision: int) -> Snapshot:
        """What was added; the builder is empty then."""
        hosts, by_service = self._hosts()
        found = Snapshot(
            revision=revision,
            hosts=hosts,
            servers=self._servers(by_service),
            aggregates=self._aggregates(),
            pools=self._pools(),
            volume_types=self._volume_types(),
            volumes=self._volumes(),
            machines=self._machines(),
        )
        self._rows = {kind: [] for kind in _SHAPES}
        return found

    def _hosts(self) -> tuple[tuple[Host, ...], dict[str, list[str]]]:
        """The hosts, and service host → the hypervisors that it runs."""
        services = {
            row.host: (meta.name, row)
            for meta, row in self._rows["ComputeService"]
            if row.binary == "nova-compute" and row.host is not None
        }
        inventories = {row.name: row.inventories or {} for _, row in self._rows["ResourceProvider"]}
        zones: dict[str, str] = {}
        for _, row in self._rows["Aggregate"]:
            if row.availability_zone:
                zones.update(dict.fromkeys(row.hosts or (), row.availability_zone))
        hosts: list[Host] = []
        by_service: dict[str, list[str]] = {}
        for meta, row in self._rows["Hypervisor"]:
            name = row.hypervisor_hostname
            runs = row.service or _ServiceOf()
            service_host = runs.host or name
            service_id, service = services.get(service_host, ("", _ComputeService()))
            has = inventories.get(name, {})
            cpu = has.get("VCPU") or _Inventory(total=row.vcpus or 0)
            memory = has.get("MEMORY_MB") or _Inventory(total=row.memory_mb or 0)
            disk = has.get("DISK_GB") or _Inventory(total=row.local_gb or 0)
            hosts.append(
                Host(
                    uuid=meta.name,
                    hostname=name,
                    service_host=service_host,
                    service_id=service_id or str(runs.id or ""),
                    # The service's own word is news on the bus; the hypervisor's is only read now and then.
                    status=service.status or row.status or "enabled",
                    disabled_reason=service.disabled_reason or runs.disabled_reason or "",
                    state=service.state or row.state or "up",
                    zone=zones.get(service_host) or service.zone or "",
                    hypervisor_type=row.hypervisor_type or "",
                    vcpus=int(cpu.total),
                    memory=int(memory.total),
                    disk=int(disk.total),
                    vcpus_reserved=int(cpu.reserved),
                    memory_reserved=int(memory.reserved),
                    disk_reserved=int(disk.reserved),
                    vcpus_ratio=cpu.allocation_ratio,
                    memory_ratio=memory.allocation_ratio,
                    disk_ratio=disk.allocation_ratio,
                )
            )
            by_service.setdefault(service_host, []).append(name)
        hosts.sort(key=lambda one: one.hostname)
        return tuple(hosts), by_service

    def _servers(self, by_service: Mapping[str, list[str]]) -> tuple[Server, ...]:
        servers: list[Server] = []
        for meta, row in self._rows["Server"]:
            if row.status in _GONE:
                continue
            flavor = row.flavor or _Flavor()
            host = row.host or ""
            if not host and row.service_host:
                # Unversioned notices of a move name the service's host first.
                runs = by_service.get(row.service_host, [])
                host = runs[0] if len(runs) == 1 else ""
            servers.append(
                Server(
                    uuid=meta.name,
                    name=row.name or "",
                    host=host,
                    status=row.status or "",
                    task_state=row.task_state or "",
                    vcpus=flavor.vcpus or 0,
                    memory=flavor.ram or 0,
                    disk=(flavor.disk or 0) + (flavor.ephemeral or 0),
                    project=meta.namespace,
                    zone=row.zone or "",
                    pinned_zone=row.pinned_availability_zone or "",
                    metadata=row.metadata or {},
                    locked=bool(row.locked),
                    created=row.created or meta.creationTimestamp,
                    flavor=flavor.original_name or "",
                    extra_specs=flavor.extra_specs or {},
                    volumes=tuple(sorted(_ids(row.attached, "id"))),
                )
            )
        servers.sort(key=lambda one: one.uuid)
        return tuple(servers)

    def _aggregates(self) -> tuple[Aggregate, ...]:
        found: list[Aggregate] = []
        for meta, row in self._rows["Aggregate"]:
            if meta.name.isascii() and meta.name.isdigit():
                found.append(
                    Aggregate(
                        id=int(meta.name),
                        name=row.name or "",
                        hosts=tuple(sorted(row.hosts or ())),
                        zone=row.availability_zone or "",
                        metadata=row.metadata or {},
                    )
                )
        return tuple(sorted(found, key=lambda one: one.id))

    def _pools(self) -> tuple[Pool, ...]:
        pools: list[Pool] = []
        for _, row in self._rows["StoragePool"]:
            if not row.name:
                continue
            pools.append(
                Pool(
                    name=row.name,
                    total=_gib(row.total_capacity_gb),
                    free=_gib(row.free_capacity_gb),
                    allocated=_gib(row.allocated_capacity_gb),
                    provisioned=_gib(row.provisioned_capacity_gb),
                    virtual_free=_gib(row.virtual_free),
                    oversubscription=_gib(row.max_over_subscription_ratio) or 1.0,
                    backend_name=row.volume_backend_name or "",
                    zone=row.availability_zone or "",
                    status=row.service_status or "enabled",
                    state=row.service_state or "up",
                )
            )
        return tuple(sorted(pools, key=lambda one: one.name))

    def _volume_types(self) -> tuple[VolumeType, ...]:
        found = [VolumeType(name=row.name, extra_specs=row.extra_specs or {}) for _, row in self._rows["VolumeType"] if row.name]
        return tuple(sorted(found, key=lambda one: one.name))

    def _volumes(self) -> tuple[Volume, ...]:
        snapshots: dict[str, int] = {}
        for _, row in self._rows["Snapshot"]:
            if row.volume_id:
                snapshots[row.volume_id] = snapshots.get(row.volume_id, 0) + 1
        types = {meta.name: row.name or "" for meta, row in self._rows["VolumeType"]}
        volumes: list[Volume] = []
        for meta, row in self._rows["Volume"]:
            bootable = row.bootable is True or row.bootable == "true"
            servers = tuple(sorted(_ids(row.attachments, "server_id")))
            volumes.append(
                Volume(
                    uuid=meta.name,
                    name=row.name or "",
                    pool=row.pool or "",
                    size=row.size or 0,
                    status=row.status or "",
                    type=types.get(row.volume_type_id or "") or row.volume_type or "",
                    project=meta.namespace,
                    zone=row.availability_zone or "",
                    bootable=bootable,
                    multiattach=bool(row.multiattach),
                    metadata=row.metadata or {},
                    servers=servers,
                    boot=bootable and any(device in _BOOT for device in _ids(row.attachments, "device")),
                    snapshots=snapshots.get(meta.name, 0),
                    created=row.created_at or meta.creationTimestamp,
                )
            )
        return tuple(sorted(volumes, key=lambda one: one.uuid))

    def _machines(self) -> tuple[Machine, ...]:
        machines = [
            Machine(
                uuid=meta.name,
                name=row.name or "",
                # Ironic's own nodes are hypervisors under their UUID, and a node that runs nova-compute under its name.
                hostname=row.name or meta.name,
                power_state=row.power_state or "",
                maintenance=bool(row.maintenance),
                provision_state=row.provision_state or "",
            )
            for meta, row in self._rows["BareMetalNode"]
        ]
        return tuple(sorted(machines, key=lambda one: one.uuid))


_BOOT = frozenset({"/dev/vda", "/dev/sda", "/dev/xvda", "/dev/hda"})


def _ids(items: list[Any] | None, name: str) -> list[str]:
    """The strings of this name in a list of objects; a plain list of strings counts as it is."""
    found = [item.get(name) if isinstance(item, dict) else item for item in items or ()]
    return [one for one in found if isinstance(one, str)]


def _gib(value: Any) -> float:
    """A capacity; "unknown" is 0, and so is what Cinder says of a pool without end."""
    with contextlib.suppress(TypeError, ValueError):
        number = float(value)
        return number if number == number and abs(number) != float("inf") else 0.0
    return 0.0
