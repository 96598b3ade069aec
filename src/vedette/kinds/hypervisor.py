"""Hypervisors. Nova announces nothing of them: no event is read, and all that is known comes from its API.

What moves all the time (running servers, used memory, uptime) isn't served: each look would be news.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from vedette.kinds._api import readings, the
from vedette.kinds._nova import COMPUTE
from vedette.kinds._said import Shape
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind, Scan

FIELDS = {
    "hypervisor_hostname": Field("string", "Its name."),
    "hypervisor_type": Field("string", "QEMU, VMware, ironic …"),
    "hypervisor_version": Field("integer", "Its version as a number."),
    "host_ip": Field("string", "Its address."),
    "state": Field("string", "up or down: whether its nova-compute is heard."),
    "status": Field("string", "enabled or disabled."),
    "service": Field("object", "The nova-compute that runs it: id, host, disabled_reason."),
    "vcpus": Field("integer", "How many processors it has."),
    "memory_mb": Field("integer", "How much memory it has, in MiB."),
    "local_gb": Field("integer", "How much disk it has, in GiB."),
}

MICROVERSION = "2.87"
"""Ids are UUIDs (2.53). From 2.88 on Nova asks every nova-compute for its host's uptime whenever it makes this list."""

_shape = Shape("Hypervisor", FIELDS)
_SERVICE = ("id", "host", "disabled_reason")


def read(notice: Notice) -> Iterable[Reading]:
    """Nothing: no notification speaks of a hypervisor."""
    return ()


async def list_hypervisors(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them."""
    async for page in cloud.pages(COMPUTE, "/os-hypervisors/detail", "hypervisors", microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_hypervisor(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(COMPUTE, f"/os-hypervisors/{segment(id_)}", microversion=MICROVERSION)
    return the(answer, "hypervisor", shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one hypervisor."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    service = fields.get("service")
    if service is not None:
        fields["service"] = {name: service.get(name) for name in _SERVICE}
    return Reading(kind="Hypervisor", id=id_, verb="create", as_of=as_of, project="", fields=fields)


async def look(
    cloud: Cloud, known: Mapping[str, Mapping[str, JsonObject]], _memory: dict[str, Any]
) -> AsyncIterator[Sequence[Reading]]:
    """All of them, and then the suspicion that those that are missing are gone."""
    missing = set(known.get("Hypervisor", {}))
    as_of = 0
    async for page in cloud.pages(COMPUTE, "/os-hypervisors/detail", "hypervisors", microversion=MICROVERSION):
        as_of = as_of or page.as_of
        there = readings(page.items, page.as_of, shown)
        missing.difference_update(one.id for one in there)
        yield there
    if missing:
        yield [Reading(kind="Hypervisor", id=id_, verb="delete", as_of=as_of) for id_ in sorted(missing)]


KIND = Kind(
    kind="Hypervisor",
    plural="hypervisors",
    singular="hypervisor",
    short_names=("hv",),
    doc="A Nova hypervisor: a machine that runs servers.",
    events=(),
    read=read,
    api=Api(
        service=COMPUTE,
        list=list_hypervisors,
        get=get_hypervisor,
        scan=Scan(name="hypervisors", service=COMPUTE, sees={"Hypervisor": ()}, look=look),
    ),
    fields=FIELDS,
    columns=(
        Column("Hostname", ("hypervisor_hostname",)),
        Column("Type", ("hypervisor_type",)),
        Column("Host-IP", ("host_ip",)),
        Column("State", ("state",)),
        Column("Status", ("status",), priority=1),
    ),
    audience="admin",
)
