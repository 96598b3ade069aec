"""Servers, from Nova's unversioned (`compute.instance.*`) and versioned (`instance.*`) notifications, and from its API.

Both formats of one fact give the same reading, so the second one that arrives changes nothing, except for what only the
versioned format knows: power state, lock, key, tags, description. What only one format has and differs each time (`updated`)
isn't served.

`*.start` is not read: it repeats what `*.update` said. Two other events would say old things as if they were new, and are read
in part: `live_migration_post` comes from the source host after the destination has spoken, and `evacuate` names the host that
died.

The API shows a server's flavor without its id, from microversion 2.47 on; how a listing finds it is at `_flavor_ids`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from vedette.errors import BadRequest, Forbidden, NotFound
from vedette.kinds._api import empty_is_none, in_seconds
from vedette.kinds._nova import COMPUTE, POWER_STATES, every_flavor, named, status
from vedette.kinds._said import Shape, decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Part, Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

ATTACHED = "os-extended-volumes:volumes_attached"

FIELDS = {
    "name": Field("string", "Its name."),
    "status": Field("string", "What the compute API shows: ACTIVE, BUILD, ERROR, SHUTOFF, RESIZE, MIGRATING …"),
    "tenant_id": Field("string", "The project that owns it."),
    "user_id": Field("string", "The user who made it."),
    "created": Field("string", "When it was created."),
    "flavor": Field("object", "Its size: id, original_name, vcpus, ram (MiB), disk and ephemeral (GiB)."),
    "image": Field("object", "The image it was made from, by id; null when it boots from a volume."),
    "metadata": Field("object", "Its metadata."),
    "addresses": Field("object", "Its fixed addresses, by network name. Floating ones are FloatingIPs."),
    "accessIPv4": Field("string", "The IPv4 address to reach it by, where somebody set one."),
    "accessIPv6": Field("string", "The IPv6 address to reach it by, where somebody set one."),
    "progress": Field("integer", "How far the present task is, in per cent."),
    "OS-EXT-AZ:availability_zone": Field("string", "Its availability zone."),
    "OS-EXT-STS:vm_state": Field("string", "Nova's vm_state: active, building, stopped, error …"),
    "OS-EXT-STS:task_state": Field("string", "What Nova is doing with it now, null for nothing."),
    "OS-EXT-STS:power_state": Field("integer", "0 none, 1 running, 3 paused, 4 shut down, 6 crashed, 7 suspended."),
    "OS-SRV-USG:launched_at": Field("string", "When it was last started on a host for the first time."),
    "OS-SRV-USG:terminated_at": Field("string", "When it was deleted."),
    "OS-DCF:diskConfig": Field("string", "AUTO or MANUAL partitioning."),
    "key_name": Field("string", "The keypair it was made with."),
    "locked": Field("boolean", "Whether it is locked against its users."),
    "locked_reason": Field("string", "Why it is locked."),
    "description": Field("string", "Free text."),
    "tags": Field("array", "Its tags."),
    "trusted_image_certificates": Field("array", "Ids of the certificates that its image was checked with."),
    ATTACHED: Field("array", "The volumes attached to it, by id."),
    "fault": Field("object", "Why it is in ERROR: the message; null when it isn't. A deleted server keeps its last one."),
    "OS-EXT-SRV-ATTR:host": Field("string", "The compute host it is on.", admin=True),
    "OS-EXT-SRV-ATTR:hypervisor_hostname": Field("string", "The hypervisor it is on.", admin=True),
    "OS-EXT-SRV-ATTR:hostname": Field("string", "Its host name.", admin=True),
    "OS-EXT-SRV-ATTR:instance_name": Field("string", "Its name on the hypervisor.", admin=True),
    "OS-EXT-SRV-ATTR:reservation_id": Field("string", "The request that it was made by, with others.", admin=True),
    "OS-EXT-SRV-ATTR:kernel_id": Field("string", "Image of its kernel, if it boots from one.", admin=True),
    "OS-EXT-SRV-ATTR:ramdisk_id": Field("string", "Image of its RAM disk, if it boots with one.", admin=True),
}

_Text = str | None | UnsetType
_Number = int | float | None | UnsetType


class _FixedIP(Struct, gc=False):
    address: str | None = None
    type: str | None = "fixed"
    version: int | None = None
    label: str | None = None
    vif_mac: str | None = None


class _Unversioned(Struct, gc=False):
    """Only what is read. Unset: the notice doesn't speak of it."""

    instance_id: str
    tenant_id: _Text = UNSET
    user_id: _Text = UNSET
    display_name: _Text = UNSET
    reservation_id: _Text = UNSET
    hostname: _Text = UNSET
    instance_type: _Text = UNSET
    instance_flavor_id: _Text = UNSET
    memory_mb: _Number = UNSET
    vcpus: _Number = UNSET
    root_gb: _Number = UNSET
    ephemeral_gb: _Number = UNSET
    host: _Text = UNSET
    node: _Text = UNSET
    availability_zone: _Text = UNSET
    created_at: _Text = UNSET
    terminated_at: _Text = UNSET
    launched_at: _Text = UNSET
    image_ref_url: _Text = UNSET
    kernel_id: _Text = UNSET
    ramdisk_id: _Text = UNSET
    state: _Text = UNSET
    state_description: _Text = UNSET
    progress: int | str | UnsetType | None = UNSET
    access_ip_v4: _Text = UNSET
    access_ip_v6: _Text = UNSET
    fixed_ips: list[_FixedIP] | UnsetType | None = UNSET
    metadata: Any = UNSET
    volume_id: _Text = UNSET
    message: Any = UNSET
    exception: Any = UNSET


