"""What a Concertim front end should show of a cloud: a rack for each stack, a device for each of its servers (and volumes and
networks), a template for each flavor. Pure: the same inventory gives the same answer.

In: objects as the inventory has them, by id, and what Heat says besides (`Detail`). Out: bodies in the front end's own names,
which mirrors/concertim.py compares with what is there. Two dialects: `v1` (racks belong to users, devices are servers with flat
fields) and `v2` (racks belong to teams, devices have a type and `details`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from vedette.ports import JsonObject

Dialect = Literal["v1", "v2"]
Type = Literal["Instance", "Volume", "Network"]

KINDS: Mapping[Type, str] = {"Instance": "Server", "Volume": "Volume", "Network": "Network"}
"""The inventory's kind of each type of device."""
TYPES: Mapping[str, Type] = {"OS::Nova::Server": "Instance", "OS::Cinder::Volume": "Volume", "OS::Neutron::Net": "Network"}
"""Heat's types of resources that become devices."""
SERVER_GROUP = "OS::Nova::ServerGroup"
"""Its members become devices too."""

LONGEST_NAME = 150
"""Characters of a device's name."""
TALLEST_RACK = 72
FACING = "f"
FROM_FLAVOR = "Flavor from Openstack"
"""The description of templates that were made from a flavor, since the first version of the front end's service: what has
another one was made by hand, and stays as it is."""
FROM_STACK = "Heat Stack in Openstack"


class Member(msgspec.Struct, frozen=True, order=True):
    """Something of a stack that is a device."""

    type: Type
    id: str


class Detail(msgspec.Struct, frozen=True):
    """What Heat says of one stack beyond its listing, as of one `(status, updated)` of it."""

    status: str
    updated: str
    parent: str = ""
    """The stack that it is nested in; such a one is no rack."""
    members: tuple[Member, ...] = ()
    """In the order of their creation, nested ones too."""
    groups: tuple[str, ...] = ()
    """Its server groups."""
    outputs: tuple[tuple[str, str], ...] = ()
    """Key and value; secrets are not among them."""


class World(msgspec.Struct):
    """The part of the inventory that racks are made of: each kind's objects (their `status`) by id."""

    flavors: dict[str, JsonObject] = {}
    stacks: dict[str, JsonObject] = {}
    servers: dict[str, JsonObject] = {}
    volumes: dict[str, JsonObject] = {}
    networks: dict[str, JsonObject] = {}
    groups: dict[str, JsonObject] = {}
    """Server groups."""
    ports: dict[str, dict[str, JsonObject]] = {}
    """Server → its ports by id."""
    floating: dict[str, dict[str, JsonObject]] = {}
    """Port → its floating IPs by id."""
    users: dict[str, list[str]] = {}
    """Name → ids of Keystone's users who have it."""
    details: dict[str, Detail] = {}
    """Of stacks."""

    def of(self, type_: Type) -> dict[str, JsonObject]:
        return {"Instance": self.servers, "Volume": self.volumes, "Network": self.networks}[type_]

    def object(self, member: Member) -> JsonObject | None:
        return self.of(member.type).get(member.id)


# --- states ----------------------------------------------------------------------------------------------------------------

