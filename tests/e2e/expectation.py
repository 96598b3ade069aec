"""What the inventory must be after the first so many recorded notifications: a second reader, to hold the first one to.

In: the inner oslo messages, in the order in which they were published. Out: every object they speak of, as it must be served.
Plain `json` values and nothing of the product: it shares no code with `vedette.kinds`, `vedette.sources` or `vedette.model`.
What the services send is from their own documents and from the recorded cloud; which fields are served, and which of them to
admins only, is read from the published table in `docs/kinds.md`.

Sources: Nova `nova/notifications/base.py` and its versioned notification samples, `nova/api/openstack/common.py` (status);
Neutron API `v2.0`; Cinder, Glance, Heat, Octavia API references; Keystone's CADF notifications.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]

KINDS_PAGE = Path(__file__).parents[2] / "docs" / "kinds.md"
NO_PROJECT = "no-project"


@dataclass
class Thing:
    """One object as it must be served; `deleted`: it is gone, and this is the last that was known."""

    kind: str
    id: str
    project: str = ""
    shared: bool = False
    owner: str = ""
    public: Json = field(default_factory=dict)
    admin: Json = field(default_factory=dict)
    created: int = 0
    """Unix time, whole seconds."""
    deleted: bool = False
    as_of: int = 0
    version: int | None = None

    def frozen(self) -> Thing:
        return Thing(**{**self.__dict__, "public": dict(self.public), "admin": dict(self.admin)})

    def seen_by(self, project: str, user: str) -> bool:
        """Whether a member of `project` sees it. A project is its members'; admins' kinds have neither project nor owner."""
        return self.shared or (bool(self.project) and self.project == project) or (bool(self.owner) and self.owner == user)


@dataclass
class Said:
    """What one notification says of one object."""

    kind: str
    id: str
    verb: str
    fields: Json = field(default_factory=dict)
    project: str | None = None
    shared: bool | None = None
    owner: str | None = None
    version: int | None = None
    created: int | None = None
    known_only: bool = False
    edit: Callable[[Json], Json] | None = None
    """For a child that changes its parent: the parent's fields, changed."""


class Inventory:
    """Every object that was spoken of, dead ones too."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, str], Thing] = {}
        self._contract = contract()

    def feed(self, message: Json) -> None:
        """One inner oslo message."""
        as_of = microseconds(message["timestamp"])
        for said in read(message):
            self._take(said, as_of)

    def living(self) -> dict[tuple[str, str], Thing]:
        return {key: thing.frozen() for key, thing in self.things.items() if not thing.deleted}

    def _take(self, said: Said, as_of: int) -> None:
        key = said.kind, said.id
        thing = self.things.get(key)
        if thing is None:
            if said.known_only and said.verb != "delete":
                return
            thing = self.things[key] = Thing(said.kind, said.id, created=as_of // 1_000_000)
        elif _is_old(said, as_of, thing):
            return
        elif thing.deleted:
            if said.verb == "create" and _is_newer(said, as_of, thing):
                thing = self.things[key] = Thing(said.kind, said.id, created=as_of // 1_000_000)
            else:
                if said.verb == "delete":
                    thing.as_of = max(thing.as_of, as_of)
                return
        thing.as_of = max(thing.as_of, as_of)
        thing.version = thing.version if said.version is None else said.version
        table = self._contract[said.kind]
        for name, value in said.fields.items():
            assert name in table, f"{said.kind}.{name} is not in docs/kinds.md"
            (thing.admin if table[name].admin else thing.public)[name] = value
        if said.edit is not None:
            thing.public = said.edit(dict(thing.public))
        thing.project = thing.project if said.project is None else said.project
        thing.owner = thing.owner if said.owner is None else said.owner
        thing.shared = thing.shared if said.shared is None else said.shared
        thing.created = thing.created if said.created is None else said.created
        thing.deleted = said.verb == "delete"


def after(messages: Iterable[Json]) -> Inventory:
    """The inventory after all of these."""
    inventory = Inventory()
    for message in messages:
        inventory.feed(message)
    return inventory


def _is_old(said: Said, as_of: int, thing: Thing) -> bool:
    """Neutron counts the changes of an object; where both sides have the count it decides, else the notice's time does."""
    if said.version is not None and thing.version is not None:
        return said.version < thing.version
    return as_of < thing.as_of


