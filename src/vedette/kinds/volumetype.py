"""Volume types, from Cinder's API: which back end a volume may be on, by `extra_specs`. No notification is read of them.

https://docs.openstack.org/api-ref/block-storage/v3/#volume-types-types
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from vedette.kinds._api import readings, the
from vedette.kinds._cinder import ADMINS_ONLY, BLOCK_STORAGE
from vedette.kinds._said import Shape
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "What it is for."),
    "is_public": Field("boolean", "Whether every project may use it."),
    "extra_specs": Field("object", "What a back end has to be like: `volume_backend_name` names it."),
    "qos_specs_id": Field("string", "Its quality of service, by id."),
}
_shape = Shape("VolumeType", FIELDS)


def read(notice: Notice) -> Iterable[Reading]:
    """Nothing: no notification is read of a type."""
    return ()


async def list_types(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Public and private ones."""
    async for page in cloud.pages(BLOCK_STORAGE, "/types", "volume_types", (("is_public", "None"),)):
        yield readings(page.items, page.as_of, shown)


async def get_type(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    return the(await cloud.get(BLOCK_STORAGE, f"/types/{segment(id_)}"), "volume_type", shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one type."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    return Reading(kind="VolumeType", id=id_, verb="create", as_of=as_of, project="", fields=fields)


KIND = Kind(
    kind="VolumeType",
    plural="volumetypes",
    singular="volumetype",
    short_names=("vtype",),
    doc="A Cinder volume type.",
    events=(),
    read=read,
    api=Api(service=BLOCK_STORAGE, list=list_types, get=get_type, proof=ADMINS_ONLY),
    fields=FIELDS,
    columns=(Column("Type-Name", ("name",)), Column("Public", ("is_public",), "boolean")),
    audience="admin",
)