_VM: Mapping[str, str] = {
    "active": "ACTIVE",
    "rescued": "ACTIVE",
    "resized": "ACTIVE",  # it runs, and waits for a word
    "building": "IN_PROGRESS",
    "deleted": "IN_PROGRESS",
    "paused": "SUSPENDED",
    "suspended": "SUSPENDED",
    "stopped": "STOPPED",
    "shelved": "STOPPED",
    "shelved_offloaded": "STOPPED",
    "soft-delete": "STOPPED",
    "error": "FAILED",
}
"""nova/compute/vm_states.py"""
_QUIET_TASKS = frozenset(
    (
        "image_snapshot",
        "image_snapshot_pending",
        "image_pending_upload",
        "image_uploading",
        "image_backup",
        "updating_password",
    )
)
"""Tasks that leave a server as it is."""
_TASKS = frozenset(
    (
        "scheduling",
        "block_device_mapping",
        "networking",
        "spawning",
        "resize_prep",
        "resize_migrating",
        "resize_migrated",
        "resize_finish",
        "resize_reverting",
        "resize_confirming",
        "rebooting",
        "reboot_pending",
        "reboot_started",
        "rebooting_hard",
        "reboot_pending_hard",
        "reboot_started_hard",
        "pausing",
        "unpausing",
        "suspending",
        "resuming",
        "powering-off",
        "powering-on",
        "rescuing",
        "unrescuing",
        "rebuilding",
        "rebuild_block_device_mapping",
        "rebuild_spawning",
        "migrating",
        "deleting",
        "soft-deleting",
        "restoring",
        "shelving",
        "shelving_image_pending_upload",
        "shelving_image_uploading",
        "shelving_offloading",
        "unshelving",
    )
)
"""The others of nova/compute/task_states.py."""
_VOLUME: Mapping[str, str] = {
    "available": "AVAILABLE",
    "in-use": "ACTIVE",
    **dict.fromkeys(
        (
            "creating", "attaching", "detaching", "maintenance", "reserved", "downloading", "uploading", "deleting", "extending",
            "retyping", "backing-up", "restoring-backup", "awaiting-transfer", "managing", "unmanaging", "reverting",
        ),
        "IN_PROGRESS",
    ),
    **dict.fromkeys(
        (
            "error", "error_deleting", "error_extending", "error_restoring", "error_backing-up", "error_managing",
            "error_managing_deleting",
        ),
        "FAILED",
    ),
}  # fmt: skip
"""cinder/objects/fields.py, VolumeStatus"""
_NETWORK: Mapping[str, str] = {"ACTIVE": "ACTIVE", "BUILD": "IN_PROGRESS", "DOWN": "STOPPED", "ERROR": "FAILED"}
_ACTIONS = frozenset(("CREATE", "UPDATE", "RESUME", "ADOPT", "SNAPSHOT", "CHECK", "RESTORE", "ROLLBACK"))
"""heat/engine/stack.py, without those that end otherwise than running."""


def server_status(vm_state: Any, task_state: Any = None) -> str | None:
    """The front end's status of a server; None: nobody has heard of such a state, and what was shown last stays."""
    if task_state and task_state not in _QUIET_TASKS:
        return "IN_PROGRESS" if task_state in _TASKS else None
    return _VM.get(str(vm_state))


def volume_status(status: Any) -> str | None:
    return _VOLUME.get(str(status))


def network_status(status: Any) -> str | None:
    return _NETWORK.get(str(status))


def stack_status(status: Any) -> str | None:
    """The same of a rack, which is never suspended."""
    action, _, how = str(status).partition("_")
    if action in _ACTIONS:
        return {"COMPLETE": "ACTIVE", "IN_PROGRESS": "IN_PROGRESS", "FAILED": "FAILED"}.get(how)
    if action == "SUSPEND":
        return {"COMPLETE": "STOPPED", "IN_PROGRESS": "IN_PROGRESS", "FAILED": "FAILED"}.get(how)
    if action in ("DELETE", "INIT"):
        return {"COMPLETE": "IN_PROGRESS", "IN_PROGRESS": "IN_PROGRESS", "FAILED": "FAILED"}.get(how)
    return None


def member_status(type_: Type, status: JsonObject) -> str | None:
    match type_:
        case "Instance":
            return server_status(status.get("OS-EXT-STS:vm_state"), status.get("OS-EXT-STS:task_state"))
        case "Volume":
            return volume_status(status.get("status"))
        case "Network":
            return network_status(status.get("status"))


# --- names and places ------------------------------------------------------------------------------------------------------

_NO_RACK = re.compile(r"[^a-zA-Z0-9_-]")
_NO_DEVICE = re.compile(r"[^a-zA-Z0-9-]")


def rack_name(name: Any) -> str:
    """As the service before ours made it: what the front end takes in a name, and no `_`."""
    return _NO_RACK.sub("-", str(name or "").replace("_", "-"))


def device_name(name: Any) -> str:
    return _NO_DEVICE.sub("-", str(name or ""))


