"""Resource providers, from Placement's API: what a compute host has, how much of it is kept back, and how often it may be given
away. No notification speaks of them.

Only those that servers are put on: at the root of their tree, with processors or memory. Placement has no list with inventories,
so each is asked for alone: a pass costs a request a host. A provider's generation moves with every server, and isn't served.
https://docs.openstack.org/api-ref/placement/
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from vedette.errors import NotFound
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

PLACEMENT = "placement"
MICROVERSION = "1.14"
"""Parents."""
FIELDS = {
    "name": Field("string", "Its name: of a compute host the hypervisor's."),
    "inventories": Field(
        "object", "What it has, by resource class (VCPU, MEMORY_MB, DISK_GB, …): total, reserved, allocation_ratio and max_unit."
    ),
}
_OF_ONE = ("total", "reserved", "allocation_ratio", "max_unit")
_HOSTS = frozenset({"VCPU", "PCPU", "MEMORY_MB", "DISK_GB"})


def read(notice: Notice) -> Iterable[Reading]:
    """Nothing: no notification speaks of a provider."""
    return ()


async def list_providers(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All compute hosts'."""
    async for page in cloud.pages(PLACEMENT, "/resource_providers", "resource_providers", microversion=MICROVERSION):
        found: list[Reading] = []
        for item in page.items:
            if item.get("parent_provider_uuid"):
                continue
            try:
                found += await get_provider(cloud, str(item.get("uuid")), str(item.get("name")))
            except NotFound:
                continue  # it went while we asked
        yield found


async def get_provider(cloud: Cloud, id_: str, name: str = "") -> Sequence[Reading]:
    """One of them; nothing of one that has no processors and no memory."""
    if not name:
        answer = await cloud.get(PLACEMENT, f"/resource_providers/{segment(id_)}", microversion=MICROVERSION)
        name = str(answer.body.get("name"))
    answer = await cloud.get(PLACEMENT, f"/resource_providers/{segment(id_)}/inventories", microversion=MICROVERSION)
    inventories = shown(answer.body)
    if not _HOSTS & set(inventories):
        return ()
    fields: dict[str, Any] = {"name": name, "inventories": inventories}
    return (Reading(kind="ResourceProvider", id=id_, verb="create", as_of=answer.as_of, project="", fields=fields),)


def shown(body: JsonObject) -> dict[str, dict[str, Any]]:
    """Inventories as they are served: numbers only, in the order of their classes."""
    said = body.get("inventories")
    found: dict[str, dict[str, Any]] = {}
    for name, one in sorted(said.items()) if isinstance(said, dict) else ():
        if isinstance(one, dict):
            found[name] = {key: one[key] for key in _OF_ONE if isinstance(one.get(key), int | float)}
    return found


KIND = Kind(
    kind="ResourceProvider",
    plural="resourceproviders",
    singular="resourceprovider",
    short_names=("rp",),
    doc="What a compute host has to give, as Placement counts it.",
    events=(),
    read=read,
    api=Api(service=PLACEMENT, list=list_providers, get=get_provider, seldom=True),
    fields=FIELDS,
    columns=(
        Column("Provider", ("name",)),
        Column("VCPU", ("inventories", "VCPU", "total"), "integer"),
        Column("Memory", ("inventories", "MEMORY_MB", "total"), "integer"),
        Column("Disk", ("inventories", "DISK_GB", "total"), "integer"),
    ),
    audience="admin",
)
