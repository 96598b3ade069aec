"""Volumes, from Cinder's `volume.*.end` (on the exchange `openstack` unless Cinder is told otherwise).

`.start` isn't read: a resize that fails leaves nothing but its `.start`. What connects a volume (`connection_info`,
`connector`, with CHAP secrets) is never read, nor is the host of an attachment, which Cinder shows to admins only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kinds._said import decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

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
        fields["metadata"] = pairs(said.metadata)
    if said.volume_attachment is not UNSET and event != "volume.delete.end":
        fields["attachments"] = [
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
        ]
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


KIND = Kind(
    kind="Volume",
    plural="volumes",
    singular="volume",
    short_names=("vol",),
    doc="A Cinder volume: block storage.",
    events=("volume.*.end", "volume.*.error"),
    read=read,
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
