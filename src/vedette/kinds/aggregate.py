"""Host aggregates, from Nova's `aggregate.*.end` of both formats. Their id is the integer that the API's paths use, as text.

The two formats share `aggregate.{create,delete}.end`; hosts come with `aggregate.addhost.end` in one and
`aggregate.add_host.end` in the other. Unversioned changes of the metadata name only what changed and are left to the versioned
ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from vedette.kinds._nova import named
from vedette.kinds._said import Verb, decoded
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Column, Field, Kind

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
            fields["hosts"] = said.data.hosts
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


KIND = Kind(
    kind="Aggregate",
    plural="aggregates",
    singular="aggregate",
    short_names=("agg",),
    doc="A Nova host aggregate: hosts that have something in common.",
    events=("aggregate.*.end",),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Aggregate-Name", ("name",)),
        Column("Zone", ("availability_zone",)),
        Column("Hosts", ("hosts", "*"), priority=1),
    ),
    audience="admin",
)