class _Flavor(Struct, gc=False):
    flavorid: str | None = None
    name: str | None = None
    memory_mb: int | None = None
    vcpus: int | None = None
    root_gb: int | None = None
    ephemeral_gb: int | None = None


class _FlavorObject(Struct, gc=False):
    data: _Flavor = msgspec.field(name="nova_object.data")


class _IP(Struct, gc=False):
    label: str | None = None
    mac: str | None = None
    version: int | None = None
    address: str | None = None


class _IPObject(Struct, gc=False):
    data: _IP = msgspec.field(name="nova_object.data")


class _Device(Struct, gc=False):
    volume_id: str | None = None


class _DeviceObject(Struct, gc=False):
    data: _Device = msgspec.field(name="nova_object.data")


class _Exception(Struct, gc=False):
    exception: str | None = None
    exception_message: str | None = None


class _ExceptionObject(Struct, gc=False):
    data: _Exception = msgspec.field(name="nova_object.data")


class _Versioned(Struct, gc=False):
    uuid: str
    tenant_id: _Text = UNSET
    user_id: _Text = UNSET
    display_name: _Text = UNSET
    display_description: _Text = UNSET
    reservation_id: _Text = UNSET
    host_name: _Text = UNSET
    host: _Text = UNSET
    node: _Text = UNSET
    availability_zone: _Text = UNSET
    flavor: _FlavorObject | UnsetType | None = UNSET
    image_uuid: _Text = UNSET
    key_name: _Text = UNSET
    kernel_id: _Text = UNSET
    ramdisk_id: _Text = UNSET
    created_at: _Text = UNSET
    launched_at: _Text = UNSET
    terminated_at: _Text = UNSET
    state: _Text = UNSET
    task_state: _Text = UNSET
    power_state: _Text = UNSET
    progress: int | UnsetType | None = UNSET
    ip_addresses: list[_IPObject] | UnsetType | None = UNSET
    block_devices: list[_DeviceObject] | UnsetType | None = UNSET
    metadata: Any = UNSET
    locked: bool | UnsetType | None = UNSET
    locked_reason: _Text = UNSET
    auto_disk_config: _Text = UNSET
    tags: list[str] | UnsetType | None = UNSET
    trusted_image_certificates: list[str] | UnsetType | None = UNSET
    instance_name: _Text = UNSET
    fault: _ExceptionObject | UnsetType | None = UNSET
    volume_id: _Text = UNSET
    old_volume_id: _Text = UNSET
    new_volume_id: _Text = UNSET