def unique(wanted: Iterable[tuple[str, str]], taken: Collection[str] = (), longest: int = LONGEST_NAME) -> dict[str, str]:
    """Id → a name that no other has. `wanted` are (id, name), oldest first: who was there first has the name as it is, the others
    have a piece of their id behind it. `taken`: names of what isn't ours. Without a name the id stands there."""
    found: dict[str, str] = {}
    used = set(taken)
    for id_, name in wanted:
        tail = _NO_DEVICE.sub("-", id_)
        plain = name[:longest] or tail[:longest]
        longer = [f"{plain[: longest - 1 - len(some)]}-{some}" for some in (tail[:8], tail[: longest - 1])]
        choice = next((one for one in (plain, *longer) if one not in used), longer[-1])
        used.add(choice)
        found[id_] = choice
    return found


def slot(height: int, occupied: Iterable[tuple[int, int]], size: int) -> int | None:
    """The lowest unit of the first free run of `size`, from the top of a rack; None: there is none. `occupied`: (lowest unit,
    size) of what is in it. Units count from 1 at the bottom."""
    taken: set[int] = set()
    for start, many in occupied:
        taken.update(range(max(1, start), min(height, start + many - 1) + 1))
    run = 0
    for unit in range(height, 0, -1):
        run = 0 if unit in taken else run + 1
        if run == size:
            return unit
    return None


# --- templates -------------------------------------------------------------------------------------------------------------


