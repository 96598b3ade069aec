"""Flavors, from Nova's versioned `flavor.{create,update,delete}` and from its API; the unversioned format doesn't have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import BadRequest, Forbidden, NotFound
from vedette.kinds._api import readings, the
from vedette.kinds._nova import ADMINS_ONLY, COMPUTE, FLAVORS, flavor_pages, named
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    "vcpus": Field("integer", "Virtual CPUs."),
    "ram": Field("integer", "Memory in MiB."),
    "disk": Field("integer", "Root disk in GiB."),
    "OS-FLV-EXT-DATA:ephemeral": Field("integer", "Ephemeral disk in GiB."),
    "swap": Field("integer", "Swap in MiB."),
    "rxtx_factor": Field("number", "Share of the network's bandwidth."),
    "OS-FLV-DISABLED:disabled": Field("boolean", "Whether it is switched off."),
    "os-flavor-access:is_public": Field("boolean", "Whether every project may use it."),
    "extra_specs": Field("object", "What else it asks of a host."),
    "access_project_ids": Field("array", "The projects that may use it, when it isn't public.", admin=True),
}


class _Flavor(msgspec.Struct, gc=False):
    flavorid: str | None = None
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    vcpus: int | UnsetType | None = UNSET
    memory_mb: int | UnsetType | None = UNSET
    root_gb: int | UnsetType | None = UNSET
    ephemeral_gb: int | UnsetType | None = UNSET
    swap: int | UnsetType | None = UNSET
    rxtx_factor: int | float | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET
    is_public: bool | UnsetType | None = UNSET
    extra_specs: dict[str, Any] | UnsetType | None = UNSET
    projects: list[str] | UnsetType | None = UNSET


class _FlavorObject(msgspec.Struct, gc=False):
    data: _Flavor = msgspec.field(name="nova_object.data")


_flavor = msgspec.json.Decoder(_FlavorObject)
_VERBS: dict[str, Verb] = {"flavor.create": "create", "flavor.update": "update", "flavor.delete": "delete"}
_NAMES = (
    ("name", "name"),
    ("description", "description"),
    ("vcpus", "vcpus"),
    ("memory_mb", "ram"),
    ("root_gb", "disk"),
    ("ephemeral_gb", "OS-FLV-EXT-DATA:ephemeral"),
    ("swap", "swap"),
    ("rxtx_factor", "rxtx_factor"),
    ("disabled", "OS-FLV-DISABLED:disabled"),
    ("is_public", "os-flavor-access:is_public"),
)
"""Nova's word in the notification, and in the API."""


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one flavor."""
    verb = _VERBS.get(notice.event_type)
    if verb is None:
        return ()
    notified: _FlavorObject = decoded(_flavor.decode, notice.payload, notice.event_type)
    said = notified.data
    fields: dict[str, Any] = {}
    for word, name in _NAMES:
        value = getattr(said, word)
        if value is not UNSET:
            fields[name] = value
    admin: dict[str, Any] = {}
    # null in these two: Nova hadn't loaded them. A new one has no extra specs yet.
    if said.extra_specs is not UNSET and said.extra_specs is not None:
        fields["extra_specs"] = said.extra_specs
    elif verb == "create":
        fields["extra_specs"] = {}
    if said.projects is not UNSET and said.projects is not None:
        admin["access_project_ids"] = sorted(said.projects)
    return (
        Reading(
            kind="Flavor",
            id=named(said.flavorid, notice, "flavor"),
            verb=verb,
            as_of=notice.sent_at,
            project="",
            shared=said.is_public if isinstance(said.is_public, bool) else None,
            fields=fields,
            admin=admin,
        ),
    )


_shape = Shape("Flavor", FIELDS)


async def list_flavors(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them. Who may use one that isn't public is a request for each such flavor."""
    async for page in flavor_pages(cloud):
        yield [await _with_access(cloud, one) for one in readings(page.items, page.as_of, shown)]


async def get_flavor(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(COMPUTE, f"/flavors/{segment(id_)}", microversion=FLAVORS)
    return [await _with_access(cloud, one) for one in the(answer, "flavor", shown)]


async def _with_access(cloud: Cloud, reading: Reading) -> Reading:
    if reading.shared is not False:
        return reading
    try:
        answer = await cloud.get(COMPUTE, f"/flavors/{segment(reading.id)}/os-flavor-access", microversion=FLAVORS)
    except (NotFound, Forbidden, BadRequest):
        return reading
    rows = answer.body.get("flavor_access")
    if not isinstance(rows, list):
        return reading
    projects = {row.get("tenant_id") for row in rows if isinstance(row, dict) and isinstance(row.get("tenant_id"), str)}
    return msgspec.structs.replace(reading, admin={"access_project_ids": sorted(projects)})


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one flavor."""
    if item.get("swap") == "":
        item = {**item, "swap": 0}
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    public = fields.get("os-flavor-access:is_public")
    return Reading(kind="Flavor", id=id_, verb="create", as_of=as_of, project="", shared=public, fields=fields)


KIND = Kind(
    kind="Flavor",
    plural="flavors",
    singular="flavor",
    short_names=("flv",),
    doc="A Nova flavor: a size of server.",
    events=tuple(_VERBS),
    read=read,
    api=Api(service=COMPUTE, list=list_flavors, get=get_flavor, proof=ADMINS_ONLY),
    fields=FIELDS,
    columns=(
        Column("Flavor-Name", ("name",)),
        Column("RAM", ("ram",), "integer"),
        Column("Disk", ("disk",), "integer"),
        Column("Ephemeral", ("OS-FLV-EXT-DATA:ephemeral",), "integer", priority=1),
        Column("VCPUs", ("vcpus",), "integer"),
        Column("Public", ("os-flavor-access:is_public",), "boolean"),
    ),
    audience="shared",
)
