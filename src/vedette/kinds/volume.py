"""Volumes, from Cinder's `volume.*.end` (on the exchange `openstack` unless Cinder is told otherwise) and from its API.

`.start` isn't read: a resize that fails leaves nothing but its `.start`. What connects a volume (`connection_info`,
`connector`, with CHAP secrets) is never read, nor is the host of an attachment, which Cinder shows to admins only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import BadRequest, NotUnderstood
from vedette.kinds._api import in_seconds
from vedette.kinds._cinder import ADMINS_ONLY, BLOCK_STORAGE, EVERYBODYS, MICROVERSION, transient
from vedette.kinds._said import Shape, decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "status": Field("string", "available, in-use, creating, error …"),
    "size": Field("integer", "Its size in GiB."),
    "volume_type_id": Field("string", "Its type, by id."),
    "os-vol-tenant-attr:tenant_id": Field("string", "The project that owns it."),
    "user_id": Field("string", "The user who made it."),
    "availability_zone": Field("string", "Its availability zone."),
    "attachments": Field(
        "array", "The servers it is attached to: id and volume_id (the volume), server_id, device, attachment_id, attached_at."
    ),
    "metadata": Field("object", "Its metadata."),
    "snapshot_id": Field("string", "The snapshot it was made from."),
    "bootable": Field("string", "`true` or `false`: whether a server can boot from it."),
    "multiattach": Field("boolean", "Whether several servers may have it."),
    "replication_status": Field("string", "Status of its replication."),
    "created_at": Field("string", "When it was created."),
    "os-vol-host-attr:host": Field("string", "The back end that holds it.", admin=True),
}

_Text = str | UnsetType | None


class _Attachment(msgspec.Struct, gc=False):
    id: str | None = None
    instance_uuid: str | None = None
    mountpoint: str | None = None
    attach_time: str | None = None
    attach_status: str | None = None


class _Volume(msgspec.Struct, gc=False):
    volume_id: str
    tenant_id: _Text = UNSET
    user_id: _Text = UNSET
    host: _Text = UNSET
    availability_zone: _Text = UNSET
    volume_type: _Text = UNSET
    display_name: _Text = UNSET
    created_at: _Text = UNSET
    status: _Text = UNSET
    snapshot_id: _Text = UNSET
    size: int | UnsetType | None = UNSET
    replication_status: _Text = UNSET
    metadata: Any = UNSET
    volume_attachment: list[_Attachment] | UnsetType | None = UNSET


_volume = msgspec.json.Decoder(_Volume)
_NAMES = (
    ("display_name", "name"),
    ("status", "status"),
    ("size", "size"),
    ("volume_type", "volume_type_id"),
    ("tenant_id", "os-vol-tenant-attr:tenant_id"),
    ("user_id", "user_id"),
    ("availability_zone", "availability_zone"),
    ("snapshot_id", "snapshot_id"),
    ("replication_status", "replication_status"),
)
"""Cinder's word in the notification, and in the API."""
_STATUS_AFTER = {"volume.transfer.create.end": "awaiting-transfer", "volume.transfer.delete.end": "available"}
"""These two carry the status as it was before."""
_ADDED = ("readonly", "attached_mode")
"""What the API shows among a volume's metadata, and isn't: no notification has it there."""


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one volume."""
    event = notice.event_type
    if not event.startswith("volume.") or not event.endswith((".end", ".error")):
        return ()
    said: _Volume = decoded(_volume.decode, notice.payload, event)
    if not said.volume_id:
        raise NotUnderstood(f"{event}: a volume without an id")
    fields: dict[str, Any] = {}
    for word, name in _NAMES:
        value = getattr(said, word)
        if value is not UNSET:
            fields[name] = value
    if said.created_at is not UNSET:
        fields["created_at"] = second(said.created_at)
    if said.metadata is not UNSET:
        fields["metadata"] = _own(pairs(said.metadata))
    if event in _STATUS_AFTER:
        fields["status"] = _STATUS_AFTER[event]
    if said.volume_attachment is not UNSET and event != "volume.delete.end":
        fields["attachments"] = _in_order(
            {
                "id": said.volume_id,
                "volume_id": said.volume_id,
                "attachment_id": item.id,
                "server_id": item.instance_uuid,
                "device": item.mountpoint,
                "attached_at": second(item.attach_time),
            }
            for item in said.volume_attachment or ()
            # Those being attached or detached, or gone, aren't in the API's list either.
            if item.attach_status in (None, "attached")
        )
    return (
        Reading(
            kind="Volume",
            id=said.volume_id,
            verb="delete" if event == "volume.delete.end" else "create" if event == "volume.create.end" else "update",
            as_of=notice.sent_at,
            created=None if said.created_at is UNSET else moment(said.created_at),
            project=None if said.tenant_id is UNSET else (said.tenant_id or ""),
            fields=fields,
            admin={} if said.host is UNSET else {"os-vol-host-attr:host": said.host or None},
        ),
    )


def pairs(said: Any) -> dict[str, Any]:
    """Metadata as a dict: Cinder sends rows of key and value, `[]` or "" for none, or a dict."""
    if isinstance(said, dict):
        return said
    if isinstance(said, list):
        return {str(row["key"]): row.get("value") for row in said if isinstance(row, dict) and "key" in row}
    return {}


def _own(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in _ADDED}


def _in_order(attachments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(attachments, key=lambda one: str(one["attachment_id"]))


_shape = Shape("Volume", FIELDS)
_ATTACHMENT = ("id", "volume_id", "attachment_id", "server_id", "device")

Types = Mapping[str, str]
"""Name of a volume type to its id."""


async def list_volumes(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every project's."""
    types: Types | None = None
    async for page in cloud.pages(BLOCK_STORAGE, "/volumes/detail", "volumes", EVERYBODYS, microversion=MICROVERSION):
        types = await _types(cloud, page.items, types)
        yield _readings(page.items, page.as_of, types or {})