class _VersionedObject(Struct, gc=False):
    data: _Versioned = msgspec.field(name="nova_object.data")


_unversioned = msgspec.json.Decoder(_Unversioned)
_versioned = msgspec.json.Decoder(_VersionedObject)


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one server."""
    event = notice.event_type
    if event.startswith("compute_task."):
        return _failed_task(notice)
    if event.endswith((".start", ".exists")):
        return ()
    if event.startswith("compute.instance."):
        unversioned: _Unversioned = decoded(_unversioned.decode, notice.payload, event)
        action = event[17:]
        return () if action == "live_migration._post.end" else (_read_unversioned(notice, action, unversioned),)
    if not event.startswith("instance."):
        return ()
    versioned: _VersionedObject = decoded(_versioned.decode, notice.payload, event)
    action = event[9:]
    return () if action == "live_migration_post.end" else (_read_versioned(notice, action, versioned.data),)


def _read_unversioned(notice: Notice, action: str, said: _Unversioned) -> Reading:
    fields: dict[str, Any] = {}
    admin: dict[str, Any] = {}
    if said.display_name is not UNSET:
        fields["name"] = said.display_name
    if said.tenant_id is not UNSET:
        fields["tenant_id"] = said.tenant_id
    if said.user_id is not UNSET:
        fields["user_id"] = said.user_id
    if said.created_at is not UNSET:
        fields["created"] = second(said.created_at)
    if said.instance_flavor_id is not UNSET:
        fields["flavor"] = {
            "id": said.instance_flavor_id,
            "original_name": said.instance_type or None,
            "vcpus": said.vcpus or 0,
            "ram": said.memory_mb or 0,
            "disk": said.root_gb or 0,
            "ephemeral": said.ephemeral_gb or 0,
        }
    if said.image_ref_url is not UNSET:
        # `http://glance/images/<id>`, and nothing after the last slash when it boots from a volume.
        image = (said.image_ref_url or "").rpartition("/")[2]
        fields["image"] = {"id": image} if image else None
    if said.metadata is not UNSET:
        fields["metadata"] = _metadata(said.metadata)
    going = said.state == "deleted" or (said.state_description == "deleting" and not said.fixed_ips)
    if said.fixed_ips is not UNSET and said.fixed_ips is not None and not going:
        addresses: dict[str, Any] = {}
        for ip in said.fixed_ips:
            if ip.type == "fixed":
                _address(addresses, ip.label, ip.address, ip.version, ip.vif_mac)
        fields["addresses"] = addresses
    if said.access_ip_v4 is not UNSET:
        fields["accessIPv4"] = said.access_ip_v4 or None
    if said.access_ip_v6 is not UNSET:
        fields["accessIPv6"] = said.access_ip_v6 or None
    if said.progress is not UNSET:
        fields["progress"] = said.progress if isinstance(said.progress, int) else 0
    if said.availability_zone is not UNSET:
        fields["OS-EXT-AZ:availability_zone"] = said.availability_zone or None
    if said.state is not UNSET:
        _state(fields, said.state, None if said.state_description is UNSET else said.state_description)
    if said.launched_at is not UNSET:
        fields["OS-SRV-USG:launched_at"] = second(said.launched_at)
    if said.terminated_at is not UNSET:
        fields["OS-SRV-USG:terminated_at"] = second(said.terminated_at)
    if action.endswith(".error"):
        fields["fault"] = _fault(said.message if isinstance(said.message, str) and said.message else said.exception)
    if said.host is not UNSET and action != "evacuate":
        admin["OS-EXT-SRV-ATTR:host"] = said.host or None
    if said.node is not UNSET and action != "evacuate":
        admin["OS-EXT-SRV-ATTR:hypervisor_hostname"] = said.node or None
    if said.hostname is not UNSET:
        admin["OS-EXT-SRV-ATTR:hostname"] = said.hostname or None
    if said.reservation_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:reservation_id"] = said.reservation_id or None
    if said.kernel_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:kernel_id"] = said.kernel_id or None
    if said.ramdisk_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:ramdisk_id"] = said.ramdisk_id or None
    parts: tuple[Part, ...] = ()
    if said.volume_id is not UNSET and said.volume_id:
        if action == "volume.attach":
            parts = (_attached(said.volume_id),)
        elif action == "volume.detach":
            parts = (Part(ATTACHED, "id", said.volume_id),)
    return _reading(notice, action, said.instance_id, said.tenant_id, said.created_at, said.state, fields, admin, parts)


def _read_versioned(notice: Notice, action: str, said: _Versioned) -> Reading:
    fields: dict[str, Any] = {}
    admin: dict[str, Any] = {}
    if said.display_name is not UNSET:
        fields["name"] = said.display_name
    if said.tenant_id is not UNSET:
        fields["tenant_id"] = said.tenant_id
    if said.user_id is not UNSET:
        fields["user_id"] = said.user_id
    if said.created_at is not UNSET:
        fields["created"] = second(said.created_at)
    if said.flavor is not UNSET and said.flavor is not None:
        flavor = said.flavor.data
        fields["flavor"] = {
            "id": flavor.flavorid,
            "original_name": flavor.name or None,
            "vcpus": flavor.vcpus or 0,
            "ram": flavor.memory_mb or 0,
            "disk": flavor.root_gb or 0,
            "ephemeral": flavor.ephemeral_gb or 0,
        }
    if said.image_uuid is not UNSET:
        fields["image"] = {"id": said.image_uuid} if said.image_uuid else None
    if said.metadata is not UNSET:
        fields["metadata"] = _metadata(said.metadata)
    # Nova gives the addresses back while it deletes. What the server had until then is what its DELETED should show.
    going = said.state == "deleted" or (said.task_state == "deleting" and not said.ip_addresses)
    if said.ip_addresses is not UNSET and said.ip_addresses is not None and not going:
        addresses: dict[str, Any] = {}
        for item in said.ip_addresses:
            ip = item.data
            _address(addresses, ip.label, ip.address, ip.version, ip.mac)
        fields["addresses"] = addresses
    if said.progress is not UNSET:
        fields["progress"] = said.progress or 0
    if said.availability_zone is not UNSET:
        fields["OS-EXT-AZ:availability_zone"] = said.availability_zone or None
    if said.state is not UNSET:
        _state(fields, said.state, None if said.task_state is UNSET else said.task_state)
    if said.power_state is not UNSET and said.power_state is not None:
        fields["OS-EXT-STS:power_state"] = POWER_STATES.get(said.power_state, 0)
    if said.launched_at is not UNSET:
        fields["OS-SRV-USG:launched_at"] = second(said.launched_at)
    if said.terminated_at is not UNSET:
        fields["OS-SRV-USG:terminated_at"] = second(said.terminated_at)
    if said.auto_disk_config is not UNSET:
        fields["OS-DCF:diskConfig"] = said.auto_disk_config or None
    if said.key_name is not UNSET:
        fields["key_name"] = said.key_name or None
    if said.locked is not UNSET:
        fields["locked"] = said.locked
    if said.locked_reason is not UNSET:
        fields["locked_reason"] = said.locked_reason or None
    if said.display_description is not UNSET:
        fields["description"] = said.display_description or None
    if said.tags is not UNSET and said.tags is not None:
        fields["tags"] = sorted(said.tags)
    if said.trusted_image_certificates is not UNSET:
        fields["trusted_image_certificates"] = said.trusted_image_certificates
    if action.endswith(".error") and said.fault is not UNSET and said.fault is not None:
        fields["fault"] = _fault(said.fault.data.exception_message or said.fault.data.exception)
    if said.host is not UNSET and action != "evacuate":
        admin["OS-EXT-SRV-ATTR:host"] = said.host or None
    if said.node is not UNSET and action != "evacuate":
        admin["OS-EXT-SRV-ATTR:hypervisor_hostname"] = said.node or None
    if said.host_name is not UNSET:
        admin["OS-EXT-SRV-ATTR:hostname"] = said.host_name or None
    if said.reservation_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:reservation_id"] = said.reservation_id or None
    if said.kernel_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:kernel_id"] = said.kernel_id or None
    if said.ramdisk_id is not UNSET:
        admin["OS-EXT-SRV-ATTR:ramdisk_id"] = said.ramdisk_id or None
    if said.instance_name is not UNSET:
        admin["OS-EXT-SRV-ATTR:instance_name"] = said.instance_name
    parts: tuple[Part, ...] = ()
    if action == "create.end" and said.block_devices is not UNSET and said.block_devices is not None:
        # The only event that always says them; elsewhere it depends on a setting, and deletes list them already detached.
        fields[ATTACHED] = _attachments(item.data.volume_id for item in said.block_devices)
    elif action == "volume_attach.end" and said.volume_id is not UNSET and said.volume_id:
        parts = (_attached(said.volume_id),)
    elif action == "volume_detach.end" and said.volume_id is not UNSET and said.volume_id:
        parts = (Part(ATTACHED, "id", said.volume_id),)
    elif action == "volume_swap.end" and said.old_volume_id and said.new_volume_id:
        parts = (Part(ATTACHED, "id", said.old_volume_id), _attached(said.new_volume_id))
    return _reading(notice, action, said.uuid, said.tenant_id, said.created_at, said.state, fields, admin, parts)


def _reading(
    notice: Notice,
    action: str,
    id_: str,
    project: _Text,
    created: _Text,
    vm_state: _Text,
    fields: dict[str, Any],
    admin: dict[str, Any],
    parts: tuple[Part, ...],
) -> Reading:
    return Reading(
        kind="Server",
        id=named(id_, notice, "server"),
        verb="delete" if action == "delete.end" else "create" if action == "create.end" else "update",
        as_of=notice.sent_at,
        created=None if created is UNSET else moment(created),
        project=None if project is UNSET else (project or ""),
        fields=fields,
        admin=admin,
        parts=parts,
        # Updates go on after the deletion: one about a server that nobody knows must not bring it to life.
        only_known=vm_state == "deleted" and action != "delete.end",
    )


def _state(fields: dict[str, Any], vm_state: str | None, task_state: str | None) -> None:
    shown = status(vm_state, task_state)
    fields["status"] = shown
    fields["OS-EXT-STS:vm_state"] = vm_state or None
    fields["OS-EXT-STS:task_state"] = task_state or None
    if shown not in ("ERROR", "DELETED"):
        # The API shows a fault only in these two.
        fields["fault"] = None


def _address(addresses: dict[str, Any], label: str | None, address: str | None, version: int | None, mac: str | None) -> None:
    addresses.setdefault(label or "", []).append(
        {"addr": address, "version": version, "OS-EXT-IPS-MAC:mac_addr": mac, "OS-EXT-IPS:type": "fixed"}
    )


def _attached(volume: str) -> Part:
    # Only the id: the unversioned event doesn't know delete_on_termination, and both must say the same.
    return Part(ATTACHED, "id", volume, {"id": volume})


def _attachments(volumes: Iterable[str | None]) -> list[dict[str, str]]:
    """In one order: neither the notification nor the API promises any."""
    return [{"id": volume} for volume in sorted(filter(None, volumes))]


def _metadata(said: Any) -> dict[str, Any]:
    """Nova before Havana sent a list of key and value; an empty one may still be `[]`."""
    if isinstance(said, dict):
        return said
    if isinstance(said, list):
        return {str(item["key"]): item.get("value") for item in said if isinstance(item, dict) and "key" in item}
    return {}


def _fault(message: Any) -> dict[str, Any]:
    """The first line, as the API cuts it: what an RPC brings back has a traceback below it."""
    first = str(message or "").strip().partition("\n")[0].strip()
    return {"message": first[:255]}


class _Owner(Struct, gc=False):
    project_id: str | None = None
    user_id: str | None = None


class _OwnerObject(Struct, gc=False):
    data: _Owner = msgspec.field(name="nova_object.data")


class _UnversionedTask(Struct, gc=False):
    """Only these: the rest of it holds the caller's token."""

    instance_id: str | None = None
    instance_properties: _Owner | None = None
    state: str | None = None
    reason: Any = None