def _is_newer(said: Said, as_of: int, thing: Thing) -> bool:
    if said.version is not None and thing.version is not None and said.version != thing.version:
        return said.version > thing.version
    return as_of > thing.as_of


# --- the published contract ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Promise:
    """A field of the table."""

    type: str
    admin: bool

    def holds(self, value: Any) -> bool:
        wanted: dict[str, tuple[type, ...]] = {
            "string": (str,),
            "integer": (int,),
            "number": (int, float),
            "boolean": (bool,),
            "array": (list,),
            "object": (dict,),
        }
        if value is None:
            return True
        return isinstance(value, wanted[self.type]) and (self.type == "boolean" or not isinstance(value, bool))


def contract() -> dict[str, dict[str, Promise]]:
    """Kind to field to promise, from docs/kinds.md."""
    found: dict[str, dict[str, Promise]] = {}
    kind = ""
    for line in KINDS_PAGE.read_text().splitlines():
        if line.startswith("## "):
            kind = line[3:].strip()
            found[kind] = {}
        row = re.fullmatch(r"\| `([^`]+)` \| (\w+) \| (\w*) \| .* \|", line)
        if row and kind:
            found[kind][row[1]] = Promise(row[2], row[3] == "admin")
    return found


def plurals() -> dict[str, str]:
    """Kind to plural, from docs/kinds.md, of what a cloud has."""
    rows = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| `(\w+)` \|(.*)$", KINDS_PAGE.read_text(), re.MULTILINE)
    return {kind: plural for kind, plural, more in rows if "Vedette's own" not in more}


_CONTRACT = contract()


def _promised(kind: str, body: Json) -> Json:
    return {name: value for name, value in body.items() if name in _CONTRACT[kind]}


# --- times -----------------------------------------------------------------------------------------------------------------


def microseconds(text: str) -> int:
    """oslo's own: `2026-11-20 15:18:30.420516`, UTC."""
    when = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return round(when.timestamp() * 1_000_000)


def _seconds(text: str | None) -> int | None:
    """Any of the four forms (quirk 15); "" and null: not said."""
    if not text:
        return None
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return int(when.timestamp())


def _z(text: str | None) -> str | None:
    seconds = _seconds(text)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- reading ---------------------------------------------------------------------------------------------------------------


def read(message: Json) -> Iterator[Said]:
    """What a message says, of whichever object."""
    event, payload = message["event_type"], _plain(message["payload"])
    first = event.split(".", 1)[0]
    if event.endswith(".exists"):
        return  # dropped before anything is read
    if first == "octavia":
        yield from _octavia(event, payload)
    elif first == "orchestration":
        yield from _heat(event, payload)
    elif first == "identity":
        yield from _keystone(event, payload)
    elif first == "image":
        yield from _glance(event, payload)
    elif event.startswith(("compute.instance.", "instance.")):
        yield from _server(event, payload)
    elif first == "compute_task":
        yield from _failed_task(payload)
    elif first in _NOVA:
        yield from _NOVA[first](event, payload)
    elif event.endswith((".start",)):
        return  # a request: it may still fail
    elif first in ("volume", "snapshot"):
        yield from _cinder(event, payload)
    else:
        yield from _neutron(event, payload)


def _plain(value: Any) -> Any:
    """Without Nova's `nova_object` wrapping."""
    if isinstance(value, dict):
        if "nova_object.data" in value:
            return _plain(value["nova_object.data"])
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


# Neutron

_NEUTRON = {
    "port": "Port",
    "network": "Network",
    "subnet": "Subnet",
    "router": "Router",
    "floatingip": "FloatingIP",
    "security_group": "SecurityGroup",
}
_TAGGED = {
    "ports": "Port",
    "networks": "Network",
    "subnets": "Subnet",
    "routers": "Router",
    "floatingips": "FloatingIP",
    "security_groups": "SecurityGroup",
}


