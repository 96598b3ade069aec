"""Images, from Glance's `image.*` and from its API. Its notifications carry whole images, up to five `image.update` for one
upload; they have no context, no `.start` and no `.end`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._api import readings
from vedette.kinds._said import Shape, Verb, moment, untyped
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

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
    properties = fields.get("properties")
    if properties is not None:
        fields["properties"] = {name: value for name, value in properties.items() if not name.startswith(_GLANCES)}
    return (_reading(verb, notice.sent_at, id_, fields),)


def _reading(verb: Verb, as_of: int, id_: str, fields: dict[str, Any]) -> Reading:
    visibility = fields.get("visibility")
    if "tags" in fields:
        fields["tags"] = sorted(tag for tag in fields["tags"] or () if isinstance(tag, str))
    return Reading(
        kind="Image",
        id=id_,
        verb=verb,
        as_of=as_of,
        created=moment(fields.get("created_at")),
        project=(fields["owner"] or "") if "owner" in fields else None,
        shared=None if visibility is None else visibility in ("public", "community"),
        fields=fields,
    )


IMAGE = "image"
ADMINS_ONLY = "/tasks"
"""Glance shows every project's images to whom it shows its tasks: admins."""
EVERY = (("visibility", "all"),), (("visibility", "all"), ("os_hidden", "true"))
"""All that aren't hidden, then those that are. Without `visibility` the community's images of other projects are left out."""

_GLANCES = "os_glance_"
"""Begins the properties in which Glance keeps its own affairs: how far an import is. They come and go without a word, and its
API hides some."""
_BESIDE = frozenset(FIELDS) - {"properties"} | {"id", "self", "file", "schema", "locations", "direct_url", "stores"}
"""What stands in an image beside its properties."""


async def list_images(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every project's."""
    for params in EVERY:
        async for page in cloud.pages(IMAGE, "/images", "images", params):
            yield readings(page.items, page.as_of, shown)


async def get_image(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(IMAGE, f"/images/{segment(id_)}")
    return readings((answer.body,), answer.as_of, shown)


async def some_images(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Those of these that are there. (Hidden ones are said not to be: they are asked for alone.)"""
    plain = [id_ for id_ in ids if id_.isascii() and id_.replace("-", "").isalnum()]
    if not plain:
        return ()
    params = (("visibility", "all"), ("id", "in:" + ",".join(plain)))
    found: list[Reading] = []
    async for page in cloud.pages(IMAGE, "/images", "images", params):
        found += readings(page.items, page.as_of, shown)
    return found


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one image."""
    id_, fields, _ = _shape.of(item)
    fields.pop("is_public", None)
    if not id_:
        return None
    fields["properties"] = {name: value for name, value in item.items() if name not in _BESIDE and not name.startswith(_GLANCES)}
    return _reading("create", as_of, id_, fields)


def transient(image: JsonObject) -> bool:
    """Whether its content is on the way. Glance announces the end of an upload; of an import, not in every release."""
    return image.get("status") in ("saving", "importing", "uploading")


KIND = Kind(
    kind="Image",
    plural="images",
    singular="image",
    short_names=("img",),
    doc="A Glance image: what servers are made from.",
    events=tuple(_VERBS),
    read=read,
    api=Api(
        service=IMAGE,
        list=list_images,
        get=get_image,
        some=some_images,
        proof=ADMINS_ONLY,
        transient=transient,
        transient_fields=("status",),
    ),
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