class _VersionedTask(Struct, gc=False):
    instance_uuid: str | None = None
    request_spec: _OwnerObject | None = None
    state: str | None = None
    reason: _ExceptionObject | None = None


class _EitherTask(_UnversionedTask, gc=False):
    data: _VersionedTask | None = msgspec.field(name="nova_object.data", default=None)


_task = msgspec.json.Decoder(_EitherTask)
_MESSAGE = re.compile(r"""['"]message['"]: (?:'([^']*)'|"([^"]*)")""")


def _failed_task(notice: Notice) -> Iterable[Reading]:
    """`compute_task.{build_instances,migrate_server,rebuild_server}`: the conductor gave up. `state` is what the server was
    set to."""
    said: _EitherTask = decoded(_task.decode, notice.payload, notice.event_type)
    if said.data is None:
        id_, owner, state = said.instance_id, said.instance_properties, said.state
        # The text of a Python dict: {'kwargs': …, 'message': 'No valid host was found. ', 'class': …}
        why = str(said.reason or "")
        found = _MESSAGE.search(why[:4096])
        message = (found[1] or found[2] or "") if found else why
    else:
        id_, state = said.data.instance_uuid, said.data.state
        owner = said.data.request_spec.data if said.data.request_spec is not None else None
        reason = said.data.reason.data if said.data.reason is not None else None
        message = (reason.exception_message or reason.exception or "") if reason is not None else ""
    fields: dict[str, Any] = {}
    if owner is not None and owner.project_id:
        fields["tenant_id"] = owner.project_id
    if owner is not None and owner.user_id:
        fields["user_id"] = owner.user_id
    if state:
        # Nova clears the task with it (conductor, _set_vm_state_and_notify).
        _state(fields, state, None)
    fields["fault"] = _fault(message)
    return (
        Reading(
            kind="Server",
            id=named(id_, notice, "server"),
            verb="update",
            as_of=notice.sent_at,
            project=fields.get("tenant_id"),
            fields=fields,
        ),
    )