def _neutron(event: str, payload: Json) -> Iterator[Said]:
    resource, _, action = event.partition(".")
    if event in ("router.interface.create", "router.interface.delete"):
        yield _router_interface(payload["router_interface"], added=event.endswith("create"))
    elif resource == "tag":
        kind = _TAGGED[payload["parent_resource"]]
        yield Said(kind, payload["parent_resource_id"], "update", {"tags": sorted(payload["tags"])}, known_only=True)
    elif resource == "rbac_policy":
        yield from _policy(payload["rbac_policy"], granted=action == "create.end")
    elif resource == "security_group_rule":
        rules = payload.get("security_group_rules") or [payload["security_group_rule"]]
        for rule in rules:
            yield _rule(rule, added=action == "create.end")
    elif resource in _NEUTRON:
        verb = action.removesuffix(".end")
        bodies = payload.get(resource + "s") or ([payload[resource]] if resource in payload else [{}])
        for body in bodies:
            yield from _neutron_object(resource, verb, body, body.get("id") or payload[f"{resource}_id"])


def _neutron_object(resource: str, verb: str, body: Json, id_: str) -> Iterator[Said]:
    kind = _NEUTRON[resource]
    said = Said(
        kind,
        id_,
        verb,
        _promised(kind, body),
        project=body.get("project_id") or body.get("tenant_id"),
        version=body.get("revision_number"),
        created=_seconds(body.get("created_at")),
    )
    if "security_group_rules" in said.fields:
        said.fields["security_group_rules"] = [_public_rule(rule) for rule in said.fields["security_group_rules"]]
    for name in _UNORDERED & said.fields.keys():
        said.fields[name] = _in_order(said.fields[name])
    gateway = said.fields.get("external_gateway_info")
    if gateway:
        ips = _in_order(gateway["external_fixed_ips"])
        said.fields["external_gateway_info"] = {**gateway, "external_fixed_ips": ips}
    if kind == "Router" and verb == "create":
        said.fields["interfaces_info"] = []
    if kind == "Network" and ("shared" in body or "router:external" in body):
        said.shared = bool(body.get("shared")) or bool(body.get("router:external"))
    if kind == "Subnet" and "shared" in body:
        said.shared = bool(body["shared"])
    yield said
    if kind == "Subnet" and verb in ("create", "delete"):
        yield Said("Network", body["network_id"], "update", known_only=True, edit=_listed("subnets", id_, verb != "delete"))
    if kind == "Network" and verb == "update":
        # A subnet is shared with its network; but those of an external one are not everybody's (neutron/conf/policies/subnet.py).
        for subnet in body.get("subnets", ()):
            yield Said("Subnet", subnet, "update", shared=bool(body.get("shared")), known_only=True)


def _router_interface(interface: Json, *, added: bool) -> Said:
    def edit(fields: Json) -> Json:
        subnets = interface.get("subnet_ids") or [interface["subnet_id"]]
        rest = [one for one in fields.get("interfaces_info", []) if one["subnet_id"] not in subnets]
        new = [
            {"port_id": interface["port_id"], "subnet_id": subnet, "network_id": interface["network_id"]} for subnet in subnets
        ]
        return {**fields, "interfaces_info": sorted(rest + (new if added else []), key=lambda one: str(one["subnet_id"]))}

    return Said("Router", interface["id"], "update", known_only=True, edit=edit)


def _policy(policy: Json, *, granted: bool) -> Iterator[Said]:
    """Shared with `*` is shared with everybody. Neutron allows one such policy for each network and action, so when it goes
    nothing else of its kind is left."""
    everybody = (policy.get("target_tenant") or policy.get("target_project")) == "*"
    if policy["object_type"] != "network" or not everybody or policy["action"] != "access_as_shared":
        return
    yield Said("Network", policy["object_id"], "update", {"shared": granted}, shared=granted, known_only=True)


