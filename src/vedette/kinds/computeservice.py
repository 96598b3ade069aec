"""Compute services, from Nova's versioned `service.{create,update,delete}` and from its API.

Notifications say what somebody switched. Whether a service is alive is never announced (a dead nova-compute says nothing): only
the API shows it. When a living one was last heard moves every ten seconds, and isn't served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import CloudUnavailable, NotFound
from vedette.kinds._api import in_seconds, readings
from vedette.kinds._nova import COMPUTE, named
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind, Scan

FIELDS = {
    "binary": Field("string", "nova-compute, nova-scheduler, nova-conductor …"),
    "host": Field("string", "The host it runs on."),
    "zone": Field("string", "Its availability zone, where the notice says it."),
    "status": Field("string", "enabled or disabled."),
    "disabled_reason": Field("string", "Why it is disabled."),
    "state": Field("string", "up or down: whether it is heard; down too when somebody declared it down."),
    "forced_down": Field("boolean", "Whether somebody declared it down."),
    "updated_at": Field("string", "Since when it hasn't been heard; null while it is up, and when somebody declared it down."),
}


class _Service(msgspec.Struct, gc=False):
    uuid: str | None = None
    host: str | UnsetType | None = UNSET
    binary: str | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET
    disabled_reason: str | UnsetType | None = UNSET
    availability_zone: str | UnsetType | None = UNSET
    forced_down: bool | UnsetType | None = UNSET


class _ServiceObject(msgspec.Struct, gc=False):
    data: _Service = msgspec.field(name="nova_object.data")


_service = msgspec.json.Decoder(_ServiceObject)
_UNHEARD = ("nova-osapi_compute", "nova-metadata")
"""Nova keeps a row for each API process too, but hears nothing of it, and doesn't show it."""
_VERBS: dict[str, Verb] = {"service.create": "create", "service.update": "update", "service.delete": "delete"}


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one compute service."""
    verb = _VERBS.get(notice.event_type)
    if verb is None:
        return ()
    notified: _ServiceObject = decoded(_service.decode, notice.payload, notice.event_type)
    said = notified.data
    if said.binary in _UNHEARD:
        return ()
    fields: dict[str, Any] = {}
    if said.binary is not UNSET:
        fields["binary"] = said.binary
    if said.host is not UNSET:
        fields["host"] = said.host
    if said.availability_zone is not UNSET and said.availability_zone is not None:
        fields["zone"] = said.availability_zone
    if isinstance(said.disabled, bool):
        fields["status"] = "disabled" if said.disabled else "enabled"
    if said.disabled_reason is not UNSET:
        fields["disabled_reason"] = said.disabled_reason
    if said.forced_down is not UNSET:
        fields["forced_down"] = said.forced_down
        if said.forced_down:
            fields["state"], fields["updated_at"] = "down", None
    return (
        Reading(
            kind="ComputeService",
            id=named(said.uuid, notice, "service"),
            verb=verb,
            as_of=notice.sent_at,
            project="",
            fields=fields,
        ),
    )


MICROVERSION = "2.69"
"""2.11 forced_down, 2.53 ids are UUIDs, 2.69 services in cells that are down."""

_shape = Shape("ComputeService", FIELDS)


async def list_services(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them, but for those in a cell that is down: of these Nova doesn't know the id."""
    async for page in cloud.pages(COMPUTE, "/os-services", "services", microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_service(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them, out of the list: the API has no address for one. Raises CloudUnavailable when it is missing and a cell is
    down."""
    unnamed = False
    async for page in cloud.pages(COMPUTE, "/os-services", "services", microversion=MICROVERSION):
        for reading in readings(page.items, page.as_of, shown):
            if reading.id == id_:
                return (reading,)
        unnamed = unnamed or _unnamed(page.items)
    if unnamed:
        raise CloudUnavailable("Nova shows services without their ids: one of its cells is down", delay=30)
    raise NotFound(f"Nova has no service {id_}")


def _unnamed(items: Sequence[JsonObject]) -> bool:
    """Whether some are shown without an id: in a cell that is down."""
    return any(not (isinstance(item.get("id"), str) and item["id"]) for item in items)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one service."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    if fields.get("state") == "up" or fields.get("forced_down"):
        # One that was only declared down may well go on to be heard.
        fields["updated_at"] = None
    else:
        in_seconds(fields, "updated_at")
    return Reading(kind="ComputeService", id=id_, verb="create", as_of=as_of, project="", fields=fields)


async def look(
    cloud: Cloud, known: Mapping[str, Mapping[str, JsonObject]], _memory: dict[str, Any]
) -> AsyncIterator[Sequence[Reading]]:
    """All of them, and then the suspicion that those that are missing are gone; none while a cell is down."""
    missing = set(known.get("ComputeService", {}))
    as_of = 0
    unnamed = False
    async for page in cloud.pages(COMPUTE, "/os-services", "services", microversion=MICROVERSION):
        as_of = as_of or page.as_of
        there = readings(page.items, page.as_of, shown)
        missing.difference_update(one.id for one in there)
        unnamed = unnamed or _unnamed(page.items)
        yield there
    if missing and not unnamed:
        yield [Reading(kind="ComputeService", id=id_, verb="delete", as_of=as_of) for id_ in sorted(missing)]


KIND = Kind(
    kind="ComputeService",
    plural="computeservices",
    singular="computeservice",
    short_names=("csvc",),
    doc="A Nova service on a host: nova-compute, nova-scheduler, nova-conductor.",
    events=tuple(_VERBS),
    read=read,
    api=Api(
        service=COMPUTE,
        list=list_services,
        get=get_service,
        scan=Scan(name="computeservices", service=COMPUTE, sees={"ComputeService": ()}, look=look),
    ),
    fields=FIELDS,
    columns=(
        Column("Binary", ("binary",)),
        Column("Host", ("host",)),
        Column("Zone", ("zone",)),
        Column("Status", ("status",)),
        Column("State", ("state",)),
        Column("Forced-Down", ("forced_down",), "boolean", priority=1),
        Column("Reason", ("disabled_reason",), priority=1),
    ),
    audience="admin",
)
