"""Storage pools: what Cinder's back ends have and have left. From `capacity.pool`, which each back end tells every minute or so,
and from the API, for admins.

`unknown` and `infinite` are no numbers: null here. The zone, and whether the back end takes volumes, are its service's.
https://docs.openstack.org/api-ref/block-storage/v3/#back-end-storage-pools
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from vedette.errors import NotFound, NotUnderstood
from vedette.kinds._api import readings
from vedette.kinds._cinder import BLOCK_STORAGE
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name: host@backend#pool."),
    "total_capacity_gb": Field("number", "What it has, in GiB; null: unknown, or without end."),
    "free_capacity_gb": Field("number", "What of it is free, in GiB."),
    "allocated_capacity_gb": Field("number", "What Cinder gave to volumes, in GiB."),
    "provisioned_capacity_gb": Field("number", "What was promised to volumes, in GiB: of thin ones more than is in use."),
    "virtual_free": Field("number", "What may still be promised, in GiB."),
    "max_over_subscription_ratio": Field("number", "How much more than it has may be promised of thin volumes."),
    "reserved_percentage": Field("number", "What is kept back, in per cent."),
    "volume_backend_name": Field("string", "What a volume type asks for it by."),
    "storage_protocol": Field("string", "iSCSI, ceph, NFS …"),
    "vendor_name": Field("string", "Who made it."),
    "driver_version": Field("string", "The version of its driver."),
    "availability_zone": Field("string", "The zone of its service."),
    "service_status": Field("string", "enabled or disabled: whether its service takes volumes."),
    "service_state": Field("string", "up or down."),
}
_NUMBERS = tuple(name for name, field in FIELDS.items() if field.type == "number")
_TEXTS = ("volume_backend_name", "vendor_name", "driver_version")


class _Said(msgspec.Struct, gc=False):
    name_to_id: str = ""
    total: Any = None
    free: Any = None
    allocated: Any = None
    provisioned: Any = None
    virtual_free: Any = None


_said = msgspec.json.Decoder(_Said)


def read(notice: Notice) -> Iterable[Reading]:
    """What a back end tells of one of its pools."""
    if notice.event_type != "capacity.pool":
        return ()
    said: _Said = decoded(_said.decode, notice.payload, notice.event_type)
    if not said.name_to_id:
        raise NotUnderstood("capacity.pool: a pool without a name")
    fields = {
        "name": said.name_to_id,
        "total_capacity_gb": number(said.total),
        "free_capacity_gb": number(said.free),
        "allocated_capacity_gb": number(said.allocated),
        "provisioned_capacity_gb": number(said.provisioned),
        "virtual_free": number(said.virtual_free),
    }
    return (Reading(kind="StoragePool", id=said.name_to_id, verb="update", as_of=notice.sent_at, project="", fields=fields),)


def number(said: Any) -> float | None:
    """A capacity; drivers send numbers, numbers as text, `unknown` and `infinite`."""
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        return None
    try:
        found = float(said)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


async def list_pools(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them, in one answer."""
    services: dict[str, JsonObject] = {}
    async for page in cloud.pages(BLOCK_STORAGE, "/os-services", "services", (("binary", "cinder-volume"),)):
        services |= {str(one.get("host")): one for one in page.items if isinstance(one, dict)}
    async for page in cloud.pages(BLOCK_STORAGE, "/scheduler-stats/get_pools", "pools", (("detail", "true"),)):
        yield readings(page.items, page.as_of, lambda item, as_of: shown(item, as_of, services))


async def get_pool(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them: Cinder only tells all."""
    async for page in list_pools(cloud):
        found = [one for one in page if one.id == id_]
        if found:
            return found
    raise NotFound(f"there is no pool {id_!r}")


def shown(item: JsonObject, as_of: int, services: dict[str, JsonObject]) -> Reading | None:
    """What the API shows of one pool. Its service is the part of its name before `#`."""
    name, has = item.get("name"), item.get("capabilities")
    if not isinstance(name, str) or not name or not isinstance(has, dict):
        return None
    service = services.get(name.partition("#")[0], {})
    fields: dict[str, Any] = {
        "name": name,
        **{field: number(has.get(field)) for field in _NUMBERS if field != "virtual_free"},
        **{field: has[field] if isinstance(has.get(field), str) else None for field in _TEXTS},
        "storage_protocol": _first(has.get("storage_protocol")),
    }
    for field, said in (("availability_zone", "zone"), ("service_status", "status"), ("service_state", "state")):
        if isinstance(service.get(said), str):
            fields[field] = service[said]
    return Reading(kind="StoragePool", id=name, verb="create", as_of=as_of, project="", fields=fields)


def _first(said: Any) -> str | None:
    """A text, or the first of several: since Zed a driver may give all names of its protocol."""
    one = said[0] if isinstance(said, list) and said else said
    return one if isinstance(one, str) else None


KIND = Kind(
    kind="StoragePool",
    plural="storagepools",
    singular="storagepool",
    short_names=("stpool",),
    doc="A pool of a Cinder back end: what it has, and what is left.",
    events=("capacity.pool",),
    read=read,
    api=Api(service=BLOCK_STORAGE, list=list_pools, get=get_pool),
    fields=FIELDS,
    columns=(
        Column("Pool", ("name",)),
        Column("Total", ("total_capacity_gb",), "number"),
        Column("Free", ("free_capacity_gb",), "number"),
        Column("State", ("service_state",)),
        Column("Zone", ("availability_zone",), priority=1),
    ),
    audience="admin",
)