def template_height(vcpus: int, dialect: Dialect) -> int:
    if dialect == "v2":
        return min(vcpus // 2 + 1, 4)
    return 4 if vcpus > 4 else 3 if vcpus > 2 else 2 if vcpus > 1 else 1


def template(flavor: JsonObject, dialect: Dialect) -> JsonObject:
    """The front end takes no 0: a flavor that boots from volumes has a disk of 1 there."""
    vcpus = max(1, _number(flavor.get("vcpus")))
    return {
        "name": str(flavor.get("name") or flavor["id"]),
        "description": FROM_FLAVOR,
        "height": template_height(vcpus, dialect),
        "ram": max(1, _number(flavor.get("ram"))),
        "disk": max(1, _number(flavor.get("disk"))),
        "vcpus": vcpus,
        "foreign_id": str(flavor["id"]),
    }


# --- racks -----------------------------------------------------------------------------------------------------------------


def is_rack(world: World, id_: str) -> bool:
    """Whether this stack is one of its own; nested ones belong to theirs."""
    detail = world.details.get(id_)
    return id_ in world.stacks and detail is not None and not detail.parent


def rack(world: World, id_: str, name: str) -> JsonObject:
    """Without its owner, its height and its order: those are given when it is made."""
    stack, detail = world.stacks[id_], world.details[id_]
    outputs = ", ".join(f"{key}={value}" for key, value in detail.outputs)
    owner = str(stack.get("stack_owner") or "")
    body: JsonObject = {
        "name": name,
        "network_details": {
            member.id: {"name": network.get("name") or "", "status": network.get("status") or ""}
            for member in detail.members
            if member.type == "Network" and (network := world.networks.get(member.id)) is not None
        },
        "creation_output": outputs,
        "metadata": {
            "openstack_stack_id": id_,
            "openstack_stack_owner": owner,
            "openstack_stack_owner_id": _only(world.users.get(owner, ())),
            "stack_status_reason": str(stack.get("stack_status_reason") or ""),
            "openstack_stack_output": [{"output_key": key, "output_value": value} for key, value in detail.outputs],
        },
    }
    status = stack_status(stack.get("stack_status"))
    if status is not None:
        body["status"] = status
    return body


def members(world: World, id_: str, dialect: Dialect) -> list[Member]:
    """What is to be a device in the stack's rack; v1 knows servers alone. In Heat's order, each once."""
    detail = world.details.get(id_)
    if detail is None:
        return []
    grouped = (one for group in detail.groups for one in (world.groups.get(group) or {}).get("members") or ())
    found = (*detail.members, *(Member("Instance", str(one)) for one in grouped))
    return [one for one in dict.fromkeys(found) if dialect == "v2" or one.type == "Instance"]


# --- devices ---------------------------------------------------------------------------------------------------------------


def device(world: World, member: Member, stack: str, name: str, dialect: Dialect) -> JsonObject:
    """Without its place and its template: those are given when it is made."""
    status = world.of(member.type)[member.id]
    body: JsonObject = {"name": name, "description": _description(member, status)}
    said = member_status(member.type, status)
    if said is not None:
        body["status"] = said
    metadata: JsonObject = {"openstack_instance_id": member.id}
    if member.type == "Instance":
        metadata["net_interfaces"] = interfaces(world, member.id)
    if dialect == "v2":
        metadata["openstack_stack_id"] = stack
    body["metadata"] = metadata
    match member.type:
        case "Instance":
            public, private = addresses(world, member.id)
            details: JsonObject = {
                "public_ips": public,
                "private_ips": private,
                "ssh_key": str(status.get("key_name") or ""),
                "volume_details": attached(world, status),
                "login_user": "",
            }
            kind = "Device::ComputeDetails"
        case "Volume":
            details = {
                "availability_zone": str(status.get("availability_zone") or ""),
                "bootable": _truth(status.get("bootable")),
                "encrypted": _truth(status.get("encrypted")),
                "size": _number(status.get("size")),
                "volume_type": str(status.get("volume_type") or ""),
            }
            kind = "Device::VolumeDetails"
        case "Network":
            details = {
                "admin_state_up": _truth(status.get("admin_state_up")),
                "l2_adjacency": _truth(status.get("l2_adjacency")),
                "mtu": _number(status.get("mtu")),
                "shared": _truth(status.get("shared")),
                "port_security_enabled": _truth(status.get("port_security_enabled")),
            }
            kind = "Device::NetworkDetails"
    return {**body, **details} if dialect == "v1" else {**body, "details": {"type": kind, **details}}


def addresses(world: World, server: str) -> tuple[str, str]:
    """(floating, fixed) as `network:address`, one after the other."""
    fixed: list[str] = []
    floating: list[str] = []
    said = world.servers[server].get("addresses")
    for network, several in sorted(said.items()) if isinstance(said, dict) else ():
        for one in several if isinstance(several, list) else ():
            if isinstance(one, dict) and one.get("addr"):
                (floating if one.get("OS-EXT-IPS:type") == "floating" else fixed).append(f"{network}:{one['addr']}")
    for id_, port in sorted(world.ports.get(server, {}).items()):
        network = str((world.networks.get(str(port.get("network_id"))) or {}).get("name") or port.get("network_id") or "")
        for _, ip in sorted(world.floating.get(id_, {}).items()):
            word = f"{network}:{ip.get('floating_ip_address')}"
            if ip.get("floating_ip_address") and word not in floating:
                floating.append(word)
    return ", ".join(floating), ", ".join(fixed)


def interfaces(world: World, server: str) -> list[JsonObject]:
    """As Nova's `os-interface` shows them."""
    return [
        {
            "port_id": id_,
            "net_id": str(port.get("network_id") or ""),
            "mac_addr": str(port.get("mac_address") or ""),
            "port_state": str(port.get("status") or ""),
            "fixed_ips": port.get("fixed_ips") or [],
        }
        for id_, port in sorted(world.ports.get(server, {}).items())
    ]


def attached(world: World, server: JsonObject) -> JsonObject:
    """Volume → what it is called, and its size in GiB."""
    found: JsonObject = {}
    said = server.get("os-extended-volumes:volumes_attached")
    for one in said if isinstance(said, list) else ():
        id_ = str(one.get("id")) if isinstance(one, dict) else str(one)
        volume = world.volumes.get(id_) or {}
        found[id_] = {"name": str(volume.get("name") or ""), "size": _number(volume.get("size"))}
    return found


def flavor_of(server: JsonObject) -> str:
    """Its flavor's id; "": nobody knows it."""
    flavor = server.get("flavor")
    return str(flavor.get("id") or "") if isinstance(flavor, dict) else ""


def _description(member: Member, status: JsonObject) -> str:
    word = {"Instance": "Server", "Volume": "Volume", "Network": "Network"}[member.type]
    return str(status.get("description") or "") or f"{word} from Openstack"


def _only(found: Sequence[str]) -> str:
    """Two users of one name are not told apart."""
    return found[0] if len(found) == 1 else ""


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def _truth(value: Any) -> bool:
    """Cinder's `bootable` is a text."""
    return value is True or str(value).lower() == "true"