# --- from the API ----------------------------------------------------------------------------------------------------------

MICROVERSION = "2.96"
"""2.47 the flavor's details, 2.69 servers in cells that are down, 2.73 why one is locked."""
WITH_FLAVOR_ID = "2.46"
"""The newest that shows the id of a server's flavor, and nothing else of it."""
MOST_FLAVORS = 100
"""Flavors that no listing has any more, whose id one listing of servers asks for."""

_shape = Shape("Server", FIELDS)
_SIZE = ("original_name", "vcpus", "ram", "disk", "ephemeral")

_FlavorKey = bytes


def _flavor_key(flavor: Mapping[str, Any]) -> _FlavorKey:
    """What is known of a flavor in a server, but for its id."""
    specs = flavor.get("extra_specs")
    return _encoder.encode([*(flavor.get(name) for name in (*_SIZE, "swap")), specs if isinstance(specs, dict) else None])


_encoder = msgspec.json.Encoder(order="deterministic")


class _Flavors:
    """Finds the id of the flavor that a server was made with.

    The API shows what the server took over from it when it was made or resized: name, sizes, extra specs. A flavor of that name
    may since have been changed, deleted, or deleted and made anew under another id. So a flavor of the present list counts only
    if all of it is alike; else one server that shows the same is asked for with an older microversion, once for all of them.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._ids: dict[_FlavorKey, str | None] | None = None
        self._asked = 0

    async def id_of(self, server: str, flavor: JsonObject) -> str | None:
        """None: nobody says."""
        if self._ids is None:
            self._ids = {_flavor_key(_as_in_a_server(one)): id_ async for id_, one in every_flavor(self._cloud)}
        key = _flavor_key(flavor)
        if key not in self._ids:
            if self._asked == MOST_FLAVORS:
                return None
            self._asked += 1
            self._ids[key] = await self._ask(server)
        return self._ids[key]

    async def _ask(self, server: str) -> str | None:
        try:
            answer = await self._cloud.get(COMPUTE, f"/servers/{segment(server)}", microversion=WITH_FLAVOR_ID)
        except (NotFound, Forbidden, BadRequest):
            return None
        shown = answer.body.get("server")
        flavor = shown.get("flavor") if isinstance(shown, dict) else None
        id_ = flavor.get("id") if isinstance(flavor, dict) else None
        return id_ if isinstance(id_, str) and id_ else None


def _as_in_a_server(flavor: JsonObject) -> JsonObject:
    return {
        **flavor,
        "original_name": flavor.get("name"),
        "ephemeral": flavor.get("OS-FLV-EXT-DATA:ephemeral"),
        "swap": flavor.get("swap") or 0,
    }


async def list_servers(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every server. A page of them names the same few flavors again and again: one list of flavors serves them all."""
    flavors = _Flavors(cloud)
    # Deleted softly is not gone: Nova would leave them out.
    params = (("all_tenants", "1"), ("soft_deleted", "1"))
    async for page in cloud.pages(COMPUTE, "/servers/detail", "servers", params, microversion=MICROVERSION):
        found: list[Reading] = []
        for item in page.items:
            reading = shown(item, page.as_of)
            if reading is None:
                continue
            flavor = item.get("flavor")
            # A Nova before Pike shows the id alone: too little to take the place of what is known.
            if isinstance(flavor, dict) and "original_name" in flavor and not reading.only_known:
                id_ = await flavors.id_of(reading.id, flavor)
                if id_ is not None:
                    size = {name: flavor.get(name) or (None if name == "original_name" else 0) for name in _SIZE}
                    reading = msgspec.structs.replace(reading, fields={**reading.fields, "flavor": {"id": id_, **size}})
            found.append(reading)
        yield found