def _rule(rule: Json, *, added: bool) -> Said:
    rule = _public_rule(rule)

    def edit(fields: Json) -> Json:
        rest = [one for one in fields.get("security_group_rules", []) if one["id"] != rule["id"]]
        return {**fields, "security_group_rules": _in_order([*rest, rule] if added else rest)}

    return Said("SecurityGroup", rule["security_group_id"], "update", known_only=True, edit=edit)


def _public_rule(rule: Json) -> Json:
    """Without what some events say of a rule and others don't: the number of its row in Neutron's database, and its tags."""
    return {name: value for name, value in rule.items() if name not in ("standard_attr_id", "tags")}


def _in_order(items: list[Any]) -> list[Any]:
    """docs/kinds.md: by id, or else by what they say."""

    def place(item: Any) -> tuple[str, str]:
        return (item, "") if isinstance(item, str) else (item.get("id", ""), json.dumps(item, sort_keys=True))

    return sorted(items, key=place)


_UNORDERED = {
    "allocation_pools",
    "allowed_address_pairs",
    "availability_zones",
    "dns_assignment",
    "extra_dhcp_opts",
    "fixed_ips",
    "host_routes",
    "port_forwardings",
    "routes",
    "security_group_rules",
    "security_groups",
    "service_types",
    "subnets",
    "tags",
}


def _listed(name: str, id_: str, there: bool) -> Callable[[Json], Json]:
    def edit(fields: Json) -> Json:
        before = fields.get(name) or []
        if there:
            return {**fields, name: before if id_ in before else sorted([*before, id_])}
        return {**fields, name: [one for one in before if one != id_]}

    return edit


# Nova

_STATUS = {
    # nova/api/openstack/common.py, _STATE_MAP: by vm_state, and within it by task_state.
    "active": {
        "": "ACTIVE",
        "rebooting": "REBOOT",
        "reboot_pending": "REBOOT",
        "reboot_started": "REBOOT",
        "rebooting_hard": "HARD_REBOOT",
        "reboot_pending_hard": "HARD_REBOOT",
        "reboot_started_hard": "HARD_REBOOT",
        "updating_password": "PASSWORD",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
        "migrating": "MIGRATING",
        "resize_prep": "RESIZE",
        "resize_migrating": "RESIZE",
        "resize_migrated": "RESIZE",
        "resize_finish": "RESIZE",
    },
    "building": {"": "BUILD"},
    "stopped": {
        "": "SHUTOFF",
        "resize_prep": "RESIZE",
        "resize_migrating": "RESIZE",
        "resize_migrated": "RESIZE",
        "resize_finish": "RESIZE",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
    },
    "resized": {"": "VERIFY_RESIZE", "resize_reverting": "REVERT_RESIZE"},
    "paused": {"": "PAUSED", "migrating": "MIGRATING"},
    "suspended": {"": "SUSPENDED"},
    "rescued": {"": "RESCUE"},
    "error": {
        "": "ERROR",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
    },
    "deleted": {"": "DELETED"},
    "soft-delete": {"": "SOFT_DELETED"},
    "shelved": {"": "SHELVED"},
    "shelved_offloaded": {"": "SHELVED_OFFLOADED"},
}
_POWER = {"pending": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}

_SINGLE = (
    "compute.instance.update",
    "compute.instance.evacuate",
    "compute.instance.rebuild.scheduled",
    "compute.instance.volume.attach",
    "compute.instance.volume.detach",
    "instance.update",
    "instance.evacuate",
    "instance.rebuild_scheduled",
    "instance.lock",
    "instance.unlock",
)
_STALE = ("compute.instance.live_migration._post.end", "instance.live_migration_post.end")
"""From the host that the server has left (quirk 1): it still says the old one, after the new one has spoken."""