async def get_volume(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(BLOCK_STORAGE, f"/volumes/{segment(id_)}", microversion=MICROVERSION)
    items = [answer.body.get("volume")]
    return _readings(items, answer.as_of, await _types(cloud, items, None) or {})


async def some_volumes(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Those of these that are there. Cinder reads a filter's value as a Python literal, and takes a list of them; from admins
    only: nothing is said to others."""
    plain = [id_ for id_ in ids if id_.isascii() and id_.replace("-", "").isalnum()]
    if not plain:
        return ()
    params = (*EVERYBODYS, ("id", str(plain)))
    found: list[Reading] = []
    types: Types | None = None
    try:
        async for page in cloud.pages(BLOCK_STORAGE, "/volumes/detail", "volumes", params, microversion=MICROVERSION):
            types = await _types(cloud, page.items, types)
            found += _readings(page.items, page.as_of, types or {})
    except BadRequest:
        return ()
    return [one for one in found if one.id in ids]


async def _types(cloud: Cloud, items: Iterable[Any], known: Types | None) -> Types | None:
    """Cinder before Ussuri shows the type's name only: the ids of all types, asked for once when one is needed."""
    if known is not None:
        return known
    named = any(isinstance(item, dict) and "volume_type_id" not in item and item.get("volume_type") for item in items)
    if not named:
        return None
    types: dict[str, str] = {}
    async for page in cloud.pages(BLOCK_STORAGE, "/types", "volume_types", (("is_public", "None"),), microversion=MICROVERSION):
        for item in page.items:
            if isinstance(item.get("name"), str) and isinstance(item.get("id"), str):
                types[item["name"]] = item["id"]
    return types


def _readings(items: Iterable[Any], as_of: int, types: Types) -> list[Reading]:
    found = (shown(item, as_of, types) for item in items if isinstance(item, dict))
    return [reading for reading in found if reading is not None]


def shown(item: JsonObject, as_of: int, types: Types) -> Reading | None:
    """What the API shows of one volume."""
    id_, fields, admin = _shape.of(item)
    if not id_:
        return None
    created = fields.get("created_at")
    in_seconds(fields, "created_at")
    if "volume_type_id" not in fields and "volume_type" in item:
        name = item["volume_type"]
        if not name:
            fields["volume_type_id"] = None
        elif isinstance(name, str) and name in types:
            fields["volume_type_id"] = types[name]
    if fields.get("metadata"):
        fields["metadata"] = _own(fields["metadata"])
    if "attachments" in fields:
        said = [one for one in fields["attachments"] or () if isinstance(one, dict)]
        fields["attachments"] = _in_order(
            {
                **{name: one.get(name) for name in _ATTACHMENT},
                "attached_at": second(one["attached_at"]) if isinstance(one.get("attached_at"), str) else None,
            }
            for one in said
        )
    if admin.get("os-vol-host-attr:host") == "":
        admin["os-vol-host-attr:host"] = None
    owner = "os-vol-tenant-attr:tenant_id"
    return Reading(
        kind="Volume",
        id=id_,
        verb="create",
        as_of=as_of,
        created=moment(created),
        project=(fields[owner] or "") if owner in fields else None,
        fields=fields,
        admin=admin,
    )


KIND = Kind(
    kind="Volume",
    plural="volumes",
    singular="volume",
    short_names=("vol",),
    doc="A Cinder volume: block storage.",
    events=("volume.*.end", "volume.*.error"),
    read=read,
    api=Api(
        service=BLOCK_STORAGE,
        list=list_volumes,
        get=get_volume,
        some=some_volumes,
        proof=ADMINS_ONLY,
        transient=transient,
        transient_fields=("status",),
    ),
    fields=FIELDS,
    columns=(
        Column("Volume-Name", ("name",)),
        Column("Status", ("status",)),
        Column("Size", ("size",), "integer"),
        Column("Attached-To", ("attachments", "*", "server_id")),
        Column("Type", ("volume_type_id",), priority=1),
        Column("Host", ("os-vol-host-attr:host",), priority=1, doc="Shown to admins only."),
    ),
)
