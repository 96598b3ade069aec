"""Host aggregates, from Nova's `aggregate.*.end` of both formats and from its API. Their id is the integer that the API's paths
use, as text.

The two formats share `aggregate.{create,delete}.end`; hosts come with `aggregate.addhost.end` in one and
`aggregate.add_host.end` in the other. Unversioned changes of the metadata name only what changed and are left to the versioned
ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from vedette.kinds._api import readings, the
from vedette.kinds._nova import COMPUTE, named
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Part, Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "uuid": Field("string", "Its UUID, beside the integer id."),
    "availability_zone": Field("string", "The availability zone it makes, if it does."),
    "hosts": Field("array", "The hosts in it."),
    "metadata": Field("object", "Its metadata, which flavors match."),
}


class _Versioned(msgspec.Struct, gc=False):
    id: int | None = None
    uuid: str | None = None
    name: str | None = None
    hosts: list[str] | None = None
    metadata: dict[str, Any] | None = None


class _Aggregate(msgspec.Struct, gc=False):
    aggregate_id: int | str | None = None
    name: str | None = None
    host_name: str | None = None
    data: _Versioned | None = msgspec.field(name="nova_object.data", default=None)


_aggregate = msgspec.json.Decoder(_Aggregate)


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice of either format says of one aggregate."""
    event = notice.event_type
    if not event.startswith("aggregate.") or not event.endswith(".end"):
        return ()
    said: _Aggregate = decoded(_aggregate.decode, notice.payload, event)
    fields: dict[str, Any] = {}
    parts: tuple[Part, ...] = ()
    if said.data is not None:
        id_: int | str | None = said.data.id
        name = said.data.name
        if said.data.uuid:
            fields["uuid"] = said.data.uuid
        if said.data.hosts is not None:
            fields["hosts"] = sorted(said.data.hosts)
        if said.data.metadata is not None:
            fields["metadata"] = said.data.metadata
            fields["availability_zone"] = said.data.metadata.get("availability_zone")
    else:
        id_, name = said.aggregate_id, said.name
        if event == "aggregate.create.end":
            fields["hosts"] = []
        elif said.host_name and event in ("aggregate.addhost.end", "aggregate.removehost.end"):
            parts = (Part("hosts", "", said.host_name, said.host_name if event == "aggregate.addhost.end" else None),)
    if name:
        fields["name"] = name
    verb: Verb = "delete" if event == "aggregate.delete.end" else "create" if event == "aggregate.create.end" else "update"
    return (
        Reading(
            kind="Aggregate",
            id=named(None if id_ is None else str(id_), notice, "aggregate"),
            verb=verb,
            as_of=notice.sent_at,
            project="",
            fields=fields,
            parts=parts,
            only_known=bool(parts),
        ),
    )


MICROVERSION = "2.41"
"""The uuid."""

_shape = Shape("Aggregate", FIELDS)


async def list_aggregates(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them."""
    async for page in cloud.pages(COMPUTE, "/os-aggregates", "aggregates", microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_aggregate(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(COMPUTE, f"/os-aggregates/{segment(id_)}", microversion=MICROVERSION)
    return the(answer, "aggregate", shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one aggregate."""
    number = item.get("id")
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    id_, fields, _ = _shape.of({**item, "id": str(number)})
    if "hosts" in fields:
        fields["hosts"] = sorted(host for host in fields["hosts"] or () if isinstance(host, str))
    return Reading(kind="Aggregate", id=id_, verb="create", as_of=as_of, project="", fields=fields)


KIND = Kind(
    kind="Aggregate",
    plural="aggregates",
    singular="aggregate",
    short_names=("agg",),
    doc="A Nova host aggregate: hosts that have something in common.",
    events=("aggregate.*.end",),
    read=read,
    api=Api(service=COMPUTE, list=list_aggregates, get=get_aggregate),
    fields=FIELDS,
    columns=(
        Column("Aggregate-Name", ("name",)),
        Column("Zone", ("availability_zone",)),
        Column("Hosts", ("hosts", "*"), priority=1),
    ),
    audience="admin",
)