def _server(event: str, payload: Json) -> Iterator[Said]:
    if event in _STALE or not (event in _SINGLE or event.endswith((".end", ".error"))):
        return
    legacy = event.startswith("compute.")
    action = event.removeprefix("compute.").removeprefix("instance.")
    said = _legacy_server(payload) if legacy else _versioned_server(event, payload)
    said.verb = {"create.end": "create", "delete.end": "delete"}.get(action, "update")
    if action == "evacuate":
        # Still the host that is down (quirk 13).
        for name in ("OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:hypervisor_hostname"):
            said.fields.pop(name, None)
    # Updates go on after the end (quirk 11): one of a server that nobody knows makes none.
    said.known_only = said.fields["OS-EXT-STS:vm_state"] == "deleted"
    going = said.fields["OS-EXT-STS:vm_state"] == "deleted" or said.fields["OS-EXT-STS:task_state"] in (
        "deleting",
        "soft-deleting",
    )
    if (going or said.verb == "delete") and not said.fields.get("addresses"):
        # Given back while it is deleted: it keeps those it had.
        said.fields.pop("addresses", None)
    volume = payload.get("volume_id")
    if volume and action in ("volume.attach", "volume_attach.end", "volume.detach", "volume_detach.end"):
        said.edit = _volume(volume, there="attach" in action)
    yield said


def _volume(id_: str, *, there: bool) -> Callable[[Json], Json]:
    name = "os-extended-volumes:volumes_attached"

    def edit(fields: Json) -> Json:
        rest = [one for one in fields.get(name, []) if one["id"] != id_]
        return {**fields, name: [*rest, {"id": id_}] if there else rest}

    return edit


def _status(vm_state: str, task_state: str | None) -> str:
    by_task = _STATUS[vm_state]
    return by_task.get(task_state or "", by_task[""])


def _legacy_server(payload: Json) -> Said:
    task = payload["state_description"] or None
    fields: Json = {
        "name": payload["display_name"],
        "status": _status(payload["state"], task),
        "tenant_id": payload["tenant_id"],
        "user_id": payload["user_id"],
        "created": _z(payload["created_at"]),
        "flavor": {
            "id": payload["instance_flavor_id"],
            "original_name": payload["instance_type"],
            "vcpus": payload["vcpus"],
            "ram": payload["memory_mb"],
            "disk": payload["root_gb"],
            "ephemeral": payload["ephemeral_gb"],
        },
        "image": _image(payload["image_ref_url"].rpartition("/")[2]),
        "metadata": payload["metadata"] or {},
        "accessIPv4": payload["access_ip_v4"],
        "accessIPv6": payload["access_ip_v6"],
        # "" is what Nova makes of a progress of 0 here.
        "progress": payload["progress"] or 0,
        "OS-EXT-AZ:availability_zone": payload["availability_zone"],
        "OS-EXT-STS:vm_state": payload["state"],
        "OS-EXT-STS:task_state": task,
        "OS-SRV-USG:launched_at": _z(payload["launched_at"]),
        "OS-SRV-USG:terminated_at": _z(payload["terminated_at"]),
        "OS-EXT-SRV-ATTR:host": payload["host"],
        "OS-EXT-SRV-ATTR:hypervisor_hostname": payload["node"],
        "OS-EXT-SRV-ATTR:hostname": payload["hostname"],
        "OS-EXT-SRV-ATTR:reservation_id": payload["reservation_id"],
        # The API reference: "Will be null if not."
        "OS-EXT-SRV-ATTR:kernel_id": payload["kernel_id"] or None,
        "OS-EXT-SRV-ATTR:ramdisk_id": payload["ramdisk_id"] or None,
    }
    _clear_fault(fields)
    if "fixed_ips" in payload:
        fields["addresses"] = _addresses(
            (one["label"], one["address"], one["version"], one["vif_mac"]) for one in payload["fixed_ips"]
        )
    return _said_of_server(payload["instance_id"], payload, fields)


