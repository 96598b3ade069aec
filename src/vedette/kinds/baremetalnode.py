"""Machines of Ironic: from `baremetal.node.*`, versioned notifications, and from its API.

What Ironic drives a machine with (`driver_info`, with passwords of its management controller) is never read.
https://docs.openstack.org/ironic/latest/admin/notifications.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kinds._api import in_seconds, readings
from vedette.kinds._said import Shape, decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

BAREMETAL = "baremetal"
MICROVERSION = "1.46"
"""The conductor group; Rocky."""
FIELDS = {
    "name": Field("string", "Its name."),
    "power_state": Field("string", "power on, power off, error …"),
    "target_power_state": Field("string", "What it is being brought to."),
    "provision_state": Field("string", "available, active, manageable, deploying …"),
    "target_provision_state": Field("string", "What it is being brought to."),
    "maintenance": Field("boolean", "Whether Ironic leaves it alone."),
    "maintenance_reason": Field("string", "Why."),
    "fault": Field("string", "What Ironic found wrong with it: power failure, clean failure …"),
    "resource_class": Field("string", "What Nova asks for it by."),
    "instance_uuid": Field("string", "The server on it."),
    "conductor_group": Field("string", "Who manages it."),
    "driver": Field("string", "How it is managed."),
    "properties": Field("object", "What it has: cpus, memory_mb, local_gb, cpu_arch, capabilities."),
    "traits": Field("array", "Its traits."),
    "created_at": Field("string", "When it was made known."),
}
_SPOKEN = tuple(name for name in FIELDS if name != "created_at")


class _Data(msgspec.Struct, gc=False):
    uuid: str | None = None
    name: str | UnsetType | None = UNSET
    power_state: str | UnsetType | None = UNSET
    target_power_state: str | UnsetType | None = UNSET
    provision_state: str | UnsetType | None = UNSET
    target_provision_state: str | UnsetType | None = UNSET
    maintenance: bool | UnsetType | None = UNSET
    maintenance_reason: str | UnsetType | None = UNSET
    fault: str | UnsetType | None = UNSET
    resource_class: str | UnsetType | None = UNSET
    instance_uuid: str | UnsetType | None = UNSET
    conductor_group: str | UnsetType | None = UNSET
    driver: str | UnsetType | None = UNSET
    properties: dict[str, Any] | UnsetType | None = UNSET
    traits: list[Any] | UnsetType | None = UNSET
    created_at: str | UnsetType | None = UNSET
    to_power: str | UnsetType | None = UNSET


class _Said(msgspec.Struct, gc=False):
    data: _Data = msgspec.field(default_factory=_Data, name="ironic_object.data")


_said = msgspec.json.Decoder(_Said)


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one machine. `.start` says how it was when something began: it is as good as any."""
    if not notice.event_type.startswith("baremetal.node."):
        return ()
    said: _Said = decoded(_said.decode, notice.payload, notice.event_type)
    data = said.data
    if not data.uuid:
        raise NotUnderstood(f"{notice.event_type}: a machine without a uuid")
    fields: dict[str, Any] = {}
    for name in _SPOKEN:
        value = getattr(data, name)
        if value is not UNSET:
            fields[name] = sorted(value, key=str) if name == "traits" and value else value
    created = None if data.created_at is UNSET else moment(data.created_at)
    if data.created_at is not UNSET:
        fields["created_at"] = second(data.created_at)
    gone = notice.event_type == "baremetal.node.delete.end"
    return (
        Reading(
            kind="BareMetalNode",
            id=data.uuid,
            verb="delete" if gone else "create" if notice.event_type == "baremetal.node.create.end" else "update",
            as_of=notice.sent_at,
            created=created,
            project="",
            fields=fields,
        ),
    )


_shape = Shape("BareMetalNode", FIELDS, ids=("uuid",))


async def list_nodes(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """All of them."""
    async for page in cloud.pages(BAREMETAL, "/nodes/detail", "nodes", microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_node(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them: the answer is the machine itself."""
    answer = await cloud.get(BAREMETAL, f"/nodes/{segment(id_)}", microversion=MICROVERSION)
    return readings((answer.body,), answer.as_of, shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one machine."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    created = fields.get("created_at")
    in_seconds(fields, "created_at")
    if fields.get("traits"):
        fields["traits"] = sorted(fields["traits"], key=str)
    return Reading(kind="BareMetalNode", id=id_, verb="create", as_of=as_of, created=moment(created), project="", fields=fields)


KIND = Kind(
    kind="BareMetalNode",
    plural="baremetalnodes",
    singular="baremetalnode",
    short_names=("bmn",),
    doc="A machine that Ironic manages.",
    events=("baremetal.node.*",),
    read=read,
    api=Api(service=BAREMETAL, list=list_nodes, get=get_node),
    fields=FIELDS,
    columns=(
        Column("Node-Name", ("name",)),
        Column("Power", ("power_state",)),
        Column("Provisioning", ("provision_state",)),
        Column("Maintenance", ("maintenance",), "boolean"),
        Column("Server", ("instance_uuid",), priority=1),
    ),
    audience="admin",
)