async def get_server(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One server, without its flavor: what is known of that stays."""
    answer = await cloud.get(COMPUTE, f"/servers/{segment(id_)}", microversion=MICROVERSION)
    item = answer.body.get("server")
    if not isinstance(item, dict):
        return ()
    if item.get("status") == "DELETED":
        raise NotFound(f"the server {id_} is deleted")
    reading = shown(item, answer.as_of)
    return () if reading is None else (reading,)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one server, but for its flavor; None when it has no id or is deleted."""
    if item.get("image") == "":
        item = {**item, "image": None}
    id_, fields, admin = _shape.of(item)
    if not id_ or item.get("status") == "DELETED":
        return None
    if "name" not in item:
        # In a cell that is down: Nova's API knows that it is there, and nothing else.
        return Reading(kind="Server", id=id_, verb="update", as_of=as_of, only_known=True)
    fields.pop("flavor", None)
    created = fields.get("created")
    in_seconds(fields, "created", "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at")
    empty_is_none(fields, "accessIPv4", "accessIPv6", "OS-EXT-AZ:availability_zone", "key_name", "locked_reason", "description")
    empty_is_none(admin, *admin)
    image = fields.get("image")
    if image is not None:
        fields["image"] = {"id": image.get("id")}
    if "addresses" in fields:
        _shown_addresses(fields)
    if "tags" in fields:
        fields["tags"] = sorted(tag for tag in fields["tags"] or () if isinstance(tag, str))
    if ATTACHED in fields:
        volumes = (one.get("id") for one in fields[ATTACHED] or () if isinstance(one, dict))
        fields[ATTACHED] = _attachments(volume for volume in volumes if isinstance(volume, str))
    fault = fields.pop("fault", None)
    if isinstance(fault, dict):
        fields["fault"] = _fault(fault.get("message"))
    elif fields.get("status") not in ("ERROR", "DELETED", None):
        fields["fault"] = None
    project = fields.get("tenant_id")
    return Reading(
        kind="Server",
        id=id_,
        verb="create",
        as_of=as_of,
        created=moment(created),
        project=None if "tenant_id" not in fields else (project or ""),
        fields=fields,
        admin=admin,
    )


def _shown_addresses(fields: dict[str, Any]) -> None:
    """The addresses in the form that `read` gives, in place; taken out where Nova hides them."""
    said = fields.pop("addresses")
    going = fields.get("OS-EXT-STS:task_state") == "deleting" and not said
    if said is None or going or fields.get("OS-EXT-STS:vm_state") == "building":
        return
    addresses: dict[str, Any] = {}
    for label, items in said.items():
        for ip in items if isinstance(items, list) else ():
            if isinstance(ip, dict) and ip.get("OS-EXT-IPS:type", "fixed") == "fixed":
                _address(addresses, label, ip.get("addr"), ip.get("version"), ip.get("OS-EXT-IPS-MAC:mac_addr"))
    fields["addresses"] = addresses


def transient(server: JsonObject) -> bool:
    """Whether Nova is at work on it. It announces what it does, but for what a lost nova-compute or conductor was doing."""
    return bool(server.get("OS-EXT-STS:task_state")) or server.get("status") == "BUILD"


KIND = Kind(
    kind="Server",
    plural="servers",
    singular="server",
    short_names=("srv",),
    doc="A Nova server: a virtual machine, its state, size and addresses.",
    events=(
        "compute.instance.update",
        "compute.instance.*.end",
        "compute.instance.*.error",
        "compute.instance.evacuate",
        "compute.instance.rebuild.scheduled",
        "compute.instance.volume.attach",
        "compute.instance.volume.detach",
        "instance.update",
        "instance.*.end",
        "instance.*.error",
        "instance.evacuate",
        "instance.rebuild_scheduled",
        "instance.lock",
        "instance.unlock",
        "compute_task.build_instances*",
        "compute_task.migrate_server*",
        "compute_task.rebuild_server*",
    ),
    read=read,
    api=Api(
        service=COMPUTE,
        list=list_servers,
        get=get_server,
        transient=transient,
        transient_fields=("status", "OS-EXT-STS:task_state"),
    ),
    fields=FIELDS,
    columns=(
        Column("Server-Name", ("name",)),
        Column("Status", ("status",)),
        Column("Networks", ("addresses", "*", "*", "addr")),
        Column("Image", ("image", "id"), priority=1),
        Column("Flavor", ("flavor", "original_name")),
        Column("Task", ("OS-EXT-STS:task_state",), priority=1),
        Column("Power", ("OS-EXT-STS:power_state",), "integer", priority=1),
        Column("Zone", ("OS-EXT-AZ:availability_zone",), priority=1),
        Column("Host", ("OS-EXT-SRV-ATTR:host",), priority=1, doc="Shown to admins only."),
    ),
)