def _versioned_server(event: str, payload: Json) -> Said:
    flavor = payload["flavor"]
    fields: Json = {
        "name": payload["display_name"],
        "status": _status(payload["state"], payload["task_state"]),
        "tenant_id": payload["tenant_id"],
        "user_id": payload["user_id"],
        "created": _z(payload["created_at"]),
        "flavor": {
            "id": flavor["flavorid"],
            "original_name": flavor["name"],
            "vcpus": flavor["vcpus"],
            "ram": flavor["memory_mb"],
            "disk": flavor["root_gb"],
            "ephemeral": flavor["ephemeral_gb"],
        },
        "image": _image(payload["image_uuid"]),
        "metadata": payload["metadata"],
        "progress": payload["progress"],
        "OS-EXT-AZ:availability_zone": payload["availability_zone"],
        "OS-EXT-STS:vm_state": payload["state"],
        "OS-EXT-STS:task_state": payload["task_state"],
        "OS-EXT-STS:power_state": _POWER[payload["power_state"]],
        "OS-SRV-USG:launched_at": _z(payload["launched_at"]),
        "OS-SRV-USG:terminated_at": _z(payload["terminated_at"]),
        "OS-DCF:diskConfig": payload["auto_disk_config"],
        "key_name": payload["key_name"],
        "locked": payload["locked"],
        "locked_reason": payload["locked_reason"],
        "description": payload["display_description"],
        "addresses": _addresses((one["label"], one["address"], one["version"], one["mac"]) for one in payload["ip_addresses"]),
        "OS-EXT-SRV-ATTR:host": payload["host"],
        "OS-EXT-SRV-ATTR:hypervisor_hostname": payload["node"],
        "OS-EXT-SRV-ATTR:hostname": payload["host_name"],
        "OS-EXT-SRV-ATTR:reservation_id": payload["reservation_id"],
        # The API reference: "Will be null if not."
        "OS-EXT-SRV-ATTR:kernel_id": payload["kernel_id"] or None,
        "OS-EXT-SRV-ATTR:ramdisk_id": payload["ramdisk_id"] or None,
    }
    _clear_fault(fields)
    if payload.get("fault"):
        fields["fault"] = {"message": _first_line(payload["fault"]["exception_message"])}
    if "tags" in payload:
        fields["tags"] = sorted(payload["tags"])
    if "trusted_image_certificates" in payload:
        fields["trusted_image_certificates"] = payload["trusted_image_certificates"]
    if "instance_name" in payload:
        fields["OS-EXT-SRV-ATTR:instance_name"] = payload["instance_name"]
    if event == "instance.create.end" and payload["block_devices"] is not None:
        # Elsewhere a setting decides whether they are said, and a delete says them when they are detached already.
        fields["os-extended-volumes:volumes_attached"] = [{"id": one["volume_id"]} for one in payload["block_devices"]]
    return _said_of_server(payload["uuid"], payload, fields)


def _said_of_server(id_: str, payload: Json, fields: Json) -> Said:
    return Said("Server", id_, "update", fields, project=payload["tenant_id"], created=_seconds(payload["created_at"]))


def _clear_fault(fields: Json) -> None:
    """The API shows a fault for these two only (nova/api/openstack/compute/views/servers.py)."""
    if fields["status"] not in ("ERROR", "DELETED"):
        fields["fault"] = None


def _image(id_: str | None) -> Json | None:
    return {"id": id_} if id_ else None


