"""Images, from Glance's `image.*`: whole images each time, up to five `image.update` for one upload. No context, no `.start`,
no `.end`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._said import Shape, Verb, moment, untyped
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "status": Field("string", "queued, saving, active, deactivated, killed, deleted …"),
    "visibility": Field("string", "private, shared, community or public."),
    "owner": Field("string", "The project that owns it."),
    "disk_format": Field("string", "raw, qcow2, iso …"),
    "container_format": Field("string", "bare, ova, docker …"),
    "size": Field("integer", "Its size in bytes."),
    "virtual_size": Field("integer", "The size of the disk in it, in bytes."),
    "min_disk": Field("integer", "GiB of disk that it needs."),
    "min_ram": Field("integer", "MiB of memory that it needs."),
    "checksum": Field("string", "MD5 of its content."),
    "os_hash_algo": Field("string", "Which hash os_hash_value is."),
    "os_hash_value": Field("string", "Hash of its content."),
    "os_hidden": Field("boolean", "Whether lists leave it out."),
    "protected": Field("boolean", "Whether it can't be deleted."),
    "properties": Field("object", "Its other properties (in the API they stand beside the fields)."),
    "tags": Field("array", "Its tags."),
    "created_at": Field("string", "When it was created."),
    "updated_at": Field("string", "When it was last updated."),
}

_shape = Shape("Image", FIELDS | {"is_public": Field("boolean", "Before there was visibility.")})
_decode = msgspec.json.Decoder(_shape.struct).decode
_VERBS: dict[str, Verb] = {
    "image.create": "create",
    "image.prepare": "update",
    "image.upload": "update",
    "image.activate": "update",
    "image.update": "update",
    "image.deactivate": "update",
    "image.reactivate": "update",
    "image.delete": "delete",
}


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one image."""
    verb = _VERBS.get(notice.event_type)
    if verb is None:
        return ()
    fields: dict[str, Any]
    try:
        id_, fields, _ = _shape.split(_decode(notice.payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        id_, fields, _ = _shape.forgive(untyped(notice.payload, notice.event_type))
    if not id_:
        raise NotUnderstood(f"{notice.event_type}: an image without an id")
    public = fields.pop("is_public", None)
    if public is not None and "visibility" not in fields:
        fields["visibility"] = "public" if public else "private"
    visibility = fields.get("visibility")
    return (
        Reading(
            kind="Image",
            id=id_,
            verb=verb,
            as_of=notice.sent_at,
            created=moment(fields.get("created_at")),
            project=(fields["owner"] or "") if "owner" in fields else None,
            shared=None if visibility is None else visibility in ("public", "community"),
            fields=fields,
        ),
    )


KIND = Kind(
    kind="Image",
    plural="images",
    singular="image",
    short_names=("img",),
    doc="A Glance image: what servers are made from.",
    events=tuple(_VERBS),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Image-Name", ("name",)),
        Column("Status", ("status",)),
        Column("Visibility", ("visibility",), priority=1),
        Column("Format", ("disk_format",), priority=1),
        Column("Size", ("size",), "integer", priority=1),
    ),
    audience="shared",
)
