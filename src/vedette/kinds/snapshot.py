"""Volume snapshots, from Cinder's `snapshot.*.end` and from its API. Their metadata comes as text and isn't read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kinds._api import in_seconds, readings, the
from vedette.kinds._cinder import ADMINS_ONLY, BLOCK_STORAGE, EVERYBODYS, MICROVERSION, transient
from vedette.kinds._said import Shape, decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "status": Field("string", "available, creating, deleting, error …"),
    "size": Field("integer", "Its volume's size in GiB."),
    "volume_id": Field("string", "The volume it was made of."),
    "user_id": Field("string", "The user who made it."),
    "os-extended-snapshot-attributes:project_id": Field("string", "The project that owns it."),
    "created_at": Field("string", "When it was created."),
}

_Text = str | UnsetType | None


class _Snapshot(msgspec.Struct, gc=False):
    snapshot_id: str
    tenant_id: _Text = UNSET
    user_id: _Text = UNSET
    volume_id: _Text = UNSET
    volume_size: int | UnsetType | None = UNSET
    display_name: _Text = UNSET
    created_at: _Text = UNSET
    status: _Text = UNSET


_snapshot = msgspec.json.Decoder(_Snapshot)
_NAMES = (
    ("display_name", "name"),
    ("status", "status"),
    ("volume_size", "size"),
    ("volume_id", "volume_id"),
    ("user_id", "user_id"),
    ("tenant_id", "os-extended-snapshot-attributes:project_id"),
)
"""Cinder's word in the notification, and in the API."""


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one snapshot."""
    event = notice.event_type
    if not event.startswith("snapshot.") or not event.endswith((".end", ".error")):
        return ()
    said: _Snapshot = decoded(_snapshot.decode, notice.payload, event)
    if not said.snapshot_id:
        raise NotUnderstood(f"{event}: a snapshot without an id")
    fields: dict[str, Any] = {}
    for word, name in _NAMES:
        value = getattr(said, word)
        if value is not UNSET:
            fields[name] = value
    if said.created_at is not UNSET:
        fields["created_at"] = second(said.created_at)
    return (
        Reading(
            kind="Snapshot",
            id=said.snapshot_id,
            verb="delete" if event == "snapshot.delete.end" else "create" if event == "snapshot.create.end" else "update",
            as_of=notice.sent_at,
            created=None if said.created_at is UNSET else moment(said.created_at),
            project=None if said.tenant_id is UNSET else (said.tenant_id or ""),
            fields=fields,
        ),
    )


_shape = Shape("Snapshot", FIELDS)
_OWNER = "os-extended-snapshot-attributes:project_id"


async def list_snapshots(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every project's."""
    async for page in cloud.pages(BLOCK_STORAGE, "/snapshots/detail", "snapshots", EVERYBODYS, microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_snapshot(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(BLOCK_STORAGE, f"/snapshots/{segment(id_)}", microversion=MICROVERSION)
    return the(answer, "snapshot", shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one snapshot."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    created = fields.get("created_at")
    in_seconds(fields, "created_at")
    return Reading(
        kind="Snapshot",
        id=id_,
        verb="create",
        as_of=as_of,
        created=moment(created),
        project=(fields[_OWNER] or "") if _OWNER in fields else None,
        fields=fields,
    )


KIND = Kind(
    kind="Snapshot",
    plural="snapshots",
    singular="snapshot",
    short_names=("snap",),
    doc="A Cinder snapshot of a volume.",
    events=("snapshot.*.end", "snapshot.*.error"),
    read=read,
    api=Api(
        service=BLOCK_STORAGE,
        list=list_snapshots,
        get=get_snapshot,
        proof=ADMINS_ONLY,
        transient=transient,
        transient_fields=("status",),
    ),
    fields=FIELDS,
    columns=(
        Column("Snapshot-Name", ("name",)),
        Column("Status", ("status",)),
        Column("Size", ("size",), "integer"),
        Column("Volume", ("volume_id",), priority=1),
    ),
)