def _addresses(fixed: Iterable[tuple[str, str, int, str]]) -> Json:
    """As GET /servers has them: by the network's name."""
    found: Json = {}
    for label, address, version, mac in fixed:
        one = {"version": version, "addr": address, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": mac}
        found.setdefault(label, []).append(one)
    return found


def _failed_task(payload: Json) -> Iterator[Said]:
    """NoValidHost (quirk 12)."""
    id_ = payload.get("instance_uuid") or payload["instance_id"]
    reason = payload["reason"]
    if isinstance(reason, str):
        # The repr of a serialized exception.
        found = re.search(r"'message': '([^']*)'", reason)
        message = found[1] if found else reason
    else:
        message = reason["exception_message"]
    fields: Json = {"OS-EXT-STS:vm_state": payload["state"], "status": _status(payload["state"], None)}
    fields["OS-EXT-STS:task_state"] = None  # nova/conductor/manager.py clears it with the state
    fields["fault"] = {"message": _first_line(message)}
    spec = payload.get("instance_properties") or payload["request_spec"]
    fields |= {"tenant_id": spec["project_id"], "user_id": spec["user_id"]}
    yield Said("Server", id_, "update", fields, project=spec["project_id"])


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


def _flavor(event: str, payload: Json) -> Iterator[Said]:
    fields = {
        "name": payload["name"],
        "description": payload["description"],
        "vcpus": payload["vcpus"],
        "ram": payload["memory_mb"],
        "disk": payload["root_gb"],
        "OS-FLV-EXT-DATA:ephemeral": payload["ephemeral_gb"],
        "swap": payload["swap"],
        "rxtx_factor": payload["rxtx_factor"],
        "OS-FLV-DISABLED:disabled": payload["disabled"],
        "os-flavor-access:is_public": payload["is_public"],
    }
    if payload["extra_specs"] is not None:
        fields["extra_specs"] = payload["extra_specs"]
    elif event == "flavor.create":
        fields["extra_specs"] = {}
    if payload["projects"] is not None:
        fields["access_project_ids"] = payload["projects"]
    yield Said("Flavor", payload["flavorid"], event.removeprefix("flavor."), fields, shared=payload["is_public"])


def _keypair(event: str, payload: Json) -> Iterator[Said]:
    if not event.endswith(".end"):
        return
    name = payload.get("name") or payload["key_name"]
    fields = {"name": name, "user_id": payload["user_id"]}
    fields |= {key: payload[key] for key in ("type", "fingerprint", "public_key") if key in payload}
    verb = "delete" if "delete" in event else "create"
    yield Said("Keypair", f"{payload['user_id']}:{name}", verb, fields, owner=payload["user_id"])


def _server_group(event: str, payload: Json) -> Iterator[Said]:
    id_ = payload.get("uuid") or payload["server_group_id"]
    fields = {key: payload[key] for key in ("name", "policy", "rules", "members", "project_id", "user_id") if key in payload}
    if "_rules" in payload:
        fields["rules"] = payload["_rules"]
    if event.endswith(".create"):
        fields.setdefault("members", [])
    yield Said("ServerGroup", id_, event.partition(".")[2], fields, project=payload.get("project_id"))


def _aggregate(event: str, payload: Json) -> Iterator[Said]:
    if not event.endswith(".end"):
        return
    action = event.split(".")[1]
    verb = action if action in ("create", "delete") else "update"
    id_ = str(payload.get("id") or payload["aggregate_id"])
    fields = {key: payload[key] for key in ("name", "uuid", "hosts", "metadata") if key in payload}
    if "metadata" in payload:
        fields["availability_zone"] = payload["metadata"].get("availability_zone")
    if action == "create":
        fields.setdefault("hosts", [])
    said = Said("Aggregate", id_, verb, fields)
    if "host_name" in payload:
        said.known_only = True
        said.edit = _listed("hosts", payload["host_name"], action == "addhost")
    yield said


def _service(event: str, payload: Json) -> Iterator[Said]:
    fields = {
        "binary": payload["binary"],
        "host": payload["host"],
        "status": "disabled" if payload["disabled"] else "enabled",
        "disabled_reason": payload["disabled_reason"],
        "forced_down": payload["forced_down"],
    }
    if payload["forced_down"]:
        fields |= {"state": "down", "updated_at": None}
    if payload["availability_zone"]:
        fields["zone"] = payload["availability_zone"]
    yield Said("ComputeService", payload["uuid"], event.partition(".")[2], fields)


_NOVA: dict[str, Callable[[str, Json], Iterator[Said]]] = {
    "flavor": _flavor,
    "keypair": _keypair,
    "servergroup": _server_group,
    "server_group": _server_group,
    "aggregate": _aggregate,
    "service": _service,
}


# the others


def _octavia(event: str, payload: Json) -> Iterator[Said]:
    """Update carries the values from before it (quirk 10), so only what can't change is taken from it."""
    verb = event.split(".")[2]
    fields = _promised("LoadBalancer", payload)
    if verb == "update":
        fixed = ("project_id", "vip_address", "vip_network_id", "vip_port_id", "vip_subnet_id", "availability_zone")
        fields = {name: fields[name] for name in fixed}
    for name in fields.keys() & {"name", "description"}:
        fields[name] = fields[name] or ""
    yield Said("LoadBalancer", payload["loadbalancer_id"], verb, fields, project=payload["project_id"])


def _heat(event: str, payload: Json) -> Iterator[Said]:
    action = event.removeprefix("orchestration.stack.")
    fields = {
        "stack_name": payload["stack_name"],
        "stack_status": payload["state"],
        "stack_status_reason": payload["state_reason"],
        "description": payload["description"],
        "project": payload["tenant_id"],
        "stack_owner": payload["username"],
        "creation_time": _z(payload["create_at"]),
        "tags": sorted(payload["tags"]),
    }
    if action.startswith(("create.", "update.")):
        fields["updated_time"] = _z(payload["updated_at"])
    verb = {"create.start": "create", "create.end": "create", "delete.end": "delete"}.get(action, "update")
    yield Said(
        "Stack",
        payload["stack_identity"],
        verb,
        fields,
        project=payload["tenant_id"],
        created=_seconds(payload["create_at"]),
    )


def _keystone(event: str, payload: Json) -> Iterator[Said]:
    what, _, action = event.removeprefix("identity.").partition(".")
    if what not in ("project", "user"):
        return
    id_ = payload["resource_info"]
    verb = {"created": "create", "deleted": "delete"}.get(action, "update")
    fields = {"enabled": action == "enabled"} if action in ("enabled", "disabled") else {}
    if what == "project":
        yield Said("Project", id_, verb, fields, project=id_)
    else:
        yield Said("User", id_, verb, fields)


def _glance(event: str, payload: Json) -> Iterator[Said]:
    verb = {"image.create": "create", "image.delete": "delete"}.get(event, "update")
    yield Said(
        "Image",
        payload["id"],
        verb,
        _promised("Image", payload),
        project=payload["owner"],
        shared=payload["visibility"] in ("public", "community"),
        created=_seconds(payload["created_at"]),
    )


def _cinder(event: str, payload: Json) -> Iterator[Said]:
    verb = {"create.end": "create", "delete.end": "delete"}.get(event.partition(".")[2], "update")
    created = _seconds(payload["created_at"])
    if event.startswith("snapshot."):
        fields = {
            "name": payload["display_name"],
            "status": payload["status"],
            "size": payload["volume_size"],
            "volume_id": payload["volume_id"],
            "user_id": payload["user_id"],
            "os-extended-snapshot-attributes:project_id": payload["tenant_id"],
            "created_at": _z(payload["created_at"]),
        }
        yield Said("Snapshot", payload["snapshot_id"], verb, fields, project=payload["tenant_id"], created=created)
        return
    fields = {
        "name": payload["display_name"],
        "status": payload["status"],
        "size": payload["size"],
        "volume_type_id": payload["volume_type"],
        "os-vol-tenant-attr:tenant_id": payload["tenant_id"],
        "user_id": payload["user_id"],
        "availability_zone": payload["availability_zone"],
        "attachments": [
            {
                "id": one["volume_id"],
                "volume_id": one["volume_id"],
                "server_id": one["instance_uuid"],
                "device": one["mountpoint"],
                "attachment_id": one["id"],
                "attached_at": _z(one["attach_time"]),
            }
            for one in payload["volume_attachment"]
        ],
        "metadata": payload["metadata"] or {},
        "snapshot_id": payload["snapshot_id"],
        "replication_status": payload["replication_status"],
        "created_at": _z(payload["created_at"]),
        "os-vol-host-attr:host": payload["host"],
    }
    yield Said("Volume", payload["volume_id"], verb, fields, project=payload["tenant_id"], created=created)
